"""What the machine offers: files, memory, threads, devices, progress. Knows nothing of robustness."""
