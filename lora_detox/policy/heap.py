"""Giving freed memory back to the system, and not holding what is not needed."""

import ctypes
import os
import sys

from lora_detox.processor import has_bf16_tiles

KERNELS_KEPT = 64
"""Compiled kernels that oneDNN may keep on a CPU without tiles, in place of 1,024.

There is one for each shape of a bf16 matrix product, with scratch memory: 150 MB after two
iterations of flan-t5-small, and every new length adds to it. Compiling them anew is 3 % of the
products there. With tiles it is 70 %, as kernels cost 2 ms and products little, so all stay.
"""
if not has_bf16_tiles():  # read by oneDNN at its first use
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT))


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
