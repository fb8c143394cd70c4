"""A run that begins with an adapter which PEFT wrote, of any kind that is accepted."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Qwen2Config, Qwen2ForCausalLM

from lora_detox.errors import ExportError, SettingsError
from lora_detox.export.merge import merged_model
from lora_detox.memory.fake_policy import fake_policy
from lora_detox.memory.passes import PassShape, update_bytes
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.adapter_kinds import (
    BIAS,
    PROVEN,
    REFUSED_INITS,
    REFUSED_KINDS,
    REFUSED_OPTIONS,
)
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan, check_backbone, read_config
from lora_detox.types import Sampling
from tests.tiny import move, tiny_backbone, tiny_prompts, tiny_responses, tiny_tokenizer

ADAPTER = AdapterPlan(rank=2, alpha=4.0)
PLAIN = Sampling()
TARGETS = {"llama": ["q_proj", "v_proj"], "qwen2": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
TARGETS |= {"t5": ["q", "v"]}
LORA = {
    "plain": {},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_rslora": {"init_lora_weights": "pissa", "use_rslora": True},
    "mica": {"init_lora_weights": "mica"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "dropout": {"lora_dropout": 0.4},
}
LORA_ON_LINEAR = {
    "olora": {"init_lora_weights": "olora"},
    "pissa_dora": {"init_lora_weights": "pissa", "use_dora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "use_rslora": True,
        "rank_pattern": {"0.self_attn.q_proj": 3},
        "alpha_pattern": {"v_proj": 9},
    },
    "pissa_patterns": {"init_lora_weights": "pissa", "rank_pattern": {"v_proj": 3}},
    "bias": {"lora_bias": True},
    "regex": {"target_modules": r".*\.[12]\..*(gate|down)_proj"},
    "excluded": {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["k_proj"]},
    "upper": {"layers_to_transform": [2]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "head_alone": {"target_modules": ["lm_head"]},
    "pissa_head": {"target_modules": ["q_proj", "lm_head"], "init_lora_weights": "pissa"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole_head": {"modules_to_save": ["lm_head"]},
    "whole_embedding": {"modules_to_save": ["embed_tokens"], "layers_to_transform": [2]},
    "whole_norm": {"modules_to_save": ["norm"], "layers_to_transform": [2]},
    "norm_below": {"modules_to_save": ["0.input_layernorm"], "layers_to_transform": [2]},
    "tokens": {"trainable_token_indices": [5, 6], "layers_to_transform": [2]},
    "blocks": {
        "use_bdlora": {
            "nblocks": 2,
            "target_modules_bd_a": ["q_proj"],
            "target_modules_bd_b": ["v_proj"],
        }
    },
}
CASES = [(architecture, name) for architecture in TARGETS for name in LORA]
CASES += [("llama", name) for name in LORA_ON_LINEAR if name != "bias"]
CASES += [("t5", "dora"), ("t5", "olora"), ("qwen2", "bias")]
OTHER_KINDS = {
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 8},
    "GRALORA": {"r": 2, "gralora_k": 2},
    "IA3": {"feedforward_modules": []},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MISS": {"r": 2},
    "OFT": {"r": 0, "oft_block_size": 4},
    "PSOFT": {"r": 2},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 1},
    "TRAINABLE_TOKENS": {"token_indices": [*range(3, 30)], "target_modules": ["embed_tokens"]},
    "VBLORA": {"vector_length": 4, "num_vectors": 8, "topk": 2},
    "WAVEFT": {"n_frequency": 8},
}
"""What the kinds want beside their targets; the others need nothing."""


def backbone_of(architecture):
    if architecture != "qwen2":
        return tiny_backbone(architecture)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "vocab_size": 40}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    tokens = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **tokens))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for architecture in TARGETS:
        backbone_of(architecture).save_pretrained(folder / architecture)
        tiny_tokenizer().save_pretrained(folder / architecture)
    return folder


def base_of(bases, architecture):
    auto = AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM
    return auto.from_pretrained(bases / architecture, dtype=torch.float32)


def lora(architecture, name):
    task = "SEQ_2_SEQ_LM" if architecture == "t5" else "CAUSAL_LM"
    options = {"target_modules": TARGETS[architecture], "fan_in_fan_out": architecture == "gpt2"}
    return LoraConfig(task_type=task, r=2, **{**options, **{**LORA, **LORA_ON_LINEAR}[name]})


def write(model, config, folder, *, trained=True):
    """An adapter with random weights, as after some training."""
    torch.manual_seed(3)
    peft = get_peft_model(model, config)
    if trained:
        with torch.no_grad():
            for parameter in peft.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    peft.save_pretrained(folder)
    return str(folder)


def load(bases, architecture, adapter, **changes):
    path = str(bases / architecture)
    return load_policy(BackbonePlan(path=path, adapter=adapter, device="cpu", **changes), ADAPTER)


def batch_for(policy):
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    return prompts.query_ids, prompts.query_mask, ids, mask, PLAIN


@torch.no_grad()
def logprobs(policy, *frozen):
    return policy.respond(*batch_for(policy), *frozen).logprobs


def ref_logprobs(policy, *frozen):
    with policy.reference():
        return policy.respond(*batch_for(policy), *frozen).logprobs


@torch.no_grad()
def logits_of(model):
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 4, 9]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[0, 9, 10, 11]])
    return model.eval()(**inputs).logits


def close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def check_all(bases, architecture, adapter, tmp_path, *, merges=True):
    """What a kind has to show before it is accepted."""
    with torch.no_grad():  # where a gradient in all that learns is asked for nevertheless
        policy = load(bases, architecture, adapter)
    plain = PeftModel.from_pretrained(base_of(bases, architecture), adapter)
    close(logits_of(policy.model), logits_of(plain))
    start, kept, base = logprobs(policy), policy.frozen_states(), policy.base_checksum()
    assert torch.equal(ref_logprobs(policy), start)
    learning = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    move(policy, seed=9)
    moved = logprobs(policy)
    assert (moved - start).abs().max() > 1e-3
    assert torch.equal(ref_logprobs(policy), start)
    assert torch.equal(logprobs(policy), moved)
    assert {n for n, p in policy.model.named_parameters() if p.requires_grad} == learning
    assert policy.base_checksum() == base
    if kept is not None:
        logprobs(policy, kept)
        assert torch.equal(logprobs(policy, kept), moved)
        assert torch.equal(ref_logprobs(policy, kept), start)
    with policy.merged():
        close(logprobs(policy), moved)
    assert torch.equal(logprobs(policy), moved)
    policy.save(tmp_path / "saved", tmp_path)
    again = PeftModel.from_pretrained(base_of(bases, architecture), tmp_path / "saved")
    close(logits_of(again), logits_of(policy.model))
    if merges:
        close(logits_of(again.merge_and_unload()), logits_of(policy.model))
    evaluated = load(bases, architecture, str(tmp_path / "saved"), frozen_reference=False)
    close(logprobs(evaluated), moved)
    bare = load(bases, architecture, None)
    close(ref_logprobs(evaluated), logprobs(bare))


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_a_kind_of_lora_starts_as_plain_peft_learns_and_is_read_back(
    bases, tmp_path, architecture, name
):
    adapter = write(base_of(bases, architecture), lora(architecture, name), tmp_path / "start")
    check_all(bases, architecture, adapter, tmp_path)


TIED = {
    "head": {"target_modules": ["c_attn", "lm_head"]},
    "embedding": {"target_modules": ["c_attn", "wte"]},
    "whole_head": {"modules_to_save": ["lm_head"]},
    "whole_embedding": {"modules_to_save": ["wte"]},
    "both": {"modules_to_save": ["wte"], "ensure_weight_tying": True},
    "tokens": {"trainable_token_indices": [*range(3, 30)]},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TIED)
def test_an_output_matrix_that_is_the_embedding_learns_where_the_adapter_says(
    bases, tmp_path, name
):
    """GPT-2's is; an adapter on one of the two, merged into both, would act twice."""
    options = {"target_modules": ["c_attn"], "fan_in_fan_out": True, **TIED[name]}
    config = LoraConfig(task_type="CAUSAL_LM", r=2, **options)
    adapter = write(base_of(bases, "gpt2"), config, tmp_path / "start")
    check_all(bases, "gpt2", adapter, tmp_path, merges=False)
    plain = PeftModel.from_pretrained(base_of(bases, "gpt2"), adapter)
    apart = logits_of(plain)
    merged = merged_model(plain)
    close(logits_of(merged), apart)
    merged.save_pretrained(tmp_path / "merged")
    close(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), apart)


