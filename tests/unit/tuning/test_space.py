"""What the overrides of a study choose from, and what they are refused for."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_detox.errors import SettingsError
from lora_detox.tuning.space import read_space


def space_of(*overrides):
    return read_space(OverridesParser.create().parse_overrides(list(overrides)))


def test_intervals_ranges_and_lists_beside_what_is_fixed():
    space = space_of(
        "task=gptj_continuation",
        "algorithm.learning_rate=tag(log,interval(1e-4,1e-2))",
        "algorithm.ppo_epochs=interval(1,4)",
        "adapter.rank=range(4,17,4)",
        "algorithm=ppo,rloo",
        "export.path='a, b','c'",
    )
    assert space.fixed == ("task=gptj_continuation",)
    rate, epochs, rank, method, path = space.dimensions
    assert (rate.low, rate.high, rate.log, rate.whole) == (1e-4, 1e-2, True, False)
    assert (epochs.low, epochs.high, epochs.whole) == (1, 4, True)  # by the type of its key
    assert (rank.low, rank.high, rank.step, rank.whole) == (4, 16, 4, True)
    assert method.choices == ("ppo", "rloo")
    assert path.choices == ("'a, b'", "'c'")


def test_optuna_draws_from_the_same():
    optuna = pytest.importorskip("optuna")
    drawn = space_of(
        "a=interval(0.1,0.5)", "adapter.rank=range(4,17,4)", "b=range(0.1,0.55,0.1)", "c=x,y"
    ).distributions()
    distributions = optuna.distributions
    assert drawn["a"] == distributions.FloatDistribution(0.1, 0.5)
    assert drawn["adapter.rank"] == distributions.IntDistribution(4, 16, step=4)
    assert drawn["b"] == distributions.FloatDistribution(0.1, 0.5, step=0.1)
    assert drawn["c"] == distributions.CategoricalDistribution(("x", "y"))


def test_a_drawn_number_has_few_digits_and_stays_inside():
    (one,) = space_of("algorithm.kl.coef=interval(0.1,0.99996)").dimensions
    assert one.override(0.123456789) == "algorithm.kl.coef=0.1235"
    assert one.override(0.99995) == "algorithm.kl.coef=0.99995"  # 1.0 would be outside
    assert space_of("a=3,4").dimensions[0].override("3") == "a=3"
    assert space_of("seed=range(3)").dimensions[0].override(2) == "seed=2"


def test_each_end_is_tried_once():
    space = space_of("seed=1", "a=interval(0,1)", "b=x,y,z")
    assert space.probes() == [
        ["seed=1", "a=0.0", "b=x"],
        ["seed=1", "a=1.0", "b=x"],
        ["seed=1", "a=0.0", "b=y"],
        ["seed=1", "a=0.0", "b=z"],
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1", "nothing to choose from"),
        ("a=interval(2,1)", "want the lesser number first"),
        ("a=interval(1,1)", "want the lesser number first"),
        ("a=interval(0,inf)", "want the lesser number first"),
        ("a=tag(log,interval(0,1))", "want a number above 0"),
        ("a=tag(linear,interval(0,1))", "got the tag linear; want log or none"),
        ("seed=interval(0.5,2)", "it takes whole numbers"),
        ("seed=range(1,2)", "a range of 1 numbers"),
        ("seed=tag(log,range(1,9))", "a range has even steps"),
        ("a=choice(x)", "1 values to choose from"),
    ],
)
def test_what_is_no_space_is_refused(override, message):
    with pytest.raises(SettingsError, match=message):
        space_of(override)
