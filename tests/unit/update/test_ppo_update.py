"""What an update does to real weights: each option has the effect that it is named after."""

import math
from dataclasses import replace

import pytest
import torch

from lora_detox.rollout import Passes, collect_rollout, generate_responses
from lora_detox.rollout.collect import noise_kl
from lora_detox.types import Advantages, Sampling
from lora_detox.update import PpoPlan, PpoUpdate
from lora_detox.update.ppo_loss import TokenBatch, ppo_loss
from lora_detox.update.step_control import StepControl
from recipes.benchmarks.counting import Counter
from tests.tiny import DECODER_ONLY, ENCODER_DECODER, move, tiny_policy, tiny_prompts

SAMPLING = Sampling()
PLAN = {
    "ppo_epochs": 1,
    "clip_range": 0.2,
    "value_clip_range": 0.2,
    "value_coef": 0.1,
    "max_grad_norm": None,
    "ratio_threshold": 10.0,
    "target_kl": None,
}
FAMILIES = pytest.mark.parametrize("architecture", [ENCODER_DECODER, DECODER_ONLY])


class Trial:
    """A tiny policy with 8 sampled responses and random advantages; SGD, so that moves add up."""

    def __init__(
        self,
        architecture=DECODER_ONLY,
        minibatch_size=4,
        microbatch_size=4,
        rows=8,
        response_tokens=(2, 6),
        **adapter,
    ):
        self.policy = tiny_policy(architecture, **adapter)
        prompts = tiny_prompts(self.policy, [5, 2, 7, 3, 4, 6, 2, 5][:rows])
        responses = generate_responses(
            self.policy,
            prompts,
            SAMPLING,
            response_tokens=response_tokens,
            batch_size=8,
            seed=3,
        )
        self.rollout = collect_rollout(
            self.policy,
            prompts,
            responses,
            SAMPLING,
            minibatch_size=minibatch_size,
            passes=Passes(rows=microbatch_size),
            seed=5,
        )
        generator = torch.Generator().manual_seed(7)
        mask = self.rollout.response_mask
        draws = [torch.randn(mask.shape, generator=generator) * mask for _ in range(2)]
        self.advantages = Advantages(
            rewards=draws[0], ref_kl=draws[0] * 0, advantages=draws[0], returns=draws[1]
        )
        self.moves = []

    def weights(self):
        return torch.cat([p.detach().reshape(-1) for p in self.policy.trainable_parameters()])

    def step(self, iteration=0, learning_rate=0.1, learning_rate_at=lambda _: 1.0, **changes):
        """Stats of one update; `moves` gets the weight change of every optimizer step."""
        self.optimizer = torch.optim.SGD(self.policy.trainable_parameters(), lr=learning_rate)
        last = [self.weights()]

        def record(*_):
            last.append(self.weights())
            self.moves.append(last[-1] - last[-2])

        self.optimizer.register_step_post_hook(record)
        plan = PpoPlan(**(PLAN | changes))
        update = PpoUpdate(self.policy, self.optimizer, plan, SAMPLING, learning_rate_at)
        return update.step(self.rollout, self.advantages, iteration)


