"""`PPOTrainer`: every method that old programs call, on the engine of this package.

Functions and small objects of the modules beside this one do the work. The methods here only call
them, and a program may override each. The file is long for the number of these methods alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from lora_detox.advantages import ScoreScaler
from lora_detox.classic import generation, objective, publishing, setup, stats
from lora_detox.classic.advice import Adviser, caution
from lora_detox.classic.checks import (
    check_step_arguments,
    check_trainer_arguments,
    fill_empty_responses,
)
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.core import entropy_from_logits, set_seed
from lora_detox.classic.forward import ResponseReader, forward_both
from lora_detox.classic.kl_control import kl_controller
from lora_detox.classic.layout import Layout, model_inputs
from lora_detox.classic.learning import Accumulation, Experience, Learner, run_epochs
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.classic.reference import reference_model, reference_of
from lora_detox.update.ppo_loss import TokenBatch

REPLACEABLE = ("batched_forward_pass", "train_minibatch", "loss")
"""Methods that a program may have replaced; then they get whole logits, as they used to."""


class PPOTrainer:
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
        check_trainer_arguments(config, model, tokenizer, dataset, lr_scheduler)
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
        self.ref_model = reference_of(model, ref_model, num_shared_layers)
        if self.ref_model is not None:
            setup.place(self.ref_model, self.current_device)
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        prepare = self.accelerator.prepare
        if optimizer is None:
            optimizer = setup.adam(self.model, config.learning_rate)
        self.optimizer: Any = prepare(optimizer)
        self.lr_scheduler = None if lr_scheduler is None else prepare(lr_scheduler)
        self.dataloader = None
        if dataset is None:
            caution(
                "PPOTrainer: No dataset is provided, so there is no dataloader; give every step() "
                "config.batch_size queries, or pass dataset="
            )
        else:
            self.dataloader = prepare(self.prepare_dataloader(dataset, data_collator))
        if self.accelerator.num_processes > 1:
            setup.synchronise(self.model)
        self.kl_ctl = kl_controller(config)
        self.running = ScoreScaler()
        self._accumulation = Accumulation()
        self.current_step = self._steps = 0
        self._best_score = -float("inf")

    def prepare_dataloader(
        self, dataset: Any, data_collator: Callable[..., Any] | None = None
    ) -> Any:
        """A torch data loader of whole batches of `batch_size` rows in random order.

        Of a `datasets.Dataset` only columns that the model takes, `label`, `query` and `response`
        are kept.
        """
        return setup.build_dataloader(dataset, data_collator, self.config, self.model)

    @property
    def strict_trl_masks(self) -> bool:
        """True where the old encoder-decoder mask is reproduced."""
        own = self._strict_trl_masks
        return self.is_encoder_decoder and (self.config.strict_trl_masks if own is None else own)

    @property
    def is_encoder_decoder(self) -> bool:
        """The policy's family."""
        return bool(self.model.encoder_decoder)

    @property
    def pad_id(self) -> int:
        """Id that fills padding; masks never come from it."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(i for i in ids if i is not None))

    @property
    def _layout(self) -> Layout:
        """How rows are padded now: the tokenizer may have changed."""
        config = self.model.backbone.config
        return Layout(
            start_id=int(config.decoder_start_token_id) if self.is_encoder_decoder else None,
            pad_id=self.pad_id,
            padding_side=self.tokenizer.padding_side,
            trl_masks=self.strict_trl_masks,
        )

    @property
    def _reader(self) -> ResponseReader:
        """Forward passes, with the sizes of the config now."""
        return ResponseReader(
            layout=self._layout,
            device=self.accelerator.device,
            rows_per_pass=self.config.mini_batch_size,
            autocast=self.accelerator.autocast if self.casts else nullcontext,
        )

    @property
    def _learner(self) -> Learner:
        """Backward passes and optimizer steps, with the optimizer that the program set."""
        return Learner(
            config=self.config,
            model=self.model,
            optimizer=self.optimizer,
            accelerator=self.accelerator,
            accumulation=self._accumulation,
        )

    def generate(
        self,
        query_tensor: Tensor | list[Tensor],
        length_sampler: Callable[[], int] | None = None,
        batch_size: int = 4,
        return_prompt: bool = True,
        generate_ref_response: bool = False,
        **generation_kwargs: Any,
    ) -> Any:
        """Write responses, with dropout off and LoRA merged into fp32 weights.

        Args:
            query_tensor: token ids of one query, or a list of them.
            length_sampler: draws `max_new_tokens`, for each batch anew.
            batch_size: queries of a list that are answered together.
            return_prompt: leave the query before the response of a decoder-only model.
            generate_ref_response: return the reference's responses too.
            **generation_kwargs: of Transformers' `generate`; `min_length=-1` and `top_k=0.0` too.

        Returns:
            [1, L] for one query, a list of one-dimensional tensors for a list; with
            `generate_ref_response` a pair of these.

        Raises:
            ValueError: a tensor that is not one-dimensional.
        """
        single = isinstance(query_tensor, Tensor)
        queries = [q.to(self.current_device) for q in generation.query_list(query_tensor)]
        options = {"pad_token_id": self.pad_id} | generation_kwargs
        defaults = self.model.backbone.generation_config
        self.adviser.on_generation(options, defaults)
        ends = generation.end_ids(self.tokenizer.eos_token_id, options, defaults)
        task = generation.GenerationTask(
            batch_size=1 if single else batch_size,
            length_sampler=length_sampler,
            eos_ids=() if single else ends,
            return_prompt=return_prompt,
            encoder_decoder=self.is_encoder_decoder,
            pad_id=self.pad_id,
            options=options,
        )
        rows = generation.generate_responses(self.model, queries, task)
        responses = rows[0][None] if single else rows
        if not generate_ref_response:
            return responses
        with reference_model(self.model, self.ref_model) as reference:
            ref_rows = generation.generate_responses(reference, queries, task)
        return responses, ref_rows[0][None] if single else ref_rows

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
        responses, response_masks = self._complete(queries, responses, response_masks)
        score = objective.transform_scores(torch.stack(scores).float(), self.config, self.running)
        self._push_if_best(score)
        # 1. logprobs and values of the policy, logprobs of the reference
        inputs = self.prepare_model_inputs(queries, responses)
        sampled = forward_both(
            lambda model, masks: self.batched_forward_pass(
                model, queries, responses, inputs, self.config.kl_penalty == "full", masks
            ),
            self.model,
            reference_model(self.model, self.ref_model),
            response_masks,
        )
        clock.stop("forward_pass")
        # 2. rewards and advantages of each token
        tensors, non_score, kls = self._estimate(score, sampled, clock)
        # 3. the epochs
        experience = Experience(
            queries=queries, responses=responses, inputs=inputs, tensors=tensors
        )
        parts = run_epochs(experience, self._learner, self._learn)
        clock.stop("optimize_step")
        # 4. the statistics, and the KL coefficient of the next step
        result = self.record_step_stats(
            kl_coef=self.kl_ctl.value,
            scores=score,
            logprobs=sampled["logprobs"],
            ref_logprobs=sampled["ref_logprobs"],
            non_score_reward=non_score,
            train_stats=stats.stacked(parts),
            masks=sampled["masks"],
            queries=queries,
            responses=responses,
            kls=kls,
        )
        return self._finish(result, clock)

    def _step_safety_checker(
        self,
        batch_size: int | None,
        queries: list[Tensor],
        responses: list[Tensor],
        scores: list[Tensor],
        masks: list[Tensor] | None = None,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor] | None]:
        """The arguments of `step` on the device, scores as 0-d tensors, or a ValueError."""
        device = self.current_device
        return check_step_arguments(batch_size, queries, responses, scores, masks, device)

    def _complete(
        self, queries: list[Tensor], responses: list[Tensor], masks: list[Tensor] | None
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Responses of which none is empty, and their masks; warns of known mistakes in them."""
        responses, masks = fill_empty_responses(responses, masks, self.tokenizer.eos_token_id)
        self.adviser.on_responses(queries, responses, self.is_encoder_decoder)
        return responses, masks

    def _push_if_best(self, score: Tensor) -> None:
        """Upload the policy that wrote the best batch so far."""
        options = self.config.push_to_hub_if_best_kwargs
        if not options:
            return
        if self._steps % self.config.compare_steps == 0 and float(score.mean()) > self._best_score:
            self._best_score = float(score.mean())
            self.push_to_hub(**options)

    @torch.no_grad()
    def _estimate(
        self, score: Tensor, sampled: dict[str, Tensor], clock: stats.Clock
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """What the epochs learn from; the rewards without the score, and the penalties."""
        masks = sampled["masks"]
        rewards, non_score, kls = self.compute_rewards(
            score, sampled["policy"], sampled["reference"], masks
        )
        clock.stop("compute_rewards")
        values, advantages, returns = self.compute_advantages(sampled["values"], rewards, masks)
        clock.stop("compute_advantages")
        tensors = {"logprobs": sampled["logprobs"], "values": values, "masks": masks}
        return tensors | {"advantages": advantages, "returns": returns}, non_score, kls

    def _learn(self, minibatch: Experience) -> dict[str, Tensor]:
        """One mini-batch, without whole logits where nobody reads them."""
        queries, responses, inputs = minibatch.queries, minibatch.responses, minibatch.inputs
        extra: dict[str, Tensor] = {}
        if all(self._is_own(name) for name in REPLACEABLE):
            now = self._reader.read(self.model, queries, responses, inputs, with_logits=False)
            logprobs, logits, values = now.logprobs, None, now.values
            extra = {"entropy": now.entropy}
        else:
            logprobs, logits, values, _ = self.batched_forward_pass(
                self.model, queries, responses, inputs, return_logits=True
            )
        then = minibatch.tensors
        past = [then[name] for name in ("masks", "advantages", "returns")]
        return self.train_minibatch(
            then["logprobs"], then["values"], logprobs, logits, values, *past, **extra
        )

    def _is_own(self, name: str) -> bool:
        """False where the program replaced a method."""
        return getattr(type(self), name) is getattr(PPOTrainer, name) and name not in vars(self)

    def _finish(self, result: dict[str, Any], clock: stats.Clock) -> dict[str, Any]:
        """Move the KL coefficient and the learning rate; numbers as floats and arrays."""
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

    def prepare_model_inputs(
        self, queries: Sequence[Tensor], responses: Sequence[Tensor]
    ) -> BatchEncoding:
        """Padded ids and masks that the model reads; see `layout.model_inputs`."""
        return model_inputs(queries, responses, self._layout)

    def batched_forward_pass(
        self,
        model: PreTrainedModelWrapper,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        model_inputs: Any,
        return_logits: bool = False,
        response_masks: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Logprobs, logits, values and mask of responses, `mini_batch_size` rows at a time.

        Dropout is off, with and without gradients. Numbers outside the mask are 0. Each has T-1
        columns, where T is the width of what the model (or its decoder) reads; logits are
        [B, T-1, V], or None without `return_logits`. See `forward.ResponseReader`.
        """
        reader = self._reader
        read = reader.read(model, queries, responses, model_inputs, with_logits=return_logits)
        mask = reader.mask(queries, responses, model_inputs, response_masks)
        return read.logprobs, read.logits, read.values, mask

    def _kl_penalty(self, logprob: Tensor, ref_logprob: Tensor) -> Tensor:
        """The penalty `config.kl_penalty` of each token, nats; see `objective.kl_per_token`."""
        return objective.kl_per_token(self.config.kl_penalty, logprob, ref_logprob)

    def compute_rewards(
        self, scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rewards, their part without the score, and the KL penalty in nats, each [B, R].

        The logprobs are [B, R], or [B, R, V] for the "full" penalty. See `objective.rewards_of`.
        """
        kls = self._kl_penalty(logprobs, ref_logprobs)
        return *objective.rewards_of(scores, kls, masks, self.kl_ctl.value), kls

    def compute_advantages(
        self, values: Tensor, rewards: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, whitened advantages and returns [B, R]; see `objective.advantages_of`."""
        return objective.advantages_of(values, rewards, mask, self.config)

    def loss(  # noqa: PLR0913 - as programs call it
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logits: Tensor | None,
        vpreds: Tensor,
        logprobs: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
        *,
        entropy: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Policy loss, `vf_coef` * value loss, and statistics of a mini-batch.

        `old_logprobs` and `values` are those of sampling, `logprobs` and `vpreds` those of now,
        each [B, R]. `logits` [B, R, V] serve the entropy only, unless `entropy` [B, R] is given.
        See `objective.bounded_loss`.
        """
        if entropy is None:
            entropy = old_logprobs if logits is None else entropy_from_logits(logits.detach())
        batch = TokenBatch(
            logprobs=old_logprobs,
            values=values,
            advantages=advantages,
            returns=returns,
            mask=mask != 0,
        )
        return objective.bounded_loss(self.config, logprobs, vpreds, entropy, batch)

    def train_minibatch(  # noqa: PLR0913 - as programs call it
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logprobs: Tensor,
        logits: Tensor | None,
        vpreds: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
        *,
        entropy: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Backward of one mini-batch, and an optimizer step when enough have accumulated.

        The arguments are those of `loss`, whose statistics it returns.
        """
        extra = {} if entropy is None else {"entropy": entropy}
        policy, value, statistics = self.loss(
            old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns, **extra
        )
        self._learner.learn(policy + value)
        return statistics

    def record_step_stats(self, kl_coef: float, **data: Any) -> dict[str, Any]:
        """Statistics of a step, tensors or floats by name; `data` as in `stats.step_stats`."""
        result = stats.step_stats(kl_coef, data)
        self.adviser.on_kl(float(result["objective/kl"]))
        return result

    def gather_stats(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Means over all processes of those statistics that are scalar tensors."""
        return publishing.gather_means(stats, self.accelerator)

    def log_stats(
        self,
        stats: Mapping[str, Any],
        batch: Mapping[str, Any],
        rewards: Sequence[Tensor] | Tensor,
        columns_to_log: Iterable[str] = ("query", "response"),
    ) -> None:
        """Send the numbers of a step to the trackers of `log_with`.

        `batch` has `query` and `response` texts; Weights & Biases shows `columns_to_log` of it in a
        table. See `publishing.log_to_trackers`.
        """
        self.current_step += 1
        columns = tuple(columns_to_log) if self.config.log_with == "wandb" else None
        scores = [float(reward) for reward in rewards]
        publishing.log_to_trackers(
            self.accelerator, self.current_step, stats, batch, scores, columns
        )

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write model (or adapter and value head), tokenizer and model card."""
        if not self.accelerator.is_main_process:
            return
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(str(save_directory))
        self.create_model_card(save_directory)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload what `save_pretrained` writes; `kwargs` as `token` or `private` of the hub."""
        return publishing.upload(self.save_pretrained, repo_id, **kwargs)

    def create_model_card(self, path: str | Path, model_name: str | None = None) -> None:
        """Write `README.md` into a folder; the title is `model_name`, or the folder's name."""
        publishing.write_model_card(
            Path(path),
            model_name or Path(path).resolve().name,
            base=str(getattr(self.model.config, "_name_or_path", "") or ""),
            adapter=self.model.is_peft_model,
            encoder_decoder=self.model.encoder_decoder,
        )
