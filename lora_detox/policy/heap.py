"""Giving freed memory back to the system."""

import ctypes
import sys


def trim_heap() -> None:
    """Return what the C library keeps of freed memory, where it can be asked to (glibc).

    Loading converts weights in several threads, each with a heap of its own, and glibc keeps what
    was freed in them: several hundred MB after a 125 M model is quantized to nf4.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
