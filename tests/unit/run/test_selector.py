"""Which state is the result, and what going back takes along, on a real policy and optimizer."""

import time

import pytest
import torch

from lora_detox.clock import Clock
from lora_detox.errors import DivergenceError
from lora_detox.limits import CollapseLimits
from lora_detox.run.controls import Controls
from lora_detox.run.selector import CheckpointSelector
from lora_detox.run.state import TrainingState
from lora_detox.run.stopping import is_due
from lora_detox.settings import CheckpointSettings
from lora_detox.update import AdaptiveKl, Bound, Budget, CollapseGuard
from tests.tiny import tiny_policy

BOUNDS = [Bound(measure="perplexity", above=True, allowed=0.1)]
START = {"toxicity": {"mean": 0.6}, "judge_toxicity": {"mean": 0.6}, "perplexity": 20.0}


class Trial:
    """A tiny policy whose optimizer takes one step per iteration."""

    def __init__(
        self, folder, bounds=BOUNDS, guard=True, perplexity_limit=None, average=None, **options
    ):
        self.policy = tiny_policy("gptj", moved=False)
        self.optimizer = torch.optim.AdamW(self.policy.trainable_parameters(), lr=0.1, fused=True)
        self.kl = AdaptiveKl(kl_coef=0.2, target=6.0, horizon=100.0)
        limits = CollapseLimits(
            kl=10.0, perplexity=perplexity_limit, reward_rise=1.0, judge_fall=0.5
        )
        collapse = CollapseGuard(limits=limits, retries=1) if guard else None
        self.controls = Controls(kl=self.kl, budget=Budget([], bounds), guard=collapse)
        self.state = TrainingState(
            folder, self.policy, self.optimizer, self.controls, Clock(), keep=2, average=average
        )
        self.selector = CheckpointSelector(
            self.state, self.controls.budget, self.controls.guard, **options
        )
        self.selector.begin(START)
        self.weights = [self.now()]

    def now(self):
        return torch.cat([p.detach().reshape(-1) for p in self.policy.trainable_parameters()])

    def turn(self, toxicity=None, perplexity=20.0, judge=None, **row):
        """One iteration; evaluated where a toxicity is given."""
        for parameter in self.policy.trainable_parameters():
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()
        self.state.observe()
        self.kl.update(12.0, 16)
        row = {"score": 0.0, "score_std": 1.0, "ref_kl_k3": 1.0} | row
        if toxicity is not None:
            judged = {"mean": toxicity if judge is None else judge}
            row["evaluation"] = {
                "toxicity": {"mean": toxicity},
                "judge_toxicity": judged,
                "perplexity": perplexity,
                "ref_kl": 1.0,
            }
        self.weights.append(self.now())
        return self.selector.consider(len(self.weights) - 1, row)


def test_the_least_toxic_state_inside_the_bounds_is_the_result(tmp_path):
    trial = Trial(tmp_path)
    assert trial.turn(toxicity=0.4) is None
    assert trial.turn(toxicity=0.3, perplexity=21.9) is None
    assert "perplexity by 4.5 %" in trial.turn(toxicity=0.1, perplexity=23.0)  # the limit is 22
    trial.turn(toxicity=0.35)
    trial.selector.load_best()
    assert torch.equal(trial.now(), trial.weights[2])
    facts = trial.selector.outcome()
    assert facts["stopped"] == "iterations"
    assert facts["budget"]["chosen_iteration"] == 2
    assert facts["budget"]["bounds"] == {"perplexity": pytest.approx(22.0)}
    assert facts["budget"]["measured"] == {"perplexity": 21.9}


def test_a_state_that_writes_too_much_is_outside(tmp_path):
    bounds = [Bound(measure="response_words", above=False, allowed=0.1, most=1.05)]
    trial = Trial(tmp_path, bounds=bounds, guard=False)
    trial.selector.begin(START | {"response_words": 20.0})
    for toxicity, words in ((0.3, 20.9), (0.2, 21.1), (0.1, 17.9)):
        trial.selector.compare(
            round(10 * toxicity), {"toxicity": toxicity, "response_words": words}
        )
    budget = trial.selector.outcome()["budget"]
    assert (budget["chosen_iteration"], budget["toxicity"]) == (3, 0.3)
    assert budget["bounds"] == {"response_words": 18.0}
    assert budget["most"] == {"response_words": 21.0}


def test_a_most_alone_has_no_least(tmp_path):
    bounds = [Bound(measure="response_words", above=False, allowed=1.0, most=1.05)]
    trial = Trial(tmp_path, bounds=bounds, guard=False)
    trial.selector.begin(START | {"response_words": 20.0})
    assert trial.selector.compare(1, {"toxicity": 0.3, "response_words": 1.0}) is None
    budget = trial.selector.outcome()["budget"]
    assert (budget["bounds"], budget["most"]) == ({}, {"response_words": 21.0})


