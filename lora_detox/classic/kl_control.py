"""The KL controllers under their old names: `value` is the engine's `kl_coef`."""

from lora_detox.classic.config import PPOConfig
from lora_detox.update.kl_control import AdaptiveKl, FixedKl


class FixedKLController:
    """A KL coefficient that stays.

    Args:
        kl_coef: the coefficient, in units of the score per nat.
    """

    def __init__(self, kl_coef: float) -> None:
        self.control: FixedKl | AdaptiveKl = FixedKl(kl_coef)

    @property
    def value(self) -> float:
        """The KL coefficient, in units of the score per nat."""
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
        init_kl_coef: first KL coefficient, in units of the score per nat.
        target: mean KL per response to aim at, nats.
        horizon: samples over which an error of 20 % or more moves the coefficient by 20 %.
    """

    def __init__(self, init_kl_coef: float, target: float, horizon: float) -> None:
        self.control = AdaptiveKl(kl_coef=init_kl_coef, target=target, horizon=horizon)


def kl_controller(config: PPOConfig) -> FixedKLController:
    """The controller that a config chooses."""
    if config.adap_kl_ctrl:
        return AdaptiveKLController(config.init_kl_coef, config.target, config.horizon)
    return FixedKLController(config.init_kl_coef)