@pytest.mark.parametrize("kind", sorted(PROVEN - {"LORA"}))
def test_another_accepted_kind_does_so_too(bases, tmp_path, kind):
    options = {"target_modules": TARGETS["llama"], **OTHER_KINDS.get(kind, {})}
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **options)
    adapter = write(base_of(bases, "llama"), config, tmp_path / "start")
    check_all(bases, "llama", adapter, tmp_path)


def test_every_kind_of_peft_is_accepted_or_refused_with_a_reason():
    kinds = {getattr(kind, "value", kind) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert kinds == PROVEN | REFUSED_KINDS.keys()
    assert not PROVEN & REFUSED_KINDS.keys()


def refused(bases, folder, match, architecture="llama", **changes):
    path = str(bases / architecture)
    plan = BackbonePlan(path=path, adapter=str(folder), device="cpu", **changes)
    with pytest.raises(SettingsError, match=match):
        check_backbone(plan, ADAPTER)  # reads no weights of the base


def describe(config, folder):
    """A folder as PEFT writes it, without a tensor."""
    config.save_pretrained(folder)
    save_file({}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("kind", sorted(REFUSED_KINDS))
def test_a_kind_that_does_not_train_is_refused_by_name(bases, tmp_path, kind):
    config = describe(lora("llama", "plain"), tmp_path) / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": kind}))
    reason = REFUSED_KINDS[kind]
    refused(bases, tmp_path, f"policy.adapter: .* cannot be used: kind {kind}: {reason}")


OPTIONS = {
    "bias=all: it trains biases of the base": {"bias": "all"},
    "bias=lora_only: it trains biases of the base": {"bias": "lora_only"},
    "layer_replication: it builds another stack": {"layer_replication": [[0, 2], [1, 3]]},
    "target_parameters: it sits on bare": {"target_parameters": ["experts.down_proj"]},
    "alora_invocation_tokens: it works in": {"alora_invocation_tokens": [3]},
    "arrow_config: it chooses": {"arrow_config": {}},
    "use_qalora: it is for GPTQ": {"use_qalora": True},
    "megatron_config: it is for": {"megatron_config": {"a": 1}},
    "monteclora_config: it draws": {"monteclora_config": {}},
    "kasa_config: its two terms": {"kasa_config": {}},
    "init_lora_weights=corda: it took": {"init_lora_weights": "corda"},
    "init_lora_weights=lora_ga: it took": {"init_lora_weights": "lora_ga"},
    "init_lora_weights=pissa_niter_16: it took": {"init_lora_weights": "pissa_niter_16"},
    "init_lora_weights=loftq: PEFT would": {
        "init_lora_weights": "loftq",
        "loftq_config": {"loftq_bits": 4, "loftq_iter": 1},
    },
}


@pytest.mark.parametrize("reason", OPTIONS)
def test_an_option_that_does_not_train_is_refused_by_name(bases, tmp_path, reason):
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **OPTIONS[reason])
    refused(bases, describe(config, tmp_path), f"policy.adapter: .* cannot be used: {reason}")


def test_biases_of_the_base_and_prompts_are_refused_as_peft_writes_them(bases, tmp_path):
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], bias="lora_only")
    refused(bases, write(base_of(bases, "qwen2"), config, tmp_path / "bias"), "bias=lora_only")
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    refused(bases, write(base_of(bases, "llama"), config, tmp_path / "p"), "kind PROMPT_TUNING")


