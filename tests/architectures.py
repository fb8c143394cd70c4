"""The matrix of architectures: which models work, and how; docs/models.md is written from it.

`python -m tests.architectures docs/models.md` writes the page anew.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from tests.tiny_configs import tiny_config

QUERY_VALUE = ("q_proj", "v_proj")
BERT = ("query", "value")
T5 = ("q", "v")
FUSED = ("query_key_value",)
MLA = ("q_b_proj", "kv_b_proj")
MAMBA = "no adapter on `out_proj` and `dt_proj`, which the kernels read past their modules"
REREADS = "its cache does not hold padded rows"
RELEASE = "5.23"
"""Of Transformers, whose caches `Architecture.rereads` is about; some of older ones hold less."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model type that can be trained.

    Attributes:
        name: of the row; the model type, with a variant behind a colon.
        models: what people know of it, for docs/models.md.
        targets: last names of the modules that a fresh adapter sits on by default.
        changes: to the values of `tiny_config`.
        rereads: whether each written token reads the whole text again, from `RELEASE` on.
        note: for docs/models.md.
        since: release of Transformers from which its own code is right.
    """

    name: str
    models: str
    targets: tuple[str, ...] = QUERY_VALUE
    changes: dict[str, Any] | None = None
    rereads: bool = False
    note: str = ""
    since: str = "5.4"

    @property
    def model_type(self) -> str:
        return self.name.split(":")[0]

    def config(self) -> PretrainedConfig:
        return tiny_config(self.model_type, **(self.changes or {}))


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A model type that is refused at the start of a run.

    Attributes:
        name: as in `Architecture`.
        reason: part of the error.
        why: for docs/models.md.
        seq2seq: whether it is an encoder-decoder.
        changes: to the values of `tiny_config`.
    """

    name: str
    reason: str
    why: str
    seq2seq: bool = False
    changes: dict[str, Any] | None = None

    @property
    def model_type(self) -> str:
        return self.name.split(":")[0]

    def config(self) -> PretrainedConfig:
        return tiny_config(self.model_type, **(self.changes or {}))


def _row(name: str, models: str, targets: tuple[str, ...] = QUERY_VALUE, **more: Any):
    return Architecture(name=name, models=models, targets=targets, **more)


DECODER_ONLY = (
    _row("apertus", "Apertus"),
    _row("arcee", "Arcee AFM"),
    _row("bamba", "Bamba", note="attention and Mamba layers"),
    _row("bert", "BERT as a decoder (`is_decoder`)", BERT),
    _row("biogpt", "BioGPT: microsoft/biogpt"),
    _row("bitnet", "BitNet b1.58"),
    _row("bloom", "BLOOM: bigscience/bloom-560m", FUSED),
    _row("codegen", "CodeGen: Salesforce/codegen-350M-mono", ("qkv_proj",)),
    _row("cohere", "Command R", note="scaled logits"),
    _row("cohere2", "Command R7B, Command A", note="scaled logits"),
    _row("ctrl", "CTRL: Salesforce/ctrl", ("Wq", "Wk", "Wv", "dense", "0", "2")),
    _row("dbrx", "DBRX", ("Wqkv",), since="5.15"),
    _row("deepseek_v2", "DeepSeek V2", MLA),
    _row(
        "deepseek_v2:lite",
        "DeepSeek V2 Lite: deepseek-ai/DeepSeek-V2-Lite",
        ("q_proj", "kv_b_proj"),
        changes={"q_lora_rank": None},
    ),
    _row("deepseek_v3", "DeepSeek V3, R1", MLA),
    _row("diffllama", "DiffLlama"),
    _row("doge", "Doge", since="5.20"),
    _row("electra", "ELECTRA as a decoder (`is_decoder`)", BERT),
    _row("ernie4_5", "ERNIE 4.5"),
    _row("exaone4", "EXAONE 4"),
    _row("falcon", "Falcon: tiiuae/falcon-7b", FUSED),
    _row(
        "falcon:alibi",
        "Falcon RW: tiiuae/falcon-rw-1b",
        FUSED,
        changes={"alibi": True, "multi_query": False, "parallel_attn": False},
    ),
    _row("falcon_h1", "Falcon H1", note=f"attention and Mamba layers; {MAMBA}"),
    _row("falcon_mamba", "Falcon Mamba", ("in_proj", "x_proj"), note=MAMBA),
    _row("gemma", "Gemma: google/gemma-2b"),
    _row("gemma2", "Gemma 2: google/gemma-2-2b", note="capped logits"),
    _row("gemma3", "Gemma 3 with images: google/gemma-3-4b-it", note="its text part is trained"),
    _row("gemma3_text", "Gemma 3: google/gemma-3-1b-it"),
    _row("gemma3n_text", "Gemma 3n, text part"),
    _row("gemma4_text", "Gemma 4, text part"),
    _row("glm", "GLM 4 (2024)"),
    _row("glm4", "GLM 4 (2025)"),
    _row("gpt2", "GPT-2, DistilGPT-2: openai-community/gpt2", ("c_attn",)),
    _row("gpt_bigcode", "StarCoder, SantaCoder", ("c_attn",)),
    _row("gpt_neo", "GPT-Neo: EleutherAI/gpt-neo-125m"),
    _row("gpt_neox", "Pythia, GPT-NeoX: EleutherAI/pythia-160m", FUSED),
    _row("gpt_oss", "gpt-oss: openai/gpt-oss-20b"),
    _row("gptj", "GPT-J: EleutherAI/gpt-j-6b"),
    _row("granite", "Granite 3", note="scaled logits"),
    _row("granitemoe", "Granite 3 MoE"),
    _row("granitemoehybrid", "Granite 4", note="attention and Mamba layers; scaled logits"),
    _row("helium", "Helium"),
    _row("jamba", "Jamba", note="attention and Mamba layers"),
    _row("jetmoe", "JetMoE", ("kv_proj", "layer")),
    _row("lfm2", "LFM2", note="attention and convolutions", since="5.5"),
    _row("llama", "Llama 1 to 3, SmolLM 2, TinyLlama: HuggingFaceTB/SmolLM2-135M"),
    _row("llama4_text", "Llama 4, text part"),
    _row("mamba", "Mamba: state-spaces/mamba-130m-hf", ("in_proj", "x_proj"), note=MAMBA),
    _row("mamba2", "Mamba 2", ("in_proj",), note=MAMBA),
    _row("minimax", "MiniMax", rereads=True, note="it wants a cache of its own"),
    _row("ministral", "Ministral"),
    _row("mistral", "Mistral: mistralai/Mistral-7B-v0.1"),
    _row("mixtral", "Mixtral: mistralai/Mixtral-8x7B-v0.1"),
    _row("mpt", "MPT: mosaicml/mpt-7b", ("Wqkv",)),
    _row("nanochat", "nanochat"),
    _row("nemotron", "Nemotron, Minitron"),
    _row("olmo", "OLMo"),
    _row("olmo2", "OLMo 2"),
    _row("olmo3", "OLMo 3"),
    _row("olmoe", "OLMoE"),
    _row("openai-gpt", "GPT", ("c_attn",), rereads=True, note="it has no cache"),
    _row("opt", "OPT, Galactica: facebook/opt-125m"),
    _row("persimmon", "Persimmon", FUSED),
    _row("phi", "Phi 1 and 2: microsoft/phi-2"),
    _row("phi3", "Phi 3 and 4", ("qkv_proj",)),
    _row("phimoe", "Phi 3.5 MoE"),
    _row("qwen2", "Qwen 1.5 to 2.5: Qwen/Qwen2.5-0.5B"),
    _row("qwen2_moe", "Qwen 1.5 and 2 MoE"),
    _row("qwen3", "Qwen 3: Qwen/Qwen3-0.6B"),
    _row("qwen3_5_text", "Qwen 3.5, text part", note="attention and linear attention"),
    _row("qwen3_moe", "Qwen 3 MoE: Qwen/Qwen3-30B-A3B"),
    _row("qwen3_next", "Qwen 3 Next", note="attention and linear attention"),
    _row("roberta", "RoBERTa as a decoder (`is_decoder`)", BERT),
    _row("roformer", "RoFormer as a decoder (`is_decoder`)", BERT),
    _row("seed_oss", "Seed-OSS"),
    _row("smollm3", "SmolLM 3: HuggingFaceTB/SmolLM3-3B"),
    _row("stablelm", "StableLM"),
    _row("starcoder2", "StarCoder 2"),
    _row("xglm", "XGLM: facebook/xglm-564M"),
    _row("xlm-roberta", "XLM-RoBERTa as a decoder (`is_decoder`)", BERT),
)
ENCODER_DECODER = (
    _row("bart", "BART: facebook/bart-base"),
    _row("bigbird_pegasus", "BigBird-Pegasus"),
    _row("blenderbot", "BlenderBot"),
    _row("blenderbot-small", "BlenderBot small"),
    _row("encoder-decoder", "Two models put together, as BERT2BERT", BERT),
    _row("led", "LED: allenai/led-base-16384"),
    _row("longt5", "LongT5", T5),
    _row("m2m_100", "M2M-100, NLLB: facebook/m2m100_418M"),
    _row("marian", "OPUS-MT: Helsinki-NLP/opus-mt-en-de"),
    _row("mbart", "mBART: facebook/mbart-large-50"),
    _row("mt5", "mT5: google/mt5-small", T5),
    _row("mvp", "MVP"),
    _row("nllb-moe", "NLLB MoE", rereads=True, note=REREADS),
    _row("pegasus", "PEGASUS: google/pegasus-xsum"),
    _row("pegasus_x", "PEGASUS-X"),
    _row("plbart", "PLBART"),
    _row("seamless_m4t", "SeamlessM4T, from text to text"),
    _row("switch_transformers", "Switch Transformers", T5),
    _row("t5", "T5 with tied embeddings: google-t5/t5-small", T5),
    _row("t5:untied", "FLAN-T5: google/flan-t5-base", T5, changes={"tie_word_embeddings": False}),
    _row("t5gemma", "T5Gemma"),
    _row("umt5", "umT5: google/umt5-small", T5),
)
_AS_DECODER = {"is_encoder_decoder": False, "is_decoder": True, "num_hidden_layers": 3}
REFUSED = (
    Refused(
        name="bart:decoder",
        reason="padded on the left",
        why="its decoder alone counts positions from the left edge, padding included",
        changes=_AS_DECODER,
    ),
    Refused(
        name="blenderbot:decoder",
        reason="padded on the left",
        why="its decoder alone counts positions from the left edge, padding included",
        changes=_AS_DECODER,
    ),
    Refused(
        name="recurrent_gemma",
        reason="padded on the left",
        why="its recurrence reads the padding",
    ),
    Refused(name="rwkv", reason="padded on the left", why="its recurrence reads the padding"),
    Refused(
        name="xlm",
        reason="log-probabilities of the toolkit",
        why="a token sees those that come after it",
    ),
    Refused(
        name="xlnet",
        reason="log-probabilities of the toolkit",
        why="a token sees those that come after it",
    ),
    Refused(
        name="fsmt",
        reason="(a pass through its stack|its own forward on token ids alone) fails",
        why="its decoder wants masks of its own making",
        seq2seq=True,
    ),
    Refused(
        name="prophetnet",
        reason="its own forward on token ids alone fails",
        why="it predicts several tokens at once, and its forward fails on short texts",
        seq2seq=True,
    ),
)

