"""Where Hydra looks for plugins: `hydra/sweeper=optuna` (conf/hydra/sweeper/optuna.yaml)."""

from lora_detox.tuning.sweeper import StudySweeper


class OptunaSweeper(StudySweeper):
    """See `lora_detox.tuning.sweeper`; Hydra takes plugins from packages of this name alone."""
