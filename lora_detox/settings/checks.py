"""Values and combinations that cannot work, found before anything heavy is imported."""

import math
from dataclasses import asdict

from lora_detox.choices import (
    Action,
    AdapterType,
    Baseline,
    Protocol,
    QuantizationType,
    Stage,
    TermsCombine,
    TrainerKind,
)
from lora_detox.embedded import POLICY_NAMES
from lora_detox.errors import SettingsError
from lora_detox.ranges import MOST_STRENGTH, MOST_TOKENS, check_ranges
from lora_detox.settings.algorithm import AlgorithmSettings
from lora_detox.settings.budget import BudgetSettings
from lora_detox.settings.compile_checks import check_compile
from lora_detox.settings.decoding_checks import check_decodings
from lora_detox.settings.files import check_names
from lora_detox.settings.groups import Settings
from lora_detox.settings.plain import flat
from lora_detox.settings.preflight import (
    check_chat,
    check_export,
    check_packages,
    check_run_dir,
    check_runs,
    check_soup,
)
from lora_detox.settings.probe_texts import probe_texts
from lora_detox.settings.reward_checks import check_reward_terms
from lora_detox.settings.rollout_checks import check_rollout
from lora_detox.settings.sharded_checks import check_sharded

HELD_BY = {
    "perplexity": "perplexity",
    "rougeL": "rouge_l",
    "distinct_2": "distinct_2",
    "relevance": "relevance",
    "similarity": "similarity",
    "symbols": "symbols",
    "ref_kl": "kl",
}
"""Measure that a multiplier holds -> its bound in conf/budget; words have their own controller."""


def check_settings(settings: Settings) -> None:
    """Find values and combinations that cannot work, before anything heavy is imported.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with what was got, what is wanted and the key to change.
    """
    check_ranges(settings)
    check_names(settings)
    if settings.task.miniature not in POLICY_NAMES:
        raise SettingsError(
            f"task.miniature: got {settings.task.miniature!r}, want {' or '.join(POLICY_NAMES)}"
        )
    _check_batches(settings.algorithm)
    _check_budget(settings)
    _check_algorithm(settings.algorithm)
    _check_adapter(settings)
    check_sharded(settings)
    check_compile(settings)
    check_reward_terms(settings)
    for key, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        probe_texts(scorer.probe_texts, f"{key}.probe_texts")
    _check_lengths(settings)
    _check_protocol(settings)
    _check_audit(settings)
    check_decodings(settings)
    if settings.stage is Stage.export:
        check_export(settings.run, settings.export)
    if settings.stage is Stage.soup:
        check_soup(settings)
    if settings.stage is Stage.chat:
        check_chat(settings.chat)
    if settings.stage is Stage.compare:
        check_runs(settings.runs)
    _check_trainer(settings)
    check_rollout(settings)
    _check_plan(settings)
    check_packages(settings)
    check_run_dir(settings)


def _check_batches(algorithm: AlgorithmSettings) -> None:
    for small_key, large_key in (
        ("minibatch_size", "rollout_batch_size"),
        ("microbatch_size", "minibatch_size"),
        ("responses_per_prompt", "rollout_batch_size"),
    ):
        small, large = getattr(algorithm, small_key), getattr(algorithm, large_key)
        if large % small:
            raise SettingsError(
                f"algorithm.{small_key}={small} does not divide algorithm.{large_key}={large}; "
                f"want one of {[n for n in range(1, large + 1) if large % n == 0]}"
            )


GROUPED = (Baseline.leave_one_out, Baseline.group_mean, Baseline.group_zscore)


def _check_algorithm(algorithm: AlgorithmSettings) -> None:
    baseline, group = algorithm.baseline, algorithm.responses_per_prompt
    if group < 2 and baseline in GROUPED:
        raise SettingsError(
            f"algorithm.responses_per_prompt: got {group}; algorithm.baseline={baseline.value} "
            "compares responses to the same prompt, so want 2 or more"
        )
    every = algorithm.expert.prefix_credit_every
    if every and algorithm.action is Action.response:
        raise SettingsError(
            f"algorithm.expert.prefix_credit_every: got {every}; algorithm.action=response gives "
            "every token the same return, so want null there"
        )


def _check_trainer(settings: Settings) -> None:
    """Whether a method other than the main path can run at all."""
    algorithm = settings.algorithm
    if settings.stage is not Stage.detox or algorithm.trainer.kind is TrainerKind.native:
        return
    name = algorithm.trainer.kind.value
    if algorithm.responses_per_prompt < 2:
        raise SettingsError(
            f"algorithm.responses_per_prompt: got {algorithm.responses_per_prompt}; "
            f"algorithm={name} compares responses to the same prompt, so want 2 or more"
        )
    for key in _unread(algorithm):
        raise SettingsError(f"algorithm.{key}: algorithm={name} does not read it; leave it out")
    if settings.resume:
        raise SettingsError(
            f"resume: algorithm={name} keeps no checkpoints; name another hydra.run.dir"
        )


