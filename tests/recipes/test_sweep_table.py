"""The table of a sweep: a row for each run, and for each merged export how far its logits are."""

import json

from recipes.lab.sweep_table import tables


def write(folder, summary):
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))


def run_summary(task, seed, after):
    return {
        "task": task,
        "quantization": "nf4",
        "seed": seed,
        "before": {"judge_toxicity": {"mean": 0.5}, "distinct_2": 0.4},
        "after": {"judge_toxicity": {"mean": after}, "distinct_2": 0.3},
        "change": {"judge_toxicity": {"mean": after - 0.5, "ci95": [-0.5, -0.3]}},
        "ref_kl": 2.0,
        "parameters": {"base_unchanged": True},
        "seconds": {"total": 61.2},
    }


def test_runs_and_exports_have_a_table_each(tmp_path):
    write(tmp_path / "b", run_summary("flan_summary", 10, 0.1))
    write(tmp_path / "a", run_summary("flan_summary", 9, 0.25))
    alone = tables(tmp_path)
    assert "merged" not in alone
    rows = alone.splitlines()[2:]
    assert [line.split(" | ")[2] for line in rows] == ["9", "10"]
    assert "| 0.500 -> 0.250 |" in rows[0]
    assert "| -80 % | 2.00 | yes | 61 |" in rows[1]
    logits = {"mean": 1.5e-6, "maximum": 2e-5, "same_top": 1.0}
    quantized = {"mean": 0.045, "maximum": 0.76, "same_top": 0.981}
    write(
        tmp_path / "c",
        {
            "stage": "export",
            "run": "runs/quantized/int8_flan_summary",
            "logit_difference": 0.0,
            "merged": {**logits, "from_quantized": quantized},
        },
    )
    both = tables(tmp_path)
    assert both.startswith(alone)
    wanted = "| int8_flan_summary | 0 | 1.5e-06, 2e-05, 100.0% | 0.045, 0.76, 98.1% |"
    assert both.splitlines()[-1] == wanted