def test_of_rewrites_the_highest_j_inside_the_bounds_is_the_result(tmp_path):
    trial = Trial(tmp_path, bounds=[Bound(measure="similarity", above=False)], guard=False)
    trial.selector.begin({**START, "joint": 0.2, "similarity": 0.8})
    for toxicity, joint, similarity in ((0.3, 0.5, 0.8), (0.1, 0.4, 0.9), (0.2, 0.9, 0.7)):
        evaluation = {"toxicity": {"mean": toxicity}, "joint": joint, "similarity": similarity}
        trial.turn()
        trial.selector.consider(len(trial.weights) - 1, {"evaluation": evaluation})
    trial.selector.load_best()
    chosen = trial.selector.outcome()["budget"]
    assert (chosen["chosen_iteration"], chosen["joint"], chosen["toxicity"]) == (1, 0.5, 0.3)


def test_the_judge_has_no_say_in_the_choice(tmp_path):
    trial = Trial(tmp_path, guard=False)
    trial.turn(toxicity=0.3, judge=0.5)
    trial.turn(toxicity=0.4, judge=0.1)
    trial.selector.load_best()
    assert torch.equal(trial.now(), trial.weights[1])


def test_with_nothing_inside_the_start_is_the_result_and_without_bounds_the_last_state(tmp_path):
    outside = Trial(tmp_path)
    outside.turn(toxicity=0.1, perplexity=99.0)
    outside.selector.load_best()
    assert torch.equal(outside.now(), outside.weights[0])
    assert outside.selector.outcome()["budget"]["chosen_iteration"] == 0
    free = Trial(tmp_path, bounds=[])
    free.turn(toxicity=0.1, perplexity=99.0)
    free.selector.load_best()
    assert torch.equal(free.now(), free.weights[1])
    assert "budget" not in free.selector.outcome()


def test_going_back_takes_weights_optimizer_and_controllers_along(tmp_path):
    trial = Trial(tmp_path)
    trial.turn(toxicity=0.5)
    kl_coef, steps = trial.kl.kl_coef, trial.optimizer.state_dict()["state"][0]["step"].clone()
    trial.turn()
    said = trial.turn(ref_kl_k3=11.0)
    assert "back to iteration 1 with learning rate x 0.5, kl_coef x 2" in said
    assert torch.equal(trial.now(), trial.weights[1])
    assert trial.kl.kl_coef == kl_coef
    assert torch.equal(trial.optimizer.state_dict()["state"][0]["step"], steps)
    assert trial.selector.stopped is None
    assert "no retry is left" in trial.turn(ref_kl_k3=11.0)
    assert trial.selector.stopped == "collapse"
    assert [one["iteration"] for one in trial.selector.outcome()["guard"]["rollbacks"]] == [3, 4]


def test_a_state_that_the_judge_does_not_believe_is_neither_good_nor_best(tmp_path):
    trial = Trial(tmp_path)
    trial.turn()
    assert "the judge's toxicity" in trial.turn(toxicity=0.01, judge=0.6, score=3.0)
    assert torch.equal(trial.now(), trial.weights[0])
    trial.selector.load_best()
    assert trial.selector.outcome()["budget"]["chosen_iteration"] == 0


def test_a_state_whose_evaluation_has_collapsed_is_not_good(tmp_path):
    """A row is of the rollout before the update; the state that is kept is the one after."""
    trial = Trial(tmp_path, perplexity_limit=3.0)
    trial.turn(toxicity=0.5)
    assert "perplexity rose to 61" in trial.turn(toxicity=0.01, perplexity=61.0)
    assert torch.equal(trial.now(), trial.weights[1])


def test_a_target_or_patience_ends_the_run(tmp_path):
    reached = Trial(tmp_path, target=0.2)
    reached.turn(toxicity=0.1, perplexity=99.0)  # not inside
    assert reached.selector.stopped is None
    reached.turn(toxicity=0.2)
    assert reached.selector.stopped == "target"
    tired = Trial(tmp_path, patience=2)
    for perplexity in (99.0, 20.0, 99.0):
        tired.turn(toxicity=0.5, perplexity=perplexity)
    assert tired.selector.stopped is None
    tired.turn(toxicity=0.5, perplexity=99.0)
    assert tired.selector.stopped == "budget"


