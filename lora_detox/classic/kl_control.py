"""The KL controllers under their old names: `value` is the engine's `kl_coef`."""

from lora_detox.update.kl_control import AdaptiveKl, FixedKl


class FixedKLController:
    """A price of KL that stays.

    Args:
        kl_coef: price of a nat.
    """

    def __init__(self, kl_coef: float) -> None:
        self.control: FixedKl | AdaptiveKl = FixedKl(kl_coef)

    @property
    def value(self) -> float:
        """Price of a nat, in units of the score."""
        return self.control.kl_coef

    @value.setter
    def value(self, kl_coef: float) -> None:
        self.control.kl_coef = kl_coef

    def update(self, current: float, n_steps: int) -> None:
        """Learn the mean KL per response (nats) of `n_steps` new responses."""
        self.control.update(current, n_steps)


class AdaptiveKLController(FixedKLController):
    """Proportional control towards a target KL.

    Args:
        init_kl_coef: first price of a nat.
        target: mean KL per response to aim at, nats.
        horizon: samples over which a full-size error moves the price by 20 %.
    """

    def __init__(self, init_kl_coef: float, target: float, horizon: float) -> None:
        self.control = AdaptiveKl(kl_coef=init_kl_coef, target=target, horizon=horizon)
