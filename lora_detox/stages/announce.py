"""The first lines of a run: what it is, with which parts, and how to get the real thing."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lora_detox.scores.classifier import ClassifierScorer
from lora_detox.settings import Settings, Stage, TaskKind
from lora_detox.stages.trainers import method_line

if TYPE_CHECKING:
    from lora_detox.stages.build import Job

REAL_TASKS = {
    TaskKind.summarization: "flan_summary_real",
    TaskKind.continuation: "gptj_continuation_real",
}
SENTIMENT_TASKS = ("imdb_sentiment", "sentiment_control")


def announce(job: "Job") -> None:
    """Print what this run is made of."""
    console = Console(highlight=False)
    for line in opening_lines(job):
        console.print(Text(line), soft_wrap=True)


def opening_lines(job: "Job") -> list[str]:
    """The lines of `announce`."""
    settings = job.settings
    lines = [_first_line(settings)]
    counts = job.policy.count_parameters()
    adapter = settings.policy.adapter or (
        f"{'dora' if settings.adapter.dora else 'lora'} rank {settings.adapter.rank} on "
        f"{', '.join(settings.adapter.targets) or 'query and value'} ({settings.adapter.scope})"
    )
    head = ", value head included" if job.policy.has_value_head else ""
    dtype = str(job.policy.backbone.dtype).removeprefix("torch.")
    quantization = f", {settings.quantization.type.value}" if job.quantized else ""
    lines += [
        f"policy   {settings.policy.path}: {counts['total']:,} weights, {dtype}{quantization}, "
        f"on {job.device}",
        f"adapter  {adapter}: {counts['trainable']:,} weights learn "
        f"({100 * counts['trainable'] / counts['total']:.2f} %{head})",
        f"update   {method_line(settings) or _update(settings)}",
        f"data     {settings.data.path}: {job.data.report.describe()}",
        f"reward   {_scorer(job.reward)}",
        f"judge    {_scorer(job.judge or 'none: only the reward measures toxicity')}",
        f"run      {job.run_dir}",
    ]
    if job.first_iteration:
        where = f"iteration {job.first_iteration} of {job.plan.iterations}"
        if settings.stage is Stage.sft:
            where = f"step {job.first_iteration}"
        lines.append(f"resumed after {where}")
    return lines


def _first_line(settings: Settings) -> str:
    if settings.debug.tiny_model:
        return "Smoke run: the policy is a tiny random model, so the figures mean nothing."
    if settings.policy.path.startswith("embedded:"):
        return (
            f"Miniature run: policy and data are the small ones inside the package. Real models: "
            f"python -m lora_detox {_real_models(settings)}"
        )
    return f"Detox run: task {settings.task.name}, {settings.algorithm.iterations} iterations."


def _real_models(settings: Settings) -> str:
    name = settings.task.name
    if name in SENTIMENT_TASKS:
        return f"task={name} policy=gpt2 data=imdb reward=imdb_sentiment judge=none"
    return f"task={REAL_TASKS[settings.task.kind]}"


def _update(settings: Settings) -> str:
    """Algorithm, size of an iteration, and with groups their size."""
    algorithm = settings.algorithm
    size = f"{algorithm.iterations} iterations of {algorithm.rollout_batch_size} responses"
    if (group := algorithm.responses_per_prompt) > 1:
        size += f" ({algorithm.rollout_batch_size // group} prompts, {group} each)"
    return f"{algorithm.name}: {size}"


def _scorer(scorer: object) -> str:
    name = str(getattr(scorer, "scorer_id", scorer))
    if isinstance(scorer, ClassifierScorer):
        return f"{name}: {scorer.head.describe()}"
    return name