def test_an_adapter_that_does_not_agree_with_its_base_or_file_is_refused(bases, tmp_path):
    model = base_of(bases, "llama")
    good = tmp_path / "good"
    write(model, lora("llama", "patterns"), good)
    file = "adapter_model.safetensors"
    tensors = load_file(good / file)
    name = min(tensors)
    for case, changed, match in (
        ("less", {n: t for n, t in tensors.items() if n != name}, "lacks 1 tensors .*0.self_attn"),
        ("more", {**tensors, name.replace("0", "7"): tensors[name] + 1}, "has besides 1 tensors"),
        (
            "wide",
            {**tensors, name: torch.ones(3, 20)},
            r"another base .*\(size mismatch",
        ),
    ):
        shutil.copytree(good, tmp_path / case)
        save_file(changed, tmp_path / case / file)
        refused(bases, tmp_path / case, match)
    write(tiny_backbone("t5"), lora("t5", "plain"), tmp_path / "other")
    text = (tmp_path / "other" / "adapter_config.json").read_text()
    refused(bases, tmp_path / "other", "sits on q, v, of which")
    (good / "adapter_config.json").write_text(
        (good / "adapter_config.json").read_text().replace("CAUSAL_LM", "SEQ_CLS")
    )
    refused(bases, good, "task type SEQ_CLS, want CAUSAL_LM")
    (tmp_path / "other" / "adapter_config.json").write_text(text.replace('"LORA"', '"NEW"'))
    refused(bases, tmp_path / "other", "cannot be used: kind NEW: it is not known")


