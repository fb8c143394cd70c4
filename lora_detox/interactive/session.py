"""Loaded runs and scorers that a prompt is put to, whoever asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_detox.builders.scorers import load_scorers
from lora_detox.interactive.answers import Answer, Question, answers
from lora_detox.interactive.runs import (
    Run,
    Scoring,
    example_prompts,
    first_question,
    load_runs,
)
from lora_detox.machine import resolve_device
from lora_detox.policy.policy import LoraPolicy
from lora_detox.progress import phase
from lora_detox.settings import Settings
from lora_detox.types import Scorer


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one model answered.

    Attributes:
        title: "original", or the name of a run.
        detail: its base, or the strength of its adapter.
        answers: in the order of the draws.
    """

    title: str
    detail: str
    answers: tuple[Answer, ...]

    def toxicity(self, scorer: str) -> float:
        """Mean toxicity by a scorer."""
        return sum(one.toxicity[scorer] for one in self.answers) / len(self.answers)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Everything that is shown of one prompt.

    Attributes:
        question: as it was asked.
        columns: originals first, then one for each run.
        notes: what a reader has to know beside them.
    """

    question: Question
    columns: list[Column]
    notes: list[str]


@dataclass(kw_only=True)
class Session:
    """Runs that answer, with their scorers.

    Attributes:
        runs: what is known of them.
        policies: the same, loaded.
        scorers: by name, "reward" or "judge".
        first: what the first prompt is asked with.
        examples: prompts to pick from.
        remarks: what a reader of all scores has to know.
        asked: how many prompts were answered.
    """

    runs: Sequence[Run]
    policies: Sequence[LoraPolicy]
    scorers: dict[str, Scorer]
    first: Question
    examples: list[str]
    remarks: tuple[str, ...] = ()
    asked: int = 0

    @property
    def has_strength(self) -> bool:
        """Whether every adapter can be used at other strengths than 1."""
        return all(run.fixed_strength is None for run in self.runs)

    def ask(self, question: Question) -> Reply:
        """Put a prompt to every run and to its base; one base is asked once.

        Args:
            question: the prompt, and how it is answered.

        Returns:
            The answers side by side.

        Raises:
            DetoxError: a prompt or a number that cannot be used.
        """
        originals: dict[tuple[object, ...], tuple[Answer, ...]] = {}
        detoxified, was_cut = [], False
        for run, policy in zip(self.runs, self.policies, strict=True):
            known = originals.get(run.reads)
            both = answers(policy, self.scorers, question, run.settings, known)
            was_cut |= both.was_cut
            originals[run.reads] = both.original
            strength = f"strength {question.strength:g}"
            name = "detoxified" if len(self.runs) == 1 else run.name
            detail = f"{run.name}, {strength}" if len(self.runs) == 1 else strength
            detoxified.append(Column(title=name, detail=detail, answers=both.detoxified))
        self.asked += 1
        bases = [self._original(*one) for one in originals.items()]
        cut = "the end of the prompt was cut: the run reads data.max_query_tokens tokens"
        return Reply(
            question=question, columns=[*bases, *detoxified], notes=[cut] if was_cut else []
        )

    def _original(self, reads: tuple[object, ...], given: tuple[Answer, ...]) -> Column:
        """The column of a base; of several bases each says whose it is."""
        own = [run for run in self.runs if run.reads == reads]
        of = "" if len(own) == len(self.runs) else f", of {', '.join(run.name for run in own)}"
        return Column(title="original", detail=f"{own[0].base_name}{of}", answers=given)


def open_session(
    settings: Settings, runs: Sequence[Run], scoring: Scoring, remarks: Sequence[str] = ()
) -> Session:
    """Load runs and scorers.

    Args:
        settings: composed and checked.
        runs: found to be usable.
        scoring: which reward and judge.
        remarks: what a reader of all scores has to know.

    Returns:
        The session.

    Raises:
        DetoxError: what does not load, or a scorer that fails its probe.
    """
    with phase("loading reward and judge"):
        reward, judge = load_scorers(scoring.settings, resolve_device(settings.device))
    named = {"judge" if scoring.judge_alone else "reward": reward}
    if judge is not None:
        named["judge"] = judge
    return Session(
        runs=runs,
        policies=load_runs(runs),
        scorers=named,
        first=first_question(settings, runs[0]),
        examples=example_prompts(runs[0]),
        remarks=tuple(remarks),
    )
