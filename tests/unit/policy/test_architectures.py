"""Every architecture of the matrix, loaded as a run loads it and compared with the plain model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from peft import PeftModel
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox.errors import SettingsError
from lora_detox.policy.adapter import AdapterPlan, lora_config
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.types import Sampling
from tests.architectures import (
    DECODER_ONLY,
    ENCODER_DECODER,
    REFUSED,
    RELEASE,
    Architecture,
    page,
)
from tests.tiny import move, tiny_prompts, tiny_responses, tiny_tokenizer
from tests.tiny_configs import tiny_config

ADAPTER = AdapterPlan(rank=2, alpha=4.0, targets=("all-linear",))
UPPER = replace(ADAPTER, scope="last_1")
QUERY_AND_VALUE = replace(ADAPTER, targets=())
QUERIES, RESPONSES = [11, 4, 7], [5, 2, 4]
PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def older_than(release):
    return Version(transformers.__version__) < Version(release)


def plain_model(row, folder):
    """A model whose distributions are spread, so that mistakes show, and its folder."""
    if row.model_type not in CONFIG_MAPPING:
        pytest.skip(f"this Transformers has no {row.model_type}")
    if isinstance(row, Architecture) and older_than(row.since):
        pytest.skip(f"{row.model_type} is right from Transformers {row.since} on")
    config = row.config()
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Fixed positions are not written; what scales by 0 at first would take no gradient.
            if parameter.requires_grad and (parameter.dim() >= 2 or not parameter.any()):
                parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


def load(folder, adapter):
    return load_policy(BackbonePlan(path=str(folder), device="cpu"), adapter)


def batch_for(policy):
    prompts, (ids, mask) = tiny_prompts(policy, QUERIES), tiny_responses(RESPONSES)
    return prompts.query_ids, prompts.query_mask, ids, mask


@torch.no_grad()
def own_logprobs(model, batch):
    """By the forward pass that people call, row by row without padding."""
    logprobs = torch.zeros(batch[2].shape)
    for row, (query_ids, query_mask, ids, mask) in enumerate(zip(*batch, strict=True)):
        query, response = query_ids[query_mask][None], ids[mask][None]
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            written = torch.cat([start, response[:, :-1]], dim=1)
            logits = model(input_ids=query, decoder_input_ids=written).logits
        else:
            logits = model(input_ids=torch.cat([query, response], dim=1)).logits
            logits = logits[:, query.shape[1] - 1 : -1]
        every = logits.float().log_softmax(dim=-1)
        logprobs[row, mask] = every.gather(-1, response[:, :, None])[0, :, 0]
    return logprobs


@torch.no_grad()
def scored(policy, batch, frozen=None):
    return policy.respond(*batch, Sampling(), frozen).logprobs


@torch.no_grad()
def sampled(policy, batch):
    """Tokens drawn with the decoder of a run, and their logprobs; short rows leave the batch."""
    queries, query_mask, ids, mask = batch
    ids, logprobs = torch.zeros_like(ids), torch.zeros(ids.shape)
    generator = torch.Generator().manual_seed(3)
    rows, drawn = torch.arange(len(ids)), None
    session = policy.decoding(queries, query_mask, Sampling())
    for position in range(ids.shape[1]):
        kept = mask[rows, position]
        if not kept.all():
            session.keep(kept.nonzero()[:, 0])
            rows, drawn = rows[kept], drawn[kept]
        every = session.next_logits(drawn).log_softmax(dim=-1)
        drawn = torch.multinomial(every.exp(), 1, generator=generator)[:, 0]
        drawn[drawn == 0] = 5  # some models take the id of padding for padding
        ids[rows, position] = drawn
        logprobs[rows, position] = every.gather(-1, drawn[:, None])[:, 0]
    return (queries, query_mask, ids, mask), logprobs


def assert_learns(policy, batch):
    """In a training pass nothing is random, and a gradient comes to whatever is trainable."""
    with policy.training():
        outputs = policy.respond(*batch, Sampling())
    close(outputs.logprobs.detach(), scored(policy, batch))
    (outputs.logprobs.sum() + outputs.values.sum()).backward()
    parameters = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    assert parameters
    unused = [n for n, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert not [n for n in unused if ".experts." not in n]  # one that no token is sent to has none


def close(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


@pytest.mark.parametrize("row", DECODER_ONLY + ENCODER_DECODER, ids=lambda row: row.name)
def test_an_architecture_is_scored_sampled_trained_and_written_as_it_is(row, tmp_path):
    plain = plain_model(row, tmp_path)
    policy = load(tmp_path, ADAPTER)
    assert policy.rereads == row.rereads or older_than(RELEASE)
    batch = batch_for(policy)
    start = own_logprobs(plain, batch)
    assert start[batch[3]].std() > 0.03  # else a mistake would not show
    close(scored(policy, batch), start)

    move(policy)
    assert_learns(policy, batch)
    (tmp_path / "head").mkdir()
    policy.save(tmp_path / "adapter", tmp_path / "head")
    reloaded = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    batch, drawn = sampled(policy, batch)
    trained = own_logprobs(reloaded, batch)
    close(drawn, trained)
    close(scored(policy, batch), trained)
    with policy.merged():
        close(scored(policy, batch), trained)
    merged = reloaded.merge_and_unload()
    close(own_logprobs(merged, batch), trained)
    with policy.reference():
        reference = scored(policy, batch)
    assert (reference - trained).abs().max() > 0.01


@pytest.mark.parametrize("row", DECODER_ONLY + ENCODER_DECODER, ids=lambda row: row.name)
def test_query_and_value_are_found_by_their_names_and_learn(row, tmp_path):
    plain_model(row, tmp_path)
    policy = load(tmp_path, QUERY_AND_VALUE)
    targets = policy.model.peft_config["default"].target_modules
    assert {name.rsplit(".", 1)[-1] for name in targets} == set(row.targets)
    move(policy)
    assert_learns(policy, batch_for(policy))


@pytest.mark.parametrize("row", DECODER_ONLY + ENCODER_DECODER, ids=lambda row: row.name)
def test_frozen_layers_are_replayed_below_the_last_one(row, tmp_path):
    plain_model(row, tmp_path)
    policy = load(tmp_path, UPPER)
    move(policy)
    batch = batch_for(policy)
    frozen, part = policy.frozen_states(), policy.frozen_part
    assert part.depth == len(getattr(part.owner, part.name)) - 1
    assert_learns(policy, batch)
    plainly = scored(policy, batch)
    close(scored(policy, batch, frozen), plainly)
    assert frozen.lower is not None
    close(scored(policy, batch, frozen), plainly)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_what_cannot_work_is_refused_by_name(row, tmp_path):
    plain_model(row, tmp_path)
    with pytest.raises(SettingsError, match=rf"\({row.model_type}\): .*{row.reason}"):
        load(tmp_path, ADAPTER)


def test_a_scope_that_peft_would_widen_to_the_experts_of_every_layer_is_refused():
    config = tiny_config("qwen3_next")
    plan = replace(UPPER, targets=("q_proj", "gate_proj", "up_proj", "down_proj"))
    with pytest.raises(
        SettingsError, match=r"adapter.scope=last_1 .*down_proj, gate_proj, up_proj"
    ):
        lora_config(plan, config)
    assert lora_config(replace(plan, targets=("q_proj",)), config).target_modules


def test_the_page_of_models_is_what_the_matrix_writes():
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_matrix_is_as_large_as_promised():
    assert len({row.model_type for row in DECODER_ONLY}) >= 40
    assert len({row.model_type for row in ENCODER_DECODER}) >= 14
