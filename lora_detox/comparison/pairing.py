"""What can be compared of several candidates: prompts, scorers, and the start they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lora_detox.comparison.candidates import KEY, Candidate, Prompt, Side
from lora_detox.errors import SettingsError
from lora_detox.metrics import names

_SCORED_BY = {
    names.TOXICITY: ("reward",),
    names.JUDGE_TOXICITY: ("judge",),
    names.LISTED_WORDS: ("word_list",),
    names.JUDGE_AGREEMENT: ("reward", "judge"),
    names.JUDGE_GAP: ("reward", "judge"),
    names.JOINT: ("reward",),
    names.JUDGE_JOINT: ("judge",),
    names.RELEVANCE: ("encoder",),
}
"""Measure -> roles of the scorers that it depends on."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What the numbers of a comparison are made from.

    Attributes:
        prompts: that all candidates answered, in the order of the first.
        toxicity: measure of the verdict: the judge's toxicity where all have the same judge.
        left_out: measures of scorers that differ.
        start: what changes are measured against where all share it; None: each its own start.
        start_name: of that, for people.
        whole: whether every candidate answered these prompts and no others.
        notes: what a reader has to know of it.
    """

    prompts: Sequence[Prompt]
    toxicity: str
    left_out: frozenset[str]
    start: Side | None
    start_name: str
    whole: bool
    notes: Sequence[str]

    def start_of(self, candidate: Candidate) -> Side | None:
        """What the changes of a candidate are measured against."""
        return self.start or candidate.start


def pair(candidates: Sequence[Candidate]) -> Pairing:
    """Find what candidates can be compared by.

    Args:
        candidates: at least one.

    Returns:
        Prompts, measures and start.

    Raises:
        SettingsError: no prompt that all answered, or no scorer that all share.
    """
    prompts = common_prompts(candidates)
    differing = _differing_roles(candidates)
    toxicity = _verdict_measure(candidates, differing)
    left_out = frozenset(
        key for key, roles in _SCORED_BY.items() if any(role in differing for role in roles)
    )
    start, start_name, notes = _shared_start(candidates, prompts)
    whole = all(len(one.result.answers) == len(prompts) for one in candidates)
    return Pairing(
        prompts=prompts,
        toxicity=toxicity,
        left_out=left_out,
        start=start,
        start_name=start_name,
        whole=whole,
        notes=[
            *_smoke_notes(candidates),
            *_prompt_notes(candidates, prompts),
            *_scorer_notes(candidates, differing, toxicity),
            *notes,
        ],
    )


def shared_prompts(candidates: Sequence[Candidate]) -> list[Prompt]:
    """Prompts that every candidate answered, in the order of the first; there may be none."""
    return [
        prompt
        for prompt in candidates[0].result.answers
        if all(prompt in one.result.answers for one in candidates)
    ]


def common_prompts(candidates: Sequence[Candidate]) -> list[Prompt]:
    """Prompts that every candidate answered, in the order of the first.

    Args:
        candidates: at least one.

    Returns:
        With as many responses of each prompt as all have.

    Raises:
        SettingsError: there is none.
    """
    shared = shared_prompts(candidates)
    if not shared:
        asked = "; ".join(
            f"{one.name}: {len(one.result.answers)} of task {one.task}" for one in candidates
        )
        raise SettingsError(
            f"{KEY}: no prompt was answered in all of them ({asked}); want runs on the same data "
            "with the same split, or measure their adapters together with stage=evaluate "
            "evaluation.models=[...]"
        )
    return shared


def comparable_groups(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that were asked the same prompts and measured by the same scorers.

    Args:
        candidates: in any number.

    Returns:
        Groups in the order of their first candidates.
    """
    groups: dict[tuple[object, ...], list[Candidate]] = {}
    for one in candidates:
        scorers = tuple(one.scorers.get(role) for role in ("reward", "judge"))
        groups.setdefault((one.task, scorers, frozenset(one.result.answers)), []).append(one)
    return list(groups.values())


