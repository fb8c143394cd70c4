"""Keep responses as long as they were: silence is the cheapest way to be civil."""

from dataclasses import dataclass


@dataclass
class LengthControl:
    """Pays each token what it takes to hold the mean response length (proportional-integral).

    A scorer of toxicity tends to like short text, so the policy learns to say less. With
    e = 1 - length / target, where `length` is the mean of an iteration:
    pressure += gain * e (never below 0), and each token earns max(0, pressure + 2 * gain * e) /
    target, in units of the scaled score. At the target and above the pressure fades.

    Attributes:
        gain: score units per relative error and iteration, > 0.
        target: mean tokens per response to hold, None before the start is known.
        pressure: score units paid to a response of target length.
        token_bonus: what each token earns in the next iteration.
    """

    gain: float
    target: float | None = None
    pressure: float = 0.0
    token_bonus: float = 0.0

    def update(self, length: float) -> None:
        """Learn the mean response length of an iteration, tokens."""
        if self.target is None:
            raise ValueError("the target length is not known; take it from the evaluation before")
        error = 1 - length / self.target
        self.pressure = max(0.0, self.pressure + self.gain * error)
        self.token_bonus = max(0.0, self.pressure + 2 * self.gain * error) / self.target

    def state(self) -> dict[str, float | None]:
        """For a checkpoint."""
        return {"target": self.target, "pressure": self.pressure, "token_bonus": self.token_bonus}

    def restore(self, state: dict[str, float | None]) -> None:
        """Take the state of a checkpoint."""
        self.target = state["target"]
        self.pressure, self.token_bonus = state["pressure"] or 0.0, state["token_bonus"] or 0.0
