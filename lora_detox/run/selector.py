"""Which state of training is the result: the best inside the budget, or the last good one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lora_detox.errors import DivergenceError
from lora_detox.metrics import names
from lora_detox.report.wording import RAN_TO_THE_END, means_of
from lora_detox.run.state import TrainingState
from lora_detox.update import Budget, CollapseGuard

COLLAPSE, OUTSIDE, TARGET = "collapse", "budget", "target"
"""Values of `stopped`, beside "iterations"."""
_BEST, _GOOD, _EVALUATED = "best", "good", "evaluated"
_VALIDATION = "validation"
"""Key of the summary: means on validation prompts of the state that is the result."""


class _Tried(NamedTuple):
    """A state at another strength: whether it is inside, its loss, and both in words."""

    inside: bool
    loss: float
    message: str


class CheckpointSelector:
    """Keeps the best and the last good state, and says when training has to end.

    Candidates are the states that were evaluated on validation prompts. Of those whose measures
    are inside the budget, the one with the least toxicity by the reward's classifier is kept, of
    rewrites the one with the highest J by it: the held-out classifier (`judge`) has no part in any
    choice. The start is inside by definition, so
    it is the result where nothing else is.

    Args:
        state: what training changes.
        budget: bounds; without any, the last iteration is the result.
        guard: collapse guard; None lets a run that diverged end with its error.
        target: end when the kept state has at most this toxicity; None never does.
        patience: end after this many evaluations in a row outside; None never does.
        ships_end: the newest evaluated state is the result, inside the bounds or not.
    """

    def __init__(
        self,
        state: TrainingState,
        budget: Budget,
        guard: CollapseGuard | None,
        *,
        target: float | None = None,
        patience: int | None = None,
        ships_end: bool = False,
    ) -> None:
        self.guard, self.budget = guard, budget
        self.stopped: str | None = None
        self._state, self._target, self._patience = state, target, patience
        self._ships_end = ships_end
        self._start: dict[str, Any] = {}
        self._chosen: dict[str, Any] = {}
        self._rollbacks: list[dict[str, Any]] = []
        self._between: list[dict[str, float]] = []
        self._outside = 0
        self._latest: dict[str, float] = {}

    def begin(self, evaluation: Mapping[str, Any]) -> None:
        """Learn what the start is like on validation prompts, and keep it."""
        self._start = means_of(evaluation)
        self._latest = self._start
        self._choose(0)
        if self.budget.bounds:
            self._state.keep_as(_BEST, 0, to_go_on=False)
        if self.guard is not None:
            self._state.keep_as(_GOOD, 0)

    def consider(self, done: int, row: dict[str, Any]) -> str | None:
        """Look at an iteration: go back, keep it, or let training go on.

        Args:
            done: iterations behind.
            row: of metrics.jsonl, with `evaluation` where there was one; gets `guard` where the
                run went back.

        Returns:
            What happened, in words, where a person should know.
        """
        evaluation = row.get("evaluation")
        now = means_of(evaluation) if evaluation else None
        if self.guard is not None:
            wrong = self.guard.look(row)
            if now is not None and wrong is None:
                judged = (s.get(names.JUDGE_TOXICITY) for s in (now, self._start))
                wrong = self.guard.look(now, self._start) or self.guard.look_judged(row, *judged)
            if wrong is not None:
                return self.roll_back(done, wrong, row)
        if now is None:
            return None
        self._latest = now
        self.budget.correct(now, self._start)
        if self.guard is not None:
            self._state.keep_as(_GOOD, done)
        outside = self.compare(done, now) if self.budget.bounds else None
        return None if outside is None else f"iteration {done}: {outside}"

    def roll_back(self, done: int, wrong: str, row: dict[str, Any]) -> str:
        """Take the last good state, with smaller steps and a higher KL coefficient; or give up.

        Args:
            done: iterations behind.
            wrong: what was seen.
            row: gets it as `guard`.

        Returns:
            What happened, in words.

        Raises:
            DivergenceError: there is no collapse guard.
        """
        if self.guard is None:
            raise DivergenceError(wrong)
        iteration = self._state.put_back(_GOOD)
        row["guard"] = wrong
        self._rollbacks.append({"iteration": done, "to": iteration, "reason": wrong})
        if self.guard.used >= self.guard.retries:
            self.stopped = COLLAPSE
            return f"iteration {done}: {wrong}; back to iteration {iteration}, and no retry is left"
        self.guard.used += 1
        return (
            f"iteration {done}: {wrong}; back to iteration {iteration} with learning rate x "
            f"{self.guard.step_factor:g}, kl_coef x {self.guard.kl_factor:g}"
        )

    def scale(
        self,
        done: int,
        measure: Callable[[], Mapping[str, Any]],
        *,
        fallback: Sequence[float],
        extrapolation: Sequence[float] = (),
    ) -> Iterator[str]:
        """Training is over: try updates at other strengths; all states inside are candidates.

        An end outside the budget is followed back until a state is inside, or more toxic than the
        best of training: further back there is only more of it. The best evaluated state of
        training, which may be an earlier one, is followed further until one is outside. Nothing
        happens where the end is the result anyway, or has collapsed.

        Args:
            done: iterations behind.
            measure: evaluates what the run would ship on validation prompts.
            fallback: fractions of the way from the start to the end, falling, in (0, 1).
            extrapolation: strengths of the best evaluated state's update, rising, above 1.

        Yields:
            What each state is like, in words.
        """
        if self._ships_end or self.stopped == COLLAPSE or not self.budget.bounds:
            return
        best, kept = self._chosen["chosen_iteration"], self._state.snapshots[_BEST]
        if self._outside:
            for fraction in self._state.interpolate(fallback):
                tried = self._try(done, fraction, measure)
                yield f"{fraction:.0%} of the way: {tried.message}"
                if tried.inside or tried.loss > _loss(self._chosen):
                    break
        if not best:  # the start, which has no update
            return
        self._state.snapshots[_EVALUATED] = kept
        self._state.put_back(_EVALUATED)
        for strength in self._state.interpolate(extrapolation):
            tried = self._try(best, strength, measure)
            yield f"iteration {best} at {strength:.0%} of its strength: {tried.message}"
            if not tried.inside:
                break

    def _try(self, done: int, fraction: float, measure: Callable[[], Mapping[str, Any]]) -> _Tried:
        """Measure a state as a candidate."""
        now = means_of(measure())
        excess = self.compare(done, now, fraction)
        tried = {"iteration": done, "share": fraction, names.TOXICITY: now[names.TOXICITY]}
        self._between.append(tried | {n: now[n] for n in self.budget.bounds if n in now})
        message = f"toxicity {now[names.TOXICITY]:.3f}, {excess or 'inside the budget'}"
        return _Tried(inside=excess is None, loss=_loss(now), message=message)

    def load_best(self) -> None:
        """Training is over: take the best state inside the bounds; without any, the last."""
        self.stopped = self.stopped or RAN_TO_THE_END
        if self.budget.bounds:
            self._state.put_back(_BEST)
        self._state.load_result()

    def outcome(self) -> dict[str, Any]:
        """What the summary says of all this."""
        chosen = {key: value for key, value in self._chosen.items() if key != _VALIDATION}
        shipped = self._chosen.get(_VALIDATION, {}) if self.budget.bounds else self._latest
        outcome: dict[str, Any] = {"stopped": self.stopped, _VALIDATION: shipped}
        if self.budget.bounds:
            bounds, start = self.budget.bounds, self._start
            measured = set(start) | {names.REF_KL}
            limits = {n: b.limit(start.get(n, 0.0)) for n, b in bounds.items() if n in measured}
            most = {n: b.upper(start.get(n, 0.0)) for n, b in bounds.items() if n in measured}
            outcome["budget"] = {
                "bounds": {n: v for n, v in limits.items() if v > 0 or (v == 0 and not most[n])},
                "most": {n: v for n, v in most.items() if v is not None},
                "start": {n: v for n, v in self._start.items() if n in bounds},
                **chosen,
                "between": self._between,
                "multipliers": {n: c.multiplier for n, c in self.budget.constraints.items()},
            }
        if self.guard is not None:
            outcome["guard"] = {"retries": self.guard.retries, "rollbacks": self._rollbacks}
        return outcome

    def _choose(
        self, done: int, now: Mapping[str, float] | None = None, fraction: float = 1.0
    ) -> None:
        now = self._start if now is None else now
        self._chosen = {
            "chosen_iteration": done,
            "chosen_share": fraction,
            **{n: now[n] for n in (names.TOXICITY, names.JOINT) if n in now},
            "measured": {n: now[n] for n in self.budget.bounds if n in now},
            _VALIDATION: dict(now),
        }

    def compare(self, done: int, now: Mapping[str, float], fraction: float = 1.0) -> str | None:
        """Keep the state if it is the best inside; end where that is asked for.

        Args:
            done: iterations behind.
            now: measures on validation prompts.
            fraction: of the way from the start to the end of training.

        Returns:
            By how much it is outside, in words; None inside.
        """
        excess = self.budget.excess(now, self._start)
        inside = all(outside <= 0 for outside in excess.values())
        self._outside = 0 if inside else self._outside + 1
        best = inside and _loss(now) <= _loss(self._chosen)
        if best or self._ships_end:
            self._choose(done, now, fraction)
            self._state.keep_as(_BEST, done, to_go_on=False)
        if self._target is not None and inside and now[names.TOXICITY] <= self._target:
            self.stopped = TARGET
        if self._patience is not None and self._outside >= self._patience:
            self.stopped = OUTSIDE
        if inside:
            return None
        worst = max(excess, key=lambda name: excess[name])
        return f"outside the budget, {worst} by {100 * excess[worst]:.1f} %"

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "start": self._start,
            "chosen": self._chosen,
            "latest": self._latest,
            "rollbacks": self._rollbacks,
            "outside": self._outside,
            "stopped": self.stopped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self._start, self._chosen = dict(state["start"]), dict(state["chosen"])
        self._latest = dict(state.get("latest", {}))  # which checkpoints of before have not
        self._rollbacks, self._outside = list(state["rollbacks"]), state["outside"]
        self.stopped = state["stopped"]


def _loss(measures: Mapping[str, float]) -> float:
    """What the best state has least of: toxicity, or 1 - J where responses are rewrites."""
    joint = measures.get(names.JOINT)
    return measures[names.TOXICITY] if joint is None else 1 - joint
