"""stage=reward_model: fine-tune a sequence classifier that then serves as reward or judge."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lora_detox.builders.labelled import LabelledTexts, labelled_splits, test_set
from lora_detox.clock import Clock
from lora_detox.environment import prepare_process, process_facts
from lora_detox.machine import resolve_device
from lora_detox.metrics.classification import classification_figures, identity_gap
from lora_detox.progress import phase
from lora_detox.report.jsonl import plain, write_json_atomic, write_text_atomic
from lora_detox.report.tables import Table, print_table, write_page
from lora_detox.report.wording import number
from lora_detox.run.origin import Resumed, begun_with, find_resumed, rows_digest
from lora_detox.scores import ClassifierScorer, check_padding, probe_scorer
from lora_detox.scores.loading import resolve_classifier
from lora_detox.scores.training_data import (
    TrainingData,
    describe_training,
    write_training_data,
)
from lora_detox.settings import Settings, probe_texts, settings_yaml
from lora_detox.trainers.classifier import (
    CLASSIFIER,
    classifier_labels,
    fine_tune_classifier,
    has_trained_head,
)

_KEY = "reward_model"
_COLUMNS = (
    ("n", "texts", 0),
    ("accuracy", "accuracy", 3),
    ("f1", "F1", 3),
    ("auc", "AUC", 3),
    ("calibration_error", "calibration error", 3),
    ("false_positive_rate", "false positives", 3),
    ("civil_toxicity", "toxicity of civil texts", 3),
)


def run(settings: Settings) -> tuple[float, ...]:
    """Measure, fine-tune, save, and measure what was saved through the scorer that will use it.

    Args:
        settings: composed and checked.

    Returns:
        1 - AUC on the test split of `data`, to minimise.

    Raises:
        DetoxError: what cannot work, before weights load; or a saved classifier that does not
            tell insults from courtesies.
    """
    prepare_process(settings.threads)
    torch.manual_seed(settings.seed)
    resumed = find_resumed(settings)
    clock, device, run_dir = Clock(), resolve_device(settings.device), Path(settings.run_dir)
    place = resolve_classifier(settings.reward_model.path, _KEY, settings.reward_model.revision)
    civil, id2label = classifier_labels(place, settings)
    splits = labelled_splits(settings)
    further = settings.reward_model.test_sets.items()
    sets = {"test": splits["test"]} | {name: test_set(name, at, settings) for name, at in further}
    rows = {name: _digest(texts) for name, texts in {**splits, **sets}.items()}
    resumed.check("data", rows)
    before = _before(place, id2label[civil], sets, settings, device, resumed)
    begun = (resumed, begun_with(settings, data=rows, start=before))
    write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
    with clock("update"):
        outcome = fine_tune_classifier(
            place, (civil, id2label), splits["train"], settings, device, begun
        )
    folder = run_dir / CLASSIFIER
    learned = _describe(splits["train"], settings)
    write_training_data(folder, learned)
    after = _figures(str(folder), id2label[civil], sets, settings, device)
    scorer = ClassifierScorer(str(folder), label=id2label[civil], device=device, key=_KEY)
    probe = _probe(scorer, settings)
    summary = {
        "schema": 1,
        "stage": "reward_model",
        "path": settings.reward_model.path,
        "data": settings.data.path,
        "seed": settings.seed,
        "labels": {str(index): name for index, name in id2label.items()},
        "civil": id2label[civil],
        "training": settings.reward_model.training.value,
        "examples": {name: len(split.texts) for name, split in splits.items()},
        "before": before,
        "after": after,
        **probe,
        "scorer": scorer.scorer_id,
        "training_data": {key: one for key, one in vars(learned).items() if key != "sketch"},
        **outcome,
        "seconds": {"total": clock.elapsed(), **clock.total},
        **process_facts(device),
    }
    _write(settings, plain(summary), folder)
    return (1 - float(after["test"].get("auc", 0.0)),)


def _describe(train: LabelledTexts, settings: Settings) -> TrainingData:
    """What the classifier has read, for those who ask which scorers share it."""
    return describe_training(
        settings.data.path, train.texts, train.toxic, train.sources, settings.reward_model.path
    )


def _probe(scorer: ClassifierScorer, settings: Settings) -> dict[str, Any]:
    if not settings.reward.probe:
        return {}
    texts = probe_texts(settings.reward.probe_texts, "reward.probe_texts")
    return {"probe": vars(probe_scorer(scorer, _KEY, texts))}


def _digest(texts: LabelledTexts) -> str:
    return rows_digest(zip(texts.texts, texts.toxic, texts.identities, strict=True))


def _before(
    place: str,
    civil: str,
    sets: dict[str, LabelledTexts],
    settings: Settings,
    device: torch.device,
    resumed: Resumed,
) -> dict[str, Any]:
    """Figures of the classifier as it starts, none where its head is new; kept for a resume."""
    kept = resumed.record.get("start")
    if isinstance(kept, dict):
        return kept
    keeps_head = has_trained_head(place, settings) and not settings.reward_model.new_head
    return _figures(place, civil, sets, settings, device) if keeps_head else {}


def _figures(
    path: str,
    civil: str,
    sets: dict[str, LabelledTexts],
    settings: Settings,
    device: torch.device,
) -> dict[str, Any]:
    scorer = ClassifierScorer(
        path, label=civil, batch_size=settings.reward.batch_size, device=device, key=_KEY
    )
    check_padding(scorer, "reward", "reward_model.path")
    figures: dict[str, Any] = {}
    for name, one in sets.items():
        with phase(f"scoring {name}", len(one.texts), "texts"):
            toxicity = scorer.score([""] * len(one.texts), one.texts).toxicity.tolist()
        figures[name] = classification_figures(toxicity, one.toxic)
        gap = identity_gap(
            toxicity, one.toxic, one.identities, least=settings.reward_model.identity_least
        )
        if gap is not None:
            figures[name]["identity_gap"] = gap
    return figures


def _write(settings: Settings, summary: dict[str, Any], folder: Path) -> None:
    run_dir, rows = Path(settings.run_dir), []
    for when in ("before", "after"):
        for name, figures in summary[when].items():
            gap = figures.get("identity_gap") or {}
            cells = [number(figures.get(key), digits) for key, _, digits in _COLUMNS]
            rows.append([name, when, *cells, number(gap.get("gap"), 3)])
    table = Table(
        columns=["set", "when", *(label for _, label, _ in _COLUMNS), "identity gap"], rows=rows
    )
    notes = [
        "Toxic is the positive class, from a probability of 0.5 on. The identity gap is the "
        "largest minus the smallest false-positive rate over identities that civil texts mention.",
        f"Use it: reward=local reward.path={folder} reward.label={summary['civil']}",
    ]
    write_page(
        run_dir / "report.html",
        title="Reward model",
        tables=[table],
        notes=notes,
        settings_yaml=settings_yaml(settings),
    )
    write_json_atomic(run_dir / "summary.json", summary)
    print_table(table, notes, run_dir, Console(highlight=False))
