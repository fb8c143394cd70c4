"""What this machine is, and every number that was tuned to a kind of machine.

Importing this module bounds the kernels that oneDNN keeps, which has to come before its first use.
"""

import ctypes
import os
import platform
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lora_detox.errors import SettingsError
from lora_detox.processes import local_rank, processes

# Machine tuning. "Tiles" are CPUs with AMX, which multiply bf16 in tiles. In brackets stands where
# a number was measured: a decision (docs/decisions), or a recipe (recipes/benchmarks, memory_plan).

BF16_WIDTH = 512
"""Hidden size from which bf16 is faster than fp32 on a CPU that has it (0007)."""
CACHED_WORDS = 1024
"""Words that a tokenizer keeps with their tokens. Its own 10,000 are 4 MB, which fill by 7 KiB an
iteration where a model writes new words (recipes/benchmarks/soak.py)."""
AUTOCAST_WIDTH = 384
"""Hidden size from which training in bf16 by autocast is faster on a CPU that has it: MiniLM of
that width takes 0.65 of the time on two threads (recipes/real_classifiers)."""
CPU_OVERHEAD, TILES_OVERHEAD, GPU_OVERHEAD = 64, 256, 4096
"""Tokens. What a forward and backward pass costs beside its own: launching its kernels. Tokens are
cheaper with tiles and on a GPU, so that a launch is worth more of them (0013)."""
CPU_BATCH_TOKENS = 1024
"""Tokens. Most in a forward pass of a scorer on a CPU: more do not fit its caches (benchmarks)."""
CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**23}
"""Logits that exist at a time, by type of device: 16 and 32 MiB in fp32. A product with less of
them costs nearly as much, as the output matrix is read or reordered for each (benchmarks, 0013)."""
CACHED_ELEMENTS = 2**18
"""Logits for each thread of a CPU, 1 MiB in fp32: log_softmax and what follows find them in its
caches, and their copies are as small."""
CACHE_COLUMNS = 8
"""Columns of a static key-value cache are a multiple of this, as fused attention on a GPU wants."""
EAGER_SCORES = 320 * 320
"""Queries times keys up to which attention in plain products is faster than torch's fused one, in
bf16 on a CPU: 1.2 times at 256 tokens, 0.7 times at 512 (0029)."""
KERNELS_KEPT = 64
"""Compiled kernels that oneDNN may keep on a CPU without tiles, in place of 1,024 (0013).

There is one for each shape of a bf16 matrix product, with scratch memory: 150 MB after two
iterations of flan-t5-small, and every new length adds to it. Compiling them anew is 3 % of the
products there. With tiles it is 70 %, as kernels cost 2 ms and products little, so all stay.
"""
KERNEL_BYTES, TILES_KERNEL_BYTES = 40 * 2**20, 200 * 2**20
"""Bytes. What oneDNN keeps of compiled bf16 kernels: KERNELS_KEPT of them without tiles, the peak
with and without ONEDNN_PRIMITIVE_CACHE_CAPACITY=8 (memory_plan); with tiles up to 1,024 of 0.2 MB
each (0013)."""
ONEDNN_WEIGHTS, ONEDNN_COLUMNS = 2**18, 2048
"""Numbers of a weight matrix from which `multiplies_by_onednn` holds, and with one thread of a CPU
without AVX-512 its columns: oneDNN takes longer than MKL to begin with a product (0026)."""
CUDA_CONTEXT = 512 * 2**20
"""Bytes. Driver, kernels and cuBLAS workspaces of a process on a GPU; torch's counters do not see
them (memory_plan)."""
PROCESS_GROWTH = 60 * 2**20
"""Bytes. What a process on a CPU grows by beside tensors, between its imports and its end: pages of
libraries touched at work, tokenizers, data, the report. Measured on the miniature (memory_plan)."""
KEPT_BYTES, REUSED_BYTES = 256 * 2**20, 32 * 2**20
"""Bytes. So much freed memory is kept, and blocks up to the second size are taken from it. Larger
ones leave holes that nothing fits into: a third more at the peak of a 1B model's update (0028)."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt."""
MALLOC_SETTINGS = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
"""Environment variables by which a user sets these."""
SLOW_FACTOR = 1.5
"""Time of a half-precision product over that of a fp32 one from which a user is told."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Number formats of weights, by the names that settings use."""

