"""What is sampled: aligned with the scorer, independent of batching, ended where it should be."""

import pytest
import torch

from lora_detox import machine
from lora_detox.errors import DivergenceError
from lora_detox.rollout import Passes, collect_rollout, generate_responses
from lora_detox.rollout.passes import partition_rows
from lora_detox.rollout.sampling import BLOCK, draw, sample_responses
from lora_detox.types import Sampling
from tests.tiny import ARCHITECTURES, MORE_ARCHITECTURES, tiny_policy, tiny_prompts

LENGTHS = [5, 9, 2, 7, 3, 11]


PLAIN = Sampling()
EVERY_ARCHITECTURE = ARCHITECTURES + MORE_ARCHITECTURES


def generate(policy, sampling=PLAIN, batch_size=6, response_tokens=(8, 8), seed=3):
    prompts = tiny_prompts(policy, LENGTHS)
    return prompts, generate_responses(
        policy, prompts, sampling, response_tokens=response_tokens, batch_size=batch_size, seed=seed
    )


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.8, top_k=9, top_p=0.8, min_new_tokens=3)]
)
@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_recomputed_logprobs_equal_the_sampled_ones(architecture, sampling):
    policy = tiny_policy(architecture)
    prompts, responses = generate(policy, sampling)
    rollout = collect_rollout(
        policy, prompts, responses, sampling, minibatch_size=3, passes=Passes(rows=2), seed=0
    )
    torch.testing.assert_close(rollout.logprobs, responses.logprobs, rtol=1e-4, atol=1e-4)
    assert rollout.logprobs[rollout.response_mask].isfinite().all()


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_responses_do_not_depend_on_the_batch_size(architecture):
    policy = tiny_policy(architecture)
    _, together = generate(policy, batch_size=6)
    _, alone = generate(policy, batch_size=1)
    assert torch.equal(together.ids, alone.ids)
    assert torch.equal(together.mask, alone.mask)
    assert together.texts == alone.texts


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_greedy_equals_the_library(architecture):
    policy = tiny_policy(architecture)
    prompts, responses = generate(policy, Sampling(greedy=True))
    library = policy.model.generate(
        input_ids=prompts.query_ids,
        attention_mask=prompts.query_mask.long(),
        do_sample=False,
        max_new_tokens=8,
        pad_token_id=0,
        eos_token_id=1,
    )
    skip = 1 if policy.backbone.config.is_encoder_decoder else prompts.query_ids.shape[1]
    library = library[:, skip:]
    for row, mask in enumerate(responses.mask):
        assert responses.ids[row][mask].tolist() == library[row][: int(mask.sum())].tolist()


def test_rows_end_at_eos_which_is_kept_or_at_their_own_bound():
    policy = tiny_policy("gptj")
    _, responses = generate(policy, response_tokens=(2, 9), seed=5)
    lengths = responses.mask.sum(1)
    assert len(set(lengths.tolist())) > 1
    for ids, mask in zip(responses.ids, responses.mask, strict=True):
        kept = ids[mask].tolist()
        assert 1 not in kept[:-1]
        assert 1 <= len(kept) <= 9
        assert kept[-1] == 1 or len(kept) >= 2
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)


def test_masks_come_from_lengths_also_where_pad_is_eos():
    policy = tiny_policy("gpt2")
    policy.tokenizer.pad_token = "</s>"
    _, responses = generate(policy)
    ended = [ids[mask][-1] == 1 for ids, mask in zip(responses.ids, responses.mask, strict=True)]
    assert any(ended)
    assert all(responses.logprobs[responses.mask] < 0)


def test_min_new_tokens_keeps_eos_away():
    policy = tiny_policy("t5")
    with torch.no_grad():
        policy.backbone.lm_head.weight[1] += 5 * policy.backbone.lm_head.weight.std()
    _, responses = generate(policy, Sampling(min_new_tokens=4))
    assert (responses.mask.sum(1) >= 4).all()
    assert not (responses.ids[:, :4] == 1).any()


def test_draw_follows_the_distribution_and_never_takes_the_impossible():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    uniforms = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    tokens = draw(logits.log_softmax(-1).expand(20000, 4), uniforms, greedy=False)
    frequencies = torch.bincount(tokens, minlength=4) / 20000
    torch.testing.assert_close(frequencies, logits[0].softmax(0), rtol=0, atol=1e-4)
    edge = draw(
        logits.log_softmax(-1).expand(2, 4),
        torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64),
        greedy=False,
    )
    assert edge.tolist() == [0, 3]


