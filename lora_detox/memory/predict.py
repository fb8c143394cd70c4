"""Settings -> predicted peak memory of stage=detox by part; no weight is loaded."""

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    RobertaConfig,
)

from lora_detox.builders.controls import budget_of
from lora_detox.builders.policy import adapter_plan, backbone_plan
from lora_detox.builders.training import sampling_of
from lora_detox.choices import Dequantize, ScoredText
from lora_detox.errors import DetoxError
from lora_detox.machine import kernel_bytes
from lora_detox.memory.fake_policy import fake_policy
from lora_detox.memory.live_bytes import LiveBytes, fake_tensors
from lora_detox.memory.passes import (
    PassShape,
    generation_bytes,
    reference_bytes,
    update_bytes,
)
from lora_detox.memory.weights import WeightBytes, stored_bytes, stored_tensors, weight_bytes
from lora_detox.model_files import NO_CODE
from lora_detox.policy.adapter_init import OFF_AT_START
from lora_detox.policy.frozen import mergeable_layers
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.preflight import BackbonePlan, resolve_dtype
from lora_detox.positions import position_limit
from lora_detox.scores.loading import classifier_keys, read_model_config, resolve_classifier
from lora_detox.settings import ScorerSettings, Settings

SPECIAL_TOKENS = 2
"""Tokens that a classifier adds around a text."""
Parts = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the run will be.

    Attributes:
        device: "cpu" or "cuda".
        available: bytes that the run may use.
        baseline: bytes of a process with every library imported (cpu), or of the context (cuda).
    """

    device: str
    available: int
    baseline: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Bytes by part: what stays during a run, and what each phase adds for a while.

    Attributes:
        stays: parts that are there all the time.
        phases: phase -> parts that it holds at its peak.
        assumptions: what had to be assumed, in words.
    """

    stays: Parts
    phases: dict[str, Parts]
    assumptions: tuple[str, ...] = field(default=())

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def total(self) -> int:
        """The peak, bytes."""
        return sum(self.stays.values()) + sum(self.phases[self.peak_phase].values())


def predict(
    settings: Settings, config: PretrainedConfig, path: str, query: int, machine: Machine
) -> Prediction:
    """Predicted peak of stage=detox.

    Args:
        settings: composed and checked.
        config: of the policy's model.
        path: of the policy's model; weights of a local folder have their sizes read, no more.
        query: tokens of the longest query.
        machine: where the run will be.

    Returns:
        Bytes by part; on a CPU of the whole process, on a GPU of the device.
    """
    plan = memory_backbone(settings, config, path, machine)
    weights = weight_bytes(plan, config)
    scorers, scoring, assumptions = _scorers(settings, query, machine)
    stays: Parts = {_baseline_name(machine): machine.baseline}
    stays |= {f"backbone, {kind}": size for kind, size in weights.by_kind.items()}
    if machine.device == "cpu" and plan.dtype == "bfloat16":
        stays["compiled bf16 kernels"] = kernel_bytes()
    with fake_policy(plan, adapter_plan(settings), config) as policy:
        stays |= _trained_parts(settings, policy)
        stays |= scorers
        phases = _phases(settings, policy, weights, plan, query)
    phases["score"] = {"activations of the classifier": scoring}
    phases["load"] = _loading(plan, config, weights, machine)
    return Prediction(stays=stays, phases=phases, assumptions=assumptions)


def memory_backbone(
    settings: Settings, config: PretrainedConfig, path: str, machine: Machine
) -> BackbonePlan:
    """The backbone as it will be loaded there; its dtype is settled, as the device may not be."""
    plan = backbone_plan(settings, path)
    plan = replace(
        plan,
        adapter=None if plan.adapter is None else os.path.expanduser(plan.adapter),
        device="cpu",
    )
    if plan.dtype == "auto" and machine.device == "cuda":
        return replace(plan, dtype="bfloat16")
    return replace(plan, dtype=str(resolve_dtype(plan, config)).removeprefix("torch."))


