"""The commands and lines that a run closes with."""

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from lora_detox.embedded import embedded_path
from lora_detox.metrics.names import METRICS
from lora_detox.report.console import print_result
from lora_detox.report.next_steps import LoadedAs, Usage, again, loaded_from, next_steps
from tests.runs import write_adapter

OVERRIDES = [
    "task=gptj_continuation",
    "stage=sft",
    "seed=3",
    "policy.path=my models/gpt",
    "'task.template={prompt} TL;DR='",
    "+data.more=1",
    "resume=true",
    "hydra.run.dir=runs/mine",
]


def test_the_next_seed_is_the_same_command():
    command = again({"overrides": OVERRIDES, "task": "x"}, "seed=4")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "lora_detox"]
    assert words[3:] == [
        "task=gptj_continuation",
        "stage=sft",
        "policy.path=my models/gpt",
        "'task.template={prompt} TL;DR='",
        "+data.more=1",
        "seed=4",
    ]


def test_a_run_from_python_names_its_task():
    assert again({"task": "flan_summary"}, "seed=1") == (
        "python -m lora_detox task=flan_summary seed=1"
    )


def test_a_smoke_run_leads_to_the_run_with_the_real_policy(tmp_path):
    overrides = ["task=flan_summary", "debug=smoke", "debug.tiny_model=true", "adapter.rank=4"]
    _, line = next_steps({"tiny_model": True, "overrides": overrides}, tmp_path)
    assert line.endswith("policy: python -m lora_detox task=flan_summary adapter.rank=4")


@pytest.mark.parametrize("seed", ["+seed=2", "seed=2"])
def test_a_key_is_replaced_however_it_was_given(seed):
    assert "seed=2" not in again({"overrides": [seed]}, "seed=5")


def test_a_chat_is_asked_by_its_template():
    usage = Usage(text="Hello", chat=True, system="Be kind.", new_tokens=9)
    loaded = LoadedAs(
        auto="AutoModelForCausalLM",
        base="b",
        adapter="a",
        tokenizer="a",
        dtype="bfloat16",
        usage=usage,
    )
    text = "\n".join(loaded.lines())
    compile(text, "lines", "exec")
    assert "{'role': 'system', 'content': 'Be kind.'}" in text
    assert "apply_chat_template" in text
    assert "dtype=torch.bfloat16" in text
    assert "max_new_tokens=9" in text


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("architecture", ["gptj", "t5"])
def test_the_lines_load_the_adapter_and_write(architecture, quantization, tmp_path, capfd):
    if quantization != "none":
        bits = pytest.importorskip("bitsandbytes")
        if (architecture, quantization) == ("gptj", "nf4") and bits.functional.has_avx512bf16():
            pytest.skip("bitsandbytes packs rows by 32 on such a CPU; the miniature's width is 144")
    base = embedded_path(architecture)
    write_adapter(architecture, tmp_path / "adapter", base)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    summary = {
        "quantization": quantization,
        "parameters": {"base_dtype": "float32"},
        "usage": {"text": "Are you coming?", "new_tokens": 12},
    }
    text = "\n".join(loaded_from(summary, tmp_path).lines())
    assert ("BitsAndBytesConfig" in text) == (quantization != "none")
    seen = {}
    exec(text, seen)
    printed, error = capfd.readouterr()
    assert len(printed.split()) >= 2
    assert "inputs will be cast" not in error
    stored = {type(one).__name__ for one in seen["model"].modules()}
    assert {"int8": "Linear8bitLt", "nf4": "Linear4bit", "none": "Linear"}[quantization] in stored


def test_a_revision_is_the_bases_alone():
    loaded = LoadedAs(auto="A", base="b", adapter="a", tokenizer="a", revision="abc")
    lines = loaded.lines()
    assert [line for line in lines if "revision" in line] == [
        "base = A.from_pretrained('b', revision='abc')"
    ]


def test_a_run_that_learned_nothing_says_so_in_a_line(summary, samples):
    kept = {**summary, "budget": {"chosen_iteration": 0, "bounds": {}}}
    texts = []
    for one in (kept, {**kept, "budget": {"chosen_iteration": 5, "bounds": {}}}):
        file = io.StringIO()
        console = Console(file=file, width=120, highlight=False)
        print_result(one, samples, metrics=METRICS, directory=Path("runs/x"), console=console)
        texts.append(file.getvalue())
    nothing, something = texts
    assert "Nothing was learned that could be kept." in nothing
    assert "95 %" not in nothing
    assert "You never listen" not in nothing
    assert "budget.*" in nothing
    assert "PeftModel" not in nothing
    assert "95 %" in something
    assert "PeftModel" in something