_BELOW_AVX512 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")
_BELOW_BF16 = (*_BELOW_AVX512, "AVX512_CORE", "AVX512_CORE_VNNI")
_BELOW_TILES = (*_BELOW_BF16, "AVX512_CORE_BF16", "AVX512_CORE_FP16")
"""Values of ONEDNN_MAX_CPU_ISA that keep oneDNN from AVX-512, from bf16 units, and from tiles."""


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX-512 BF16 or AMX).

    oneDNN multiplies them, so ONEDNN_MAX_CPU_ISA is honoured. ATEN_CPU_CAPABILITY is none of its
    concern: with `default` a bf16 product still takes 0.3 times as long as a fp32 one.
    """
    return (_has("avx512_bf16") and _max_isa() not in _BELOW_BF16) or has_bf16_tiles()


def has_bf16_tiles() -> bool:
    """Whether it multiplies bf16 matrices in tiles (AMX), six times as fast as fp32 ones.

    Whatever else a pass does weighs more there: compiling kernels, launching them, small
    operations.
    """
    return _has("amx_bf16") and _max_isa() not in _BELOW_TILES


def _has(name: str) -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # torch 2.6 has none
    return capabilities is not None and bool(capabilities().get(name))


def _max_isa() -> str:
    """Best instruction set that oneDNN may use, as its users name it; "" for the CPU's own."""
    value = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")
    return value.upper()


@cache
def multiplies_by_onednn() -> bool:
    """Whether oneDNN multiplies fp32 matrices faster than MKL, which PyTorch takes by itself.

    So it does on AMD's CPUs, most with few rows or many columns (0026). Other CPUs have not been
    measured, or go by bf16.
    """
    if not torch.backends.mkldnn.is_available() or _max_isa() in ("SSE41", "AVX"):
        return False
    return _has("avx2") and "AuthenticAMD" in _cpu_facts()


@cache
def onednn_has_avx512() -> bool:
    """Whether oneDNN multiplies fp32 matrices by AVX-512, for which MKL takes AVX2 on AMD's CPUs.

    Small matrices gain too then, and the products of the backward pass (0026).
    """
    return _has("avx512_f") and _max_isa() not in _BELOW_AVX512


def _cpu_facts() -> str:
    """What the system says of the CPU: all of /proc/cpuinfo, or Python's one line without that."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()


def bound_kernels() -> None:
    """Let oneDNN keep KERNELS_KEPT kernels where tiles are lacking and the user has not chosen."""
    if not has_bf16_tiles():  # read by oneDNN at its first use
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT))


bound_kernels()


def resolve_device(device: str) -> torch.device:
    """The device that "auto" means here: this process's GPU where there is one, else the CPU.

    Args:
        device: "auto", or a device as torch names it; of several processes each takes a GPU of its
            own.

    Returns:
        The device.

    Raises:
        SettingsError: torch knows no such device, or this machine has none, or not enough.
    """
    several = processes().size > 1
    if several and device.startswith("cuda:"):
        raise SettingsError(
            f"device={device} with {processes().size} processes: each takes a GPU of its own; want "
            "auto, cuda or cpu, and CUDA_VISIBLE_DEVICES to choose among the GPUs"
        )
    if several and device in ("auto", "cuda") and torch.cuda.is_available():
        return _own_gpu(torch.cuda.device_count())
    if device != "auto":
        try:
            named = torch.device(device)
            torch.empty(0, device=named)
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SettingsError(
                f"device={device} cannot be used here ({reason}); want auto, cpu, "
                "or cuda on a machine with a GPU"
            ) from error
        return named
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


def _own_gpu(count: int) -> torch.device:
    """The GPU of this one of several processes, out of so many on this machine."""
    own = local_rank()
    if own >= count:
        raise SettingsError(
            f"this machine has fewer GPUs ({count}) than processes (at least {own + 1}): want one "
            "GPU for each (--nproc_per_node), or device=cpu"
        )
    torch.cuda.set_device(own)  # for whatever says "cuda" alone
    return torch.device("cuda", own)


def gains_by_bf16(device: torch.device, hidden_size: int) -> bool:
    """Whether a policy runs faster in bf16 than in fp32.

    So it does on GPUs that have it, and on CPUs that have it for models of at least BF16_WIDTH,
    whose time is in matrix products.

    Args:
        device: where the policy is.
        hidden_size: width of its states.

    Returns:
        True where bf16 is faster.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return hidden_size >= BF16_WIDTH and has_fast_bf16()


