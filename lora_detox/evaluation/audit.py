"""The fairness audit of a run: whom its model speaks of less, and whom its scorers wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_detox.builders.audit import (
    EMBEDDED,
    AuditPrompts,
    AuditTexts,
    audit_prompts,
    audit_texts,
)
from lora_detox.builders.audit_groups import grouped
from lora_detox.evaluation.evaluator import Evaluator
from lora_detox.evaluation.fairness_verdict import scorer_verdict, set_verdict
from lora_detox.metrics import names
from lora_detox.metrics.bootstrap import CONFIDENCE
from lora_detox.metrics.classification import identity_gap
from lora_detox.metrics.fairness import audit_by_group, gap_by_group, mean_interval
from lora_detox.scores import toxicity_scorer
from lora_detox.settings import Settings
from lora_detox.types import Evaluation, PromptBatch, Scorer

AUDIT, DATA = "audit", "data"
"""Names of the audited sets: the prompts of `evaluation.audit`, and test prompts that name groups.
"""
AUDIT_FILE = "audit.jsonl"
Numbers = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """What a run is audited with.

    Attributes:
        prompts: about groups of people; None without `evaluation.audit`.
        texts: civil texts about them; None without `evaluation.audit_texts`.
        column: that names the group of a test prompt.
        least: prompts that a group needs to be judged.
    """

    prompts: AuditPrompts | None
    texts: AuditTexts | None
    column: str
    least: int

    @property
    def rows(self) -> list[Any]:
        """Rows of the audit's own prompts."""
        return [] if self.prompts is None else self.prompts.rows

    @property
    def keeps_answers(self) -> bool:
        """Whether the answers are written down: those to prompts of a user's own."""
        return self.prompts is not None and self.prompts.name != EMBEDDED

    def about(self, name: str) -> tuple[str, str]:
        """Data and column of an audited set."""
        if name == AUDIT and self.prompts is not None:
            return self.prompts.name, self.prompts.column
        return name, self.column


def audit_plan(settings: Settings) -> AuditPlan:
    """Read what a run is audited with.

    Args:
        settings: composed and checked.

    Returns:
        Prompts and texts, each where the settings name any.

    Raises:
        DataError: a file is missing or has nothing usable.
    """
    return AuditPlan(
        prompts=audit_prompts(settings),
        texts=audit_texts(settings),
        column=settings.evaluation.audit_group,
        least=settings.evaluation.audit_least,
    )


def audited(evaluator: Evaluator, prompts: PromptBatch | None, what: str) -> Evaluation | None:
    """Answer the prompts of an audit, with draws of their own.

    Toxicity is that of the classifiers alone: functions and other terms of the reward are not
    called.

    Args:
        evaluator: of the run.
        prompts: about groups of people; None has none.
        what: is done, as the progress shows it.

    Returns:
        The evaluation, with perplexity in every task.
    """
    if prompts is None:
        return None
    own = replace(
        evaluator,
        reward=toxicity_scorer(evaluator.reward),
        encoder=None,
        perplexity=True,
        rewrites=False,
    )
    return own(prompts, what)


def model_fairness(
    plan: AuditPlan,
    before: Mapping[str, Evaluation | None],
    after: Mapping[str, Evaluation | None],
) -> Numbers:
    """How a model treats groups, on each set of prompts that names any.

    Args:
        plan: of the audit.
        before: set -> evaluation that it is compared with; a set without one compares groups
            alone.
        after: set -> evaluation of the model.

    Returns:
        `sets` (name -> what `audit_by_group` measured, with `data`, `column` and `verdict`) and
        `verdict`: their sentences. Empty where no prompt names a group.
    """
    sets: Numbers = {}
    for name, evaluation in after.items():
        data, column = plan.about(name)
        if evaluation is None or (about := grouped(evaluation.columns, column)) is None:
            continue
        start = before.get(name)
        if start is not None and list(start.prompts) != list(evaluation.prompts):
            start = None  # another tokenizer cuts prompts elsewhere: nothing to pair
        entry = audit_by_group(start, evaluation, about, least=plan.least)
        sets[name] = {"data": data, "column": column, **entry}
        sets[name]["verdict"] = set_verdict(sets[name])
    if not sets:
        return {}
    verdicts = [one["verdict"] for one in sets.values()]
    return {"sets": sets, "verdict": " ".join(verdicts)}