def _differing_roles(candidates: Sequence[Candidate]) -> set[str]:
    roles = {role for one in candidates for role in one.scorers}
    return {role for role in roles if len({one.scorers.get(role) for one in candidates}) > 1}


def _verdict_measure(candidates: Sequence[Candidate], differing: set[str]) -> str:
    for key, role in ((names.JUDGE_TOXICITY, "judge"), (names.TOXICITY, "reward")):
        if role not in differing and all(key in one.result.numbers for one in candidates):
            return key
    ids = "; ".join(
        f"{one.name}: reward {one.scorers.get('reward')}, judge {one.scorers.get('judge')}"
        for one in candidates
    )
    raise SettingsError(
        f"{KEY}: no classifier measured all of them ({ids}), and levels of different classifiers "
        "do not compare; want runs with the same reward or judge, or measure their adapters "
        "together with stage=evaluate evaluation.models=[...]"
    )


def _shared_start(
    candidates: Sequence[Candidate], prompts: Sequence[Prompt]
) -> tuple[Side | None, str, list[str]]:
    """The start that all share, with its name; else a note on what changes are against."""
    with_start = [one for one in candidates if any(_texts(one.start, prompts))]
    if not with_start:
        if len(candidates) == 1:
            return None, "", []
        first = candidates[0]
        note = f"No run measured a start, so changes are against {first.name}."
        return first.result, first.name, [note]
    texts = [_texts(one.start, prompts) for one in with_start]
    if all(one == texts[0] for one in texts):
        start = next((one for one in with_start if one.stage != "evaluate"), with_start[0])
        return start.start, start.start_name, []
    without = [one.name for one in candidates if one.start is None]
    beside = f" {', '.join(without)}: no start was measured." if without else ""
    return (
        None,
        "",
        [
            "The starts differ: their responses to these prompts are not the same (another model, "
            "adapter, decoding or seed). Each change is against the run's own start; compare "
            f"levels.{beside}"
        ],
    )


def _texts(side: Side | None, prompts: Iterable[Prompt]) -> list[str | None]:
    answers = {} if side is None else side.answers
    return [answers[one].text if one in answers else None for one in prompts]


def _smoke_notes(candidates: Sequence[Candidate]) -> list[str]:
    smoke = [one.name for one in candidates if one.settings.get("debug.tiny_model")]
    if not smoke:
        return []
    models = "of every run" if len(smoke) == len(candidates) else f"of {', '.join(smoke)}"
    return [f"Smoke run: the policy {models} is a tiny random model, so its figures mean nothing."]


def _prompt_notes(candidates: Sequence[Candidate], prompts: Sequence[Prompt]) -> list[str]:
    counts = {one.name: len(one.result.answers) for one in candidates}
    tasks = sorted({one.task for one in candidates})
    notes = [f"The runs are of different tasks: {', '.join(tasks)}."] if len(tasks) > 1 else []
    if any(count != len(prompts) for count in counts.values()):
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        notes.append(
            f"Compared on the {len(prompts)} responses to prompts that all have (of {listed}); "
            "measures that cannot be had for these alone are left out."
        )
    return notes


def _scorer_notes(
    candidates: Sequence[Candidate], differing: Iterable[str], toxicity: str
) -> list[str]:
    notes = []
    for role in sorted(differing):
        by_id: dict[str | None, list[str]] = {}
        for one in candidates:
            by_id.setdefault(one.scorers.get(role), []).append(one.name)
        listed = "; ".join(f"{scorer or 'none'}: {', '.join(who)}" for scorer, who in by_id.items())
        words = role.replace("_", " ")
        notes.append(f"The {words} is not the same ({listed}), so its measures are left out.")
    if toxicity == names.TOXICITY:
        notes.append(
            "Toxicity is that of the reward's classifier, by which training is rewarded; a "
            "held-out classifier (judge) of all runs would be stronger evidence."
        )
    if not set(differing):
        notes += sorted({one.shared_training for one in candidates} - {""})
    return notes
