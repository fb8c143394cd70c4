"""`PPOTrainer.generate` and `.step`: old programs on the engine of this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_detox.advantages import ScoreScaler
from lora_detox.classic import setup, stats
from lora_detox.classic.advice import Adviser
from lora_detox.classic.caution import caution
from lora_detox.classic.checks import checked, without_silence
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.core import set_seed
from lora_detox.classic.generation import PPOGeneration
from lora_detox.classic.kl_control import AdaptiveKLController, FixedKLController
from lora_detox.classic.learning import PPOLearning
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.classic.publishing import Publishing


class PPOTrainer(PPOLearning, PPOGeneration, Publishing):
    """Proximal policy optimization with the interface of TRL 0.11.

    Args:
        config: read lazily; may change between steps and serve several trainers.
        model: the policy, with a value head.
        ref_model: what KL is measured against; None for a frozen copy, or for the adapter
            switched off where the policy is a PEFT model.
        tokenizer: for padding; its pad token may be set later.
        dataset: gives `dataloader`.
        optimizer: None for Adam on what is trainable.
        data_collator: of the data loader.
        num_shared_layers: layers of the policy that are frozen and shared with the copy.
        lr_scheduler: stepped once per `step`.
        training_data_collator: accepted and not needed; padding is the trainer's own.
        strict_trl_masks: overrides the config's value.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - as programs call it
        self,
        config: PPOConfig,
        model: Any,
        ref_model: Any = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dataset: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        data_collator: Callable[..., Any] | None = None,
        num_shared_layers: int | None = None,
        lr_scheduler: Any = None,
        training_data_collator: Callable[..., Any] | None = None,
        *,
        strict_trl_masks: bool | None = None,
    ) -> None:
        setup.check_arguments(config, model, tokenizer, dataset)
        assert tokenizer is not None
        set_seed(config.seed)
        self.config, self.tokenizer, self.dataset = config, tokenizer, dataset
        self._strict_trl_masks = strict_trl_masks
        self.adviser = Adviser()
        self.accelerator = setup.build_accelerator(config)
        self.current_device = self.accelerator.device
        self.is_peft_model = bool(model.is_peft_model)
        setup.fill_in(config, model, self.accelerator.num_processes)
        self.adviser.on_model(model, ref_model)
        self.model: PreTrainedModelWrapper = setup.place(model, self.current_device)
        self.casts = not setup.lower(self.model, self.accelerator, config)
        self.ref_model = setup.reference_of(model, ref_model, num_shared_layers)
        if self.ref_model is not None:
            setup.place(self.ref_model, self.current_device)
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self._prepare(optimizer, lr_scheduler, data_collator)
        self.kl_ctl = (
            AdaptiveKLController(config.init_kl_coef, config.target, config.horizon)
            if config.adap_kl_ctrl
            else FixedKLController(config.init_kl_coef)
        )
        self.running = ScoreScaler()
        self.current_step = self._steps = 0
        self._best_score = -float("inf")
        if config.push_to_hub_if_best_kwargs and "repo_id" not in config.push_to_hub_if_best_kwargs:
            raise ValueError("push_to_hub_if_best_kwargs needs a repo_id")

    def _prepare(self, optimizer: Any, scheduler: Any, collator: Any) -> None:
        """Optimizer, scheduler and data loader, each through the accelerator."""
        if optimizer is None:
            trainable = [p for p in self.model.parameters() if p.requires_grad]
            optimizer = torch.optim.Adam(trainable, lr=self.config.learning_rate)
        known = torch.optim.lr_scheduler.LRScheduler
        if scheduler is not None and not isinstance(scheduler, known):
            raise ValueError(f"lr_scheduler must be a torch scheduler, got {type(scheduler)}")
        self.optimizer: Any = self.accelerator.prepare(optimizer)
        self.lr_scheduler = None if scheduler is None else self.accelerator.prepare(scheduler)
        self.dataloader = None
        if self.dataset is None:
            caution(
                "No dataset is provided, so there is no dataloader; every step() must be given "
                "config.batch_size queries."
            )
        else:
            self.dataloader = self.accelerator.prepare(
                self.prepare_dataloader(self.dataset, collator)
            )
        if self.accelerator.num_processes > 1:
            setup.synchronise(self.model)

    def prepare_dataloader(
        self, dataset: Any, data_collator: Callable[..., Any] | None = None
    ) -> Any:
        """Whole batches of `batch_size` rows in random order.

        Args:
            dataset: of torch or of the `datasets` library; of the latter only columns that the
                model takes, `label`, `query` and `response` are kept.
            data_collator: from rows to a batch.

        Returns:
            A torch data loader.
        """
        return setup.build_dataloader(dataset, data_collator, self.config, self.model)

    def _step_safety_checker(
        self,
        batch_size: int | None,
        queries: list[Tensor],
        responses: list[Tensor],
        scores: list[Tensor],
        masks: list[Tensor] | None = None,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor] | None]:
        """The arguments of `step` on the device, scores as 0-d tensors, or a ValueError."""
        return checked(batch_size, queries, responses, scores, masks, self.current_device)

    def step(
        self,
        queries: list[Tensor],
        responses: list[Tensor],
        scores: list[Tensor],
        response_masks: list[Tensor] | None = None,
    ) -> dict[str, Any]:
        """Learn from one batch of responses.

        Args:
            queries: token ids of each query.
            responses: token ids that the policy answered with.
            scores: one number per response, 0-d or of one element; higher is better.
            response_masks: 1 at the response tokens that count.

        Returns:
            Floats and numpy arrays by name.
        """
        clock = stats.Clock()
        self.config.check_sizes()
        queries, responses, scores, response_masks = self._step_safety_checker(
            self.config.batch_size, queries, responses, scores, response_masks
        )
        eos = self.tokenizer.eos_token_id
        responses, response_masks = without_silence(responses, response_masks, eos)
        self.adviser.on_responses(queries, responses, self.is_encoder_decoder)
        score = self._transformed(torch.stack(scores).float())
        self._push_if_best(score)
        # 1. what policy and reference say of the responses
        inputs = self.prepare_model_inputs(queries, responses)
        with torch.no_grad():
            said = self._both_say(queries, responses, inputs, response_masks, self._reference())
        clock.stop("forward_pass")
        # 2. what each token earned
        batch, non_score, kls = self._earned(score, said, clock)
        # 3. the epochs
        parts = self._run_epochs(queries, responses, inputs, batch)
        clock.stop("optimize_step")
        # 4. the numbers, and the price of KL for the next step
        result = self.record_step_stats(
            kl_coef=self.kl_ctl.value,
            scores=score,
            logprobs=said["logprobs"],
            ref_logprobs=said["ref_logprobs"],
            non_score_reward=non_score,
            train_stats=stats.stacked(parts),
            masks=said["masks"],
            queries=queries,
            responses=responses,
            kls=kls,
        )
        return self._finish(result, clock)

    @torch.no_grad()
    def _earned(
        self, score: Tensor, said: dict[str, Tensor], clock: stats.Clock
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """What the epochs learn from; the rewards without the score, and the penalties."""
        masks = said["masks"]
        rewards, non_score, kls = self.compute_rewards(
            score, said["policy"], said["reference"], masks
        )
        clock.stop("compute_rewards")
        values, advantages, returns = self.compute_advantages(said["values"], rewards, masks)
        clock.stop("compute_advantages")
        batch = {"logprobs": said["logprobs"], "values": values, "masks": masks}
        return batch | {"advantages": advantages, "returns": returns}, non_score, kls

    def _transformed(self, score: Tensor) -> Tensor:
        """Scores after scaling, centring and clipping, as the config asks now."""
        config, scaler = self.config, self.running
        scaler.scale, scaler.center = True, config.use_score_norm
        if config.use_score_scaling:
            score = scaler(score)
        if config.score_clip is not None:
            score = score.clamp(-config.score_clip, config.score_clip)
        return score

    def _push_if_best(self, score: Tensor) -> None:
        """Upload the policy that wrote the best batch so far."""
        options = self.config.push_to_hub_if_best_kwargs
        if not options:
            return
        if self._steps % self.config.compare_steps == 0 and float(score.mean()) > self._best_score:
            self._best_score = float(score.mean())
            self.push_to_hub(**options)

    def record_step_stats(self, kl_coef: float, **data: Any) -> dict[str, Any]:
        """Statistics of a step.

        Args:
            kl_coef: price of a nat during the step.
            **data: see `stats.step_stats`.

        Returns:
            Key -> tensor or float.
        """
        result = stats.step_stats(kl_coef, data)
        self.adviser.on_kl(float(result["objective/kl"]))
        return result

    def _finish(self, result: dict[str, Any], clock: stats.Clock) -> dict[str, Any]:
        """Move the price of KL and the learning rate; numbers as floats and arrays."""
        if self.accelerator.num_processes > 1:
            result = self.gather_stats(result)
        numbers = stats.as_numbers(result, stats.ARRAYS)
        clock.stop("calc_stats")
        numbers["ppo/learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        samples = self.config.batch_size * self.accelerator.num_processes
        self.kl_ctl.update(numbers["objective/kl"], samples)
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
        if self.config.optimize_device_cache and torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._steps += 1
        return numbers | clock.times()
