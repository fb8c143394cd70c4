"""Warnings for programs known to be wrong: each once, each with its remedy."""

import re
import warnings
from pathlib import Path

import pytest
import torch

from lora_detox.classic import PPOConfig, PPOTrainer, create_reference_model
from lora_detox.classic.advice import REMEDIES
from tests.tiny import tiny_tokenizer
from tests.unit.classic.programs import (
    policy,
    quiet_trainer,
    some_queries,
    some_responses,
    some_scores,
)

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "migration.md"


def advice(record):
    """Remedies given, after checking that each warning holds one and points at this program."""
    given = []
    for warning in record:
        text = str(warning.message)
        remedies = [key for key, remedy in REMEDIES.items() if remedy in text]
        if "To mend it" in text:
            assert len(remedies) == 1, text
        if remedies:
            assert warning.filename == __file__
            assert "docs/" not in text  # the page is not in the wheel
            given += remedies
    return given


@pytest.mark.parametrize("key", REMEDIES)
def test_the_guide_explains_every_remedy(key):
    """Each stands in the guide under its mark, with the same code."""
    (line,) = (x for x in GUIDE.read_text().splitlines() if x.startswith(f"- **{key},"))
    code = re.findall("`(.+?)`", REMEDIES[key])
    assert code
    assert [piece for piece in code if piece not in line] == []


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_an_sft_adapter_without_reference(moved, given):
    model = policy(lora=True)
    if moved:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    reference = create_reference_model(model) if given else None
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        config = PPOConfig(batch_size=4, mini_batch_size=2)
        PPOTrainer(config, model, reference, tiny_tokenizer())
    assert advice(record) == (["R1"] if moved and not given else [])


def test_weights_in_float16():
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        config = PPOConfig(batch_size=4, mini_batch_size=2)
        PPOTrainer(config, policy("t5").half(), tokenizer=tiny_tokenizer())
    assert advice(record) == ["R6"]


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        ({"top_k": 50}, True),
        ({"top_p": 0.9, "top_k": 0}, True),
        ({"temperature": 0.7, "top_k": 0}, True),
        ({"min_length": 5, "top_k": 0.0}, True),
        ({"min_length": -1, "top_k": 0.0, "top_p": 1.0}, False),
        ({"do_sample": False}, False),
    ],
)
def test_sampling_from_what_is_not_scored(options, warns):
    trainer = quiet_trainer(policy())
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for _ in range(2):
            trainer.generate(some_queries(), **({"do_sample": True, "max_new_tokens": 2} | options))
    assert advice(record) == (["R2"] if warns else [])


def test_the_prompt_in_the_response():
    trainer = quiet_trainer(policy())
    queries = some_queries()
    both = [torch.cat(pair) for pair in zip(queries, some_responses(), strict=True)]
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        trainer.step(queries, both, some_scores())
        trainer.step(queries, both, some_scores())
    assert advice(record) == ["R3"]


def test_a_cut_that_reaches_into_the_query():
    trainer = quiet_trainer(policy())
    queries, responses = some_queries((5, 6, 5, 7)), some_responses()
    responses[2] = torch.cat([queries[2][-3:], responses[2][-2:]])
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        trainer.step(queries, responses, some_scores())
    assert advice(record) == ["R4"]
    assert any("response 2 begins with the end of its query" in str(w.message) for w in record)


def test_a_kl_that_no_kl_can_be():
    model = policy()
    trainer = quiet_trainer(model)
    for parameter in trainer.ref_model.v_head.parameters():
        parameter.data.zero_()
    trainer.compute_rewards = lambda scores, logprobs, ref, masks: (
        *[torch.zeros_like(logprobs)] * 2,
        torch.full_like(logprobs, -1.0),
    )
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        trainer.step(some_queries(), some_responses(), some_scores())
    assert advice(record) == ["R2"]