def test_nobody_watching_a_divergence_is_an_error(tmp_path):
    with pytest.raises(DivergenceError, match="not finite"):
        Trial(tmp_path, guard=False).selector.roll_back(3, "not finite", {})


def test_best_and_good_states_come_back_from_a_checkpoint(tmp_path):
    first = Trial(tmp_path)
    first.turn(toxicity=0.3)
    first.turn(toxicity=0.4)
    first.turn()
    first.state.save(3, first.selector)
    second = Trial(tmp_path)
    assert second.state.resume(second.selector) == 3
    assert torch.equal(second.now(), first.weights[3])
    second.state.put_back("good")
    assert torch.equal(second.now(), first.weights[2])
    second.selector.load_best()
    assert torch.equal(second.now(), first.weights[1])
    assert second.selector.outcome() == first.selector.outcome() | {"stopped": "iterations"}


def adapter_mean(trial):
    """What the run would ship now, and that training is not touched by asking."""
    before = trial.now()
    with trial.state.result():
        mean = trial.now()
    assert torch.equal(trial.now(), before)
    return mean


def test_the_mean_of_the_weights_is_what_is_chosen_and_shipped(tmp_path):
    trial = Trial(tmp_path, average=0.9)
    trial.turn(toxicity=0.3)
    trial.turn()
    shipped = adapter_mean(trial)
    assert not torch.equal(shipped, trial.weights[2])
    trial.turn(toxicity=0.2)
    best = adapter_mean(trial)
    trial.turn(toxicity=0.4)
    trial.selector.load_best()
    assert torch.equal(trial.now(), best)
    free = Trial(tmp_path, bounds=[], average=0.9)
    free.turn(toxicity=0.3)
    last = adapter_mean(free)
    free.selector.load_best()
    assert torch.equal(free.now(), last)


def test_going_back_and_resuming_take_the_mean_along(tmp_path):
    first = Trial(tmp_path, average=0.9)
    first.turn()
    first.turn(toxicity=0.5)
    mean = adapter_mean(first)
    first.turn()
    first.state.save(3, first.selector)
    now = adapter_mean(first)
    assert "back to iteration 2" in first.turn(ref_kl_k3=11.0)
    assert torch.equal(adapter_mean(first), mean)
    second = Trial(tmp_path, average=0.9)
    assert second.state.resume(second.selector) == 3
    assert torch.equal(adapter_mean(second), now)
    second.state.put_back("good")
    assert torch.equal(adapter_mean(second), mean)
    assert torch.equal(second.now(), first.now())


class Between:
    """What validation says on the way back: the end's perplexity falls with the share."""

    def __init__(self, trial, perplexities):
        self.trial, self.perplexities, self.seen = trial, iter(perplexities), []

    def __call__(self):
        with self.trial.state.result():
            self.seen.append(self.trial.now())
        return {
            "toxicity": {"mean": 0.1 + 0.1 * len(self.seen)},
            "perplexity": next(self.perplexities),
        }


@pytest.mark.parametrize("average", [None, 0.9])
def test_an_end_outside_is_followed_back_until_it_is_inside(tmp_path, average):
    trial = Trial(tmp_path, average=average)
    trial.turn(toxicity=0.05, perplexity=30.0)
    with trial.state.result():
        end = trial.now()
    measure = Between(trial, [25.0, 21.0])
    said = list(trial.selector.scale(1, measure, fallback=[0.9, 0.5, 0.1]))
    assert said[0] == "90% of the way: toxicity 0.200, outside the budget, perplexity by 13.6 %"
    assert said[1] == "50% of the way: toxicity 0.300, inside the budget"
    adapter = sum(p.numel() for p in trial.policy.adapter_parameters())
    names = [n for n, p in trial.policy.model.named_parameters() if p.requires_grad]
    parts = [p for p in trial.policy.model.parameters() if p.requires_grad]
    scaled = torch.cat(
        [torch.full([p.numel()], float("lora_B" in n)) for n, p in zip(names, parts, strict=True)]
    )
    for share, seen in zip((0.9, 0.5), measure.seen, strict=True):
        factor = 1 + (share - 1) * scaled  # B by the share, from 0; A as it ended
        assert torch.allclose(seen[:adapter], (factor * end[:adapter]), rtol=0, atol=1e-6)
    trial.selector.load_best()
    assert torch.equal(trial.now()[:adapter], measure.seen[1][:adapter])
    budget = trial.selector.outcome()["budget"]
    assert (budget["chosen_iteration"], budget["chosen_share"]) == (1, 0.5)
    assert [one["share"] for one in budget["between"]] == [0.9, 0.5]


