"""The parts of one run, and what they answer together; `build.py` makes them."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_detox.builders.data import EncodedPrompts
from lora_detox.builders.training import Plan
from lora_detox.clock import Clock
from lora_detox.evaluation.audit import AuditPlan
from lora_detox.evaluation.evaluator import Evaluator
from lora_detox.metrics import names
from lora_detox.metrics.quality import RolloutQuality, rollout_quality
from lora_detox.metrics.summary import summarise
from lora_detox.policy.policy import LoraPolicy
from lora_detox.progress import LINE_EVERY_SECONDS, phase
from lora_detox.prompts import PromptSets
from lora_detox.prompts.batching import repeat_prompts
from lora_detox.run.checksums import check_drift
from lora_detox.run.controls import Controls
from lora_detox.run.origin import Resumed
from lora_detox.run.record import NoRecord, RunRecord
from lora_detox.run.sampler import Sampler
from lora_detox.run.selector import CheckpointSelector
from lora_detox.run.state import TrainingState
from lora_detox.scores import Encoder, score_prompts
from lora_detox.settings import Settings
from lora_detox.types import PromptBatch, Rollout, Scorer, Scores
from lora_detox.update import PpoUpdate


@dataclass(frozen=True, kw_only=True)
class Job:
    """The parts of one run.

    Attributes:
        settings: composed and checked.
        run_dir: where the run is written.
        device: where policy and scorers are.
        clock: where the time goes.
        plan: plain arguments of the stages of the arrow.
        data: rows of the three splits.
        audit: prompts and texts about groups of people, or none.
        encoded: rows and audit prompts as token ids.
        reward: the scorer of training.
        judge: a held-out classifier that training never sees, or None.
        encoder: what measures relevance to the prompt, or None.
        policy: one frozen backbone with the adapter that learns.
        base_checksum: digest of the frozen weights before training.
        adapter_checksum: a number that changes when any adapter weight does, before training.
        controls: everything that moves between iterations.
        sampler: who samples the responses of training.
        update: holds the optimizer.
        evaluator: fixed scorers, sampling and seeds.
        state: everything that training changes, saved and put back.
        selector: which state is the result.
        records: metrics.jsonl and the trackers, of the first process alone.
        resumed: what a resumed run goes on from.
        first_iteration: iterations that a resumed run has behind it.
    """

    settings: Settings
    run_dir: Path
    device: torch.device
    clock: Clock
    plan: Plan
    data: PromptSets
    audit: AuditPlan
    encoded: EncodedPrompts
    reward: Scorer
    judge: Scorer | None
    encoder: Encoder | None
    policy: LoraPolicy
    base_checksum: str
    adapter_checksum: float
    controls: Controls
    sampler: Sampler
    update: PpoUpdate
    evaluator: Evaluator
    state: TrainingState
    selector: CheckpointSelector
    records: RunRecord | NoRecord
    resumed: Resumed
    first_iteration: int

    @property
    def quantized(self) -> bool:
        """Whether the frozen weights are stored in 8 or 4 bits."""
        return self.settings.quantization.type.value != "none"

    def seed(self, iteration: int) -> int:
        """Seed of the draws of one iteration; no generator state has to be kept."""
        return zlib.crc32(f"{self.settings.seed} {iteration}".encode())

    def prompts(self, iteration: int) -> PromptBatch:
        """The training prompts of one iteration; those of a group stand in a row."""
        which = 0 if self.settings.debug.reuse_first_batch else iteration
        batch = self.encoded.train.batch(which).to(self.device)
        return repeat_prompts(batch, self.settings.algorithm.responses_per_prompt)

    @contextmanager
    def timed(self, stage: str, iteration: int) -> Iterator[None]:
        """Count the time within this context towards a stage; a slow one shows that it goes on."""
        what = f"iteration {iteration + 1}: {stage}"
        with self.clock(stage), phase(what, after=LINE_EVERY_SECONDS):
            yield

    def quality(self, rollout: Rollout, scores: Scores | None = None) -> RolloutQuality:
        """What a rollout shows of quality; its nearness to the prompts only where that is bound.

        Args:
            rollout: B responses.
            scores: of the reward; None scores the responses where that is needed.

        Returns:
            The measures.
        """
        relevance, similarity, bound = None, None, self.controls.budget.constraints
        if self.encoder is not None and names.RELEVANCE in bound:
            relevance = self.encoder.relevance(rollout.prompts.texts, rollout.response_texts)
        if names.SIMILARITY in bound:
            scores = scores or score_prompts(self.reward, rollout.prompts, rollout.response_texts)
            similarity = scores.factors[names.SIMILARITY]
        return rollout_quality(rollout, relevance, similarity)

    def validate(self) -> dict[str, Any]:
        """What the run would ship now on validation prompts, with its KL to the reference."""
        check_drift(self.policy)
        with self.state.result():
            evaluation = self.evaluator(self.encoded.validation, "evaluating on validation prompts")
        both = {key: evaluation.per_response[key] for key in (names.REF_KL, names.REF_KL_K3)}
        return summarise(evaluation) | {key: sum(kl) / len(kl) for key, kl in both.items()}

    def save(self, done: int) -> Path:
        """Have the first process write the checkpoint of so many iterations, unless it has been."""
        if isinstance(self.records, NoRecord):
            return self.state.place(done)
        with self.clock("checkpoint"):
            return self.state.save(done, self.selector, self.records.files())

    def record(self, row: dict[str, Any]) -> None:
        """Write a row of metrics.jsonl and tell the trackers."""
        self.records.write(row)
