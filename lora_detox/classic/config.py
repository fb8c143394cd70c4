"""The settings of the old trainer: plain, mutable, read when they are needed."""

import os
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from lora_detox.classic.advice import caution

KL_PENALTIES = ("kl", "abs", "mse", "full")


def _program_name() -> str:
    return os.path.basename(sys.argv[0]).removesuffix(".py")


@dataclass
class PPOConfig:
    """Hyperparameters of `PPOTrainer`; names and defaults are those of TRL 0.11.

    The trainer looks values up when it uses them, so a program may change them between steps, and
    several trainers may hold one config. Fields that the trainer fills in are None until then.

    Attributes:
        exp_name: name of the program, for trackers.
        seed: of `random`, numpy and torch, set when a trainer is built.
        log_with: None, "tensorboard", "wandb" or another tracker that accelerate knows.
        task_name: for trackers only.
        model_name: for trackers and programs; the trainer loads nothing.
        query_dataset: for trackers only.
        reward_model: for trackers only.
        remove_unused_columns: drop columns of a `datasets.Dataset` that the model does not take,
            except `label`, `query` and `response`.
        tracker_kwargs: handed to the tracker.
        accelerator_kwargs: handed to `accelerate.Accelerator`.
        project_kwargs: handed to accelerate's project configuration, as `logging_dir`.
        tracker_project_name: project in the tracker.
        push_to_hub_if_best_kwargs: with `repo_id`: upload whenever the mean score is the best yet.
        steps: for programs only.
        learning_rate: of the Adam that is built where no optimizer is given.
        adap_kl_ctrl: adapt the KL coefficient, else keep it.
        init_kl_coef: first KL coefficient, in units of the score per nat.
        kl_penalty: "kl", "abs", "mse" or "full".
        target: mean KL per response that the adaptive coefficient aims at, nats.
        horizon: samples over which an error of 20 % or more moves the coefficient by 20 %.
        gamma: discount in [0, 1].
        lam: lambda of the advantage estimate in [0, 1].
        cliprange: of the probability ratio.
        cliprange_value: of the value, in units of the reward.
        vf_coef: weight of the value loss.
        batch_size: responses per `step`.
        forward_batch_size: old name of `mini_batch_size`; overrides it.
        mini_batch_size: responses per forward pass.
        gradient_accumulation_steps: mini-batches per optimizer step.
        world_size: processes; filled in.
        ppo_epochs: passes over each batch.
        max_grad_norm: bound of the gradient's norm at every optimizer step; None for no bound.
        optimize_cuda_cache: old name of `optimize_device_cache`.
        optimize_device_cache: empty the device's cache after each step.
        early_stopping: end the epochs when KL(old || new) passes 1.5 * `target_kl`.
        target_kl: nats per token.
        compare_steps: how often `push_to_hub_if_best_kwargs` looks.
        ratio_threshold: a mini-batch with a larger mean ratio is left out.
        use_score_scaling: divide scores by their running standard deviation.
        use_score_norm: with scaling, subtract their running mean first.
        score_clip: bound of a score's absolute value, after scaling.
        whiten_rewards: bring the rewards' variance to 1 before the advantages.
        gradient_checkpointing: recompute activations in the backward pass.
        is_encoder_decoder: filled in.
        is_peft_model: filled in.
        backward_batch_size: responses per optimizer step; filled in.
        global_backward_batch_size: the same over all processes; filled in.
        global_batch_size: responses per `step` over all processes; filled in.
        dataset_num_proc: for programs only.
        strict_trl_masks: not in TRL: reproduce its encoder-decoder mask, which leaves out the first
            response token, for comparisons with old runs.
    """

    exp_name: str = field(default_factory=_program_name)
    seed: int = 0
    log_with: str | None = None
    task_name: str | None = None
    model_name: str | None = "gpt2"
    query_dataset: str | None = "imdb"
    reward_model: str | None = "sentiment-analysis:lvwerra/distilbert-imdb"
    remove_unused_columns: bool = True
    tracker_kwargs: dict[str, Any] = field(default_factory=dict)
    accelerator_kwargs: dict[str, Any] = field(default_factory=dict)
    project_kwargs: dict[str, Any] = field(default_factory=dict)
    tracker_project_name: str = "trl"
    push_to_hub_if_best_kwargs: dict[str, Any] = field(default_factory=dict)
    steps: int = 20000
    learning_rate: float = 1.41e-5
    adap_kl_ctrl: bool = True
    init_kl_coef: float = 0.2
    kl_penalty: str = "kl"
    target: float = 6.0
    horizon: float = 10000.0
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    batch_size: int = 128
    forward_batch_size: int | None = None
    mini_batch_size: int = 128
    gradient_accumulation_steps: int = 1
    world_size: int | None = None
    ppo_epochs: int = 4
    max_grad_norm: float | None = None
    optimize_cuda_cache: bool | None = None
    optimize_device_cache: bool = False
    early_stopping: bool = False
    target_kl: float = 1.0
    compare_steps: int = 1
    ratio_threshold: float = 10.0
    use_score_scaling: bool = False
    use_score_norm: bool = False
    score_clip: float | None = None
    whiten_rewards: bool = False
    gradient_checkpointing: bool = False
    is_encoder_decoder: bool | None = None
    is_peft_model: bool | None = None
    backward_batch_size: int | None = None
    global_backward_batch_size: int | None = None
    global_batch_size: int | None = None
    dataset_num_proc: int | None = None
    strict_trl_masks: bool = False

    def __post_init__(self) -> None:
        if self.forward_batch_size is not None:
            caution(
                "PPOConfig: forward_batch_size is the old name of mini_batch_size and overrides "
                f"it; replace it by mini_batch_size={self.forward_batch_size}"
            )
            self.mini_batch_size = self.forward_batch_size
        if self.optimize_cuda_cache is not None:
            if self.optimize_device_cache:
                raise ValueError(
                    "PPOConfig: got optimize_cuda_cache and optimize_device_cache; give only "
                    "optimize_device_cache, the other is its old name"
                )
            self.optimize_device_cache = self.optimize_cuda_cache
        if self.kl_penalty not in KL_PENALTIES:
            known = ", ".join(KL_PENALTIES)
            raise ValueError(f"PPOConfig: kl_penalty is {self.kl_penalty!r}; set one of {known}")
        self.check_sizes()
        self.backward_batch_size = self.mini_batch_size * self.gradient_accumulation_steps
        self.total_ppo_epochs = -(-self.steps // self.batch_size)

    def check_sizes(self) -> None:
        """Raise a ValueError unless whole optimizer steps fill a batch."""
        sizes = (self.batch_size, self.mini_batch_size, self.gradient_accumulation_steps)
        if min(sizes) < 1 or self.batch_size % (sizes[1] * sizes[2]):
            raise ValueError(
                "PPOConfig: `batch_size` must be a multiple of `mini_batch_size * "
                f"gradient_accumulation_steps`, got {sizes[0]}, {sizes[1]} and {sizes[2]}; "
                "mini_batch_size=1, gradient_accumulation_steps=1 divide every batch_size"
            )

    def to_dict(self) -> dict[str, Any]:
        """All values under one level of keys, mappings as `outer/inner`."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                flat.update({f"{name}/{inner}": v for inner, v in value.items()})
            else:
                flat[name] = value
        return flat
