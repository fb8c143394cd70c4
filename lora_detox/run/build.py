"""Settings -> a job: everything that the main path needs, checked in the order of its cost."""

import gc
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_detox.builders.data import encode_prompts
from lora_detox.builders.scorers import check_scorers, load_data, load_scorers
from lora_detox.builders.training import (
    adapter_plan,
    backbone_plan,
    budget_of,
    guard_of,
    kl_control,
    learning_rate_schedule,
    length_correction,
    plan_of,
    running_mean,
    score_scaler,
    step_control,
)
from lora_detox.clock import Clock
from lora_detox.embedded import embedded_path
from lora_detox.embedded.tiny import remove_tiny_policy, write_tiny_policy
from lora_detox.environment import quieten_libraries
from lora_detox.errors import DetoxError
from lora_detox.evaluation.evaluator import Evaluator, repeat_prompts
from lora_detox.machine import resolve_device
from lora_detox.metrics import names, summarise
from lora_detox.metrics.quality import RolloutQuality
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import check_backbone, resolve_dtype
from lora_detox.policy.tokenizer import load_tokenizer
from lora_detox.policy.words import word_starts
from lora_detox.report.jsonl import write_json_atomic
from lora_detox.report.progress import TrainingProgress
from lora_detox.run.opening import announce
from lora_detox.run.record import RunRecord
from lora_detox.run.resume import check_moved, check_same_settings, trained_checksum
from lora_detox.run.selector import Watch
from lora_detox.run.state import TrainingState
from lora_detox.settings import BudgetResult, Settings, Stage, TaskKind
from lora_detox.trainers.best_of_n import check_trainer_fits
from lora_detox.trainers.checkpoints import newest_checkpoint
from lora_detox.types import Evaluation, PromptBatch, Rollout, Sampling
from lora_detox.update import PpoUpdate

EMBEDDED_POLICY = "embedded:policy"


