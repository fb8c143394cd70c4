import json
import math

import numpy as np
import pytest
import torch

from lora_detox.errors import DataError
from lora_detox.report.jsonl import MetricsLog, plain, read_jsonl, write_json_atomic
from lora_detox.report.responses import sample_rows, write_samples
from lora_detox.types import Evaluation


def _strict(line):
    def refuse(token):
        raise AssertionError(token)

    return json.loads(line, parse_constant=refuse)


def test_not_a_number_becomes_null_and_scalars_become_plain(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(
            {
                "iteration": 1,
                "loss": math.nan,
                "score": torch.tensor(0.5),
                "kl": np.float32("inf"),
                "tokens": np.int64(3),
                "evaluation": {"ci95": [np.nan, torch.tensor([1.0, math.nan])]},
                "early_stopped": True,
            }
        )
    assert _strict(path.read_text()) == {
        "iteration": 1,
        "loss": None,
        "score": 0.5,
        "kl": None,
        "tokens": 3,
        "evaluation": {"ci95": [None, [1.0, None]]},
        "early_stopped": True,
    }


def test_each_line_is_on_disk_at_once(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"iteration": 1})
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"iteration": 1}]
    log.close()


def test_text_cannot_tear_a_line(tmp_path):
    odd = "a\nb\u2028c\x85d\udc80e\x00"
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write({"iteration": 1, "note": odd})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert len(text.splitlines()) == 1
    assert _strict(text)["note"] == odd


def test_resume_drops_what_runs_again_and_the_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iteration": 3}\n{"iterat')
    assert len(read_jsonl(path)) == 3
    with MetricsLog(path, keep_through=2) as log:
        log.write({"iteration": 3, "again": True})
    rows = read_jsonl(path)
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert rows[-1]["again"]


@pytest.mark.parametrize("line", [b"not a row", b"\xff\xfe", b"[1]", b"[" * 100_000])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n' + line + b'\n{"iteration": 2}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl:2 is no row.*remove that line"):
        read_jsonl(path)
    with MetricsLog(path, keep_through=-1):  # begins anew, and does not read it
        pass
    assert read_jsonl(path) == []


def test_opening_again_appends(tmp_path):
    for iteration in (1, 2):
        with MetricsLog(tmp_path / "metrics.jsonl") as log:
            log.write({"iteration": iteration})
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 2
    assert read_jsonl(tmp_path / "missing.jsonl") == []


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "folder" / "summary.json"
    write_json_atomic(path, {"a": math.inf})
    with pytest.raises(TypeError, match="object"):
        write_json_atomic(path, {"a": object()})
    assert _strict(path.read_text()) == {"a": None}
    assert [file.name for file in path.parent.iterdir()] == ["summary.json"]


def test_plain_knows_the_tensors_of_pytorch():
    assert plain({"a": torch.tensor([1.5, math.inf])}) == {"a": [1.5, None]}


def test_plain_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="cannot hold set"):
        plain({"a": {1, 2}})


def _evaluation(responses, prompts=("p", "q"), **per_response):
    return Evaluation(
        prompts=list(prompts),
        responses=responses,
        references=[["r"], []],
        per_response=per_response,
    )


def test_samples_stand_side_by_side(tmp_path):
    before = _evaluation(
        ["bad", "worse"], toxicity=[0.9, 1.0], judge_toxicity=[0.8, 0.9], reference_nll=[7.0, 8.0]
    )
    after = _evaluation(["good", "fine"], toxicity=[0.1, 0.2], reference_nll=[5.0, 6.0])
    rows = write_samples(tmp_path / "samples.jsonl", before, after)
    assert read_jsonl(tmp_path / "samples.jsonl") == rows
    assert rows[0] == {
        "prompt": "p",
        "references": ["r"],
        "before": "bad",
        "after": "good",
        "toxicity_before": 0.9,
        "toxicity_after": 0.1,
        "reference_nll_before": 7.0,
        "reference_nll_after": 5.0,
    }
    with pytest.raises(ValueError, match="same order"):
        sample_rows(before, _evaluation(["a", "b"], prompts=("q", "p")))
