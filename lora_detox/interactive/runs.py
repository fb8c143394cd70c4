"""Finished runs that are tried out: found to be usable before any weight loads, then loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel

from lora_detox.builders.data import prompt_template
from lora_detox.builders.policy import (
    EMBEDDED_POLICY,
    EMBEDDED_PREFIX,
    backbone_plan,
    model_path,
)
from lora_detox.errors import SettingsError
from lora_detox.interactive.answers import Question
from lora_detox.policy.adapter import NO_ADAPTER
from lora_detox.policy.adapter_kinds import changes_base
from lora_detox.policy.loading import load_backbone, load_policy, twin
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.preflight import BackbonePlan, check_backbone, read_config
from lora_detox.policy.stored_adapter import read_stored
from lora_detox.policy.strength import strength_refusal
from lora_detox.policy.tokenizer import load_tokenizer
from lora_detox.progress import phase
from lora_detox.report.jsonl import read_jsonl
from lora_detox.settings import ScorerSettings, Settings
from lora_detox.settings.from_run import settings_of_run
from lora_detox.settings.stored import stored_json

_KEY = "chat.run"
_MOST_EXAMPLES = 50


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        name: of its folder, by which it differs from the others.
        folder: where it is.
        settings: what it was made with.
        plan: its base with its adapter.
        base_name: of the base, as a reader knows it.
        fixed_strength: why its adapter has no strength but 1; None where it has.
        shares_base: whether its adapter leaves the base as it is, so that others can sit on it.
    """

    name: str
    folder: Path
    settings: Settings
    plan: BackbonePlan
    base_name: str
    fixed_strength: str | None
    shares_base: bool

    @property
    def base(self) -> BackbonePlan:
        """The base alone, the same for every run on it."""
        return replace(self.plan, adapter=None, chat=False, system=None)

    @property
    def reads(self) -> tuple[object, ...]:
        """What the original answers depend on beside the question: equal where these are."""
        own, task = self.settings, self.settings.task
        return (
            self.base,
            (task.template, task.chat, task.system),
            (own.data.max_query_tokens, own.generation.min_new_tokens),
        )


def read_runs(settings: Settings) -> list[Run]:
    """The runs of `chat.run`, each known to be usable.

    Args:
        settings: composed and checked.

    Returns:
        At least one, with names that differ.

    Raises:
        SettingsError: a run that cannot be read or does not fit its base, or a strength that one
            of them cannot have.
    """
    folders = [Path(one).expanduser() for one in settings.chat.runs]
    runs = [
        _read(folder, name, settings) for folder, name in zip(folders, _names(folders), strict=True)
    ]
    for run in runs:
        if run.fixed_strength is not None and settings.chat.strength not in (0, 1):
            raise SettingsError(
                f"chat.strength: got {settings.chat.strength:g}, but the adapter of {run.folder} "
                f"can only be used at strength 1: {run.fixed_strength} (docs/adapters.md)"
            )
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    """The last names of folders, with the one above or a number where two are alike."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    return [
        f"{name} ({names[:place].count(name) + 1})" if name in names[:place] else name
        for place, name in enumerate(names)
    ]


def _read(folder: Path, name: str, settings: Settings) -> Run:
    own = settings_of_run(folder, _KEY)
    stored = stored_json(
        folder / "adapter" / "adapter_config.json", _KEY, "want a whole folder of a finished run"
    )
    trusted = settings.policy.trust_remote_code and own.policy.trust_remote_code
    own.policy = replace(own.policy, adapter=None, trust_remote_code=trusted)
    own.device = settings.device
    path = _base_path(folder, own, str(stored.get("base_model_name_or_path") or own.policy.path))
    plan = replace(
        backbone_plan(own, path),
        adapter=str(folder / "adapter"),
        frozen_reference=False,
        value_head=False,
        gradient_checkpointing=False,
    )
    try:
        check_backbone(plan, NO_ADAPTER)
        prompt_template(own, load_tokenizer(plan, read_config(plan)))
        adapter = read_stored(str(plan.adapter))
    except SettingsError as error:  # its key is one of training
        raise SettingsError(f"{_KEY}: {folder} cannot be asked: {error}") from error
    return Run(
        name=name,
        folder=folder,
        settings=own,
        plan=plan,
        base_name=_base_name(path, own),
        fixed_strength=strength_refusal(adapter),
        shares_base=not changes_base(adapter) and plan.quantization == "none",
    )


def _base_path(folder: Path, own: Settings, stored: str) -> str:
    """Where the base is now: miniatures move with the package, tiny models with the run."""
    if own.debug.tiny_model and (folder / "tiny_model").is_dir():
        return str(folder / "tiny_model")
    if own.policy.path == EMBEDDED_POLICY and not own.debug.tiny_model:
        return model_path(own.policy.path, own)
    return stored


def _base_name(path: str, own: Settings) -> str:
    """The base as a reader knows it: a folder by its last name."""
    if own.debug.tiny_model:
        return "a tiny random model"
    if own.policy.path.startswith(EMBEDDED_PREFIX) or not Path(path).expanduser().is_dir():
        return own.policy.path
    return Path(path).expanduser().resolve().name


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Whose reward and judge score all answers.

    Attributes:
        settings: of both; where the judge is alone it stands in the place of the reward.
        judge_alone: whether there is no reward.
        notes: what is left out, as lines.
    """

    settings: Settings
    judge_alone: bool
    notes: list[str]


