"""Settings -> a job, in the order of cost: what is wrong shows before weights load."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PretrainedConfig

from lora_detox.builders import controls as control
from lora_detox.builders.data import EncodedPrompts, encode_prompts
from lora_detox.builders.lengths import check_run
from lora_detox.builders.policy import adapter_plan, backbone_plan, policy_path
from lora_detox.builders.rollout import check_server, generate_of, uses_server
from lora_detox.builders.rows import load_data
from lora_detox.builders.scorers import check_scorers, load_encoder, load_scorers, load_word_list
from lora_detox.builders.training import (
    Plan,
    check_trainer_fits,
    learning_rate_schedule,
    make_optimizer,
    plan_of,
)
from lora_detox.choices import Compile, QuantizationType, Ship, Stage, TaskKind
from lora_detox.clock import Clock
from lora_detox.embedded.tiny import has_tiny_policy, remove_tiny_policy
from lora_detox.environment import peak_memory, prepare_process
from lora_detox.errors import DetoxError
from lora_detox.evaluation.audit import AuditPlan, audit_plan
from lora_detox.evaluation.evaluator import Evaluator
from lora_detox.machine import resolve_device
from lora_detox.metrics.diversity import lettered_words
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.compiled import check_compiles, compile_passes
from lora_detox.policy.loading import load_policy
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.preflight import BackbonePlan, check_backbone, resolve_dtype
from lora_detox.policy.tokenizer import load_tokenizer
from lora_detox.policy.words import word_starts
from lora_detox.processes import processes
from lora_detox.progress import phase
from lora_detox.prompts import PromptSets
from lora_detox.run.checksums import base_checksum, check_alike, trained_checksum
from lora_detox.run.controls import Controls, PrefixCredit
from lora_detox.run.job import Job
from lora_detox.run.manifest import TRAINER_PREFIX, number_of
from lora_detox.run.opening import announce, announce_kind
from lora_detox.run.origin import Resumed, begun_with, file_digest, find_resumed, rows_of
from lora_detox.run.record import NoRecord, RunRecord
from lora_detox.run.room import check_room
from lora_detox.run.sampler import Sampler
from lora_detox.run.selector import CheckpointSelector
from lora_detox.run.state import TrainingState
from lora_detox.scores import Encoder, prefix_credit
from lora_detox.settings import Settings
from lora_detox.types import Rollout, Sampling, Scorer
from lora_detox.update import PpoUpdate


@contextmanager
def open_job(settings: Settings) -> Iterator[Job]:
    """Check, load and announce a job; free everything at the end, also after an error.

    Args:
        settings: composed and checked.

    Yields:
        The job, ready to train.

    Raises:
        DetoxError: whatever is wrong with settings, data or models; nothing has been trained.
    """
    run_dir = Path(settings.run_dir)
    had_tiny_policy = has_tiny_policy(run_dir)
    try:
        job = build_job(settings)
        announce(job)
    except DetoxError:
        if not had_tiny_policy and processes().is_first:
            remove_tiny_policy(run_dir)
        raise
    try:
        yield job
    finally:
        job.records.close()
        del job
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def build_job(settings: Settings) -> Job:
    """Files and configurations first, then data, then scorers, and the policy last.

    Args:
        settings: composed and checked.

    Returns:
        The job, restored from its newest checkpoint where it is resumed.

    Raises:
        DetoxError: whatever is wrong with settings, data or models.
    """
    clock = Clock()
    prepare_process(settings.threads)
    with processes().in_turn():
        resumed = find_resumed(settings)
    torch.manual_seed(settings.seed)
    device = resolve_device(settings.device)
    clock.peak = partial(peak_memory, device)
    backbone, adapter, config = _checked_model(settings)
    announce_kind(settings, device)
    plan = plan_of(settings, resolve_dtype(backbone, config))
    data, rows, audit, encoded = _read_data(settings, resumed, backbone, config)
    reward, judge, encoder = scorers = _scorers(settings, device)
    policy = _load_policy(settings, backbone, adapter)
    adapter_checksum, base = trained_checksum(policy), base_checksum(policy)
    parts = _parts(settings, policy, base, adapter_checksum, scorers)
    _check_begin(resumed, rows, parts, policy, adapter_checksum)
    references = any(encoded.validation.references)
    controls = _controls(settings, policy, reward, references=references)
    update = _update(settings, policy, plan, controls)
    state = _state(settings, policy, update, controls, clock)
    selector = _selector(settings, state, controls)
    first_iteration = _resume(settings, resumed, state, selector)
    return Job(
        settings=settings,
        run_dir=Path(settings.run_dir),
        device=device,
        clock=clock,
        plan=plan,
        data=data,
        audit=audit,
        encoded=encoded.to(device),
        reward=reward,
        judge=judge,
        encoder=encoder,
        policy=policy,
        base_checksum=base,
        adapter_checksum=adapter_checksum,
        controls=controls,
        sampler=_sampler(settings, policy),
        update=update,
        evaluator=_evaluator(settings, policy, scorers, plan, clock, references=references),
        state=state,
        selector=selector,
        records=_records(settings, first_iteration, resumed, data=rows, parts=parts),
        resumed=resumed,
        first_iteration=first_iteration,
    )


def _scorers(
    settings: Settings, device: torch.device
) -> tuple[Scorer, Scorer | None, Encoder | None]:
    """Reward, judge and encoder, loaded."""
    with phase("loading reward and judge"):
        return *load_scorers(settings, device), load_encoder(settings, device)


def _read_data(
    settings: Settings, resumed: Resumed, backbone: BackbonePlan, config: PretrainedConfig
) -> tuple[PromptSets, dict[str, str], AuditPlan, EncodedPrompts]:
    """Prompts, what they are known by, and as tokens; the settings are found to fit the model."""
    data = load_data(settings)
    rows = rows_of(data)
    resumed.check("data", rows)
    audit = audit_plan(settings)
    tokenizer = load_tokenizer(backbone, config)
    encoded = encode_prompts(
        settings,
        data,
        tokenizer,
        encoder_decoder=config.is_encoder_decoder,
        audit=audit.rows,
    )
    check_run(settings, config, tokenizer, data, encoded)
    return data, rows, audit, encoded


def _parts(
    settings: Settings,
    policy: LoraPolicy,
    base: str,
    adapter_checksum: float,
    scorers: tuple[Scorer, Scorer | None, Encoder | None],
) -> dict[str, str]:
    """What the numbers of a run depend on beside settings and rows, by name."""
    reward, judge, encoder = scorers
    stored = str(policy.backbone.dtype).removeprefix("torch.")
    if (quantized := settings.quantization.type) is not QuantizationType.none:
        stored = f"{quantized.value} on {policy.device.type}"
    parts = {
        f"frozen weights ({stored})": base,
        "adapter at the start": f"{adapter_checksum:.6g}",
        "reward": reward.scorer_id,
        "judge": "none" if judge is None else judge.scorer_id,
        "encoder": "none" if encoder is None else encoder.encoder_id,
    }
    if (words := load_word_list(settings)) is not None:
        parts["word list"] = words.scorer_id
    file, _, _ = (settings.reward.function or "").rpartition(":")
    if file.endswith(".py"):
        parts["file of reward.function"] = file_digest(Path(file).expanduser())
    return parts


def _check_begin(
    resumed: Resumed,
    rows: dict[str, str],
    parts: dict[str, str],
    policy: LoraPolicy,
    adapter_checksum: float,
) -> None:
    """A resumed run goes on with the parts that it had, and all processes have the same."""
    resumed.check("parts", parts)
    check_alike({**rows, **parts, "device": policy.device.type, "adapter": adapter_checksum})


def _load_policy(settings: Settings, backbone: BackbonePlan, adapter: AdapterPlan) -> LoraPolicy:
    torch.set_rng_state(processes().gather(torch.get_rng_state())[0])  # of the adapter's draws
    with phase(f"loading {settings.policy.path}"):
        policy = load_policy(backbone, adapter)
    policy.static_cache = settings.generation.static_cache
    policy.dequantize = settings.quantization.dequantize_for_decoding
    if settings.policy.compile is not Compile.none:
        with phase(f"compiling a pass ({settings.policy.compile.value})"):
            compile_passes(policy, settings.policy.compile)
    return policy


def _checked_model(settings: Settings) -> tuple[BackbonePlan, AdapterPlan, PretrainedConfig]:
    """What the policy is made of, and scorers, found right from files and configurations alone."""
    backbone, adapter = backbone_plan(settings, policy_path(settings)), adapter_plan(settings)
    check_scorers(settings)
    config = check_backbone(backbone, adapter)
    check_compiles(
        settings.policy.compile,
        settings.device,
        config,
        checkpointing=settings.policy.gradient_checkpointing,
    )
    check_trainer_fits(settings, encoder_decoder=bool(config.is_encoder_decoder))
    check_server(settings, encoder_decoder=bool(config.is_encoder_decoder))
    return backbone, adapter, config


def _state(
    settings: Settings, policy: LoraPolicy, update: PpoUpdate, controls: Controls, clock: Clock
) -> TrainingState:
    """What training changes, once there is room for its checkpoints."""
    state = TrainingState(
        Path(settings.run_dir) / "checkpoints",
        policy,
        update.optimizer,
        controls,
        clock,
        keep=settings.checkpoint.keep,
        average=settings.algorithm.average,
    )
    check_room(settings, state.checkpoint_bytes())
    return state


def _controls(
    settings: Settings, policy: LoraPolicy, reward: Scorer, *, references: bool
) -> Controls:
    algorithm = settings.algorithm
    budget = control.budget_of(settings, references=references)
    controls = Controls(
        kl=control.kl_control(algorithm),
        step=control.step_control(algorithm),
        scaler=control.score_scaler(algorithm),
        length=control.length_correction(settings),
        baseline=control.running_mean(algorithm),
        budget=budget,
        guard=control.guard_of(settings),
        word_starts=word_starts(policy.tokenizer, policy.vocabulary).to(policy.device),
        new_bigrams=control.new_bigrams_of(budget),
    )
    every = algorithm.expert.prefix_credit_every
    if every is None:
        return controls
    credit = _prefix_credit(policy, reward, controls, every)
    return replace(controls, credit=credit)


def _prefix_credit(
    policy: LoraPolicy, reward: Scorer, controls: Controls, every: int
) -> PrefixCredit:
    def corrected(potentials: Float[Tensor, "N"], texts: list[str]) -> Float[Tensor, "N"]:
        return controls.length(potentials, list(map(lettered_words, texts)))

    def credit(rollout: Rollout, score: Float[Tensor, "B"]) -> Float[Tensor, "B R"]:
        responses = (rollout.response_ids, rollout.response_mask)
        decode = policy.decode_texts
        earned = prefix_credit(reward, rollout.prompts, responses, score, decode, every, corrected)
        return earned.to(rollout.logprobs.device)

    return credit


def _sampler(settings: Settings, policy: LoraPolicy) -> Sampler:
    if not uses_server(settings):
        return Sampler()
    rollout = settings.rollout
    return Sampler(
        generate=generate_of(settings, policy),
        most_gap=rollout.most_gap,
        most_ratio=rollout.most_ratio,
    )


def _update(settings: Settings, policy: LoraPolicy, plan: Plan, controls: Controls) -> PpoUpdate:
    schedule = learning_rate_schedule(settings.algorithm)
    return PpoUpdate(
        policy,
        make_optimizer(settings.algorithm, policy),
        plan.ppo,
        plan.sampling,
        lambda iteration: schedule(iteration) * controls.learning_rate_factor(),
    )


def _selector(settings: Settings, state: TrainingState, controls: Controls) -> CheckpointSelector:
    return CheckpointSelector(
        state,
        controls.budget,
        controls.guard,
        target=settings.budget.target,
        patience=settings.budget.patience,
        ships_end=settings.budget.ship is Ship.end,
    )


def _evaluator(
    settings: Settings,
    policy: LoraPolicy,
    scorers: tuple[Scorer, Scorer | None, Encoder | None],
    plan: Plan,
    clock: Clock,
    *,
    references: bool,
) -> Evaluator:
    evaluation = settings.evaluation
    return Evaluator(
        policy=policy,
        reward=scorers[0],
        judge=scorers[1],
        encoder=scorers[2],
        sampling=Sampling(greedy=True) if evaluation.greedy else plan.sampling,
        generation=plan.generation | {"batch_size": evaluation.batch_size},
        batch_size=settings.algorithm.microbatch_size,
        seed=evaluation.seed,
        perplexity=settings.task.kind is TaskKind.continuation or not references,
        rewrites=settings.task.kind is TaskKind.rewriting,
        word_list=load_word_list(settings),
        quantized=settings.quantization.type is not QuantizationType.none,
        clock=clock,
    )


def _resume(
    settings: Settings, resumed: Resumed, state: TrainingState, selector: CheckpointSelector
) -> int:
    """Iterations behind; optimizer steps of stage=sft, whose trainer restores the rest."""
    if resumed.checkpoint is None:
        return 0
    if settings.stage is Stage.sft:
        return number_of(resumed.checkpoint, TRAINER_PREFIX)
    with processes().in_turn():
        return state.resume(selector)


def _records(
    settings: Settings, first_iteration: int, resumed: Resumed, **begun: dict[str, str]
) -> RunRecord | NoRecord:
    """Those of the first process alone are kept; `begun` is what the run depends on."""
    if not processes().is_first:
        return NoRecord()
    record = begun_with(settings, **begun)
    return RunRecord(settings, Path(settings.run_dir), first_iteration, resumed, record)
