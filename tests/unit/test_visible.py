"""No control character of others reaches a terminal, a log, a page, a card or a tracker."""

import io
import json
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from lora_detox import visible as visible_module
from lora_detox.json_text import parse_json
from lora_detox.progress import TrainingProgress, phase, say
from lora_detox.report.card import CardFacts, model_card
from lora_detox.report.console import print_line
from lora_detox.report.frontier import FrontierCurve, FrontierPoint, frontier_plot
from lora_detox.report.html import write_report
from lora_detox.report.tables import Table, print_table, write_page
from lora_detox.report.trackers import flat_numbers, open_trackers
from lora_detox.run.manifest import MANIFEST, fault_of
from lora_detox.visible import VisibleFormatter, visible

BAD = "a\x1b[31mb\x00\x07\x9b\rc\u202ed\u2066e\u200ff"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _is_visible(text):
    return RAW.search(text) is None and "\\x1b[31m" in text and "U+202E" in text


def test_controls_are_written_out():
    assert visible("\x1b[0m\x00\x85\x7f") == "\\x1b[0m\\x00\\x85\\x7f"
    assert visible("a\u202eb\u2069\u200e\ud800") == "a<U+202E>b<U+2069><U+200E><U+D800>"
    assert visible("a\r\nb\rc\td") == "a\nb\\x0dc\td"


@pytest.mark.parametrize(
    "text", ["plain", "größe 日本 \U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e\u0648"]
)
def test_letters_of_any_language_stay(text):
    assert visible(text) == text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_terminal(capsys, encoding):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=300, highlight=False)
    print_table(Table(columns=["m", BAD], rows=[[BAD, "1"]], title=BAD), [BAD], Path(BAD), console)
    with TrainingProgress(1, console=console) as progress:
        progress.message(BAD)
    with phase(BAD, 3, BAD, after=0.0, console=console) as shown:
        shown._show()
    file.flush()
    assert _is_visible(file.buffer.getvalue().decode(encoding))
    say(BAD)
    print_line(BAD)
    assert _is_visible(capsys.readouterr().out)


def test_page_card_markdown_and_pictures(tmp_path):
    table = Table(columns=["model", "x"], rows=[[BAD + "\n|", "1"]], title=BAD)
    markdown = table.markdown()
    assert _is_visible(markdown)
    assert len(markdown.splitlines()) == 3
    point = FrontierPoint(label=BAD, x=(0.1, 0.0, 0.2), y=(0.1, 0.0, 0.2))
    plot = frontier_plot(BAD, [FrontierCurve(label=BAD, points=[point])] * 2, ("x", "y"))
    write_page(
        tmp_path / "a.html", title=BAD, tables=[table], notes=[BAD], settings_yaml=BAD, plots=[plot]
    )
    sample = {"prompt": BAD, "before": BAD, "after": BAD, "references": [BAD]}
    summary = {"task": BAD, "policy": BAD, "scorers": {BAD: BAD}, "versions": {BAD: BAD}}
    write_report(
        tmp_path / "b.html",
        summary=summary,
        history=[],
        samples=[sample],
        settings_yaml=BAD,
        metrics={},
    )
    for name in ("a.html", "b.html"):
        page = (tmp_path / name).read_text()
        assert _is_visible(page)
        assert "&lt;U+202E&gt;" in page
        assert "<U+202E>" not in page
    facts = CardFacts(
        name=BAD,
        base=BAD,
        base_revision=None,
        base_on_hub=False,
        encoder_decoder=True,
        data=BAD,
        data_on_hub=True,
        license=BAD,
        settings=[(BAD, BAD)],
    )
    card = model_card(facts, summary, {})
    assert _is_visible(card)
    assert card.startswith("---\n")


def test_trackers(tmp_path, monkeypatch):
    told = {}

    class Fake:
        def __init__(self, project, **named):
            told.update(project=project, **named)

        def start(self):
            told["started"] = True

    monkeypatch.setattr("lora_detox.report.trackers.OPTIONAL_TRACKERS", {"json": Fake})
    open_trackers(
        ["json"], directory=tmp_path, project=BAD, run_name=BAD, settings={"a": [{"b": BAD}]}
    )
    assert told.pop("started")
    assert _is_visible(told["project"])
    assert _is_visible(told["name"])
    assert _is_visible(told["config"]["a"][0]["b"])
    assert all(map(_is_visible, flat_numbers({BAD: {BAD: 1}})))


def test_log_records_warnings_and_unexpected_errors(capsys, monkeypatch):
    for place, name in ((warnings, "formatwarning"), (sys, "excepthook")):
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler())
    visible_module.guard_standard_error()
    assert _is_visible(warnings.formatwarning(BAD, UserWarning, "f", 1, ""))
    record = logging.LogRecord("a", logging.WARNING, "f", 1, BAD, (), None)
    assert _is_visible(logging.lastResort.format(record))
    assert isinstance(logging.lastResort.formatter, VisibleFormatter)
    try:
        raise RuntimeError(BAD)
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert _is_visible(capsys.readouterr().err)


def test_the_command_line_shows_no_control_of_an_override():
    done = subprocess.run(
        [sys.executable, "-m", "lora_detox", f"policy.path='{BAD.replace(chr(0), '')}'", "data=x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert RAW.search(done.stderr + done.stdout) is None


DEEP = "[" * 100_000


def test_json_nested_without_end_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="too deeply"):
        parse_json(DEEP)
    with pytest.raises(ValueError, match="too deeply"):
        parse_json(DEEP.encode())
    (tmp_path / MANIFEST).write_text(DEEP)
    assert "not JSON" in fault_of(tmp_path)
    assert json.loads("[1]") == parse_json("[1]")
