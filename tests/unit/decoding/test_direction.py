"""States of texts whatever their batch; a direction whose strength of 1 joins the two means."""

import pytest
import torch

from lora_detox.choices import StatePosition
from lora_detox.decoding.direction import mean_difference, moved
from lora_detox.decoding.states import layer_output, text_states
from lora_detox.policy.anatomy import decoder_layers, decoder_stack
from lora_detox.types import Sampling
from tests.tiny import tiny_policy, tiny_prompts

TEXTS = ["w5 w6 w7 w8 w9", "w10", "w11 w12 w13", ""]


@pytest.mark.parametrize("position", StatePosition)
@pytest.mark.parametrize("architecture", ["gptj", "gpt_neo", "llama", "t5", "bart"])
def test_states_of_a_text_are_those_of_the_text_alone(architecture, position):
    policy = tiny_policy(architecture)
    layers = decoder_layers(policy.backbone)
    together = text_states(policy, TEXTS, layers, position)
    assert len(together) == len(layers)
    for number, text in enumerate(TEXTS):
        for joint, alone in zip(
            together, text_states(policy, [text], layers, position), strict=True
        ):
            torch.testing.assert_close(joint[number : number + 1], alone, rtol=1e-4, atol=1e-5)
    last = together[-1]
    assert (last[0] - last[1]).abs().max() > 0.01


@torch.no_grad()
def test_the_last_state_is_the_one_that_predicts_the_next_token():
    policy = tiny_policy("gptj")
    (state,) = text_states(policy, TEXTS[:1], decoder_layers(policy.backbone)[-1:])
    begins = [policy.eos_token_ids[0]]  # as this tokenizer puts nothing before a text
    assert policy.tokenizer.bos_token_id is None
    ids = torch.tensor([begins + policy.tokenizer(TEXTS[0]).input_ids])
    stack = decoder_stack(policy.backbone)
    whole = stack(input_ids=ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(stack.ln_f(state), whole[:, -1], rtol=1e-4, atol=1e-5)
    layers = decoder_layers(policy.backbone)[-1:]
    shorter = [policy.tokenizer.decode(ids[0, 1:n]) for n in range(2, ids.shape[1] + 1)]
    (each,) = text_states(policy, shorter, layers)  # the last token of each beginning
    (mean,) = text_states(policy, TEXTS[:1], layers, StatePosition.mean)
    torch.testing.assert_close(mean[0], each.mean(dim=0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("bos", [None, 3])
def test_the_state_of_the_token_before_a_text_is_not_the_texts(bos):
    """Of many models it is hundreds of times as long as the others, and hides them in a mean."""
    policy = tiny_policy("llama")
    policy.tokenizer.bos_token_id = bos
    (layer,) = decoder_layers(policy.backbone)[-1:]

    def long_first(_module, _inputs, output):
        states = layer_output(output)
        first = (torch.arange(states.shape[1]) == firsts[:, None])[..., None]
        return torch.where(first, 1e6, states)

    rows = policy.tokenizer(TEXTS, add_special_tokens=False).input_ids
    counts = sorted((max(1, len(ids)) for ids in rows), reverse=True)  # as they are read
    firsts = torch.tensor([counts[0] - count for count in counts])
    with layer.register_forward_hook(long_first):
        for position in StatePosition:
            (states,) = text_states(policy, TEXTS, [layer], position)
            assert states.abs().max() < 1e3


def test_a_strength_of_1_moves_the_toxic_mean_onto_the_civil_one():
    draw = torch.Generator().manual_seed(0)
    toxic, civil = torch.randn(7, 5, generator=draw) + 3, torch.randn(9, 5, generator=draw)
    direction = mean_difference(toxic, civil)
    torch.testing.assert_close((toxic - direction).mean(dim=0), civil.mean(dim=0))


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("architecture", ["gptj", "t5", "gpt2", "opt"])
def test_a_strength_of_0_changes_nothing_and_any_other_is_undone(architecture, static):
    policy = tiny_policy(architecture)
    policy.static_cache = static
    prompts, last = tiny_prompts(policy, [4, 2, 6]), decoder_layers(policy.backbone)[-1]
    direction = torch.linspace(-1, 1, policy.backbone.config.hidden_size)

    def logits(strength=None):
        session = policy.decoding(prompts.query_ids, prompts.query_mask, Sampling(), 3)
        if strength is None:
            return [session.next_logits(None), session.next_logits(torch.tensor([5, 6, 7]))]
        with moved(last, direction, strength):
            return [session.next_logits(None), session.next_logits(torch.tensor([5, 6, 7]))]

    plain = logits()
    assert all(map(torch.equal, logits(0.0), plain))
    assert all((one - other).abs().max() > 0.01 for one, other in zip(logits(1.0), plain, strict=1))
    assert all(map(torch.equal, logits(), plain))
