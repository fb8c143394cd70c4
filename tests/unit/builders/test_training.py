"""Settings become the arguments of each stage."""

import pytest

from lora_detox.api import compose_settings
from lora_detox.builders.controls import budget_of, kl_control, new_bigrams_of, score_scaler
from lora_detox.builders.training import learning_rate_schedule
from lora_detox.choices import KlControlType, Schedule, ScoreNorm
from lora_detox.limits import CollapseLimits
from lora_detox.metrics import names
from lora_detox.run.controls import Controls
from lora_detox.settings import AlgorithmSettings
from lora_detox.settings.algorithm import ExpertSettings, KlSettings
from lora_detox.settings.checks import HELD_BY
from lora_detox.update import AdaptiveKl, CollapseGuard, FixedKl, PenaltyTerm, StepControl


def algorithm(**changes):
    return AlgorithmSettings(iterations=10, **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1.0] * 10),
        ({"warmup_iterations": 3}, [0.25, 0.5, 0.75] + [1.0] * 7),
        ({"schedule": Schedule.linear}, [1 - i / 10 for i in range(10)]),
        (
            {"schedule": Schedule.linear, "warmup_iterations": 2},
            [1 / 3, 2 / 3] + [1 - i / 8 for i in range(8)],
        ),
    ],
)
def test_schedules_by_iteration(changes, expected):
    factor = learning_rate_schedule(algorithm(**changes))
    assert [factor(i) for i in range(10)] == pytest.approx(expected)


def test_the_cosine_schedule_halves_in_the_middle_and_ends_near_zero():
    factor = learning_rate_schedule(algorithm(schedule=Schedule.cosine))
    assert factor(0) == 1.0
    assert factor(5) == pytest.approx(0.5)
    assert 0 < factor(9) < 0.03


def test_the_kl_control_is_the_one_that_was_asked_for():
    adaptive = kl_control(algorithm(kl=KlSettings(coef=0.3, target=2.0, horizon=500.0)))
    assert adaptive == AdaptiveKl(kl_coef=0.3, target=2.0, horizon=500.0)
    fixed = kl_control(algorithm(kl=KlSettings(control=KlControlType.fixed, coef=0.3)))
    assert fixed == FixedKl(kl_coef=0.3)


def test_the_scaler_is_the_one_that_was_asked_for():
    for norm, expected in (
        ("none", (False, False)),
        ("scale", (True, False)),
        ("whiten", (True, True)),
    ):
        clip = ExpertSettings(score_clip=2.0)
        scaler = score_scaler(algorithm(score_norm=ScoreNorm(norm), expert=clip))
        assert (scaler.scale, scaler.center, scaler.clip) == (*expected, 2.0)


@pytest.mark.parametrize(
    ("allowed", "margin", "aimed"),
    [(0.05, 0, 0.05), (0.05, 0.8, 0.01), (0.05, 1, 0), (-0.04, 1, -0.04)],
)
def test_training_aims_inside_what_the_result_is_held_to(allowed, margin, aimed):
    settings = compose_settings(
        [
            "task=gptj_continuation",
            f"budget.perplexity={allowed}",
            f"budget.controller.margin={margin}",
        ]
    )
    budget = budget_of(settings, references=False)
    assert budget.bounds[names.PERPLEXITY].allowed == allowed
    assert budget.constraints[names.PERPLEXITY].bound.allowed == pytest.approx(aimed)


@pytest.mark.parametrize(
    ("task", "held"),
    [("gptj_continuation", True), ("flan_summary", False), ("flan_summary_real", False)],
)
@pytest.mark.parametrize("asked", [None, 0.97])
def test_a_bound_on_the_length_holds_with_references_too_where_it_is_asked_for(task, held, asked):
    words = [] if asked is None else [f"budget.length={asked}"]
    settings = compose_settings([f"task={task}", *words])
    budget = budget_of(settings, references=settings.task.kind.has_references)
    lengths = {names.RESPONSE_TOKENS, names.RESPONSE_WORDS} & set(budget.bounds)
    assert bool(lengths) == (names.TYPICAL_WORDS in budget.constraints) == (held or asked == 0.97)
    if asked is not None:
        assert budget.bounds[names.RESPONSE_WORDS].limit(20.0) == pytest.approx(19.4)


