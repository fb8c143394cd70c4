"""The fairness audit of stage=evaluate: several models, each against the first or its own base."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_detox.evaluation.audit import AUDIT, AuditPlan, model_fairness, scorer_fairness
from lora_detox.evaluation.protocol import PromptSet
from lora_detox.evaluation.summary import Answers, shown_strength
from lora_detox.settings import Settings
from lora_detox.types import Evaluation, Scorer


def audit_prompt_set(settings: Settings, plan: AuditPlan) -> list[PromptSet]:
    """The audit's prompts as a set that models are asked; none without an audit.

    Args:
        settings: composed and checked.
        plan: of the audit.

    Returns:
        At most one set, of whole prompts.
    """
    if plan.prompts is None:
        return []
    return [
        PromptSet(
            role=AUDIT,
            name=plan.prompts.name,
            data=settings.data,
            rows=plan.prompts.rows,
            wanted=len(plan.prompts.rows),
            read=plan.prompts.read,
        )
    ]


def is_audited(strength: float | None, strengths: Sequence[float | None]) -> bool:
    """Whether a model is audited at a strength: at 0, and at the one that its numbers are of."""
    known = [one for one in strengths if one is not None]
    return strength is None or strength in (0.0, shown_strength(known))


def audit_summary(
    results: Sequence[Answers], plan: AuditPlan, scorers: tuple[Scorer, Scorer | None]
) -> dict[str, Any]:
    """The entry `fairness` of `summary.json`.

    Args:
        results: of each model, at one strength after the other.
        plan: of the audit.
        scorers: reward and judge.

    Returns:
        `fairness` with `models` (name, strength, `sets` and `verdict` of each) and `scorers`; empty
        where nothing could be audited.
    """
    models = []
    for model in {id(one.model): one.model for one in results}.values():
        points = [one for one in results if one.model is model and one.audit is not None]
        points = points or [one for one in results if one.model is model]
        strengths = [one.strength for one in points if one.strength is not None]
        shown = points[0]
        if strengths:
            shown = next(one for one in points if one.strength == shown_strength(strengths))
        base = next((one for one in points if one.strength == 0), results[0])
        start = {} if base is shown else _sets(base)
        if entry := model_fairness(plan, start, _sets(shown)):
            compared = None if base is shown else base.model.name
            models.append(
                {"model": model.name, "strength": shown.strength, "against": compared, **entry}
            )
    scorer_numbers = scorer_fairness(plan, *scorers)
    entry = {"models": models} if models else {}
    if scorer_numbers is not None:
        entry |= {"scorers": scorer_numbers[0], "scorer_verdict": scorer_numbers[1]}
    return {"fairness": entry} if entry else {}


def _sets(answers: Answers) -> Mapping[str, Evaluation | None]:
    return {AUDIT: answers.audit, **answers.sets}
