"""The first lines of a run: what it is, with which parts, and how to get the real thing."""

import os

import torch

from lora_detox.builders.policy import trusted_code
from lora_detox.choices import Stage, TaskKind, TrainerKind
from lora_detox.machine import slow_dtype_note
from lora_detox.processes import processes
from lora_detox.report.console import print_line
from lora_detox.report.wording import smoke_notes, trust_notes
from lora_detox.run.job import Job
from lora_detox.scores.classifier import ClassifierScorer
from lora_detox.settings import Settings
from lora_detox.settings.sharded_checks import asks_for_shares

REAL_TASKS = {
    TaskKind.summarization: "flan_summary_real",
    TaskKind.continuation: "gptj_continuation_real",
    TaskKind.rewriting: "rewrite policy=flan_t5_base data=paradetox reward=roberta_dynabench "
    "judge=toxic_bert reward.encoder=sentence-transformers/all-MiniLM-L6-v2",
}
SENTIMENT_TASKS = ("imdb_sentiment", "sentiment_control")


def announce_kind(settings: Settings, device: torch.device) -> None:
    """Print what kind of run begins, and whether its dtype is slow here, before weights load."""
    print_line(_first_line(settings), repeat=False)
    if slow := slow_dtype_note(settings.policy.dtype.value, device):
        print_line(f"note     {slow}", repeat=False)
    for warning in trust_notes(trusted_code(settings.policy)):
        print_line(f"note     {warning}", repeat=False)


def announce(job: Job) -> None:
    """Print what this run is made of."""
    for line in opening_lines(job):
        print_line(line, repeat=False)


def opening_lines(job: Job) -> list[str]:
    """The lines of `announce`."""
    settings = job.settings
    counts = job.policy.count_parameters()
    names = ", ".join(settings.adapter.targets) or "query and value"
    adapter = settings.policy.adapter or (
        f"{'dora' if settings.adapter.dora else 'lora'} rank {settings.adapter.rank} on "
        f"{names.replace('all-linear', 'all linear layers')} ({settings.adapter.scope})"
    )
    head = ", value head included" if job.policy.has_value_head else ""
    dtype = str(job.policy.backbone.dtype).removeprefix("torch.")
    quantization = f", {settings.quantization.type.value}" if job.quantized else ""
    role = "hold the mean" if settings.stage is Stage.soup else "learn"
    lines = [
        f"policy   {settings.policy.path}: {counts['total']:,} weights, {dtype}{quantization}, "
        f"on {job.device}",
        f"adapter  {adapter}: {counts['trainable']:,} weights {role} "
        f"({100 * counts['trainable'] / counts['total']:.2f} %{head})",
        f"update   {_method(job)}",
        f"data     {settings.data.path}: {job.data.report.describe()}",
        f"reward   {_scorer(job.reward)}",
        f"judge    {_scorer(job.judge or 'none: only the reward measures toxicity')}",
        *([] if job.encoder is None else [f"encoder  {job.encoder.encoder_id}"]),
        f"run      {job.run_dir}",
        *_processes(settings),
    ]
    lines += notes(job)
    if job.first_iteration:
        where = f"iteration {job.first_iteration} of {job.plan.iterations}"
        if settings.stage is Stage.sft:
            where = f"step {job.first_iteration}"
        lines.append(f"resumed after {where}")
    return lines


def notes(job: Job) -> list[str]:
    """What a user may not have meant: fewer prompts than asked for, a model of the other family."""
    settings, lines = job.settings, []
    for split, rows in (("validation", job.data.validation), ("test", job.data.test)):
        wanted = getattr(settings.evaluation, f"{split}_prompts")
        if wanted > len(rows):
            lines.append(
                f"note     evaluation.{split}_prompts={wanted}, but the {split} split has "
                f"{len(rows)} prompts: all of them are used"
            )
    kind = settings.task.kind
    encoder_decoder = bool(job.policy.backbone.config.is_encoder_decoder)
    if encoder_decoder and kind is TaskKind.continuation:
        lines.append(
            "note     this encoder-decoder policy answers the prompt rather than going on with it; "
            "a continuation wants a decoder-only policy (policy=gpt_neo_125m)"
        )
    if not encoder_decoder and kind.has_references:
        answers = "rewrites" if kind is TaskKind.rewriting else "summaries"
        lines.append(
            "note     this decoder-only policy goes on writing after task.template, so that it has "
            f"to follow instructions: {answers} want that, or an adapter of stage=sft to start from"
        )
    if job.policy.tokenizer.chat_template and not settings.task.chat:
        lines.append(
            "note     this policy has a chat template, and prompts do without it: task.chat=true "
            "makes each a user message, as a chat model expects"
        )
    return lines


