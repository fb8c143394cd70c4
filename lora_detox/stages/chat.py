"""stage=chat: type or pick a prompt; original and detoxified answers side by side, with scores.

Everything that answers and scores is the toolkit's own: `interactive/answers.py`. The page is for
this machine alone; what is typed is kept nowhere.
"""

import importlib.util
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lora_detox.builders.scorers import check_scorers
from lora_detox.choices import Interface, Stage
from lora_detox.clock import Clock
from lora_detox.environment import prepare_process, process_facts
from lora_detox.evaluation.scorer_agreement import training_of
from lora_detox.interactive.runs import read_runs, scorers_of
from lora_detox.interactive.session import Session, open_session
from lora_detox.interactive.terminal import Terminal, typed_lines
from lora_detox.machine import resolve_device
from lora_detox.report.console import print_line
from lora_detox.report.jsonl import write_json_atomic, write_text_atomic
from lora_detox.settings import ChatSettings, EvaluationSettings, Settings, settings_yaml
from lora_detox.signals import Interrupted

_LOOK_EVERY_SECONDS = 0.5


def run(settings: Settings) -> tuple[float, ...]:
    """Answer prompts until the input ends, `/quit` or Ctrl-C.

    Args:
        settings: composed and checked; `chat.run` names finished runs.

    Returns:
        Nothing that a sweep could compare.

    Raises:
        DetoxError: runs or scorers that cannot be used, before weights load.
    """
    clock, session = Clock(), _opened(settings)
    in_browser = settings.chat.interface is Interface.browser or (
        settings.chat.interface is Interface.auto and importlib.util.find_spec("gradio") is not None
    )
    try:
        if in_browser:
            _serve(session, settings.chat.port)
        else:
            Terminal(session, Console(highlight=False)).run(typed_lines())
    except Interrupted as stop:
        if stop.name != "SIGINT":
            raise
    _record(settings, session, clock.elapsed(), "browser" if in_browser else "terminal")
    print_line(f"ended    {session.asked} prompts were answered")
    return ()


def launch_space(run_folder: Path) -> None:
    """Serve the page of a Space that stage=export wrote, as Gradio's own variables say where.

    Args:
        run_folder: the `run` folder beside its app.py.

    Raises:
        DetoxError: runs or scorers that cannot be used.
    """
    from lora_detox.interactive.browser import page, style  # noqa: PLC0415 (needs the extra)

    chat = ChatSettings(run=str(run_folder), interface=Interface.browser)
    session = _opened(Settings(stage=Stage.chat, chat=chat))
    page(session).launch(share=False, **style())


def _opened(settings: Settings) -> Session:
    """What answers, once everything is known to be usable."""
    prepare_process(settings.threads)
    runs = read_runs(settings)
    scoring = scorers_of(runs, settings)
    check_scorers(replace(scoring.settings, evaluation=EvaluationSettings(word_list=None)))
    for one in runs:
        print_line(f"run      {one.name}: adapter of {one.folder} on {one.base_name}")
        if one.fixed_strength is not None:
            print_line(f"note     {one.name} has no strength but 1: {one.fixed_strength}")
    for note in scoring.notes:
        print_line(note)
    shared = training_of(scoring.settings).get("sentence")
    session = open_session(settings, runs, scoring, [shared] if shared else [])
    for name, scorer in session.scorers.items():
        print_line(f"{name:<8} {scorer.scorer_id}")
    for remark in session.remarks:
        print_line(f"note     {remark}")
    return session


def _serve(session: Session, port: int | None) -> None:
    """Show the page until a signal comes."""
    from lora_detox.interactive.browser import serve  # noqa: PLC0415 (needs the extra)

    with serve(session, port) as address:
        print_line(f"chat     {address} (on this machine alone; Ctrl-C ends)")
        while True:
            time.sleep(_LOOK_EVERY_SECONDS)


def _record(settings: Settings, session: Session, seconds: float, interface: str) -> None:
    """What was tried out, without what was typed."""
    summary: dict[str, Any] = {
        "schema": 1,
        "stage": "chat",
        "interface": interface,
        "runs": {one.name: str(one.folder) for one in session.runs},
        "scorers": {name: one.scorer_id for name, one in session.scorers.items()},
        "prompts": session.asked,
        "seconds": {"total": seconds},
        **process_facts(resolve_device(settings.device)),
    }
    run_dir = Path(settings.run_dir)
    write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
    write_json_atomic(run_dir / "summary.json", summary)