READ_BY_ALL = (
    "name",
    "iterations",
    "rollout_batch_size",
    "responses_per_prompt",
    "minibatch_size",
    "microbatch_size",
    "ppo_epochs",
    "learning_rate",
    "schedule",
    "warmup_iterations",
    "max_grad_norm",
    "expert.weight_decay",
)
"""Keys of `algorithm` that the methods beside the main path take, `ppo_epochs` since debug=smoke
sets it for all of them; the rest is the main path's."""
READ_ONLINE = (*READ_BY_ALL, "clip_range")
"""The same for those that sample while they train."""


def _unread(algorithm: AlgorithmSettings) -> list[str]:
    """Keys that were given a value of their own and that the method does not read."""
    online = algorithm.trainer.kind in (TrainerKind.trl_grpo, TrainerKind.trl_rloo)
    read = READ_ONLINE if online else READ_BY_ALL
    given, default = (flat(asdict(one)) for one in (algorithm, AlgorithmSettings()))
    return [
        key
        for key, value in given.items()
        if value != default[key] and not key.startswith("trainer.") and key not in read
    ]


def _check_budget(settings: Settings) -> None:
    words = settings.budget.words
    least, most = words if words is not None and len(words) == 2 else (None, None)
    in_order = least is not None and least > 0 and (most is None or most >= least)
    if words is not None and not in_order:
        raise SettingsError(
            f"budget.words: got {words}, want [least, most] as fractions of the start's words, "
            "most null or no less than least, as in [1.0,null]; or null"
        )
    length = settings.budget.length
    if most is not None and length is not None and most < length:
        raise SettingsError(
            f"budget.words: got {words}, whose most is below budget.length={length:g}, the least "
            "that the result may have; raise the one or lower the other"
        )
    longest = settings.budget.length_most
    for key, value in (("budget.length", length), ("budget.words", least)):
        if longest is not None and value is not None and longest < value:
            raise SettingsError(
                f"budget.length_most: got {longest:g}, the most that the result may have, below "
                f"the least of {key}, {value:g}; raise the one or lower the other"
            )
    if settings.budget.relevance is not None and settings.evaluation.encoder is None:
        raise SettingsError(
            f"budget.relevance: got {settings.budget.relevance:g}, but evaluation.encoder=null "
            "measures no relevance; want evaluation.encoder=sentence-transformers/all-MiniLM-L6-v2 "
            "or another encoder, or budget.relevance=null"
        )
    _check_similarity(settings)
    _check_multipliers(settings.budget)
    if settings.judge.length_debias:
        raise SettingsError("judge.length_debias: only training reads it; want false")
    fractions = list(settings.budget.fallback)
    falling = sorted(set(fractions), reverse=True)
    if fractions != falling or any(not 0 < fraction < 1 for fraction in fractions):
        raise SettingsError(
            f"budget.fallback: got {fractions}, want falling numbers between 0 and 1, or []"
        )
    beyond = list(settings.budget.extrapolation)
    if beyond != sorted(set(beyond)) or any(not 1 < strength <= 3 for strength in beyond):
        raise SettingsError(
            f"budget.extrapolation: got {beyond}, want rising numbers above 1 and up to 3, or []"
        )


def _check_similarity(settings: Settings) -> None:
    budget, reward = settings.budget, settings.reward
    product = reward.terms_combine is TermsCombine.product
    if budget.similarity is not None and not (product and reward.terms.similarity):
        raise SettingsError(
            f"budget.similarity: got {budget.similarity:g}, but the reward measures no similarity; "
            "want reward.terms_combine=product and reward.terms.similarity=1, or "
            "budget.similarity=null"
        )


def _check_multipliers(budget: BudgetSettings) -> None:
    for measure, begin in budget.controller.multipliers.items():
        key = f"budget.controller.multipliers.{measure}"
        if measure not in HELD_BY:
            raise SettingsError(f"{key}: got {measure}, want one of {', '.join(HELD_BY)}")
        if not (math.isfinite(begin) and begin >= 0):
            raise SettingsError(f"{key}: got {begin:g}, want 0 or more score units")
        if getattr(budget, HELD_BY[measure]) is None:
            raise SettingsError(
                f"{key}: got {begin:g}, but budget.{HELD_BY[measure]}=null binds no {measure}; "
                "want a bound, or no multiplier of it"
            )


