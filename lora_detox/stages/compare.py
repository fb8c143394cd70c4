"""stage=compare: finished runs beside each other, read from their folders without weights."""

from pathlib import Path

from lora_detox.comparison.candidates import read_candidates
from lora_detox.comparison.compare import compare, side_by_side
from lora_detox.errors import SettingsError
from lora_detox.metrics import names
from lora_detox.report.compare import (
    MOST_SIDES,
    Section,
    answer_table,
    print_comparison,
    write_comparison,
)
from lora_detox.report.jsonl import write_json_atomic, write_text_atomic
from lora_detox.settings import Settings, settings_yaml


def run(settings: Settings) -> tuple[float, ...]:
    """Read the runs, compare what they answered, write and print one page.

    Args:
        settings: composed and checked; `runs` names the folders.

    Returns:
        The toxicity of the least toxic candidate, an objective of a sweep to minimise.

    Raises:
        DetoxError: folders that are no finished runs, or runs without anything in common.
    """
    candidates = read_candidates(settings.runs)
    if len(candidates) < 2:
        raise SettingsError(
            f"runs: got one result to compare, {candidates[0].name}; want two or more runs, or one "
            "of stage=evaluate with several models or strengths"
        )
    comparison = compare(candidates, settings.evaluation.resamples)
    sides, rows = side_by_side(candidates, MOST_SIDES)
    toxicity = comparison["toxicity"]
    section = Section(
        comparison=comparison, samples=answer_table(sides, rows, toxicity, names.METRICS)
    )
    run_dir = Path(settings.run_dir)
    write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
    write_comparison(
        run_dir / "compare.html",
        title=f"{len(candidates)} candidates",
        about=f"lora_detox · {len(candidates)} candidates of {len(settings.runs)} runs",
        sections=[section],
        metrics=names.METRICS,
    )
    write_json_atomic(run_dir / "summary.json", comparison)  # last: a run with it is whole
    print_comparison(section, names.METRICS, run_dir / "compare.html")
    return (float(comparison["candidates"][0]["numbers"][toxicity]),)