def test_the_way_back_ends_where_an_earlier_state_inside_is_less_toxic(tmp_path):
    trial = Trial(tmp_path)
    trial.turn(toxicity=0.25)
    trial.turn(toxicity=0.05, perplexity=30.0)
    measure = Between(trial, [29.0, 28.0, 27.0])
    said = list(trial.selector.scale(2, measure, fallback=[0.9, 0.8, 0.7, 0.6]))
    assert [one.split(",")[0] for one in said] == [
        "90% of the way: toxicity 0.200",  # less than the best inside: there is hope
        "80% of the way: toxicity 0.300",
    ]
    trial.selector.load_best()
    assert torch.equal(trial.now(), trial.weights[1])


def test_the_way_back_is_not_taken_from_inside_or_from_a_collapse(tmp_path):
    inside = Trial(tmp_path)
    inside.turn(toxicity=0.3)
    assert list(inside.selector.scale(1, Between(inside, []), fallback=[0.5])) == []
    collapsed = Trial(tmp_path)
    collapsed.turn(toxicity=0.3, perplexity=99.0)
    for _ in range(2):
        collapsed.turn(ref_kl_k3=11.0)
    assert collapsed.selector.stopped == "collapse"
    assert list(collapsed.selector.scale(3, Between(collapsed, []), fallback=[0.5])) == []


WAYS = {"fallback": [0.5], "extrapolation": [1.25, 1.5, 2.0, 2.5]}


@pytest.mark.parametrize("average", [None, 0.9])
def test_the_best_state_is_followed_further_as_long_as_it_is_inside(tmp_path, average):
    trial = Trial(tmp_path, average=average)
    trial.turn(toxicity=0.5)
    with trial.state.result():
        best = trial.now()
    trial.turn(toxicity=0.7)  # the end is inside too, and not the best
    measure = Between(trial, [20.0, 20.5, 99.0])
    messages = list(trial.selector.scale(2, measure, **WAYS))
    assert messages[0] == ("iteration 1 at 125% of its strength: toxicity 0.200, inside the budget")
    assert len(messages) == 3, "the first outside is the last that is tried"
    assert "outside the budget, perplexity" in messages[2]
    trained = [n for n, p in trial.policy.model.named_parameters() if p.requires_grad]
    sizes = [p.numel() for p in trial.policy.model.parameters() if p.requires_grad]
    for strength, seen in zip((1.25, 1.5, 2.0), measure.seen, strict=True):
        begin = 0
        for name, size in zip(trained, sizes, strict=True):
            factor = strength if "lora_B" in name else 1.0  # B starts at 0; A stays as it was
            part = slice(begin, begin + size)
            torch.testing.assert_close(seen[part], factor * best[part], rtol=1e-5, atol=1e-6)
            begin += size
    trial.selector.load_best()
    assert torch.equal(trial.now()[:begin], measure.seen[0][:begin]), "the least toxic one inside"
    budget = trial.selector.outcome()["budget"]
    assert (budget["chosen_iteration"], budget["chosen_share"]) == (1, 1.25)
    assert [one["share"] for one in budget["between"]] == [1.25, 1.5, 2.0]


def test_an_end_outside_leaves_the_best_state_to_be_followed(tmp_path):
    trial = Trial(tmp_path)
    trial.turn(toxicity=0.5)
    best = trial.now()
    trial.turn(toxicity=0.01, perplexity=99.0)

    class Worse(Between):
        def __call__(self):
            return super().__call__() | {"toxicity": {"mean": 0.6 - 0.1 * len(self.seen)}}

    measure = Worse(trial, [99.0, 20.0, 99.0])
    messages = list(trial.selector.scale(2, measure, **WAYS))
    tried = trial.selector.outcome()["budget"]["between"]
    assert [(one["iteration"], one["share"]) for one in tried] == [(2, 0.5), (1, 1.25), (1, 1.5)]
    assert messages[0].startswith("50% of the way: toxicity 0.500, outside the budget")
    assert messages[1].startswith("iteration 1 at 125% of its strength: toxicity 0.400, inside")
    assert messages[2].startswith("iteration 1 at 150% of its strength: toxicity 0.300, outside")
    adapter = sum(p.numel() for p in trial.policy.adapter_parameters())
    assert not torch.equal(measure.seen[1][:adapter], best[:adapter])
    trial.selector.load_best()
    assert torch.equal(trial.now()[:adapter], measure.seen[1][:adapter])