def _check_adapter(settings: Settings) -> None:
    if settings.adapter.type is AdapterType.none:
        quantized = settings.quantization.type
        reason = (
            f"quantization={quantized.value} weights have no gradient"
            if quantized is not QuantizationType.none
            else "the base weights stay frozen here, so that base and reference share one backbone"
        )
        raise SettingsError(
            f"adapter=none asks for full-weight training, but {reason}; use adapter=lora"
        )
    if settings.reward.path is None and settings.reward.function is None:
        raise SettingsError("reward.path: got null; want a classifier, or set reward.function")
    for key, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        if scorer.timeout is not None and scorer.function is None:
            raise SettingsError(
                f"{key}.timeout: got {scorer.timeout:g}, but only a Python function can take too "
                f"long; want null, or {key}.function=file.py:name"
            )
    if settings.reward.function is not None and settings.judge.path is None:
        raise SettingsError(
            "judge.path: got null; with reward.function a classifier must measure toxicity"
        )


def _check_lengths(settings: Settings) -> None:
    for key, value, least in (
        ("generation.response_tokens", settings.generation.response_tokens, 1),
        ("data.query_tokens", settings.data.query_tokens, 1),
    ):
        if value is None:
            continue
        if not (len(value) == 2 and least <= value[0] <= value[1] <= MOST_TOKENS):
            raise SettingsError(
                f"{key}: got {value}, want [least, most] with {least} <= least <= most <= "
                f"{MOST_TOKENS:,}"
            )
    least = settings.generation.response_tokens[0]
    if settings.generation.min_new_tokens > least:
        raise SettingsError(
            f"generation.min_new_tokens={settings.generation.min_new_tokens} exceeds the least of "
            f"generation.response_tokens={settings.generation.response_tokens}"
        )
    fractions = settings.data.split_fractions
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SettingsError(
            f"data.split_fractions: got {fractions}, want three numbers above 0 that sum to 1 "
            "(train, validation, test)"
        )
    if settings.task.system is not None and not settings.task.chat:
        raise SettingsError("task.system: only task.chat=true reads it; want null")
    if settings.task.template.count("{prompt}") != 1:
        raise SettingsError(
            f"task.template: got {settings.task.template!r}, want a text with {{prompt}} in it once"
        )


def _check_protocol(settings: Settings) -> None:
    if settings.stage is not Stage.evaluate:
        return
    evaluation, data = settings.evaluation, settings.data
    if evaluation.protocol is Protocol.trl_guide and data.min_toxicity is None:
        raise SettingsError(
            "data.min_toxicity: got null; evaluation.protocol=trl_guide asks toxic prompts, so "
            "name their least toxicity, as in data.min_toxicity=0.5 (or data=wiki_toxic)"
        )
    _check_strengths(evaluation.strengths)
    if evaluation.protocol is Protocol.three_sets and not evaluation.sets:
        raise SettingsError(
            "evaluation.sets: got none; evaluation.protocol=three_sets wants further sets, as in "
            "+data@evaluation.sets.toxic=wiki_toxic +data@evaluation.sets.benign=wikitext"
        )


def _check_audit(settings: Settings) -> None:
    evaluation = settings.evaluation
    if evaluation.audit_least < 2:
        raise SettingsError(
            f"evaluation.audit_least: got {evaluation.audit_least}; one prompt tells nothing of a "
            "group, so want 2 or more"
        )
    if not all(name.strip() for name in evaluation.audit_group.split("|")):
        raise SettingsError(
            f"evaluation.audit_group: got {evaluation.audit_group!r}, want the name of a column, "
            "or several as in group|domain|identity"
        )


def _check_strengths(strengths: list[float]) -> None:
    finite = all(abs(one) <= MOST_STRENGTH for one in strengths)  # not so for NaN
    if not finite or len(set(strengths)) < len(strengths):
        raise SettingsError(
            f"evaluation.strengths: got {strengths}, want different numbers from "
            f"-{MOST_STRENGTH:g} to {MOST_STRENGTH:g}, as in [0,0.25,0.5,0.75,1,1.25,1.5], or []"
        )


def _check_plan(settings: Settings) -> None:
    device, memory = settings.plan.device, settings.plan.memory_gib
    if device not in (None, "cpu", "cuda"):
        raise SettingsError(f"plan.device: got {device}, want cpu, cuda, or null for device")
    if settings.stage is Stage.plan and device is not None and memory is None:
        raise SettingsError(
            f"plan.memory_gib: got null; plan.device={device} plans for another machine, so say "
            "what memory it has, as in plan.memory_gib=24"
        )
