"""Giving freed memory back to the system, and not holding what is not needed."""

import ctypes
import os
import sys

# oneDNN keeps up to 1,024 compiled kernels, one for each shape of a bf16 matrix product, and their
# scratch memory: 150 MB after two iterations of flan-t5-small, and every new length adds to it.
# With 64 the time is the same. Read by oneDNN at its first use.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


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
