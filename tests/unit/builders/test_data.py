"""The prompts of a run: each split as often as it is answered."""

import torch

from lora_detox import api
from lora_detox.builders.data import encode_prompts
from lora_detox.builders.policy import backbone_plan
from lora_detox.builders.rows import load_data
from lora_detox.embedded import embedded_path
from lora_detox.policy.preflight import read_config
from lora_detox.policy.tokenizer import load_tokenizer


def encoded(*overrides):
    settings = api.compose_settings(
        [
            "task=gptj_continuation",
            "evaluation.validation_prompts=5",
            "evaluation.test_prompts=7",
            *overrides,
        ]
    )
    plan = backbone_plan(settings, str(embedded_path("gptj")))
    tokenizer = load_tokenizer(plan, read_config(plan))
    return encode_prompts(settings, load_data(settings), tokenizer, encoder_decoder=False)


def test_prompts_stand_as_often_as_they_are_answered():
    once = encoded()
    thrice = encoded("evaluation.validation_samples=3", "evaluation.samples_per_prompt=2")
    assert len(once.validation.texts) == 5
    assert len(once.test.texts) == 7
    assert len(thrice.test.texts) == 14
    assert thrice.validation.texts == [text for text in once.validation.texts for _ in range(3)]
    ids, mask = once.validation.query_ids, once.validation.query_mask
    torch.testing.assert_close(thrice.validation.query_ids, ids.repeat_interleave(3, dim=0))
    torch.testing.assert_close(thrice.validation.query_mask, mask.repeat_interleave(3, dim=0))


def test_training_prompts_follow_the_seed_alone():
    first, again, other = encoded(), encoded(), encoded("seed=1")
    for iteration in (0, 7):
        texts = first.train.batch(iteration).texts
        assert texts == again.train.batch(iteration).texts
        assert texts != other.train.batch(iteration).texts
    assert first.validation.texts == other.validation.texts
