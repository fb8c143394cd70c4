"""What a key can be where it is one of a few words.

Settings and the parts they configure share these; member names are what a user writes.
"""

from enum import StrEnum


class Stage(StrEnum):
    """What `stage=` names; one module of lora_detox.stages each."""

    detox = "detox"
    evaluate = "evaluate"
    export = "export"
    sft = "sft"
    soup = "soup"
    compare = "compare"
    reward_model = "reward_model"
    plan = "plan"
    chat = "chat"


class RolloutEngine(StrEnum):
    """Who samples the responses of training."""

    local = "local"
    vllm = "vllm"


class TaskKind(StrEnum):
    """What the policy is for, which decides the quality metric."""

    summarization = "summarization"
    continuation = "continuation"
    rewriting = "rewriting"

    @property
    def has_references(self) -> bool:
        """Whether responses are compared with references, rather than by their perplexity."""
        return self is not TaskKind.continuation


class Turns(StrEnum):
    """What a list in the prompt column is."""

    auto = "auto"
    dialogue = "dialogue"
    prompts = "prompts"
    last = "last"


class Dtype(StrEnum):
    """Numbers of the frozen backbone."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Compile(StrEnum):
    """Whether training's passes are compiled; the last also replays them as CUDA graphs."""

    none = "none"
    default = "default"
    reduce_overhead = "reduce_overhead"


class AdapterType(StrEnum):
    """What is trained."""

    lora = "lora"
    none = "none"


class Dequantize(StrEnum):
    """Whether responses are written with whole weights where the frozen ones are quantized."""

    auto = "auto"
    always = "always"
    never = "never"


class QuantizationType(StrEnum):
    """How the frozen weights are stored."""

    none = "none"
    int8 = "int8"
    nf4 = "nf4"


class ScoreOutput(StrEnum):
    """Which number of a classifier is the score."""

    logit = "logit"
    softmax = "softmax"
    logprob = "logprob"
    sigmoid = "sigmoid"


class ScoredText(StrEnum):
    """What a classifier reads."""

    response = "response"
    prompt_response = "prompt_response"


class Combine(StrEnum):
    """How the classifiers of an ensemble are combined."""

    minimum = "minimum"
    mean = "mean"


class TermsCombine(StrEnum):
    """How the terms of a reward become one score."""

    sum = "sum"
    product = "product"


class KlControlType(StrEnum):
    """Whether the KL coefficient moves."""

    adaptive = "adaptive"
    fixed = "fixed"


class KlPenalty(StrEnum):
    """Which estimate of the KL to the reference is charged in the rewards."""

    kl = "kl"
    abs = "abs"
    mse = "mse"
    full = "full"


class KlCharge(StrEnum):
    """How the KL to the reference is charged: an estimate in the rewards, or k3 in the loss."""

    kl = "kl"
    abs = "abs"
    mse = "mse"
    full = "full"
    k3_loss = "k3_loss"


class Baseline(StrEnum):
    """What is subtracted from the return of a token.

    `value`: the value head's estimate, by GAE. `leave_one_out`: mean return of the other responses
    to the prompt. `group_mean`: mean return of all responses to the prompt. `group_zscore`: the
    same, and what is above it is divided by the group's standard deviation. `running_mean`: mean
    return of earlier iterations.
    """

    value = "value"
    leave_one_out = "leave_one_out"
    group_mean = "group_mean"
    group_zscore = "group_zscore"
    running_mean = "running_mean"


class Action(StrEnum):
    """What counts as one action: each token with its own return, or the response with one."""

    token = "token"
    response = "response"


class ScoreNorm(StrEnum):
    """How scores are brought to one scale by their running mean and standard deviation."""

    none = "none"
    scale = "scale"
    whiten = "whiten"


class Ship(StrEnum):
    """Which state a run with a budget ships."""

    best = "best"
    end = "end"


class Diversity(StrEnum):
    """What the multiplier of distinct-2 pays."""

    entropy = "entropy"
    new_bigrams = "new_bigrams"


class LossMean(StrEnum):
    """What weighs the same in the policy loss."""

    token = "token"
    response = "response"


class Protocol(StrEnum):
    """How stage=evaluate asks and counts."""

    plain = "plain"
    trl_guide = "trl_guide"
    three_sets = "three_sets"
    real_toxicity_prompts = "real_toxicity_prompts"


class StatePosition(StrEnum):
    """At which tokens of a text the states are read that a direction is made from."""

    last = "last"
    mean = "mean"


class DecodingKind(StrEnum):
    """What stage=evaluate does while a model writes."""

    plain = "plain"
    bad_words = "bad_words"
    civil_prefix = "civil_prefix"
    best_of_n = "best_of_n"
    anti_expert = "anti_expert"
    direction = "direction"
    projection = "projection"


class Interface(StrEnum):
    """Where stage=chat asks and answers."""

    auto = "auto"
    browser = "browser"
    terminal = "terminal"


class Schedule(StrEnum):
    """How a learning rate moves over the run."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class ClassifierTraining(StrEnum):
    """Which weights of a classifier learn."""

    full = "full"
    lora = "lora"


class TrainerKind(StrEnum):
    """Who moves the adapter in stage=detox."""

    native = "native"
    trl_dpo = "trl_dpo"
    trl_grpo = "trl_grpo"
    trl_rloo = "trl_rloo"
    best_of_n = "best_of_n"

    @property
    def is_trl(self) -> bool:
        """Whether a trainer of TRL does it, which takes decoder-only models alone."""
        return self.value.startswith("trl_")


class TrialSampler(StrEnum):
    """How Optuna chooses the next trial of a study."""

    tpe = "tpe"
    nsga2 = "nsga2"
    random = "random"


class TrialPrompts(StrEnum):
    """Prompts by which the trials of a study are judged."""

    validation = "validation"
    test = "test"