def test_numbers_of_the_base_that_cannot_carry_an_adapter_are_refused(bases, tmp_path):
    write(base_of(bases, "llama"), lora("llama", "whole_head"), tmp_path / "head")
    refused(bases, tmp_path / "head", "whole modules .* policy.dtype=float32", dtype="bfloat16")
    write(base_of(bases, "llama"), lora("llama", "pissa"), tmp_path / "pissa")
    refused(bases, tmp_path / "pissa", "want quantization=none", quantization="nf4")


def test_base_weights_in_the_file_must_be_those_of_the_base(bases, tmp_path):
    model = base_of(bases, "llama")
    with torch.no_grad():
        model.lm_head.weight[5, 3] += 0.5
    adapter = write(model, lora("llama", "head"), tmp_path / "start")
    with pytest.raises(SettingsError, match=r"policy.adapter: .* holds lm_head.weight of its base"):
        load(bases, "llama", adapter)


def test_what_no_pass_uses_is_refused_by_its_name(bases, tmp_path):
    """PEFT wraps T5's `shared`, while its stacks read the embedding by other names."""
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q"], modules_to_save=["shared"]
    )
    adapter = write(base_of(bases, "t5"), config, tmp_path / "start")
    with pytest.raises(SettingsError, match=r"policy.adapter: .* trains shared.modules_to_save"):
        load(bases, "t5", adapter)


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True, "rank_pattern": {"v_proj": 3}}])
@pytest.mark.parametrize("init", ["pissa", "mica"])
def test_an_untrained_start_from_singular_vectors_is_refused_unless_forced(
    bases, tmp_path, init, changes
):
    model, config = base_of(bases, "llama"), lora("llama", init)
    vars(config).update(changes)
    adapter = write(model, config, tmp_path / "start", trained=False)
    with pytest.raises(SettingsError, match=r"untrained start .* collapses .*adapter.force_init"):
        load(bases, "llama", adapter)
    plan = BackbonePlan(path=str(bases / "llama"), adapter=adapter, device="cpu")
    forced = load_policy(plan, AdapterPlan(rank=2, alpha=4.0, force_init=True))
    close(logprobs(forced), logprobs(load(bases, "llama", None)))
    file = Path(adapter) / "adapter_model.safetensors"
    tensors = load_file(file)
    for tensor in tensors.values():  # a short training, in any dtype of the base
        tensor.add_(1e-3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))
    save_file(tensors, file, {"format": "pt"})
    for dtype in ("float32", "bfloat16"):
        load(bases, "llama", adapter, dtype=dtype)


def kinds_table():
    """What docs/adapters.md says of the kinds, from the tables that decide."""
    inits = {f"init_lora_weights={name}": reason for name, reason in REFUSED_INITS.items()}
    why = {**REFUSED_KINDS, "bias=all": BIAS, "bias=lora_only": BIAS, **REFUSED_OPTIONS, **inits}
    rows = ["| kind or option | trains | why not |", "|---|---|---|"]
    rows.append(f"| {', '.join(sorted(PROVEN))} | yes | |")
    for reason in dict.fromkeys(why.values()):
        names = ", ".join(name for name, other in why.items() if other == reason)
        rows.append(f"| {names} | no | {reason} |")
    return "\n".join(rows)


def test_the_page_of_kinds_is_the_table_that_decides():
    page = Path(__file__).parents[3] / "docs" / "adapters.md"
    assert kinds_table() in page.read_text(encoding="utf-8"), kinds_table()


@pytest.mark.parametrize("name", ["olora", "orthogonal", "gaussian"])
def test_a_fresh_start_of_any_kind_is_its_own_reference_and_is_read_back(bases, tmp_path, name):
    check_fresh(bases, tmp_path, AdapterPlan(rank=2, alpha=4.0, init=name))