@FAMILIES
def test_weights_do_not_depend_on_the_microbatch_size(architecture):
    after = []
    for microbatch_size in (1, 2, 4):
        trial = Trial(architecture, microbatch_size=microbatch_size)
        start = trial.weights()
        trial.step(learning_rate=1e-3)
        after.append(trial.weights() - start)
    for other in after[1:]:
        torch.testing.assert_close(other, after[0], rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@FAMILIES
def test_the_first_ratio_is_one_and_a_stale_rollout_shows(architecture):
    assert Trial(architecture).step().first_ratio_error < 1e-5
    stale = Trial(architecture)
    move(stale.policy, seed=9)
    assert stale.step(ratio_threshold=1e9).first_ratio_error > 1e-2


def test_every_optimizer_step_is_held_to_the_gradient_norm():
    free, held = Trial(), Trial()
    norm = free.step(ppo_epochs=3, learning_rate=1e-3).gradient_norm
    bound = norm / 50
    stats = held.step(ppo_epochs=3, learning_rate=1e-3, max_grad_norm=bound)
    assert len(free.moves) == len(held.moves) == stats.optimizer_steps == 6
    assert all(float(move.norm()) > 2e-3 * bound for move in free.moves)
    for move_ in held.moves:
        assert float(move_.norm()) == pytest.approx(1e-3 * bound, rel=0.02)
    assert stats.gradient_norm > 5 * bound  # logged before clipping


def test_a_ratio_beyond_the_threshold_takes_no_step():
    trial = Trial()
    trial.rollout = replace(trial.rollout, logprobs=trial.rollout.logprobs - 4)
    start = trial.weights()
    stats = trial.step(ppo_epochs=2)
    assert (stats.optimizer_steps, stats.skipped_steps) == (0, 4)
    assert torch.equal(trial.weights(), start)
    assert stats.ratio == pytest.approx(math.exp(4), rel=1e-3)
    assert trial.step(ratio_threshold=100.0).optimizer_steps == 2


@pytest.mark.parametrize("where", ["advantages", "returns"])
def test_a_loss_that_is_not_finite_skips_its_minibatch_only(where):
    trial = Trial()
    bad = trial.rollout.minibatches[0][0][0]
    broken = getattr(trial.advantages, where).clone()
    broken[bad, 0] = torch.nan
    trial.advantages = replace(trial.advantages, **{where: broken})
    start = trial.weights()
    stats = trial.step(ppo_epochs=3)
    assert (stats.optimizer_steps, stats.skipped_steps) == (3, 3)
    assert trial.weights().isfinite().all()
    assert not torch.equal(trial.weights(), start)


def test_a_gradient_that_is_not_finite_takes_no_step():
    trial = Trial()
    parameter = next(iter(trial.policy.adapter_parameters()))
    parameter.register_hook(lambda gradient: gradient * torch.inf)
    start = trial.weights()
    stats = trial.step(max_grad_norm=1.0)
    assert (stats.optimizer_steps, stats.skipped_steps) == (0, 2)
    assert torch.equal(trial.weights(), start)


def test_a_fused_optimizer_skips_as_any_other_does():
    """The same minibatches with and without `fused`: the same weights, moments and step counts."""
    after = []
    for fused in (True, False):
        trial = Trial()
        bad = trial.rollout.minibatches[0][0][0]
        broken = trial.advantages.advantages.clone()
        broken[bad, 0] = torch.nan
        optimizer = torch.optim.AdamW(trial.policy.trainable_parameters(), lr=1e-2, fused=fused)
        update = PpoUpdate(trial.policy, optimizer, PpoPlan(**PLAN | {"ppo_epochs": 3}), SAMPLING)
        stats = update.step(trial.rollout, replace(trial.advantages, advantages=broken), 0)
        assert (stats.optimizer_steps, stats.skipped_steps) == (3, 3)
        states = list(optimizer.state.values())
        assert {float(state["step"]) for state in states} == {3.0}
        assert not hasattr(optimizer, "found_inf")
        moments = torch.cat([state["exp_avg"].flatten() for state in states])
        after.append((trial.weights(), moments))
    for one, other in zip(*after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@FAMILIES
def test_the_host_waits_once_an_update_and_not_for_each_minibatch(architecture):
    """A GPU idles whenever the host asks for a number or for the size of a selection.

    Transformers asks itself twice in a pass whether the padding masks of fused attention are all
    True; GPT-J has that attention from Transformers 5.24 on.
    """
    for epochs in (1, 3):
        trial = Trial(architecture, microbatch_size=2)
        optimizer = torch.optim.AdamW(trial.policy.trainable_parameters(), fused=True)
        plan = PpoPlan(**PLAN | {"ppo_epochs": epochs, "max_grad_norm": 1.0})
        update = PpoUpdate(trial.policy, optimizer, plan, SAMPLING)
        masks = 2 * (trial.policy.model.config._attn_implementation == "sdpa")
        with Counter([]) as counter:
            update.step(trial.rollout, trial.advantages, 0)
        passes = epochs * sum(map(len, trial.rollout.minibatches))
        assert counter.counts.waits <= 3 + masks * passes


def with_rounding(trial, deviation=0.06):
    """The rollout as bf16 gives it: logprobs of equal weights that differ by rounding."""
    mask = trial.rollout.response_mask
    noise = deviation * torch.randn(mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    trial.rollout = replace(
        trial.rollout,
        logprobs=trial.rollout.logprobs + noise,
        noise_kl=0.5 * float(noise.square().sum() / mask.sum()),
    )
    return trial


def test_rounding_is_no_movement():
    """A step of next to nothing moves nothing, whatever the passes of bf16 differ by."""
    trial, step = with_rounding(Trial()), StepControl(target=0.001)
    for _ in range(10):
        stats = trial.step(learning_rate=1e-12, ppo_epochs=2)
        step.update(stats.moved_kl)
    assert stats.approx_kl > 1.2e-3
    assert stats.moved_kl < 1e-6
    assert step.factor == 1.0
    assert not trial.step(learning_rate=1e-12, ppo_epochs=3, target_kl=1e-4).early_stopped
    far = with_rounding(Trial()).step(learning_rate=0.1, ppo_epochs=3)
    assert far.moved_kl > 0.5 * far.approx_kl


@FAMILIES
def test_the_rollout_says_how_far_rounding_alone_takes_a_pass(architecture):
    assert Trial(architecture).rollout.noise_kl == 0.0  # fp32
    trial = Trial(architecture)
    batch = (trial.rollout.prompts.query_ids, trial.rollout.prompts.query_mask)
    batch += (trial.rollout.response_ids, trial.rollout.response_mask, SAMPLING)
    trial.policy.backbone.to(torch.bfloat16)
    before = trial.weights()
    with torch.no_grad():
        plain = trial.policy.respond(*batch).logprobs
        with trial.policy.nudged() as rounds:
            assert rounds
            nudged = trial.policy.respond(*batch).logprobs
        again = trial.policy.respond(*batch).logprobs
    assert torch.equal(plain, again)
    assert torch.equal(trial.weights(), before)
    gap = (nudged - plain)[trial.rollout.response_mask]
    assert noise_kl(trial.policy, batch, plain) == pytest.approx(0.5 * float(gap.square().mean()))
    plain[0, 0] = -torch.inf  # a token that only rounding keeps inside top-k
    assert math.isfinite(noise_kl(trial.policy, batch, plain))


def test_target_kl_ends_the_update_after_the_epoch_that_exceeds_it():
    stopped = Trial().step(ppo_epochs=4, learning_rate=1.0, target_kl=1e-6)
    assert (stopped.ppo_epochs, stopped.optimizer_steps, stopped.early_stopped) == (1, 2, True)
    free = Trial().step(ppo_epochs=4, learning_rate=1e-4, target_kl=1.0)
    assert (free.ppo_epochs, free.optimizer_steps, free.early_stopped) == (4, 8, False)


def test_the_value_coefficient_scales_what_the_value_head_learns():
    moves = {}
    for value_coef in (0.0, 0.1, 0.2):
        trial = Trial(minibatch_size=8, microbatch_size=8, moved=False)
        trial.step(value_coef=value_coef)
        moves[value_coef] = torch.cat(
            [p.detach().reshape(-1) for p in trial.policy.value_head.parameters()]
        )
    assert (moves[0.0] == 0).all()  # it starts from 0
    assert moves[0.1].abs().max() > 0
    torch.testing.assert_close(moves[0.2], 2 * moves[0.1])


def test_the_schedule_sets_the_rate_of_each_iteration():
    trial = Trial()
    start = trial.weights()
    stats = trial.step(iteration=3, learning_rate_at=lambda iteration: 0.0 if iteration else 1.0)
    assert stats.learning_rate == 0.0
    assert torch.equal(trial.weights(), start)
    half = trial.step(iteration=3, learning_rate=0.2, learning_rate_at=lambda i: 1 / (i - 1))
    assert half.learning_rate == pytest.approx(0.1)
    assert not torch.equal(trial.weights(), start)


def test_clipping_holds_the_policy_near_the_rollout():
    """With many epochs on one rollout, a narrow clip range ends nearer to where it began."""
    drift = {}
    for clip_range in (0.01, 10.0):
        trial = Trial()
        stats = trial.step(
            ppo_epochs=20, learning_rate=0.05, clip_range=clip_range, ratio_threshold=1e9
        )
        drift[clip_range] = stats.approx_kl
        assert (stats.clip_fraction > 0.3) == (clip_range == 0.01)
    assert drift[0.01] < 0.2 * drift[10.0]


def test_adapter_dropout_draws_from_the_iteration_alone():
    """Else a resumed run would not repeat what the interrupted one did."""
    after = []
    for seed in (1, 2):
        trial = Trial(dropout=0.5)
        torch.manual_seed(seed)
        trial.step(iteration=4)
        after.append(trial.weights())
    plain = Trial()
    plain.step(iteration=4)
    assert torch.equal(*after)
    assert not torch.equal(after[0], plain.weights())


def test_a_kl_charged_in_the_loss_brings_the_policy_back_to_its_reference():
    distances = {}
    for kl_coef in (0.0, 1.0):
        trial = Trial(minibatch_size=8, microbatch_size=8)
        nothing = torch.zeros_like(trial.advantages.advantages)
        trial.advantages = Advantages(
            rewards=nothing,
            ref_kl=nothing,
            advantages=nothing,
            returns=nothing,
            kl_coef_in_loss=kl_coef,
        )
        trial.step(ppo_epochs=3, value_coef=0.0, learning_rate=0.3)
        rollout, prompts = trial.rollout, trial.rollout.prompts
        queries = prompts.query_ids, prompts.query_mask
        now = trial.policy.respond(
            *queries, rollout.response_ids, rollout.response_mask, SAMPLING
        ).logprobs.detach()
        d = rollout.ref_logprobs - now
        distances[kl_coef] = float((torch.expm1(d) - d).sum())
    assert distances[1.0] < 0.8 * distances[0.0]


@FAMILIES
def test_without_value_head_nothing_but_the_adapter_learns(architecture):
    trial = Trial(architecture, with_value_head=False)
    assert trial.policy.value_head is None
    assert not trial.rollout.values.any()
    names = {n for n, p in trial.policy.model.named_parameters() if p.requires_grad}
    assert sum(1 for _ in trial.policy.trainable_parameters()) == len(names)
    start = trial.weights()
    stats = trial.step()
    assert (stats.value_loss, stats.value_clip_fraction) == (None, None)
    assert not torch.equal(trial.weights(), start)


def forward(trial):
    """What the policy of now says of the rollout, all rows at once."""
    rollout, prompts = trial.rollout, trial.rollout.prompts
    with torch.no_grad():
        return trial.policy.respond(
            prompts.query_ids,
            prompts.query_mask,
            rollout.response_ids,
            rollout.response_mask,
            SAMPLING,
        )


@FAMILIES
def test_stats_are_means_over_the_tokens_of_what_the_loss_says(architecture):
    """No rate, so that both epochs see the same policy; it moved since the rollout."""
    trial = Trial(architecture)
    move(trial.policy, seed=9)
    now, rollout = forward(trial), trial.rollout
    batch = TokenBatch(
        logprobs=rollout.logprobs,
        values=rollout.values,
        advantages=trial.advantages.advantages,
        returns=trial.advantages.returns,
        mask=rollout.response_mask,
    )
    tokens = int(rollout.response_mask.sum())
    loss = {
        name: float(total) / tokens
        for name, total in vars(ppo_loss(now.logprobs, now.values, batch, 0.2, 0.2)).items()
    }
    stats = trial.step(ppo_epochs=2, learning_rate=0.0, ratio_threshold=1e9)
    close = {"rel": 1e-3, "abs": 1e-6}
    assert stats.policy_loss == pytest.approx(loss["policy"], **close)
    assert stats.value_loss == pytest.approx(loss["value"], **close)
    assert stats.value_clip_fraction == pytest.approx(loss["value_clipped"], **close)
    assert stats.clip_fraction == pytest.approx(loss["clipped"], **close)
    assert stats.approx_kl == pytest.approx(loss["approx_kl"], **close)
    assert stats.ratio == pytest.approx(loss["ratio"], **close)
    assert stats.entropy == pytest.approx(float(now.entropy.sum()) / tokens, **close)
    assert 0 < stats.value_clip_fraction < 1
    assert 0 < stats.clip_fraction < 1


def test_one_token_is_its_own_mean():
    trial = Trial(rows=1, response_tokens=(1, 1), minibatch_size=1)
    now = forward(trial)
    stats = trial.step(learning_rate=0.0)
    assert stats.entropy == pytest.approx(float(now.entropy.sum()), rel=1e-4)
    assert stats.policy_loss == pytest.approx(-float(trial.advantages.advantages), rel=1e-4)


def test_the_gradient_norm_is_the_mean_over_the_optimizer_steps():
    for minibatch_size in (4, 8):
        trial = Trial(minibatch_size=minibatch_size)
        stats = trial.step(learning_rate=1e-3)
        norms = [float(one.norm()) / 1e-3 for one in trial.moves]
        assert len(norms) == 8 // minibatch_size
        assert stats.gradient_norm == pytest.approx(sum(norms) / len(norms), rel=1e-2)


def test_without_value_head_returns_that_are_not_finite_skip_too():
    """No gradient shows it: nothing but the sum of the loss does."""
    trial = Trial(with_value_head=False)
    broken = trial.advantages.returns.clone()
    broken[trial.rollout.minibatches[0][0][0], 0] = torch.nan
    trial.advantages = replace(trial.advantages, returns=broken)
    stats = trial.step()
    assert (stats.optimizer_steps, stats.skipped_steps) == (1, 1)


@pytest.mark.parametrize(("factor", "epochs"), [(0.99, 1), (1.01, 2)])
def test_the_first_epoch_is_the_last_just_above_one_and_a_half_target_kls(factor, epochs):
    options = {"learning_rate": 0.05, "ratio_threshold": 1e9}
    approx_kl = Trial().step(ppo_epochs=1, **options).approx_kl
    stats = Trial().step(ppo_epochs=2, target_kl=factor * approx_kl / 1.5, **options)
    assert stats.ppo_epochs == epochs


def test_target_kl_looks_at_the_newest_epoch_alone():
    """The first epoch begins at 0, so that the second lies at twice the mean of both."""
    sizes, options = {"minibatch_size": 8, "microbatch_size": 8}, {"learning_rate": 0.05}
    mean = Trial(**sizes).step(ppo_epochs=2, **options).approx_kl
    stats = Trial(**sizes).step(ppo_epochs=3, target_kl=mean, **options)
    assert (stats.ppo_epochs, stats.early_stopped) == (2, True)


def test_the_order_of_minibatches_is_that_of_the_iteration_whatever_dropout_draws():
    def order(dropout, iteration):
        trial, seen = Trial(minibatch_size=2, dropout=dropout), []
        respond = trial.policy.respond

        def recorded(query_ids, *args, **options):
            seen.append(query_ids.tolist())
            return respond(query_ids, *args, **options)

        trial.policy.respond = recorded
        trial.step(iteration=iteration, ppo_epochs=3, learning_rate=0.0)
        return seen

    assert order(0.0, 4) == order(0.5, 4)
    assert order(0.0, 4) != order(0.0, 5)
    with_one_order = order(0.0, 4)
    assert with_one_order[:4] != with_one_order[4:8]


def test_kept_states_are_handed_to_the_pass_of_their_own_rows():
    trial, seen = Trial(microbatch_size=2, scope="last_1"), []
    frozen, respond = trial.rollout.frozen, trial.policy.respond

    def recorded(query_ids, query_mask, ids, mask, sampling, kept, **options):
        seen.append((tuple(map(tuple, ids.tolist())), kept))
        return respond(query_ids, query_mask, ids, mask, sampling, kept, **options)

    trial.policy.respond = recorded
    trial.step()
    wanted = {
        tuple(map(tuple, trial.rollout.response_ids[rows].tolist())): kept
        for minibatch, states in zip(trial.rollout.minibatches, frozen, strict=True)
        for rows, kept in zip(minibatch, states, strict=True)
    }
    assert len(wanted) == 4
    assert all(wanted[ids] is kept is not None for ids, kept in seen)
    trial.rollout, seen[:] = replace(trial.rollout, frozen=None), []
    assert trial.step().optimizer_steps == 2
    assert [kept for _, kept in seen] == [None] * 4
