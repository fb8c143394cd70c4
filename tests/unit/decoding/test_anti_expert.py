"""Two caches on one backbone write what a plain recomputation of both sides gives."""

import pytest
import torch
from peft import LoraConfig

from lora_detox.decoding.anti_expert import TOXIC, AntiExpert, apart, using
from lora_detox.decoding.contexts import edited
from lora_detox.policy.logits import language_logits
from lora_detox.types import Sampling
from tests.tiny import VOCABULARY, tiny_policy, tiny_prompts

LENGTHS = [5, 3, 8, 2]


def with_anti_expert(architecture):
    """A policy with an adapter of its own, and an anti-expert on further modules."""
    policy = tiny_policy(architecture)
    task = "SEQ_2_SEQ_LM" if architecture in ("t5", "bart") else "CAUSAL_LM"
    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type=task)
    policy.model.add_adapter(TOXIC, config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if TOXIC in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    policy.model.double().eval()  # rounding of fp32 grows with alpha, and would need a tolerance
    return policy


def by_hand(policy, prompts, written, rows, *, alpha, adapter=None):
    """Logits behind what is written, without any cache."""
    ids = torch.cat([written, torch.zeros(len(written), 1, dtype=torch.long)], dim=1)
    batch = prompts.query_ids[rows], prompts.query_mask[rows], ids, torch.ones_like(ids).bool()
    own = language_logits(
        policy.backbone, policy.family.response_hidden(policy.backbone, *batch)[:, -1]
    )
    with using(policy.backbone, TOXIC):
        toxic = language_logits(
            policy.backbone, policy.family.response_hidden(policy.backbone, *batch)[:, -1]
        )
    assert (own - toxic).abs().max() > 0.1
    return own, own + alpha * (own - toxic)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("architecture", ["t5", "gptj", "gpt_neo", "llama"])
def test_cached_decoding_is_the_recomputation(architecture, static):
    policy = with_anti_expert(architecture)
    policy.static_cache = static
    prompts, rows = tiny_prompts(policy, LENGTHS), torch.arange(4)
    draw = torch.Generator().manual_seed(0)
    with apart(policy), edited(policy, lambda *b: AntiExpert(policy, *b, alpha=2.0, top_p=None)):
        session = policy.decoding(prompts.query_ids, prompts.query_mask, Sampling(), 6)
        written, token_ids = torch.zeros(4, 0, dtype=torch.long), None
        for position in range(6):
            logits = session.next_logits(token_ids)
            _, expected = by_hand(policy, prompts, written, rows, alpha=2.0)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
            token_ids = torch.randint(3, VOCABULARY, (len(rows),), generator=draw)
            written = torch.cat([written, token_ids[:, None]], dim=1)
            if position == 2:  # two rows have ended
                kept = torch.tensor([0, 2])
                session.keep(kept)
                rows, written, token_ids = rows[kept], written[kept], token_ids[kept]


@torch.no_grad()
def test_at_alpha_near_0_it_is_the_model_itself_among_its_own_candidates():
    policy = with_anti_expert("gptj")
    prompts = tiny_prompts(policy, LENGTHS)
    own, _ = by_hand(policy, prompts, torch.zeros(4, 0, dtype=torch.long), torch.arange(4), alpha=1)
    for top_p in (None, 0.5):
        keys = {"alpha": 1e-9, "top_p": top_p}
        with edited(policy, lambda *batch, keys=keys: AntiExpert(policy, *batch, **keys)):
            session = policy.decoding(prompts.query_ids, prompts.query_mask, Sampling(), 6)
            logits = session.next_logits(None)
        allowed = torch.ones_like(logits, dtype=torch.bool)
        if top_p is not None:
            ordered, order = own.softmax(dim=-1).sort(descending=True)
            before = ordered.cumsum(dim=-1) - ordered
            allowed = torch.zeros_like(allowed).scatter(-1, order, before < top_p)
            assert 0 < int(allowed.sum()) < allowed.numel()
        torch.testing.assert_close(logits[allowed], own[allowed], rtol=1e-5, atol=1e-5)
        assert (logits[~allowed] == -torch.inf).all()


def test_adapters_stay_apart_and_the_models_own_is_back():
    policy = with_anti_expert("gptj")
    policy.model.float()  # what is merged is fp32
    layer = policy.backbone.transformer.h[0].attn.q_proj
    before = layer.get_base_layer().weight.clone()
    with policy.merged():
        assert not torch.equal(layer.get_base_layer().weight, before)
    with apart(policy), policy.merged():
        assert torch.equal(layer.get_base_layer().weight, before)
        with using(policy.backbone, TOXIC):
            assert layer.active_adapters == [TOXIC]
    assert layer.active_adapters == ["default"]
    assert policy.merges
    assert policy.edit_logits is None
