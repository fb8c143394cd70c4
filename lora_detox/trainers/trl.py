"""TRL's DPO, GRPO and RLOO trainers on our policy, prompts and scorer.

Prompts and pairs go in as the ids that our policy read and sampled: text that is encoded again may
split elsewhere, and TRL would add an end to responses that were cut at their bound.
"""

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from lora_detox.choices import Schedule, TrainerKind
from lora_detox.errors import DivergenceError
from lora_detox.metrics import names
from lora_detox.run.job import Job
from lora_detox.scores import score_prompts
from lora_detox.trainers.groups import preference_pairs, score_groups
from lora_detox.types import PromptBatch

_LOGGED = {
    "loss": "loss",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
    "reward": names.SCORE,
    "entropy": "entropy",
    "kl": "token_kl",
    "completions/mean_length": names.RESPONSE_TOKENS,
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "pair_accuracy",
}
"""TRL's names -> ours, for metrics.jsonl."""


class TrlLog(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Rows of metrics.jsonl out of what a trainer of TRL logs, and a line for the terminal.

    Args:
        record: takes the rows.
        steps: optimizer steps that count as one iteration.
        more: further entries of a row, asked for at each.
    """

    def __init__(
        self,
        record: Callable[[dict[str, Any]], None],
        steps: int,
        more: Callable[[], dict[str, Any]],
    ) -> None:
        self._record, self._steps, self._more = record, steps, more

    def on_log(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Pass on what was logged since the last time."""
        logs = keywords.get("logs") or {}
        numbers = {
            ours: float(logs[key]) for key, ours in _LOGGED.items() if logs.get(key) is not None
        }
        if "loss" not in numbers:
            return
        done, total = state.global_step // self._steps, state.max_steps // self._steps
        text = "  ".join(
            f"{key} {numbers[key]:.3f}"
            for key in ("loss", names.SCORE, "pair_accuracy")
            if key in numbers
        )
        Console(highlight=False).print(f"{done}/{total}  {text}", markup=False)
        self._record({"iteration": done, **numbers, **self._more()})


class IdsDpoTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on pairs that are ids already."""

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset


class _OurPrompts:
    """Reads prompts as the ids that our policy reads, and tells the time of sampling."""

    prompt_ids: dict[str, list[int]]
    job: Job

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self.prompt_ids[prompt]) for prompt in prompts], None, {}

    def _generate(self, prompts: list[str]) -> Any:
        with self.job.clock("generate"):
            return super()._generate(prompts)  # type: ignore[misc]  # of the trainer beside this


class IdsGrpoTrainer(_OurPrompts, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer on our prompts."""


class IdsRlooTrainer(_OurPrompts, RLOOTrainer):  # type: ignore[misc]
    """RLOOTrainer on our prompts."""


class TrlReward:
    """Our reward as a function of TRL's signature; counts what it scored.

    Args:
        job: reward and clock are used.
    """

    __name__ = "reward"

    def __init__(self, job: Job) -> None:
        self._job, self.scored = job, 0
        self._toxicity: list[float] = []

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores of the completions, read from their ids as everywhere; columns come with the rows.

        TRL's own text would show an end token that the tokenizer does not call special.
        """
        ids = self._job.encoded.test.query_ids[:0]
        completions = self._job.policy.decode_rows([list(one) for one in columns["completion_ids"]])
        batch = PromptBatch(
            texts=list(prompts),
            query_ids=ids,
            query_mask=ids.bool(),
            references=columns["references"],
            row_ids=columns["row_ids"],
            sources=columns["sources"],
        )
        with self._job.clock("score"):
            scores = score_prompts(self._job.reward, batch, completions)
        self.scored += len(completions)
        self._toxicity += scores.toxicity.tolist()
        values: list[float] = scores.score.tolist()
        return values

    def toxicity(self) -> dict[str, float]:
        """Mean toxicity of what was scored since the last call, as an entry of a row."""
        seen, self._toxicity = self._toxicity, []
        return {names.TOXICITY: sum(seen) / len(seen)} if seen else {}


def train(job: Job) -> dict[str, Any]:
    """Train with the trainer that `algorithm.trainer.kind` names.

    Args:
        job: whose adapter learns.

    Returns:
        Facts for the summary, and `last`, the number of the last row.
    """
    if job.settings.algorithm.trainer.kind is TrainerKind.trl_dpo:
        return _dpo(job)
    return _online(job)


def _dpo(job: Job) -> dict[str, Any]:
    trainer_settings = job.settings.algorithm.trainer
    groups = list(score_groups(job))
    pairs = preference_pairs(groups, trainer_settings.least_gap)
    rows = [
        {"prompt_ids": one.query_ids, "chosen_ids": one.chosen, "rejected_ids": one.rejected}
        for one in pairs
    ]
    trainer = IdsDpoTrainer(
        model=job.policy.model,
        args=DPOConfig(
            **_common(job, steps_per_iteration=1),
            num_train_epochs=trainer_settings.epochs,
            beta=trainer_settings.beta,
            max_length=None,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=job.policy.tokenizer,
        callbacks=[TrlLog(job.record, 1, dict)],
    )
    steps = _run(job, trainer)
    return {
        "scored_samples": sum(len(group.scores) for group in groups),
        "pairs": len(pairs),
        "groups_without_pair": len(groups) - len(pairs),
        "optimizer_steps": steps,
        "last": steps,
    }


def _online(job: Job) -> dict[str, Any]:
    settings, algorithm = job.settings, job.settings.algorithm
    size = algorithm.responses_per_prompt
    batches = [job.prompts(iteration) for iteration in range(algorithm.iterations)]
    steps = algorithm.rollout_batch_size // algorithm.minibatch_size * algorithm.ppo_epochs
    grpo = algorithm.trainer.kind is TrainerKind.trl_grpo
    config, trainer_class = (GRPOConfig, IdsGrpoTrainer) if grpo else (RLOOConfig, IdsRlooTrainer)
    reward = TrlReward(job)
    least = settings.generation.min_new_tokens
    trainer = trainer_class(
        model=job.policy.model,
        reward_funcs=reward,
        args=config(
            **_common(job, steps_per_iteration=steps),
            max_steps=algorithm.iterations * steps,
            beta=algorithm.trainer.beta,
            epsilon=algorithm.clip_range,
            num_iterations=algorithm.ppo_epochs,
            num_generations=size,
            generation_batch_size=algorithm.rollout_batch_size,
            shuffle_dataset=False,
            max_completion_length=settings.generation.response_tokens[1],
            temperature=settings.generation.temperature,
            top_k=settings.generation.top_k,
            top_p=settings.generation.top_p,
            generation_kwargs={"min_new_tokens": least} if least else None,
        ),
        train_dataset=Dataset.from_list([row for batch in batches for row in _rows(batch)[::size]]),
        processing_class=job.policy.tokenizer,
        callbacks=[TrlLog(job.record, steps, reward.toxicity)],
    )
    trainer.job = job
    trainer.prompt_ids = {
        text: ids[mask].tolist()
        for batch in batches
        for text, ids, mask in zip(batch.texts, batch.query_ids, batch.query_mask, strict=True)
    }
    done = _run(job, trainer)
    wanted = algorithm.iterations * algorithm.rollout_batch_size
    if reward.scored != wanted:
        raise DivergenceError(f"TRL scored {reward.scored} responses, want {wanted}")
    return {"scored_samples": reward.scored, "optimizer_steps": done, "last": algorithm.iterations}


def _rows(batch: PromptBatch) -> list[dict[str, Any]]:
    return [
        {"prompt": text, "references": references, "row_ids": row_id, "sources": source}
        for text, references, row_id, source in zip(
            batch.texts, batch.references, batch.row_ids, batch.sources, strict=True
        )
    ]


def _run(job: Job, trainer: Any) -> int:
    """Train; time inside the trainer that is neither sampling nor scoring is the update."""
    trainer.remove_callback(PrinterCallback)
    _complete_reference(job.policy.model)
    with job.clock("update"):
        trainer.train()
    return int(trainer.state.global_step)


@torch.no_grad()
def _complete_reference(model: Any) -> None:
    """TRL copies to its reference what is named `.default.` and misses rows of trained tokens."""
    tensors = dict(model.named_parameters())
    for name, parameter in tensors.items():
        if name.endswith(".default") and (other := name[: -len("default")] + "ref") in tensors:
            tensors[other].copy_(parameter)


def _common(job: Job, *, steps_per_iteration: int) -> dict[str, Any]:
    """Arguments that every trainer of TRL takes."""
    settings, algorithm = job.settings, job.settings.algorithm
    warmup, schedule = algorithm.warmup_iterations * steps_per_iteration, algorithm.schedule
    name = "constant_with_warmup" if schedule is Schedule.constant else schedule.value
    return {
        "output_dir": str(job.run_dir / "checkpoints"),
        "learning_rate": algorithm.learning_rate,
        "lr_scheduler_type": name,
        "warmup_steps": warmup,
        "weight_decay": algorithm.expert.weight_decay,
        "max_grad_norm": algorithm.max_grad_norm or 0.0,
        "per_device_train_batch_size": algorithm.microbatch_size,
        "gradient_accumulation_steps": algorithm.minibatch_size // algorithm.microbatch_size,
        "gradient_checkpointing": settings.policy.gradient_checkpointing,
        "logging_steps": steps_per_iteration,
        "save_strategy": "no",
        "report_to": [],
        "seed": settings.seed,
        "bf16": False,  # the policy's dtype is set where it is loaded
        "fp16": False,
        "use_cpu": job.device.type == "cpu",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }
