"""Adapters and starts that are refused by name, before weights load where that can be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import (
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from lora_detox.errors import SettingsError
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
from tests.tiny import move, tiny_backbone
from tests.unit.policy.adapters import (
    ADAPTER,
    OTHER_KINDS,
    PLAIN,
    TARGETS,
    base_of,
    close,
    load,
    logits_of,
    logprobs,
    lora,
    ref_logprobs,
    write,
)


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
            r"do not fit .*\(size mismatch",
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


def test_a_kind_that_cannot_sit_on_a_layer_of_the_base_is_refused(bases, tmp_path):
    """GPT-2's layers are Conv1D."""
    config = LoHaConfig(task_type="CAUSAL_LM", target_modules=["c_attn"])
    refused(bases, describe(config, tmp_path), r"PEFT cannot put .* on gpt2: .*Conv1D", "gpt2")


@pytest.mark.parametrize("kind", ["BOFT", "SHIRA"])
def test_kinds_that_want_weights_are_compared_once_they_are_there(bases, tmp_path, kind):
    options = {"target_modules": TARGETS["llama"], **OTHER_KINDS.get(kind, {})}
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **options)
    folder = write(base_of(bases, "llama"), config, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    learned = min(name for name in tensors if "indices" not in name)
    save_file({n: t for n, t in tensors.items() if n != learned}, file)
    with pytest.raises(SettingsError, match="lacks 1 tensors"):
        load(bases, "llama", folder)