_INTRODUCTION = """\
# Models

Any causal language model or encoder-decoder of Transformers may be trained. There is no list that a
model has to be on: each run compares, before anything trains, what the toolkit computes with the
model's own forward pass, on three rows of random tokens of different lengths:

1. log-probabilities in a padded batch, with the adapter that training starts from, and those of the
   reference policy;
2. the same with the states of frozen layers replayed. Where they differ these layers are computed
   in every pass, which a warning says;
3. the same written token by token with the key-value cache, rows leaving the batch on the way.
   Where they differ each token reads the whole text again, which is slow, and a warning says so;
4. with `policy.adapter`: that a gradient reaches whatever counts as trainable.

A difference in 1, or in 3 without a cache too, ends the run with an error that names the model type
and the numbers, so that nothing trains on wrong ones. The six short passes
took 0.4 s on the miniature and 0.7 s on SmolLM2-135M in the best of several measurements on two
cores, and many times that while other programs kept the cores busy.

Nothing is random in a training pass: dropout, dropped layers and jitter are 0, whatever the
configuration says.

The tables below are what the tests load, compare and train as models of a few thousand weights
(`tests/unit/policy/test_architectures.py`; the page is written by `python -m tests.architectures
docs/models.md`). Each also samples, merges its adapter, and writes it so that plain PEFT reads the
same model. A model that is missing here is not refused for that: the comparison decides.

Adapters sit on every linear layer by default. `adapter.targets=[]` takes query and value, by the
names of the tables; other names may stand there too. "reads again" under decoding means that each
written token reads the whole text once more; the column is that of Transformers 5.23; in older
releases some models with Mamba layers read again too. "from Transformers 5.15" marks a model whose
code in older releases is wrong or does not load.
"""


def _table(rows: tuple[Architecture, ...]) -> list[str]:
    lines = ["| model type | models | query and value (`adapter.targets=[]`) | decoding | note |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        decoding = "reads again" if row.rereads else "cache"
        variant = row.name.replace(":", ", ")
        targets = ", ".join(row.targets)
        since = "" if row.since == Architecture.since else f"from Transformers {row.since}"
        note = "; ".join(filter(None, (row.note, since)))
        lines.append(f"| {variant} | {row.models} | {targets} | {decoding} | {note} |")
    return lines


def page() -> str:
    """The text of docs/models.md."""
    lines = ["## Decoder-only", "", *_table(DECODER_ONLY)]
    lines += ["", "## Encoder-decoder", "", *_table(ENCODER_DECODER)]
    lines += ["", "## Refused", "", "| model type | family | why |", "|---|---|---|"]
    for row in REFUSED:
        family = "encoder-decoder" if row.seq2seq else "decoder-only"
        lines.append(f"| {row.name.replace(':', ', ')} | {family} | {row.why} |")
    return _INTRODUCTION + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