@pytest.mark.parametrize("name", ["pissa", "mica"])
def test_a_forced_start_from_singular_vectors_is_computed_rightly(bases, tmp_path, name):
    check_fresh(bases, tmp_path, AdapterPlan(rank=2, alpha=4.0, init=name, force_init=True))


def check_fresh(bases, tmp_path, plan):
    path = str(bases / "llama")
    policy = load_policy(BackbonePlan(path=path, device="cpu"), plan)
    start = logprobs(policy)
    assert torch.equal(ref_logprobs(policy), start)
    close(start, logprobs(load(bases, "llama", None)))
    base = policy.base_checksum()
    move(policy)
    moved = logprobs(policy)
    assert (moved - start).abs().max() > 1e-2
    assert torch.equal(ref_logprobs(policy), start)
    assert policy.base_checksum() == base
    policy.save(tmp_path / "saved", tmp_path)
    again = PeftModel.from_pretrained(base_of(bases, "llama"), tmp_path / "saved")
    close(logits_of(again), logits_of(policy.model))
    close(logprobs(load(bases, "llama", str(tmp_path / "saved"))), moved)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"init": "pissa"}, r"adapter.init=pissa: .* collapses .*adapter.force_init=true"),
        ({"init": "mica"}, r"adapter.init=mica: .* collapses .*adapter.init=true, adapter=dora"),
        ({"init": "pissa_niter_16", "force_init": True}, r"pissa_niter_16: it draws .*want one of"),
        ({"init": "false"}, r"adapter.init=false: it puts noise .*want one of true, gaussian"),
        ({"init": "eva"}, r"adapter.init=eva: it is made from data .*policy.adapter"),
        ({"init": "corda"}, r"adapter.init=corda: it is made from data"),
        ({"init": "loftq"}, r"adapter.init=loftq: it quantizes"),
        ({"init": "xavier"}, r"adapter.init=xavier: there is no such initialisation"),
        ({"init": "orthogonal", "rank": 3}, r"adapter.init=orthogonal: .*even adapter.rank"),
        (
            {"init": "olora", "rank": 9},
            r"adapter.init=olora: adapter.rank=9 is more",
        ),
        ({"init": "mica", "dora": True, "force_init": True}, r"does not combine .*adapter.dora"),
    ],
)
def test_a_fresh_start_that_should_not_be_is_refused_by_its_key(bases, changes, match):
    plan = AdapterPlan(**{"rank": 2, "alpha": 4.0, **changes})
    with pytest.raises(SettingsError, match=match):
        check_backbone(BackbonePlan(path=str(bases / "llama")), plan)


def test_a_start_out_of_the_base_wants_linear_layers_and_whole_numbers(bases):
    plan = AdapterPlan(rank=2, alpha=4.0, init="olora")
    with pytest.raises(SettingsError, match=r"adapter.init=olora: .*Conv1D"):
        check_backbone(BackbonePlan(path=str(bases / "gpt2")), plan)
    with pytest.raises(SettingsError, match=r"adapter.init=olora: .*quantized"):
        check_backbone(BackbonePlan(path=str(bases / "llama"), quantization="nf4"), plan)


def test_what_peft_cannot_merge_is_an_error_that_says_so(bases, tmp_path):
    options = {"target_modules": ["q_proj"], "lora_bias": True}
    config = LoraConfig(task_type="CAUSAL_LM", r=2, **options)  # llama has no biases to add it to
    adapter = write(base_of(bases, "llama"), config, tmp_path / "start")
    load(bases, "llama", adapter)
    plain = PeftModel.from_pretrained(base_of(bases, "llama"), adapter)
    with pytest.raises(ExportError, match=r"export.merge: PEFT cannot merge .*lora_bias"):
        merged_model(plain)