def test_draw_is_the_inverse_of_the_cumulative_distribution():
    log_p = (4 * torch.randn(64, 3 * BLOCK + 17)).log_softmax(-1)
    log_p[:, ::7] = -torch.inf
    log_p = log_p.log_softmax(-1)
    uniforms = torch.rand(64, dtype=torch.float64)
    ends = log_p.exp().double().cumsum(-1)
    plain = torch.searchsorted(ends, uniforms[:, None] * ends[:, -1:], right=True)[:, 0]
    assert draw(log_p, uniforms, greedy=False).tolist() == plain.tolist()
    for edge in (0.0, 1 - 2**-53):
        drawn = draw(log_p, torch.full((64,), edge, dtype=torch.float64), greedy=False)
        assert log_p.gather(1, drawn[:, None]).isfinite().all()


def test_logits_that_are_no_numbers_are_told():
    policy = tiny_policy(ARCHITECTURES[0])
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.fill_(torch.finfo(weight.dtype).max)
    with pytest.raises(DivergenceError, match=r"NaN or infinite.*algorithm\.learning_rate"):
        generate(policy)


def test_partition_holds_every_row_once_in_full_minibatches():
    lengths, none = torch.randint(1, 50, (24,)), torch.zeros(24, dtype=torch.long)
    parts = partition_rows(lengths, none, minibatch_size=8, passes=Passes(rows=4), seed=1)
    assert [[len(m) for m in minibatch] for minibatch in parts] == [[4, 4]] * 3
    rows = torch.cat([m for minibatch in parts for m in minibatch])
    assert sorted(rows.tolist()) == list(range(24))
    for long, short in parts:
        assert lengths[long].min() >= lengths[short].max()
    other = partition_rows(lengths, none, minibatch_size=8, passes=Passes(rows=4), seed=2)
    assert not all(
        torch.equal(a, b)
        for p, q in zip(parts, other, strict=True)
        for a, b in zip(p, q, strict=True)
    )


def test_rows_are_cut_where_padding_costs_more_than_a_pass():
    def cut(queries, rows=4, tokens=None, overhead=10):
        return Passes(rows=rows, tokens=tokens, overhead=overhead).cut(queries, [0] * len(queries))

    assert cut([100, 99, 20, 19]) == [2, 2]
    assert cut([100, 99, 20, 19], overhead=1000) == [4]
    assert cut([100, 99, 98, 97], rows=3) == [2, 2]
    assert cut([100, 99, 98, 97], tokens=200) == [2, 2]
    assert cut([100, 99, 98], tokens=50) == [1, 1, 1]


def test_a_launch_weighs_more_where_bf16_is_multiplied_in_tiles(monkeypatch):
    def overhead(tiles, device="cpu", dtype=torch.bfloat16):
        monkeypatch.setattr(machine, "has_bf16_tiles", lambda: tiles)
        return Passes.on(torch.device(device), 4, dtype=dtype).overhead

    assert overhead(tiles=True) > overhead(tiles=False)
    assert overhead(tiles=True, dtype=torch.float32) == overhead(tiles=False)
    assert overhead(tiles=False, device="cuda") > overhead(tiles=True)


@pytest.mark.parametrize("count", [1, 5, 9])
def test_the_cut_is_the_cheapest_of_all(count):
    queries = sorted(torch.randint(1, 60, (count,)).tolist(), reverse=True)
    responses = torch.randint(1, 30, (count,)).tolist()

    def cost(sizes):
        total, begin = 0, 0
        for size in sizes:
            rows = slice(begin, begin + size)
            total += size * (max(queries[rows]) + max(responses[rows])) + 25
            begin += size
        return total

    def every_cut(left):
        if left == 0:
            yield []
        for size in range(1, min(4, left) + 1):
            yield from ([size, *rest] for rest in every_cut(left - size))

    sizes = Passes(rows=4, overhead=25).cut(queries, responses)
    assert sum(sizes) == count
    assert cost(sizes) == min(map(cost, every_cut(count)))


def test_a_policy_that_says_nothing_still_has_one_action():
    policy = tiny_policy("gptj")
    with torch.no_grad():  # end-of-sequence at once
        policy.backbone.lm_head.bias[1] = 100.0
    prompts, responses = generate(policy)
    assert responses.ids.tolist() == [[1]] * len(LENGTHS)
    assert responses.texts == [""] * len(LENGTHS)
    rollout = collect_rollout(
        policy, prompts, responses, Sampling(), minibatch_size=6, passes=Passes(rows=3), seed=0
    )
    assert rollout.response_mask.sum() == len(LENGTHS)


