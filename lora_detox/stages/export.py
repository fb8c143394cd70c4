"""stage=export: a finished run -> a folder with the adapter and its card, checked, maybe pushed."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PretrainedConfig

from lora_detox.environment import prepare_process, versions
from lora_detox.export.adapter import (
    cached_commit,
    check_reloads,
    check_strength,
    expected_logits,
    put_in_place,
    temporary_folder,
    unquantized_base,
    write_adapter,
)
from lora_detox.export.facts import card_facts
from lora_detox.export.figures import figures_at
from lora_detox.export.finished_run import FinishedRun, read_run
from lora_detox.export.gguf_adapter import plan_gguf, write_gguf
from lora_detox.export.merge import merge
from lora_detox.export.push import MERGED, check_token, folder_files, push_folder
from lora_detox.export.serving import Place, as_rows, serving_places
from lora_detox.export.space import SPACE, write_space
from lora_detox.machine import resolve_device
from lora_detox.metrics import names
from lora_detox.policy.plain_lora import stored_adapter
from lora_detox.policy.preflight import BackbonePlan, read_config, resolve_dtype
from lora_detox.policy.tokenizer import load_tokenizer, response_ends
from lora_detox.report.card import CardFacts, model_card
from lora_detox.report.eval_results import EVAL_RESULTS, eval_results_yaml
from lora_detox.report.jsonl import write_json_atomic, write_text_atomic
from lora_detox.settings import Settings, settings_yaml
from lora_detox.visible import readable


def run(settings: Settings) -> tuple[float, ...]:
    """Write, reload in a fresh process, compare, and only then push and say that it is done.

    Args:
        settings: composed and checked; `run` names the finished run.

    Returns:
        The largest difference in logits between the run and what was exported.

    Raises:
        ExportError: what was written does not read back as it was, or the hub refused it.
    """
    prepare_process(settings.threads)
    console, export = Console(highlight=False), settings.export
    if export.repo_id and not export.dry_run:
        check_token()
    source = read_run(Path(str(settings.run)).expanduser())
    check_strength(source, export.strength)
    target = Path(export.path).expanduser() if export.path else source.folder / "export"
    plan = unquantized_base(source, settings)
    config = read_config(plan, "run")
    stored = stored_adapter(source.adapter)
    gguf = plan_gguf(stored, config) if export.gguf else None
    places = serving_places(stored, config, merged=export.merge, gguf=export.gguf)
    commit = cached_commit(plan)
    revision = export.base_revision or plan.revision or (None if export.base_model else commit)
    base = export.base_model or source.base
    request = {"base": base, "revision": revision, **_how_to_load(settings, source, plan, config)}
    written = temporary_folder(target)
    try:
        rows, expected = expected_logits(source, plan, export.strength, written)
        request |= {"adapter": str(written), "rows": rows}
        write_adapter(source, written, base, revision)
        difference = check_reloads(expected, request, resolve_dtype(plan, config))
        merged = None
        if export.merge:
            folder = written / MERGED
            merged = merge(request, folder, expected, source, plan, export.strength)
        facts = card_facts(source, settings, base, revision, target, merged)
        if gguf is not None:
            write_gguf(written, gguf, facts.name)
        rows_of_card = [(place.where, place.works, place.how) for place in places]
        _write_card(source, replace(facts, serving=rows_of_card), written, export.repo_id)
        if export.space:
            write_space(source, written, base, revision, export.license)
        put_in_place(written, target, overwrite=export.overwrite)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    pushed = _send(target, settings, console)
    _record(settings, target, difference, merged, pushed, places)
    _say(console, settings, target, difference, merged, pushed)
    _say_places(console, places)
    _say_missing(console, settings, source)
    console.print("done")
    return (difference,)


def _how_to_load(
    settings: Settings, source: FinishedRun, plan: BackbonePlan, config: PretrainedConfig
) -> dict[str, Any]:
    """What a fresh process has to know, beside the names of base and adapter."""
    return {
        "encoder_decoder": source.encoder_decoder,
        "eos_token_ids": list(response_ends(plan, load_tokenizer(plan, config), config)),
        "decoder_start_token_id": getattr(config, "decoder_start_token_id", None),
        "trust_remote_code": plan.trust_remote_code,
        "dtype": str(resolve_dtype(plan, config)).removeprefix("torch."),
        "device": str(resolve_device(settings.device)),
        "threads": settings.threads,
    }


def _write_card(source: FinishedRun, facts: CardFacts, written: Path, repo_id: str | None) -> None:
    """The card, with the figures of the exported strength where it was evaluated."""
    figures = figures_at(source, facts.strength)
    measured = replace(facts, measured=facts.strength == 1 or figures is not None)
    summary = {**source.summary, **(figures or {})}
    write_text_atomic(written / "README.md", model_card(measured, summary, names.METRICS))
    results = eval_results_yaml(measured, summary, names.METRICS, repo_id)
    if results is not None:
        (written / EVAL_RESULTS).parent.mkdir()
        write_text_atomic(written / EVAL_RESULTS, results)


def _send(target: Path, settings: Settings, console: Console) -> dict[str, str] | None:
    export = settings.export
    if export.repo_id is None:
        return None
    if export.dry_run:
        where = f"{export.repo_id}, branch {export.revision or 'the default one'}"
        files = [f"  {size:>12,} bytes  {name}" for name, size in folder_files(target)]
        card = (target / "README.md").read_text(encoding="utf-8").splitlines()
        lines = [f"dry run: would send to {where}:", *files, "README.md:"]
        for line in [*lines, *(f"  {one}".rstrip() for one in card)]:
            console.print(readable(line, console), soft_wrap=True, markup=False)
        return None
    return push_folder(target, export)


def _record(
    settings: Settings,
    target: Path,
    difference: float,
    merged: dict[str, Any] | None,
    pushed: dict[str, str] | None,
    places: list[Place],
) -> None:
    run_dir = Path(settings.run_dir)
    summary: dict[str, Any] = {
        "schema": 1,
        "stage": "export",
        "run": settings.run,
        "export": str(target),
        "strength": settings.export.strength,
        "files": dict(folder_files(target)),
        "logit_difference": difference,
        "serving": as_rows(places),
        "versions": versions(),
    }
    optional = {"merged": merged, "pushed": pushed}
    summary |= {key: value for key, value in optional.items() if value is not None}
    write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
    write_json_atomic(run_dir / "summary.json", summary)


def _say(
    console: Console,
    settings: Settings,
    target: Path,
    difference: float,
    merged: dict[str, Any] | None,
    pushed: dict[str, str] | None,
) -> None:
    lines = [
        f"export   {target}",
        f"checked  reloaded in a fresh process with plain PEFT: logits differ by {difference:.2g}",
    ]
    if settings.export.strength != 1:
        lines.insert(1, f"strength {settings.export.strength:g}, written into the weights")
    if merged:
        lines.append(
            f"merged   {target / MERGED}: logits changed by {merged['mean']:.2g} in the mean, "
            f"{merged['maximum']:.2g} at most; same likeliest token at "
            f"{100 * merged['same_top']:.1f} %"
        )
        if "from_quantized" in merged:
            lines.append(
                f"         against the quantized model that was trained: "
                f"{merged['from_quantized']['mean']:.2g} in the mean"
            )
    if settings.export.space:
        lines.append(
            f"space    {target / SPACE}: python app.py there shows it on this machine, hf upload "
            "user/name . --repo-type space publishes it"
        )
    if pushed:
        lines.append(f"pushed   {pushed['repo']} at {pushed['commit']}")
    for line in lines:
        console.print(readable(line, console), soft_wrap=True)


def _say_places(console: Console, places: list[Place]) -> None:
    """Where the adapter can be served, one line for each program."""
    for number, place in enumerate(places):
        head = "serving" if number == 0 else ""
        line = f"{head:<8} {place.where:<26} {place.works:<8} {place.how}"
        console.print(readable(line, console), soft_wrap=True, markup=False)


def _say_missing(console: Console, settings: Settings, source: FinishedRun) -> None:
    """What the card lacks that a reader of the hub asks for, with the keys that give it."""
    export = settings.export
    lacks = {
        "export.license": "the card states no licence, as in export.license=apache-2.0"
        if export.license is None
        else None,
        "export.base_model": f"the card names the folder {Path(source.base).name} as the base; "
        "give the base's hub id, as in export.base_model=google/flan-t5-base"
        if export.base_model is None and Path(source.base).exists()
        else None,
    }
    for key, what in lacks.items():
        if what is not None:
            console.print(readable(f"note     {key}: {what}", console), soft_wrap=True)