@pytest.mark.parametrize(
    "name", ["head", "head_alone", "whole_head", "whole_norm", "whole_embedding", "tokens", "plain"]
)
def test_gradients_are_those_of_the_whole_model(bases, tmp_path, monkeypatch, name):
    """Against logits of every position at once, through the model's own forward pass."""
    monkeypatch.setattr("lora_detox.policy.token_stats.chunk_elements", lambda _: 80)
    adapter = write(base_of(bases, "llama"), lora("llama", name), tmp_path / "start")
    policy, plain = load(bases, "llama", adapter), base_of(bases, "llama")
    plain = PeftModel.from_pretrained(plain, adapter, is_trainable=True).eval()
    ids = torch.tensor([[5, 6, 7, 8, 4, 9, 11]])
    row = (ids[:, :3], ids[:, :3] > 0, ids[:, 3:], ids[:, 3:] > 0)
    policy.respond(*row, PLAIN).logprobs.sum().backward()
    log_p = plain(input_ids=ids).logits[:, 2:-1].log_softmax(dim=-1)
    log_p.gather(-1, ids[:, 3:, None]).sum().backward()
    theirs = {n: p.grad for n, p in plain.named_parameters() if p.requires_grad}
    ours = {n: p.grad for n, p in policy.model.named_parameters() if p.requires_grad}
    assert ours.keys() == theirs.keys()
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-3, atol=1e-4)
    moving = sum(p.numel() for p in policy.trainable_parameters())
    assert policy.count_parameters()["trainable"] == moving
    assert moving == sum(g.numel() for g in theirs.values()) + 16 + 1  # and the value head


def test_the_exact_kl_of_a_learning_head_is_0_at_the_start_and_not_after(bases, tmp_path):
    adapter = write(base_of(bases, "llama"), lora("llama", "whole_head"), tmp_path / "start")
    policy = load(bases, "llama", adapter)
    assert not policy.full_kl(*batch_for(policy)).any()
    head = policy.backbone.lm_head.modules_to_save["default"].weight
    with torch.no_grad():
        head.add_(0.3 * torch.randn_like(head))
    ids = torch.tensor([[5, 6, 7, 8, 4, 9, 11]])
    row = (ids[:, :3], ids[:, :3] > 0, ids[:, 3:], ids[:, 3:] > 0)
    with torch.no_grad():
        now = policy.model(input_ids=ids).logits[:, 2:-1].log_softmax(dim=-1)
    with policy.reference():
        then = policy.model(input_ids=ids).logits[:, 2:-1].log_softmax(dim=-1)
    slow = (now.exp() * (now - then)).sum(dim=-1)
    assert slow.max() > 0.01
    close(policy.full_kl(*row, PLAIN), slow)


@pytest.mark.parametrize(
    ("name", "depth"),
    [("upper", 2), ("whole_embedding", 0), ("tokens", 0), ("norm_below", 0), ("head_alone", 0)],
)
def test_no_layer_is_replayed_above_what_learns(bases, tmp_path, name, depth):
    adapter = write(base_of(bases, "llama"), lora("llama", name), tmp_path / "start")
    assert load(bases, "llama", adapter).frozen_part.depth == depth


@pytest.mark.parametrize("kind", ["LORA", "IA3", "LOHA"])
def test_what_an_adapter_takes_is_planned_or_refused_by_name(bases, tmp_path, kind):
    options = {"target_modules": TARGETS["llama"], **OTHER_KINDS.get(kind, {})}
    options |= {"modules_to_save": ["lm_head"]} if kind == "LORA" else {}
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **options)
    adapter = write(base_of(bases, "llama"), config, tmp_path / "start")
    plan = BackbonePlan(path=str(bases / "llama"), adapter=adapter, device="cpu", dtype="float32")
    shape = PassShape(rows=2, query=5, response=4)
    if kind == "LOHA":
        with (
            pytest.raises(SettingsError, match=r"policy.adapter: kind LOHA .*policy.adapter=null"),
            fake_policy(plan, ADAPTER, read_config(plan)),
        ):
            pass
        return
    counted = load(bases, "llama", adapter).count_parameters()
    with fake_policy(plan, ADAPTER, read_config(plan)) as policy:
        assert update_bytes(policy, shape, PLAIN).kept > 0
        assert policy.count_parameters() == counted


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("name", ["plain", "head", "tokens"])
def test_a_stored_adapter_on_quantized_weights_learns(bases, tmp_path, quantization, name):
    pytest.importorskip("bitsandbytes")
    adapter = write(base_of(bases, "llama"), lora("llama", name), tmp_path / "start")
    policy = load(bases, "llama", adapter, quantization=quantization, dtype="float32")
    start, base = logprobs(policy), policy.base_checksum()
    assert torch.equal(ref_logprobs(policy), start)
    move(policy)
    assert (logprobs(policy) - start).abs().max() > 1e-3
    assert torch.equal(ref_logprobs(policy), start)
    assert policy.base_checksum() == base
