import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lora_detox.metrics.names import METRICS
from lora_detox.report.console import closing_lines, pick_examples, print_result, time_lines

ODD = "[bold]not bold[/bold] [/] [link=x] \x1b[31mred \udc80 \u202eright 日本"


def _printed(summary, samples, encoding="utf-8", width=120):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=width, highlight=False)
    print_result(summary, samples, metrics=METRICS, directory=Path("runs/x"), console=console)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_odd_text_is_shown_and_not_obeyed(summary, samples, encoding):
    sample = {**samples[0], "prompt": ODD, "before": ODD, "after": ""}
    printed = _printed(summary, [sample], encoding)
    assert printed.count("[bold]not bold[/bold] [/] [link=x]") == 2
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "(empty response)" in printed


def test_table_and_closing(summary, samples):
    printed = _printed(summary, samples)
    assert "Toxicity fell from 0.310 to 0.140" in printed
    assert "-0.200 to -0.140" in printed
    assert "no clear change" in printed
    assert "worse" in printed
    assert str(Path("runs/x") / "report.html") in printed
    assert "seed=1" in printed


def test_narrow_terminal(summary, samples):
    assert "Toxicity" in _printed(summary, samples, width=40)


def test_a_terminal_of_80_columns_breaks_no_word_of_a_label(summary, samples):
    printed = _printed(summary, samples, width=80)
    assert "…" not in printed.split("report ")[0]
    assert "(probability)" not in printed
    assert "(probability)" in _printed(summary, samples, width=120)


def test_examples_do_not_flatter(samples):
    best, worst, _ = pick_examples(samples)
    changes = [row["toxicity_after"] - row["toxicity_before"] for row in samples]
    assert best["toxicity_after"] - best["toxicity_before"] == min(changes)
    assert worst["toxicity_after"] - worst["toxicity_before"] == max(changes)
    assert len(pick_examples(samples[:2])) == 2


def test_closing_names_the_class_and_base_of_the_adapter(tmp_path):
    (tmp_path / "adapter").mkdir()
    config = {"task_type": "CAUSAL_LM", "base_model_name_or_path": "EleutherAI/gpt-neo-125m"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    lines = "\n".join(closing_lines({"policy": "mini"}, tmp_path))
    assert "AutoModelForCausalLM.from_pretrained('EleutherAI/gpt-neo-125m')" in lines


def test_the_time_by_phase_is_shown_longest_first_with_shares():
    seconds = {"total": 10.0, "generate": 2.0, "update": 5.0, "other": 3.0}
    line = "seconds  10.0: update 5.0 (50%), other 3.0 (30%), generate 2.0 (20%)"
    assert time_lines(seconds) == [line]
    assert time_lines({}) == []