def scorers_of(runs: Sequence[Run], settings: Settings) -> Scoring:
    """The scorers of the first run, for all of them.

    A function of somebody's config.yaml is code, which is only run where the command line names it
    too.

    Args:
        runs: of `chat.run`.
        settings: composed; `reward.function` and `judge.function` are read.

    Returns:
        The scorers, and notes on what is left out.
    """
    first, notes = runs[0], []
    scorers = {"reward": first.settings.reward, "judge": first.settings.judge}
    for key, named in (("reward", settings.reward), ("judge", settings.judge)):
        function = scorers[key].function
        if function is None or function == named.function:
            continue
        notes.append(
            f"note     the {key} of {first.name} calls the Python function {function}, which is "
            f"not run unasked: {key}.function={function} runs it"
        )
        scorers[key] = replace(scorers[key], function=None, timeout=None)
    scoring = replace(
        first.settings, device=settings.device, reward=scorers["reward"], judge=scorers["judge"]
    )
    judge_alone = scoring.reward.path is None and scoring.reward.function is None
    if judge_alone:
        scoring = replace(scoring, reward=scoring.judge, judge=ScorerSettings(path=None))
    return Scoring(settings=scoring, judge_alone=judge_alone, notes=notes)


def load_runs(runs: Sequence[Run]) -> list[LoraPolicy]:
    """Load every run, the weights of a base that several runs share once.

    Args:
        runs: checked.

    Returns:
        A policy for each, which is the bare base within its `reference()`.

    Raises:
        SettingsError: weights or adapters that do not load.
    """
    bases: dict[BackbonePlan, PreTrainedModel] = {}
    policies = []
    for run in runs:
        with phase(f"loading {run.name}"):
            backbone = None
            if run.shares_base and sum(run.base == other.base for other in runs) > 1:
                if run.base not in bases:
                    bases[run.base] = load_backbone(run.base)
                backbone = twin(bases[run.base])
            policy = load_policy(run.plan, NO_ADAPTER, backbone)
        policy.static_cache = run.settings.generation.static_cache
        policy.dequantize = run.settings.quantization.dequantize_for_decoding
        policies.append(policy)
    return policies


def first_question(settings: Settings, run: Run) -> Question:
    """What the first prompt is asked with: `chat`, and where that is null what the run sampled by.

    Args:
        settings: composed and checked.
        run: the first one.

    Returns:
        A question without a prompt.
    """
    chat, own = settings.chat, run.settings.generation
    return Question(
        strength=chat.strength,
        samples=chat.samples,
        new_tokens=own.response_tokens[1] if chat.new_tokens is None else chat.new_tokens,
        temperature=own.temperature if chat.temperature is None else chat.temperature,
        top_p=own.top_p if chat.top_p is None else chat.top_p,
        top_k=own.top_k if chat.top_k is None else chat.top_k,
        seed=settings.seed,
    )


def example_prompts(run: Run) -> list[str]:
    """Prompts to pick from: those that the run's own samples answer, without its template.

    Args:
        run: whose samples.jsonl is read; one without it has none.

    Returns:
        Different prompts, in the order of the file.
    """
    head, _, tail = run.settings.task.template.partition("{prompt}")
    rows = read_jsonl(run.folder / "samples.jsonl")
    prompts = [str(row["prompt"]) for row in rows if row.get("prompt")]
    bare = (one.removeprefix(head).removesuffix(tail).strip() for one in prompts)
    return [one for one in dict.fromkeys(bare) if one][:_MOST_EXAMPLES]
