"""Work that runs out of memory is done with fewer rows; the error is PyTorch's or Python's own."""

import weakref

import pytest
import torch

from lora_detox.errors import OutOfMemoryError
from lora_detox.fitting import (
    Batches,
    attempt,
    fitted,
    is_out_of_memory,
    keep_sizes,
    kept_sizes,
    naming_memory_faults,
    remembering,
    rows_at_once,
)

WORK = Batches(name="the work", key="work.rows", shorter="work.length")


def allocate_too_much():
    torch.empty(2**50)  # 4 PiB


def needs_memory(most):
    """Work on rows that more than `most` of do not fit."""
    seen = []

    def work(rows):
        seen.append(list(rows))
        if len(rows) > most:
            allocate_too_much()
        return sum(rows)

    return work, seen


def test_rows_are_halved_until_they_fit_and_the_size_is_kept(capsys):
    work, seen = needs_memory(2)
    with remembering():
        done = fitted(WORK, range(10), work)
        assert [list(rows) for rows, _ in done] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
        assert [value for _, value in done] == [1, 5, 9, 13, 17]
        assert list(map(len, seen)) == [10, 5, 2, 2, 2, 2, 2]
        assert kept_sizes() == {"the work": 2}
        assert rows_at_once(WORK, 64) == 2
        seen.clear()
        fitted(WORK, range(4), work)
        assert list(map(len, seen)) == [2, 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "note     out of memory in the work with 10 rows at once; goes on with 5, as work.rows=5 "
        "would",
        "note     out of memory in the work with 5 rows at once; goes on with 2, as work.rows=2 "
        "would",
    ]
    assert kept_sizes() == {}
    keep_sizes({"the work": 1})  # nothing is remembered where no run is
    assert rows_at_once(WORK, 64) == 64


def test_a_tensor_of_rows_is_cut_alike_and_no_rows_are_one_piece_of_work():
    work, _ = needs_memory(3)
    done = fitted(WORK, torch.arange(7), lambda rows: work(rows.tolist()))
    assert [rows.tolist() for rows, _ in done] == [[0, 1, 2], [3, 4, 5], [6]]
    assert fitted(WORK, [], work) == [([], 0)]


def test_a_single_row_that_does_not_fit_ends_with_advice():
    work, _ = needs_memory(0)
    with pytest.raises(OutOfMemoryError, match=r"a single row .*`work.length`.* stage=plan") as one:
        fitted(WORK, range(4), work)
    assert "DefaultCPUAllocator" in str(one.value)


def test_other_errors_are_not_caught():
    def faulty():
        raise RuntimeError("the tensor's memory format is wrong")

    with pytest.raises(RuntimeError, match="memory format"):
        attempt(WORK, 4, faulty)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("CUDA out of memory"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) is expected


def test_pytorch_and_python_say_it_in_words_that_are_known():
    with pytest.raises(OutOfMemoryError, match="stage=plan"), naming_memory_faults():
        allocate_too_much()
    with pytest.raises(OutOfMemoryError, match="stage=plan"), naming_memory_faults():
        bytearray(2**60)
    with pytest.raises(KeyError), naming_memory_faults():
        raise KeyError("memory")


def test_what_an_attempt_held_is_freed_before_the_next():
    alive = weakref.WeakSet()

    def work(rows):
        assert not alive
        held = torch.zeros(1)
        alive.add(held)
        if len(rows) > 1:
            allocate_too_much()

    assert len(fitted(WORK, range(2), work)) == 2