@contextmanager
def build_job(settings: Settings) -> Iterator["Job"]:
    """Check, load and announce; free everything at the end, also after an error.

    Args:
        settings: composed and checked.

    Yields:
        The job, ready to train.

    Raises:
        DetoxError: whatever is wrong with settings, data or models; nothing has been trained.
    """
    try:
        job = Job(settings)
    except DetoxError:
        remove_tiny_policy(Path(settings.run_dir))
        raise
    try:
        yield job
    finally:
        job.close()
        del job
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Job:
    """The parts of one run.

    Built in the order of cost: files and configurations first, then data, then scorers, and the
    policy last, so that what is wrong shows before weights load.

    Args:
        settings: composed and checked.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.clock = settings, Clock()
        self.run_dir = Path(settings.run_dir)
        quieten_libraries()
        check_same_settings(settings, self.run_dir)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.device = resolve_device(settings.device)
        backbone = backbone_plan(settings, self._policy_path())
        check_scorers(settings)
        config = check_backbone(backbone, adapter_plan(settings))
        check_trainer_fits(settings, encoder_decoder=bool(config.is_encoder_decoder))
        self.plan = plan_of(settings, resolve_dtype(backbone, config))
        self.data = load_data(settings)
        tokenizer = load_tokenizer(backbone, config)
        seq2seq = bool(config.is_encoder_decoder)
        encoded = encode_prompts(settings, self.data, tokenizer, encoder_decoder=seq2seq)
        self._sampler, self.validation = encoded.train, encoded.validation.to(self.device)
        self.test_prompts = encoded.test.to(self.device)
        self.reward, self.judge = load_scorers(settings, self.device)
        self.policy = load_policy(backbone, adapter_plan(settings))
        self.policy.static_cache = settings.generation.static_cache
        self._word_starts = word_starts(tokenizer, self.policy.vocabulary).to(self.device)
        self.quantized = backbone.quantization != "none"
        self._adapter_at_start = trained_checksum(self.policy)
        self.base_checksum = self.policy.base_checksum()
        self.kl_control = kl_control(settings.algorithm)
        self.step_control = step_control(settings.algorithm)
        self.scaler = score_scaler(settings.algorithm)
        self.length_correction = length_correction(settings.algorithm)
        self.running_mean = running_mean(settings.algorithm)
        self.references = any(self.validation.references)
        self.budget = budget_of(settings, references=self.references)
        self.guard = guard_of(settings)
        self.update = PpoUpdate(
            self.policy,
            self._optimizer(),
            self.plan.ppo,
            self.plan.sampling,
            learning_rate_schedule(settings.algorithm, self.guard, self.step_control),
        )
        self.evaluate = self._evaluator()
        self.state = self._state()
        self.watch = Watch(
            self.state,
            self.budget,
            self.guard,
            target=settings.budget.target,
            patience=settings.budget.patience,
            ships_end=settings.budget.result is BudgetResult.end,
        )
        self.state.records["watch"] = self.watch
        self.first_iteration = self._resume() if settings.resume else 0
        self._record = RunRecord(settings, self.run_dir, self.first_iteration)
        announce(self)

    def seed(self, iteration: int) -> int:
        """Seed of the draws of one iteration; no generator state has to be kept."""
        return zlib.crc32(f"{self.settings.seed} {iteration}".encode())

    def prompts(self, iteration: int) -> PromptBatch:
        """The training prompts of one iteration; those of a group stand in a row."""
        which = 0 if self.settings.debug.reuse_first_batch else iteration
        batch = self._sampler.batch(which).to(self.device)
        return repeat_prompts(batch, self.settings.algorithm.responses_per_prompt)

    def before(self) -> Evaluation:
        """Test prompts answered by the policy as it starts; read back when a run is resumed."""
        path = self.run_dir / "checkpoints" / "before.json"
        if self.first_iteration and path.is_file():
            return Evaluation(**json.loads(path.read_text(encoding="utf-8")))
        evaluation = self.evaluate(self.test_prompts)
        path.parent.mkdir(exist_ok=True)
        write_json_atomic(path, asdict(evaluation))
        validation = self.validate()
        self.record({"iteration": 0, "evaluation": validation})
        self.watch.begin(validation)
        return evaluation

    def progress(self) -> TrainingProgress:
        """A bar on a terminal, lines elsewhere."""
        return TrainingProgress(self.plan.iterations, done=self.first_iteration)

    def validate(self) -> dict[str, Any]:
        """The policy of now on validation prompts, with its KL to the reference."""
        with self.state.result():
            evaluation = self.evaluate(self.validation)
        both = {key: evaluation.per_response[key] for key in (names.REF_KL, names.REF_KL_K3)}
        return summarise(evaluation) | {key: sum(kl) / len(kl) for key, kl in both.items()}

    def prices(
        self, rollout: Rollout, quality: RolloutQuality, credit: Tensor
    ) -> tuple[float, Tensor]:
        """What a nat costs and what each token earns [B, R] beside the score, score units."""
        factor = 1.0 if self.guard is None else self.guard.kl_factor
        kl_coef = factor * self.kl_control.kl_coef + self.budget.kl_price()
        begins = self._word_starts[rollout.response_ids]
        bonus = self.budget.token_bonus(rollout, quality.rouge, begins)
        return kl_coef, bonus + self.scaler.factor * credit

    def after_iteration(
        self, iteration: int, row: dict[str, Any], progress: TrainingProgress
    ) -> None:
        """Stage 7 of an iteration: evaluate where due, watch, record, save.

        Args:
            iteration: from 0.
            row: of metrics.jsonl; `error` where the iteration diverged.
            progress: is told.
        """
        done, evaluation = iteration + 1, self.settings.evaluation
        if (error := row.pop("error", None)) is not None:
            said: str | None = self.watch.go_back(done, error, row)
        else:
            if done == 1:
                check_moved(self.policy, self._adapter_at_start)
            self.state.observe()
            if done % evaluation.every == 0 or done == self.plan.iterations:
                row["evaluation"] = self.validate()
            said = self.watch.iteration(done, row)
        self.record(row)
        if said is not None:
            progress.message(said)
        progress.update(done, row)
        every = self.settings.checkpoint.every
        if every and done % every == 0:
            self.state.save(done)

    def close(self) -> None:
        """Close the files of the run."""
        if hasattr(self, "_record"):
            self._record.close()
            self.state.records.clear()  # state and watch know each other: no waiting for the gc

    def record(self, row: dict[str, Any]) -> None:
        """Write a row of metrics.jsonl and tell the trackers."""
        self._record.write(row)

    def _policy_path(self) -> str:
        path = self.settings.policy.path
        if path == EMBEDDED_POLICY:
            path = str(embedded_path(self.settings.task.miniature))
        if self.settings.debug.tiny_model:
            return str(write_tiny_policy(embedded_path(self.settings.task.miniature), self.run_dir))
        return path

    def _optimizer(self) -> torch.optim.Optimizer:
        algorithm = self.settings.algorithm
        head_rate = algorithm.value_learning_rate or algorithm.learning_rate
        groups = [
            {"params": list(parameters), "lr": rate}
            for parameters, rate in (
                (self.policy.adapter_parameters(), algorithm.learning_rate),
                (self.policy.head_parameters(), head_rate),
            )
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, weight_decay=algorithm.weight_decay, fused=True)

    def _state(self) -> TrainingState:
        return TrainingState(
            self.run_dir / "checkpoints",
            self.policy,
            self.update.optimizer,
            {
                "kl_control": self.kl_control,
                "step_control": self.step_control,
                "length_correction": self.length_correction,
                "scaler": self.scaler,
                "running_mean": self.running_mean,
                "budget": self.budget,
            },
            self.clock,
            keep=self.settings.checkpoint.keep,
            average=self.settings.algorithm.average,
        )

    def _evaluator(self) -> Evaluator:
        settings = self.settings
        sampling = Sampling(greedy=True) if settings.evaluation.greedy else self.plan.sampling
        return Evaluator(
            policy=self.policy,
            reward=self.reward,
            judge=self.judge,
            sampling=sampling,
            generation=self.plan.generation | {"batch_size": settings.evaluation.batch_size},
            batch_size=settings.algorithm.microbatch_size,
            seed=settings.evaluation.seed,
            perplexity=settings.task.kind is TaskKind.continuation or not self.references,
            clock=self.clock,
        )

    def _resume(self) -> int:
        if self.settings.stage is Stage.sft:  # its trainer restores the rest
            newest = newest_checkpoint(self.run_dir / "checkpoints")
            return newest[0] if newest else 0
        return self.state.resume()
