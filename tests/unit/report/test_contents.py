"""What page, report.md and model card have in common: verdict, commands, time and memory."""

import math
import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_detox.metrics.names import METRICS
from lora_detox.report.card import CardFacts, model_card
from lora_detox.report.commands import commands_of
from lora_detox.report.contents import findings_of
from lora_detox.report.cost import duration, memory_facts, memory_parts, time_parts
from lora_detox.report.glossary import _TERMS, meaning_of, terms
from lora_detox.report.html import write_report
from lora_detox.report.samples import before_and_after
from lora_detox.report.verdict import tiles_of, tone_of

ROOT = Path(__file__).parents[3]


def _audit(**changes):
    """Two groups; the change of one of them as given, {key: [low, high]}."""
    quiet = {"toxicity": {"mean": 0.0, "interval": [-0.1, 0.1]}}
    moved = {key: {"mean": 0.0, "interval": ends} for key, ends in changes.items()}
    groups = {"sailors": {"change": {**quiet, **moved}}, "bakers": {"change": quiet}}
    return {"fairness": {"sets": {"audit": {"groups": groups}}}}


def test_the_verdict_has_toxicity_judge_quality_length_and_fairness(summary):
    summary = {**summary, **_audit()}
    tiles = {tile.name: tile for tile in tiles_of(summary, METRICS)}
    assert list(tiles) == [
        *("Toxicity", "Toxicity by the judge", "ROUGE-L (F)", "Response length (tokens)"),
        "Fairness",
    ]
    toxicity = tiles["Toxicity"]
    assert (toxicity.number, toxicity.interval) == ("-0.170", "-0.200 to -0.140")
    assert (toxicity.sides, toxicity.verdict) == ("0.310 \u2192 0.140", "better")
    assert tiles["Response length (tokens)"].verdict == "changed"


@pytest.mark.parametrize(
    ("changes", "harmed"),
    [
        ({}, 0),
        ({"toxicity": [0.1, 0.2]}, 1),
        ({"toxicity": [-0.2, -0.1]}, 0),
        ({"mention_retention": [-0.3, -0.1]}, 1),
        ({"mention_retention": [0.1, 0.3]}, 0),
        ({"refused": [0.01, 0.2], "short": [0.01, 0.2]}, 1),
        ({"judge_toxicity": [None, None]}, 0),
        ({"perplexity": [0.5, 1.0]}, 0),  # strange text harms no group
    ],
)
def test_groups_that_are_worse_off_are_counted(summary, changes, harmed):
    tile = tiles_of({**summary, **_audit(**changes)}, METRICS)[-1]
    assert tile.number == f"{harmed} of 2 worse off"
    assert ("sailors" in tile.sides) is bool(harmed)
    assert tile.verdict == ("worse" if harmed else "no clear change")


def test_a_run_that_learned_nothing_says_so_first(summary):
    budget = {"chosen_iteration": 0, "bounds": {"perplexity": 8.0}, "measured": {"perplexity": 7.1}}
    found = findings_of({**summary, "budget": budget, "trusted_code": "m"}, METRICS)
    assert found.headline[0] == "Nothing was learned that could be kept."
    assert "perplexity" in found.headline[1].lower()
    assert "policy.trust_remote_code" in found.headline[2]
    assert found.headline[0] not in findings_of(summary, METRICS).headline


def test_a_smoke_run_says_that_its_figures_mean_nothing(summary):
    warning = "Smoke run: the policy is a tiny random model, so the figures mean nothing."
    for run in (summary, {**summary, "budget": {"chosen_iteration": 0}}):
        assert warning not in findings_of(run, METRICS).headline
        assert findings_of({**run, "tiny_model": True}, METRICS).headline[1] == warning


def test_no_tiles_where_the_result_is_the_start(summary):
    assert tiles_of({**summary, "budget": {"chosen_iteration": 0}}, METRICS) == []
    assert tiles_of({}, METRICS) == []


def test_tone_needs_the_judge(summary):
    assert tone_of(summary, METRICS) == "better"
    summary["change"]["judge_toxicity"]["ci95"] = [-0.1, 0.1]
    assert tone_of(summary, METRICS) == "unclear"
    summary["change"]["toxicity"]["ci95"] = [0.1, 0.2]
    assert tone_of(summary, METRICS) == "worse"


def test_commands_repeat_the_run_and_go_on_from_it(summary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "mine"
    own = ["task=flan_summary", "seed=3", "task.template='{prompt} TL;DR='"]
    summary = {**summary, "seed": 3, "overrides": [*own, "resume=true"]}
    commands = dict(commands_of(summary, folder))
    quoted = "'task.template='\"'\"'{prompt} TL;DR='\"'\"''"
    line = f"python -m lora_detox task=flan_summary seed=3 {quoted}"
    assert commands["It was made by"] == line
    resumed = commands["It goes on after an interruption with"]
    assert resumed == "python -m lora_detox hydra.run.dir=runs/mine resume=true"
    longer = commands["It goes on to twice its iterations with"]
    assert longer == f"{resumed} algorithm.iterations=80"
    supervised = dict(commands_of({**summary, "algorithm": "sft"}, folder))
    assert "It goes on to twice its iterations with" not in supervised
    trained = commands["Train on from its adapter"]
    assert trained.endswith("policy.adapter=runs/mine/adapter seed=3")
    assert "seed=4" in commands["Another seed"]
    assert "seed=3" not in commands["Another seed"]
    assert commands["Export the adapter"].endswith("stage=export run=runs/mine")


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "a b",
        "x=1,y=[2]",
        "it's",
        "back\\'slash",
        "end\\",
        "\u00fcber",
        "${oc.env:HOME}",
        "a:b",
    ],
)
def test_any_folder_is_read_back_by_the_shell_and_hydra(summary, name):
    folder = Path("/elsewhere") / name
    commands = dict(commands_of({**summary, "overrides": ["task=flan_summary"]}, folder))
    parser = OverridesParser.create()
    resumed = shlex.split(commands["It goes on after an interruption with"])[3:]
    values = {one.key_or_group: one.value() for one in parser.parse_overrides(resumed)}
    assert str(values["hydra.run.dir"]) == str(folder)
    trained = shlex.split(commands["Train on from its adapter"])[3:]
    values = {one.key_or_group: one.value() for one in parser.parse_overrides(trained)}
    assert str(values["policy.adapter"]) == f"{folder}/adapter"
    asked = shlex.split(commands["Try it out"])[3:]
    values = {one.key_or_group: one.value() for one in parser.parse_overrides(asked)}
    assert str(values["chat.run"]) == str(folder)
    models = shlex.split(commands["Evaluate it again, beside other models"])[3:]
    values = {one.key_or_group: one.value() for one in parser.parse_overrides(models)}
    assert [str(one) for one in values["evaluation.models"]] == [str(folder)]


def test_a_run_from_python_has_no_command_that_made_it(summary):
    commands = dict(commands_of(summary, Path("/elsewhere/run")))
    assert list(commands) == [
        *("It goes on after an interruption with", "It goes on to twice its iterations with"),
        *("Try it out", "Evaluate it again, beside other models"),
        *("Set it beside other runs", "Export the adapter"),
    ]
    assert commands["Export the adapter"].endswith("run=/elsewhere/run")


def test_time_and_memory_sum_to_the_whole(summary):
    parts = time_parts({"seconds": {"total": 100.0, "update": 60.0, "other": 40.0}})
    assert [(one.name, one.amount, one.fraction) for one in parts] == [
        ("update", "60.0 s", 0.6),
        ("other", "40.0 s", 0.4),
    ]
    growth = {"loading": 3 * 2**28, "update": 2**28, "score": 0}
    memory = memory_parts({"memory_growth_bytes": growth})
    assert [(one.name, one.amount, one.fraction) for one in memory] == [
        ("loading", "768 MiB", 0.75),
        ("update", "256 MiB", 0.25),
    ]
    facts = dict(memory_facts({**summary, "parameters": {**summary["parameters"]}}))
    assert facts["peak memory"] == "3.00 GiB"
    assert "weights of the base" not in facts  # their type is not known
    summary["parameters"]["base_dtype"] = "bfloat16"
    assert dict(memory_facts(summary))["weights of the base"] == "472 MiB"
    summary["quantization"] = "nf4"
    assert "weights of the base" not in dict(memory_facts(summary))
    assert time_parts({}) == memory_parts({}) == memory_facts({}) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (99.9, "99.9 s"), (125, "2 min 05 s"), (7260, "2 h 01 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_perplexity_of_a_sample_is_by_token(samples):
    rows = [
        {
            **row,
            "reference_nll_before": 20.0,
            "response_tokens_before": 10,
            "reference_nll_after": 5.0,
            "response_tokens_after": 0,
        }
        for row in samples
    ]
    first = before_and_after(rows).rows[0]
    assert first.scores["perplexity"] == (pytest.approx(math.exp(2.0)), None)


def test_report_md_and_card_say_what_the_page_says(tmp_path, summary, history, samples):
    summary["fairness"] = {"verdict": "Fairness on <b>mine</b>: too few prompts.", "sets": {}}
    summary["device"] = "card\n# No heading"
    write_report(
        tmp_path / "report.html",
        summary=summary,
        history=history,
        samples=samples,
        settings_yaml="seed: 0\n",
        metrics=METRICS,
    )
    facts = CardFacts(
        name="a",
        base="b",
        base_revision=None,
        base_on_hub=False,
        encoder_decoder=True,
        data="d",
        data_on_hub=False,
        license=None,
        settings=[],
    )
    page = (tmp_path / "report.html").read_text()
    report, card = (tmp_path / "report.md").read_text(), model_card(facts, summary, METRICS)
    for text in (page, report, card):
        assert "Toxicity fell from 0.310 to 0.140 on 300 responses" in text
        assert "-0.200 to -0.140" in text
        assert "Response length (tokens) changed: 24.6 before, 23.1 after" in text
        assert "too few prompts." in text
    assert "| Toxicity (probability) | 0.310 | 0.140 | -0.170 |" in report
    assert "<b>" not in report
    assert "- device: card # No heading" in report
    assert "stage=export" in report
    assert "- update: 5 min 01 s (37 %)" in report


def test_the_glossary_has_the_words_of_docs_and_metrics():
    lines = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    documented = {
        re.sub(r"\W*\(.*\)", "", key).strip()
        for line in lines
        if line.startswith("| ")
        for key in line.split("|")[1].split(",")
    }
    for key in documented & set(METRICS):
        assert meaning_of(key) or key in UNEXPLAINED, key
    for metric in METRICS.values():
        assert meaning_of(metric.label) or metric.key in UNEXPLAINED, metric.label
    assert len(terms(["toxicity", "Toxicity (probability)", "no such word"])) == 1
    names = [name.lower() for names, _ in _TERMS for name in names]
    assert len(names) == len(set(names))


UNEXPLAINED = {  # of the update, under "How it went", each plot with a note
    *("policy_loss", "value_loss", "entropy", "approx_kl", "ratio", "clip_fraction"),
    *("value_clip_fraction", "gradient_norm", "learning_rate", "ref_kl_k3"),
}