def _trained_parts(settings: Settings, policy: LoraPolicy) -> Parts:
    adapter = sum(p.numel() * p.element_size() for p in policy.adapter_parameters())
    trained = sum(p.numel() * p.element_size() for p in policy.trainable_parameters())
    parts = {"adapter": adapter, "value head": trained - adapter}
    if settings.policy.adapter is not None or settings.adapter.init.lower() not in OFF_AT_START:
        parts["adapter to start from, frozen copy"] = adapter
    references = settings.task.kind.has_references
    mean = 0 if settings.algorithm.average is None else adapter
    best = trained if budget_of(settings, references=references).bounds else 0
    good = 3 * trained + mean if settings.guard.enabled else 0  # with AdamW's moments
    parts |= {"gradients": trained, "AdamW moments": 2 * trained}
    return parts | {"states to go back to": trained + mean + best + good}  # and the start


def _phases(
    settings: Settings,
    policy: LoraPolicy,
    weights: WeightBytes,
    plan: BackbonePlan,
    query: int,
) -> dict[str, Parts]:
    """What generation, reference pass and update hold at their peaks."""
    algorithm, sampling = settings.algorithm, sampling_of(settings)
    response = settings.generation.response_tokens[1]
    micro = PassShape(rows=algorithm.microbatch_size, query=query, response=response)
    update = update_bytes(policy, micro, sampling)
    frozen = update.frozen * (algorithm.rollout_batch_size // algorithm.microbatch_size)
    evaluation = settings.evaluation
    evaluated = max(
        evaluation.test_prompts * evaluation.samples_per_prompt,
        evaluation.validation_prompts * evaluation.validation_samples,
    )
    writing = max(
        min(settings.generation.batch_size, algorithm.rollout_batch_size),
        min(evaluation.batch_size, evaluated),
    )
    batch = PassShape(rows=writing, query=query, response=response)
    generation = generation_bytes(policy, batch, sampling)
    kept = {"states below the adapter, whole rollout": frozen} if frozen else {}
    return {
        "generate": {
            "key-value cache": generation.cache,
            "logits and sampling": generation.transient,
            "merged copies of adapted weights": _merged_bytes(policy, weights, plan),
            "whole copies of quantized weights": _whole_bytes(settings, policy, weights),
        },
        "reference": {
            **kept,
            "states and logits of a microbatch": reference_bytes(policy, micro, sampling),
        },
        "update": {
            **kept,
            "activations kept for the backward pass": update.kept,
            "logits of a chunk, gradients on their way": update.transient,
        },
    }


def _merged_bytes(policy: LoraPolicy, weights: WeightBytes, plan: BackbonePlan) -> int:
    """Weights that exist twice while the adapter is merged for decoding (see `frozen.merged`)."""
    if plan.dtype != "float32" or weights.quantized:
        return 0
    layers = mergeable_layers(policy.backbone)
    return sum(4 * layer.get_base_layer().weight.numel() for layer in layers)


def _whole_bytes(settings: Settings, policy: LoraPolicy, weights: WeightBytes) -> int:
    """Weights that are unpacked while responses are written; `auto` does so where there is room."""
    if settings.quantization.dequantize_for_decoding is not Dequantize.always:
        return 0
    layers: list[Any] = [policy.backbone.get_submodule(name) for name in weights.quantized]
    return sum(2 * one.in_features * one.out_features for one in layers)


def _loading(
    plan: BackbonePlan, config: PretrainedConfig, weights: WeightBytes, machine: Machine
) -> Parts:
    """On a CPU the file is in memory beside what is made of it; where nothing is made, it is it."""
    if machine.device == "cuda":
        return {"largest weight before it is quantized": 2 * weights.largest}
    size = stored_bytes(plan.path)
    stored = set(stored_tensors(plan.path).values())
    if not size:
        dtype = getattr(config, "dtype", None) or torch.float32
        size, stored = weights.parameters * dtype.itemsize, {_short(dtype)}
    same = plan.quantization == "none" and stored == {_short(getattr(torch, plan.dtype))}
    return {"weight files, mapped while converted": 0 if same else size}


def _short(dtype: torch.dtype) -> str:
    """The dtype's name in a safetensors header."""
    return {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}.get(dtype, "?")


def _scorers(
    settings: Settings, query: int, machine: Machine
) -> tuple[Parts, int, tuple[str, ...]]:
    """Weights of reward, judge and encoder, and the most that scoring a batch takes."""
    parts: Parts = {}
    most, assumptions = 0, []
    named = [("reward", settings.reward), ("judge", settings.judge)]
    # Encoders read prompts and responses alone, so that a batch takes less than it does here.
    evaluation, reward, both = settings.evaluation, settings.reward, ScoredText.prompt_response
    for key, path, revision, text in (
        ("encoder", evaluation.encoder, evaluation.encoder_revision, both),
        ("encoder of the reward", reward.encoder, reward.encoder_revision, both),
        ("fluency", reward.fluency.path, reward.fluency.revision, ScoredText.response),
    ):
        if path is not None:
            named.append((key, ScorerSettings(path=path, revision=revision, text=text)))
    for key, scorer in named:
        paths = [] if scorer.path is None else [scorer.path, *scorer.ensemble]
        for place, path in enumerate(paths):
            config, known = scorer_config(path, scorer, key)
            if not known:
                assumptions.append(f"{key} {path} cannot be read here: counted as a RoBERTa base")
            weights, scoring = scorer_bytes(config, scorer_shape(settings, scorer, query), machine)
            parts[f"{key} model" + (f" {place + 1}" if place else "")] = weights
            most = max(most, scoring)
    return parts, most, tuple(assumptions)


def scorer_config(path: str, scorer: ScorerSettings, key: str) -> tuple[Any, bool]:
    """Configuration of a classifier, and whether it could be read; a RoBERTa base stands in."""
    try:
        place = resolve_classifier(path, key, scorer.revision)
        return read_model_config(path, place, scorer.revision, classifier_keys(key)), True
    except (DetoxError, OSError, ValueError):
        return RobertaConfig(vocab_size=50265, max_position_embeddings=514), False


def scorer_shape(settings: Settings, scorer: ScorerSettings, query: int) -> tuple[int, int]:
    """Texts of a classifier's batch, and most tokens of each."""
    tokens = settings.generation.response_tokens[1] + SPECIAL_TOKENS
    if scorer.text.value == "prompt_response":
        tokens += query
    evaluation = settings.evaluation
    texts = max(
        settings.algorithm.rollout_batch_size,
        evaluation.test_prompts * evaluation.samples_per_prompt,
    )
    return min(scorer.batch_size, texts), min(tokens, scorer.max_tokens or 512)


def scorer_bytes(config: Any, shape: tuple[int, int], machine: Machine) -> tuple[int, int]:
    """Weights of a classifier, and the most that one batch takes beside them, in bytes.

    Args:
        config: of the classifier.
        shape: texts of a batch, tokens of the longest.
        machine: a GPU scores in 16 bits, a CPU in 32.

    Returns:
        Both numbers.
    """
    dtype = torch.bfloat16 if machine.device == "cuda" else torch.float32
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, dtype=dtype, **NO_CODE)
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    weights = sum(t.numel() * t.element_size() for t in tensors.values())
    with ExitStack() as stack:
        stack.enter_context(fake_tensors(model))
        stack.enter_context(torch.no_grad())
        live = stack.enter_context(LiveBytes())
        texts, tokens = shape
        ids = torch.full((texts, min(tokens, position_limit(config) or tokens)), 5)
        model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    return weights, live.peak


def _baseline_name(machine: Machine) -> str:
    return "libraries" if machine.device == "cpu" else "CUDA context (about)"
