"""Keeping memory that was freed, on Linux: a model's tensors come and go by the step, always of the same sizes."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGE = 2**30  # bytes; blocks below are taken from what the process has already
MOST = 2**25  # bytes, the most that M_MMAP_THRESHOLD may be by mallopt(3); newer versions take more


def keep_freed() -> None:
    """Tell glibc's malloc to give nothing back to the system below a gigabyte, for this process.

    By default it does after every step, and the next has the same pages mapped and zeroed again: up to a quarter of
    the time of a small model's gradient. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # Where it is refused, the second alone would do harm: it ends the threshold's own growth, at 128 KiB.
    if mallopt(M_MMAP_THRESHOLD, LARGE) or mallopt(M_MMAP_THRESHOLD, MOST):
        mallopt(M_TRIM_THRESHOLD, 2 * LARGE - 1)
