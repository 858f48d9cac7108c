"""A computing process' memory, on Linux: a model's tensors come and go by the step, always of the same sizes."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGE = 2**30  # bytes; blocks below are taken from what the process has already
MOST = 2**25  # bytes, the most that M_MMAP_THRESHOLD may be by mallopt(3); newer versions take more


def prepare_memory() -> None:
    """What every process that computes does first."""
    use_large_pages()
    keep_freed()


def use_large_pages() -> None:
    """Ask torch for pages of 2 MB where tensors are that large; it looks when the first tensor of the process is made.

    A convolutional network walks through tens of megabytes a step, more than a processor knows the 4 kB pages of:
    5 % of a ResNet-20's gradient. Whoever has set the variable is not overruled, and other systems pay no regard to it.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


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