def autocast_gains(device: torch.device, hidden_size: int) -> bool:
    """Whether a classifier of fp32 weights trains faster with its products in bf16.

    Args:
        device: where it is.
        hidden_size: width of its states.

    Returns:
        True on GPUs that have bf16, and on CPUs with units for it from AUTOCAST_WIDTH on.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return hidden_size >= AUTOCAST_WIDTH and has_fast_bf16()


def scorer_dtype(device: torch.device) -> torch.dtype:
    """The dtype of a classifier: fp32 on a CPU; on a GPU bf16 where it has it, else fp16."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def attention_of(device: torch.device, dtype: torch.dtype) -> str | None:
    """How attention is computed in short passes; None leaves it to Transformers.

    On a CPU, torch's fused attention has no fast bf16 kernel for them: forward and backward take
    up to 4 times as long as plain matrix products (recipes/benchmarks). Long ones choose it
    (policy/attention.py).
    """
    return "eager" if device.type == "cpu" and dtype == torch.bfloat16 else None


def pass_overhead(device: torch.device, dtype: torch.dtype) -> int:
    """Cost of a forward and backward pass beside its tokens, in tokens, for weights of a dtype."""
    if device.type != "cpu":
        return GPU_OVERHEAD
    tiles = dtype is torch.bfloat16 and has_bf16_tiles()
    return TILES_OVERHEAD if tiles else CPU_OVERHEAD


def chunk_elements(device: torch.device) -> int:
    """Logits that may exist at a time on a device."""
    return CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"])


def cached_elements(device: torch.device) -> int:
    """Logits on which operations one after another find them in a CPU's caches; else a chunk."""
    if device.type != "cpu":
        return chunk_elements(device)
    return CACHED_ELEMENTS * torch.get_num_threads()


def kernel_bytes() -> int:
    """Bytes of compiled bf16 kernels that oneDNN keeps on this CPU."""
    return TILES_KERNEL_BYTES if has_bf16_tiles() else KERNEL_BYTES


def slow_dtype_note(dtype: str, device: torch.device) -> str | None:
    """What an explicit half-precision dtype costs on a CPU without units for it, measured now.

    One matrix product is timed in that dtype and in fp32: some ms, or 0.5 s where it is slow.

    Args:
        dtype: `policy.dtype` as the settings have it; "auto" and "float32" are never slow.
        device: where the policy is.

    Returns:
        One sentence with the factor and the way out; None where nothing is slow.
    """
    units = {"bfloat16": has_fast_bf16(), "float16": _has("amx_fp16") or _has("avx512_fp16")}
    if device.type != "cpu" or units.get(dtype, True):
        return None
    factor = product_seconds(DTYPES[dtype]) / product_seconds(torch.float32)
    if factor < SLOW_FACTOR:
        return None
    times = f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"
    short = {"bfloat16": "bf16", "float16": "fp16"}[dtype]
    return (
        f"policy.dtype={dtype}: this CPU has no {short} units, one product takes {times} times as "
        "long as in float32; use policy.dtype=auto"
    )


def product_seconds(dtype: torch.dtype) -> float:
    """Time of a product of 256 x 256 by 256 x 1024 numbers on the CPU, best of three."""
    left, right = torch.ones(256, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        torch.matmul(left, right)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def bound_word_cache(tokenizer: Any) -> None:
    """Have a tokenizer keep few words with their tokens, where it keeps any; ids stay the same.

    Args:
        tokenizer: of Transformers; a slow one, or one without a cache, is left as it is.
    """
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    resize = getattr(model, "_resize_cache", None)  # tokenizers from 0.21; clearing it leaks
    if resize is not None:
        resize(CACHED_WORDS)


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


def keep_freed_memory(device: torch.device) -> None:
    """Have the C library keep freed memory for the next tensor, where it can be told to (glibc).

    Each step of generation replaces the key-value cache by a larger one. glibc gives blocks of a
    few megabytes back to the system when they are freed, and every page of the next one is mapped
    anew: a fifth of the time to write 128 responses at a time (docs/decisions/0028, 0030). The
    peak of resident memory stays; the user's own settings of malloc do too.

    Args:
        device: of the policy; off the CPU nothing is changed.
    """
    if device.type != "cpu" or sys.platform != "linux" or MALLOC_SETTINGS & os.environ.keys():
        return
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is None:
        return
    option(M_TRIM_THRESHOLD, KEPT_BYTES)
    option(M_MMAP_THRESHOLD, REUSED_BYTES)