def test_the_exact_kl_is_collected_where_it_is_asked_for():
    policy = tiny_policy("t5")
    prompts, responses = generate(policy)
    options = {"minibatch_size": 3, "passes": Passes(rows=2), "seed": 0}
    rollout = collect_rollout(policy, prompts, responses, PLAIN, full_kl=True, **options)
    batch = prompts.query_ids, prompts.query_mask, responses.ids, responses.mask, PLAIN
    torch.testing.assert_close(rollout.full_kl, policy.full_kl(*batch), rtol=1e-4, atol=1e-5)
    assert rollout.full_kl.any()
    assert collect_rollout(policy, prompts, responses, PLAIN, **options).full_kl is None


def test_states_are_kept_for_each_pass_and_filled():
    policy = tiny_policy("t5", scope="last_1")
    prompts, responses = generate(policy)
    rollout = collect_rollout(
        policy, prompts, responses, PLAIN, minibatch_size=3, passes=Passes(rows=2), seed=0
    )
    assert [len(kept) for kept in rollout.frozen] == [len(rows) for rows in rollout.minibatches]
    for rows, kept in zip(rollout.minibatches, rollout.frozen, strict=True):
        for some, states in zip(rows, kept, strict=True):
            assert states.encoded.shape[0] == len(some)


def test_a_bound_on_tokens_reaches_the_passes():
    passes = Passes.on(torch.device("cpu"), 4, 200)
    assert (passes.rows, passes.tokens) == (4, 200)
    assert Passes.on(torch.device("cpu"), 4).tokens is None


def test_a_partition_depends_on_its_seed_alone_and_is_cut_by_both_lengths():
    queries, responses = torch.arange(1, 13), 5 * torch.arange(12, 0, -1)

    def cut(global_seed):
        torch.manual_seed(global_seed)
        return partition_rows(
            queries, responses, minibatch_size=12, passes=Passes(rows=4, overhead=0), seed=3
        )

    (first,), (other,) = cut(0), cut(1)
    assert torch.equal(torch.cat(first), torch.cat(other))
    assert torch.cat(first).tolist() == list(range(12))  # by query and response, longest first


def test_equally_long_rows_keep_the_order_of_the_shuffle():
    same = torch.ones(64, dtype=torch.long)
    ((rows,),) = partition_rows(same, same, minibatch_size=64, passes=Passes(rows=64), seed=3)
    shuffle = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    assert torch.equal(rows, shuffle)


def test_bounds_and_then_fp64_uniforms_are_drawn_from_the_seed():
    policy = tiny_policy("gptj")
    prompts, responses = generate(policy, response_tokens=(2, 6), seed=4)
    generator = torch.Generator().manual_seed(4)
    bounds = torch.randint(2, 7, (6,), generator=generator)
    uniforms = torch.rand(6, 6, generator=generator, dtype=torch.float64)
    ids, mask, logprobs = sample_responses(
        policy, prompts.query_ids, prompts.query_mask, PLAIN, bounds, uniforms
    )
    width = responses.ids.shape[1]
    assert torch.equal(responses.ids, ids[:, :width])
    assert torch.equal(responses.mask, mask[:, :width])
    torch.testing.assert_close(responses.logprobs, logprobs[:, :width], rtol=1e-4, atol=1e-5)


def test_each_row_ends_at_its_own_bound():
    policy = tiny_policy("gptj")
    with torch.no_grad():  # end-of-sequence never
        policy.backbone.lm_head.bias[1] = -100.0
    prompts, bounds = tiny_prompts(policy, LENGTHS), torch.tensor([1, 6, 2, 3, 6, 1])
    uniforms = torch.rand(6, 6, dtype=torch.float64)
    _, mask, _ = sample_responses(
        policy, prompts.query_ids, prompts.query_mask, PLAIN, bounds, uniforms
    )
    assert mask.sum(dim=1).tolist() == bounds.tolist()


def test_the_tail_of_a_vocabulary_is_drawn_where_fp32_sums_would_lose_it():
    probabilities = torch.zeros(3 * BLOCK)
    probabilities[[0, BLOCK, 2 * BLOCK]] = torch.tensor([1.0, 1e-9, 1e-9])
    whole = 1 + 2e-9
    uniforms = torch.tensor([1 - 1e-9, 1 + 0.5e-9, 1 + 1.5e-9], dtype=torch.float64) / whole
    tokens = draw(probabilities.log().expand(3, -1), uniforms, greedy=False)
    assert tokens.tolist() == [0, BLOCK, 2 * BLOCK]