def _first_line(settings: Settings) -> str:
    if settings.debug.tiny_model:
        return smoke_notes({"tiny_model": True})[0]
    if settings.policy.path.startswith("embedded:"):
        sft = settings.stage is Stage.sft
        return (
            f"{'Supervised fine-tuning of the miniature' if sft else 'Miniature run'}: policy and "
            "data are the small ones inside the package. Real models: python -m lora_detox "
            f"{'stage=sft ' if sft else ''}{_real_models(settings)}"
        )
    if settings.stage is Stage.sft:
        return f"Supervised fine-tuning: task {settings.task.name}."
    if settings.stage is Stage.soup:
        return f"Mean of {len(settings.soup)} runs: task {settings.task.name}."
    return f"Detox run: task {settings.task.name}, {settings.algorithm.iterations} iterations."


def _real_models(settings: Settings) -> str:
    name = settings.task.name
    if name in SENTIMENT_TASKS:
        return f"task={name} policy=gpt2 data=imdb reward=imdb_sentiment judge=none"
    return f"task={REAL_TASKS[settings.task.kind]}"


def _processes(settings: Settings) -> list[str]:
    """How many processes there are, where there are several, and where some have nothing to do."""
    count, rows = processes().size, settings.algorithm.minibatch_size
    if count == 1:
        return []
    lines = [f"shared   by {count} processes: rollout, scoring and update"]
    if asks_for_shares(settings):
        lines.append("shared   the frozen layers of the policy, of which each keeps a part")
    if rows < count:
        lines.append(
            f"note     algorithm.minibatch_size={rows} with {count} processes: in an update "
            f"{count - rows} of them have nothing to do"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "PrecisionType.NO"):
        lines.append(
            f"note     accelerate's mixed_precision={precision} is not read; policy.dtype decides"
        )
    return lines


def _update(settings: Settings) -> str:
    """Algorithm, size of an iteration, and with groups their size."""
    algorithm = settings.algorithm
    size = f"{algorithm.iterations} iterations of {algorithm.rollout_batch_size} responses"
    if (group := algorithm.responses_per_prompt) > 1:
        size += f" ({algorithm.rollout_batch_size // group} prompts, {group} each)"
    return f"{algorithm.name}: {size}"


def _method(job: Job) -> str:
    """Who moves the weights of which adapter, and how much of what."""
    settings = job.settings
    return _soup(settings) or _fine_tuning(job) or method_line(settings) or _update(settings)


def _fine_tuning(job: Job) -> str | None:
    """What stage=sft does with which examples."""
    sft = job.settings.sft
    if job.settings.stage is not Stage.sft:
        return None
    length = f"{sft.epochs:g} epochs" if sft.max_steps is None else f"{sft.max_steps} steps"
    batch = sft.batch_size * sft.gradient_accumulation
    return (
        f"supervised fine-tuning: {length} over {len(job.data.train):,} rows, {batch} to a step, "
        f"learning rate {sft.learning_rate:g}"
    )


def _soup(settings: Settings) -> str | None:
    if settings.stage is not Stage.soup:
        return None
    return f"none: the mean of {len(settings.soup)} runs ({', '.join(settings.soup)})"


def _scorer(scorer: object) -> str:
    name = str(getattr(scorer, "scorer_id", scorer))
    if isinstance(scorer, ClassifierScorer):
        return f"{name}: {scorer.head.describe()}"
    return name


def method_line(settings: Settings) -> str | None:
    """What the opening lines say of a method other than the main path; None on the main path."""
    algorithm = settings.algorithm
    scored = algorithm.iterations * algorithm.rollout_batch_size
    each = f"{algorithm.responses_per_prompt} responses per prompt, {scored} scored in all"
    lines = {
        TrainerKind.trl_dpo: f"DPO by TRL on the best against the worst of {each}",
        TrainerKind.trl_grpo: f"GRPO by TRL on groups of {each}",
        TrainerKind.trl_rloo: f"RLOO by TRL on groups of {each}",
        TrainerKind.best_of_n: f"supervised fine-tuning on the best of {each}",
    }
    return lines.get(algorithm.trainer.kind)