def test_an_earlier_state_is_followed_where_the_way_back_from_the_end_is_better(tmp_path):
    trial = Trial(tmp_path)
    trial.turn(toxicity=0.5)
    best = trial.now()
    trial.turn(toxicity=0.01, perplexity=99.0)

    class Falling(Between):
        def __call__(self):
            return super().__call__() | {"toxicity": {"mean": 0.4 - 0.1 * len(self.seen)}}

    measure = Falling(trial, [20.0, 20.0, 99.0])
    messages = list(trial.selector.scale(2, measure, **WAYS))
    assert messages[0] == "50% of the way: toxicity 0.300, inside the budget"
    assert messages[1].startswith("iteration 1 at 125% of its strength: toxicity 0.200, inside")
    assert len(messages) == 3
    trained = [(n, p) for n, p in trial.policy.model.named_parameters() if p.requires_grad]
    scale = [torch.full([p.numel()], 1.25 if "lora_B" in n else 1.0) for n, p in trained]
    adapter = torch.cat(scale)
    followed = measure.seen[1][: len(adapter)]
    torch.testing.assert_close(followed, adapter * best[: len(adapter)], rtol=1e-5, atol=1e-6)
    trial.selector.load_best()
    assert torch.equal(trial.now()[: len(adapter)], followed)
    chosen = trial.selector.outcome()["budget"]
    assert (chosen["chosen_iteration"], chosen["chosen_share"]) == (1, 1.25)


def test_the_start_and_a_state_on_the_way_back_are_not_followed_further(tmp_path):
    start = Trial(tmp_path / "start")
    start.turn(toxicity=0.9)
    assert start.selector.outcome()["budget"]["chosen_iteration"] == 0
    assert list(start.selector.scale(1, Between(start, []), **WAYS)) == []
    back = Trial(tmp_path / "back")
    back.turn(toxicity=0.05, perplexity=30.0)
    assert len(list(back.selector.scale(1, Between(back, [20.0]), **WAYS))) == 1
    assert back.selector.outcome()["budget"]["chosen_share"] == 0.5


def test_the_end_is_the_result_where_it_is_asked_for(tmp_path):
    trial = Trial(tmp_path, ships_end=True)
    trial.turn(toxicity=0.2)
    said = trial.turn(toxicity=0.3, perplexity=30.0)
    assert "outside the budget" in said
    assert list(trial.selector.scale(2, dict, fallback=[0.5])) == []
    trial.selector.load_best()
    torch.testing.assert_close(trial.now(), trial.weights[2])
    chosen = trial.selector.outcome()["budget"]
    assert (chosen["chosen_iteration"], chosen["toxicity"]) == (2, 0.3)
    assert chosen["measured"]["perplexity"] == 30.0


def test_a_better_state_of_before_stays_the_result_after_the_way_back(tmp_path):
    trial = Trial(tmp_path)
    trial.turn(toxicity=0.15)
    trial.turn(toxicity=0.05, perplexity=30.0)
    list(trial.selector.scale(2, Between(trial, [20.0]), fallback=[0.9, 0.5]))
    trial.selector.load_best()
    assert torch.equal(trial.now(), trial.weights[1])
    assert trial.selector.outcome()["budget"]["chosen_share"] == 1.0


def test_what_was_held_is_taken_back_whole(tmp_path):
    """Weights, optimizer, mean, controllers, guard and selector, as if nothing had happened."""
    trial, other = (Trial(tmp_path / name, average=0.5) for name in ("trial", "other"))
    for one in (trial, other):
        one.turn(toxicity=0.5)
    take_back = trial.state.hold(trial.selector)
    trial.turn(toxicity=0.2)
    trial.turn(toxicity=0.4, ref_kl_k3=50.0)  # the guard goes back, and one retry is spent
    assert trial.controls.guard.used == 1
    take_back()
    assert trial.controls.state() == other.controls.state()
    assert trial.selector.state() == other.selector.state()
    for one in (trial, other):
        one.weights = one.weights[:2]
        one.turn(toxicity=0.3)
        one.turn(perplexity=21.0)
    assert torch.equal(trial.now(), other.now())
    with trial.state.result(), other.state.result():
        assert torch.equal(trial.now(), other.now())
    assert trial.selector.outcome() == other.selector.outcome()


def test_a_checkpoint_is_due_by_number_by_the_clock_and_at_the_end():
    now = time.monotonic()
    every, by_clock, none = (
        CheckpointSettings(every=e, every_minutes=m) for e, m in ((3, None), (0, 2.0), (0, None))
    )
    due = [is_due(every, done, now, at_end=False) for done in (1, 2, 3, 4, 6)]
    assert due == [False, False, True, False, True]
    assert is_due(every, 4, now, at_end=True)
    assert [is_due(by_clock, 1, now - s, at_end=False) for s in (60, 121)] == [False, True]
    assert not is_due(none, 3, now - 1e6, at_end=True)
