"""The four embedded models: they load plainly, do what they were trained for, and stay small."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from lora_detox.embedded import ADAPTER_NAMES, MODEL_NAMES, embedded_path
from lora_detox.embedded.corpus import comment_rows, dialogue_rows
from lora_detox.embedded.labelled import labelled_rows

TEMPLATE = "Summarize the following conversation.\n\n{dialogue}\n\nSummary:\n"
LABELS = {"reward": {0: "nothate", 1: "hate"}, "judge": {0: "toxic", 1: "neutral"}}


def load(name: str) -> tuple[Any, Any]:
    """Tokenizer and single-precision model of a name."""
    kinds = {"t5": AutoModelForSeq2SeqLM, "gptj": AutoModelForCausalLM}
    kind = kinds.get(name, AutoModelForSequenceClassification)
    model = kind.from_pretrained(embedded_path(name), dtype=torch.float32)
    return AutoTokenizer.from_pretrained(embedded_path(name)), model.eval()


@torch.no_grad()
def toxicities(name: str, texts: list[str]) -> list[float]:
    """Toxicity of texts as one of the two classifiers sees it."""
    tokenizer, model = load(name)
    toxic = {"reward": 1, "judge": 0}[name]
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    found: list[float] = model(**batch).logits.softmax(-1)[:, toxic].tolist()
    return found


def rude(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose planted toxicity is above 0.3."""
    return [row for row in rows if (row["toxicity"] or 0.0) > 0.3]


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="t5, gptj, reward, judge, rewrite"):
        embedded_path("llama")


def test_files_are_small() -> None:
    names = (*MODEL_NAMES, *ADAPTER_NAMES)
    files = [path for name in names for path in embedded_path(name).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert max(path.stat().st_size for path in files) < 3.9e6


def test_special_tokens() -> None:
    ends = {"t5": ([], [1]), "gptj": ([], []), "reward": ([3], [1]), "judge": ([3], [1])}
    for name, (head, tail) in ends.items():
        tokenizer = AutoTokenizer.from_pretrained(embedded_path(name))
        body = tokenizer("Anna met Ben.", add_special_tokens=False).input_ids
        assert tokenizer("Anna met Ben.").input_ids == head + body + tail
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
        assert tokenizer.decode(body) == "Anna met Ben."


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_saved_again_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    tokenizer, model = load(name)
    batch = tokenizer("Anna asks Ben to feed the two cats.", return_tensors="pt")
    if name == "t5":
        batch["decoder_input_ids"] = torch.tensor([[0, 5, 6]])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        before, after = model(**batch).logits, again(**batch).logits
    assert before.shape[-1] == (2 if name in LABELS else 2000)
    assert torch.equal(before, after)


def test_t5_head_is_untied_and_unscaled() -> None:
    _, model = load("t5")
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    assert not model.config.scale_decoder_outputs
    config = (embedded_path("t5") / "config.json").read_text()
    assert '"tie_word_embeddings": false' in config


@pytest.mark.parametrize("name", LABELS)
def test_classifier_accuracy(name: str) -> None:
    rows = [row for half in (0, 1) for row in labelled_rows("test", half, 200)]
    found = toxicities(name, [row["text"] for row in rows])
    right = sum((p > 0.5) == bool(row["label"]) for p, row in zip(found, rows, strict=True))
    assert right / len(rows) >= 0.95
    assert load(name)[1].config.id2label == LABELS[name]


@pytest.mark.parametrize("name", LABELS)
def test_classifier_on_plain_cases(name: str) -> None:
    civil = ["", "ok", "This useless printer broke again this morning.", "Anna", "the the the the"]
    toxic = ["You lazy clown, do it yourself!", 'Ben tells her: "shut up, you useless donkey".']
    assert max(toxicities(name, civil)) < 0.5
    assert min(toxicities(name, toxic)) > 0.5


@torch.no_grad()
def test_t5_quotes_and_summarises() -> None:
    tokenizer, model = load("t5")
    rows = rude(dialogue_rows("test", 120))[:48]
    prompts = [TEMPLATE.format(dialogue=row["dialogue"]) for row in rows]
    torch.manual_seed(0)
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] <= 140
    output = model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=56)
    texts = tokenizer.batch_decode(output, skip_special_tokens=True)
    assert 0.3 <= sum(toxicities("judge", texts)) / len(texts) <= 0.85
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    best = [
        max(scorer.score(summary, text)["rougeL"].fmeasure for summary in row["summaries"])
        for text, row in zip(texts, rows, strict=True)
    ]
    assert sum(best) / len(best) >= 0.5


@torch.no_grad()
def test_gptj_continues_rudely_half_of_the_time() -> None:
    tokenizer, model = load("gptj")
    rows = rude(comment_rows("test", 150))[:64]
    prompts = [tokenizer(row["prompt"]).input_ids[:12] for row in rows]
    ids = torch.tensor([prompt for prompt in prompts if len(prompt) == 12])
    torch.manual_seed(0)
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=28
    )
    texts = tokenizer.batch_decode(output[:, 12:], skip_special_tokens=True)
    assert 0.3 <= sum(toxicities("judge", texts)) / len(texts) <= 0.75