@pytest.mark.parametrize(
    ("given", "least", "most", "training"),
    [
        (["budget.words=null", "budget.length_most=1.05"], 18.0, 21.0, (0.9, 1.05)),
        (
            ["budget.words=null", "budget.length=null", "budget.length_most=1.05"],
            0.0,
            21.0,
            (0.01, 1.05),
        ),
        (["budget.length_most=1.05", "budget.words=[1.0,1.1]"], 18.0, 21.0, (1.0, 1.05)),
        (["budget.length_most=1.2", "budget.words=[1.0,1.1]"], 18.0, 24.0, (1.0, 1.1)),
    ],
)
def test_too_long_is_outside_too_where_that_is_asked_for(given, least, most, training):
    budget = budget_of(compose_settings(["task=gptj_continuation", *given]), references=False)
    for measure in (names.RESPONSE_WORDS, names.RESPONSE_TOKENS):
        bound = budget.bounds[measure]
        assert (bound.limit(20.0), bound.upper(20.0)) == pytest.approx((least, most))
        assert bound.excess(most, 20.0) <= 1e-9
        assert bound.excess(1.1 * most, 20.0) == pytest.approx(0.1)
    held = budget.constraints[names.TYPICAL_WORDS]
    assert (1 - held.bound.allowed, 1 + held.most.allowed) == pytest.approx(training)


def test_the_margin_of_an_absolute_allowance_is_a_fraction_of_it():
    asked = ["budget.symbols=0.005", "budget.controller.margin=0.2"]
    budget = budget_of(compose_settings(asked), references=True)
    assert budget.bounds[names.SYMBOLS].plus == 0.005
    assert budget.constraints[names.SYMBOLS].bound.plus == pytest.approx(0.004)


def test_distinct_2_has_its_own_gain_and_the_length_is_held_both_ways_where_asked():
    asked = [
        "task=gptj_continuation",
        "budget.controller.distinct_2_gain=7",
        "budget.controller.gain=0.3",
    ]
    held = budget_of(compose_settings(asked), references=False).constraints
    assert (held[names.DISTINCT_2].gain, held[names.PERPLEXITY].gain) == (7, 0.3)
    assert held[names.TYPICAL_WORDS].most is None
    asked.append("budget.words=[1.0,1.2]")
    held = budget_of(compose_settings(asked), references=False).constraints
    assert held[names.TYPICAL_WORDS].most.limit(10.0) == pytest.approx(12.0)
    assert held[names.PERPLEXITY].most is None


@pytest.mark.parametrize(
    ("asked", "term"),
    [
        ([], PenaltyTerm.SURPRISE),
        (["budget.controller.distinct_2_pays=new_bigrams"], PenaltyTerm.BIGRAMS),
        (["budget.controller.distinct_2_pays=new_bigrams", "budget.distinct_2=null"], None),
    ],
)
def test_what_distinct_2_pays_is_asked_for(asked, term):
    settings = compose_settings(["task=gptj_continuation", *asked])
    budget = budget_of(settings, references=False)
    held = budget.constraints
    assert (names.DISTINCT_2 in held) == (term is not None)
    assert term is None or held[names.DISTINCT_2].term is term
    assert (new_bigrams_of(budget) is not None) == (term is PenaltyTerm.BIGRAMS)


def test_multipliers_begin_where_they_are_told_and_move_from_there():
    asked = [
        "task=gptj_continuation",
        "budget.controller.multipliers={distinct_2: 2.0, ref_kl: 0.5}",
        "budget.controller.smoothing=1.0",
        "budget.controller.damping=0",
    ]
    held = budget_of(compose_settings(asked), references=False).constraints
    assert held[names.DISTINCT_2].multiplier == 2.0
    assert held[names.REF_KL].multiplier == 0.5
    assert held[names.PERPLEXITY].multiplier == 0
    for value in (0.8, 0.8):  # well inside: the start, then the same
        held[names.DISTINCT_2].observe(value)
    assert 0 < held[names.DISTINCT_2].multiplier < 2.0


def test_every_multiplier_that_may_begin_is_one_of_a_constraint():
    bounds = [f"budget.{key}=0.1" for key in HELD_BY.values()]
    product = ["task=rewrite", "evaluation.encoder=anything"]
    held = set()
    for references in (False, True):
        asked = compose_settings([*product, *bounds])
        held |= set(budget_of(asked, references=references).constraints)
    assert held - {names.TYPICAL_WORDS} == set(HELD_BY)


def test_the_controllers_are_on_top_of_the_schedule():
    guard = CollapseGuard(limits=CollapseLimits(), retries=3, used=1)
    assert Controls(step=StepControl(target=0.001, factor=0.25)).learning_rate_factor() == 0.25
    controls = Controls(step=StepControl(target=0.001, factor=0.25), guard=guard)
    assert controls.learning_rate_factor() == 0.125