def scorer_fairness(
    plan: AuditPlan, reward: Scorer, judge: Scorer | None
) -> tuple[Numbers, str] | None:
    """Whom reward and judge wrong: civil texts that they call toxic, by whom these mention.

    Args:
        plan: of the audit.
        reward: the scorer of training.
        judge: a held-out classifier, or None.

    Returns:
        Role -> what was measured, and a sentence; None where no texts are audited.
    """
    if plan.texts is None:
        return None
    scorers = {"reward": toxicity_scorer(reward)} | ({"judge": judge} if judge else {})
    measured = {
        role: {
            "scorer": scorer.scorer_id,
            "data": plan.texts.name,
            **_scorer_numbers(scorer, plan.texts, plan.least),
        }
        for role, scorer in scorers.items()
    }
    return measured, scorer_verdict(measured)


def audit_rows(before: Evaluation, after: Evaluation) -> list[Numbers]:
    """Rows of audit.jsonl: both answers to each prompt, with whom it is about.

    Args:
        before: audit prompts answered at the start.
        after: the same at the end.

    Returns:
        One row per prompt.
    """
    rows = []
    for place, prompt in enumerate(after.prompts):
        row: Numbers = {"prompt": prompt, "columns": after.columns[place]}
        for side, one in (("before", before), ("after", after)):
            row[side] = one.responses[place]
            for key in (names.TOXICITY, names.JUDGE_TOXICITY):
                if key in one.per_response:
                    row[f"{key}_{side}"] = one.per_response[key][place]
        rows.append(row)
    return rows


def _scorer_numbers(scorer: Scorer, texts: AuditTexts, least: int) -> Numbers:
    labelled = texts.labelled
    toxicity = _toxicity(scorer, labelled.texts)
    civil = [place for place, toxic in enumerate(labelled.toxic) if not toxic]
    numbers: Numbers = {"civil_texts": len(civil), "least": least}
    gap = identity_gap(toxicity, labelled.toxic, labelled.identities, least=least)
    if gap is not None:
        called = [float(toxicity[place] >= 0.5) for place in civil]
        identities = [labelled.identities[place] for place in civil]
        numbers |= {**gap, **gap_by_group(called, identities, least=least)}
    if texts.swapped:
        numbers["swapped"] = _swapped(scorer, texts, toxicity, civil)
    return numbers


def _swapped(
    scorer: Scorer, texts: AuditTexts, toxicity: Sequence[float], civil: Sequence[int]
) -> Numbers:
    """What changes where a civil text speaks of other identities."""
    differ = [place for place in civil if texts.swapped[place] != texts.labelled.texts[place]]
    other = _toxicity(scorer, [texts.swapped[place] for place in differ])
    pairs = [(toxicity[place], now) for place, now in zip(differ, other, strict=True)]
    changes = [float(now >= 0.5) - float(then >= 0.5) for then, now in pairs]
    interval = mean_interval(changes, CONFIDENCE)
    flipped = sum(change != 0 for change in changes)
    return {
        "texts": len(differ),
        "other_call": flipped / len(differ) if differ else None,
        "mean_difference": sum(abs(now - then) for then, now in pairs) / len(pairs)
        if pairs
        else None,
        "change": {"mean": interval.change, "interval": [interval.low, interval.high]},
    }


def _toxicity(scorer: Scorer, texts: list[str]) -> list[float]:
    if not texts:
        return []
    values: list[float] = scorer.score([""] * len(texts), texts).toxicity.tolist()
    return values
