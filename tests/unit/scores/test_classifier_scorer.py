"""Classifiers as scorers: batches, order, windows, loading errors."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_detox.errors import ScorerError
from lora_detox.machine import CPU_BATCH_TOKENS
from lora_detox.scores import ClassifierScorer, check_classifier, check_scorer
from lora_detox.scores.classifier import _join, checked_text
from lora_detox.scores.loading import identify, load_error

TEXTS = ["the cat sat", "", "a", "the mat on the cat " * 3, "dog! dog?", "the cat sat"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def prompts_for(texts):
    return ["why"] * len(texts)


def slow_logits(folder, text):
    """The obvious way: one text, the model's own tokenizer with its special tokens."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = AutoTokenizer.from_pretrained(folder)(text, truncation=False, return_tensors="pt")
    with torch.no_grad():
        return model(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
        ).logits[0]


@pytest.mark.parametrize("family", ["roberta", "distilbert", "gpt2"])
def test_contract(save_classifier, family):
    check_scorer(ClassifierScorer(save_classifier(family)), tolerance=1e-5)


@pytest.mark.parametrize("text", ["response", "prompt_response"])
def test_contract_with_prompts(save_classifier, text):
    check_scorer(ClassifierScorer(save_classifier(), text=text), tolerance=1e-5)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_equals_the_slow_way(save_classifier, family):
    folder = save_classifier(family, labels=("toxic", "neutral"))
    scores = ClassifierScorer(folder, batch_size=2).score(prompts_for(TEXTS), TEXTS)
    for index, text in enumerate(TEXTS):
        logits = slow_logits(folder, text)
        assert float(scores.score[index]) == pytest.approx(float(logits[1]), abs=1e-5)
        toxicity = float(logits.softmax(dim=0)[0])
        assert float(scores.toxicity[index]) == pytest.approx(toxicity, abs=1e-5)


def test_batch_size_changes_nothing_and_duplicates_are_scored_once(save_classifier, monkeypatch):
    folder = save_classifier()
    small = ClassifierScorer(folder, batch_size=1)
    large = ClassifierScorer(folder, batch_size=64)
    seen = []
    forward = large._model.forward
    monkeypatch.setattr(
        large._model, "forward", lambda **batch: seen.append(batch) or forward(**batch)
    )
    one, other = (scorer.score(prompts_for(TEXTS), TEXTS) for scorer in (small, large))
    assert torch.allclose(one.score, other.score, atol=1e-5)
    assert torch.allclose(one.toxicity, other.toxicity, atol=1e-5)
    assert [len(batch["input_ids"]) for batch in seen] == [len(set(TEXTS))]


def test_a_token_budget_bounds_batches_and_changes_nothing(save_classifier):
    scorer = ClassifierScorer(save_classifier("roberta"))
    texts = [*TEXTS, "the cat sat on the mat " * 4]
    windower, windows = scorer._windower, scorer._windower.windows(texts)
    longest = max(len(window.ids) for window in windows)
    for budget in (1, longest, 2 * longest + 1, 10_000):
        batches = list(windower.batches(windows, 3, budget))
        places = [place for batch in batches for place in batch.window_indices.tolist()]
        assert sorted(places) == list(range(len(windows)))
        for batch in batches:
            rows = len(batch.input_ids)
            assert rows <= 3
            assert rows == 1 or batch.input_ids.numel() <= budget
    assert len(list(windower.batches(windows, 3, 1))) == len(windows)
    expected = scorer.score(prompts_for(texts), texts).score
    for budget in (None, 1, longest):
        scorer._batch_tokens = budget
        torch.testing.assert_close(scorer.score(prompts_for(texts), texts).score, expected)


def test_texts_are_read_in_one_call_as_one_by_one(save_classifier):
    windower = ClassifierScorer(save_classifier("roberta"), max_tokens=8)._windower
    together = [(window.text_index, window.ids) for window in windower.windows(TEXTS)]
    alone = [
        (index, window.ids)
        for index, text in enumerate(TEXTS)
        for window in windower.windows([text])
    ]
    assert together == alone
    assert windower.windows([]) == []


def test_prompt_is_left_out_unless_asked_for(save_classifier):
    folder = save_classifier()
    alone, both = (ClassifierScorer(folder, text=t) for t in ("response", "prompt_response"))
    one, other = (alone.score([prompt], ["the cat"]) for prompt in ("a", "entirely different"))
    assert torch.equal(one.score, other.score)
    joined = both.score(["the mat"], ["the cat"])
    assert torch.equal(joined.score, alone.score([""], ["the mat the cat"]).score)


def test_position_limits(save_classifier):
    """RoBERTa's 34 positions hold 32 tokens; DistilBERT's 32 hold 32."""
    for family in ("roberta", "distilbert", "gpt2"):
        scorer = ClassifierScorer(save_classifier(family))
        longest = max(len(w.ids) for w in scorer._windower.windows(["xyz " * 99]))
        assert longest == 32
        assert torch.isfinite(scorer.score([""], ["xyz " * 99]).score).all()


def test_windows_cover_a_long_text_with_overlap(save_classifier):
    scorer = ClassifierScorer(save_classifier())
    text = "".join(chr(97 + i % 26) for i in range(200))
    tokenizer = AutoTokenizer.from_pretrained(save_classifier())
    ids = tokenizer(text, truncation=False, add_special_tokens=False)["input_ids"]
    windows = [window.ids[1:-1] for window in scorer._windower.windows([text])]
    found, place = list(windows[0]), 0
    for window in windows[1:]:
        place = next(p for p in range(place + 1, len(ids)) if ids[p : p + len(window)] == window)
        assert place < len(found)
        found[place:] = window
    assert found == ids


def test_the_worst_window_counts(save_classifier):
    scorer = ClassifierScorer(save_classifier())
    text = "q7 " * 30 + "the cat sat on the mat " * 5
    whole = scorer.score([""], [text])
    windows = scorer._windower.windows([text])
    assert len(windows) > 2
    with torch.no_grad():
        logits = [scorer._model(input_ids=torch.tensor([w.ids])).logits[0] for w in windows]
    worst = max(logits, key=lambda one: float(one.softmax(0)[1]))
    assert float(whole.toxicity) == pytest.approx(float(worst.softmax(0)[1]), abs=1e-5)
    assert float(whole.score) == pytest.approx(float(worst[0]), abs=1e-5)


def test_max_tokens(save_classifier):
    scorer = ClassifierScorer(save_classifier(), max_tokens=10)
    assert max(len(window.ids) for window in scorer._windower.windows(["xyz " * 9])) == 10
    with pytest.raises(ScorerError, match=r"`reward\.max_tokens`"):
        ClassifierScorer(save_classifier(), max_tokens=2)


def test_multi_label_head_uses_the_sigmoid(save_classifier):
    folder = save_classifier(
        labels=("toxic", "insult", "obscene"), problem_type="multi_label_classification"
    )
    scores = ClassifierScorer(folder).score([""], ["the cat"])
    logits = slow_logits(folder, "the cat")
    assert float(scores.toxicity) == pytest.approx(float(logits[0].sigmoid()), abs=1e-5)
    assert float(scores.score) == pytest.approx(-float(logits[0]), abs=1e-5)
    check_scorer(ClassifierScorer(folder, output="sigmoid"), tolerance=1e-5)
    with pytest.raises(ScorerError, match=r"`softmax` does not fit"):
        ClassifierScorer(folder, output="softmax")


def test_numbers_that_are_not_finite_never_count_as_clean(save_classifier):
    scorer = ClassifierScorer(save_classifier())
    torch.nn.init.constant_(scorer._model.classifier.out_proj.bias, float("nan"))
    with pytest.raises(ScorerError, match=r"not finite for 1 of 1 texts.*'the cat'"):
        scorer.score([""], ["the cat"])


def test_a_failing_model_is_a_scorer_error(save_classifier, monkeypatch):
    scorer = ClassifierScorer(save_classifier())

    def fail(**_):
        raise RuntimeError("device lost")

    monkeypatch.setattr(scorer._model, "forward", fail)
    with pytest.raises(ScorerError, match=r"roberta-classifier@.*failed on 1 texts.*device lost"):
        scorer.score([""], ["the cat"])


def test_scorer_id_pins_the_weights(save_classifier):
    folder = save_classifier()
    first = ClassifierScorer(folder).scorer_id
    assert first.startswith("roberta-classifier@")
    assert ClassifierScorer(folder).scorer_id == first
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.zeros_(model.classifier.out_proj.weight)
    model.save_pretrained(folder)
    assert ClassifierScorer(folder).scorer_id != first


def test_labels_are_checked_without_weights(save_classifier):
    folder = save_classifier(labels=("LABEL_0", "LABEL_1"))
    (Path(folder) / "model.safetensors").unlink()
    with pytest.raises(ScorerError, match=r"0=LABEL_0, 1=LABEL_1.*`judge\.label`"):
        check_classifier(folder, None, "judge")
    head = check_classifier(folder, 1, "judge")
    assert (head.civil_index, head.path) == (1, folder)
    with pytest.raises(ScorerError, match=r"no safetensors weights.*`reward\.path`"):
        ClassifierScorer(folder, label=1)


@pytest.mark.parametrize("path", ["/no/such/folder", "./models/none", "a/b/c"])
def test_missing_folder(path):
    with pytest.raises(ScorerError, match=r"no such folder.*`judge\.path`"):
        ClassifierScorer(path, key="judge")


def test_unreachable_hub_is_quick_and_says_how_to_go_local():
    start = time.monotonic()
    with pytest.raises(ScorerError, match=r"no-one/nothing-here.*reward\.path=FOLDER"):
        ClassifierScorer("no-one/nothing-here")
    assert time.monotonic() - start < 10


def test_connection_failure(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(ScorerError, match=r"hub cannot be reached.*reward\.path=FOLDER"):
        ClassifierScorer("no-one/nothing-here")


def test_pickled_weights_are_not_loaded(save_classifier):
    folder = Path(save_classifier())
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ScorerError, match=r"safetensors.*`reward\.path`"):
        ClassifierScorer(str(folder))


def test_other_models_and_lost_heads(save_classifier):
    folder = Path(save_classifier())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["RobertaModel"]}))
    with pytest.raises(ScorerError, match=r"is a RobertaModel, want a sequence classifier"):
        ClassifierScorer(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.roberta.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ScorerError, match=r"lack classifier\.dense.*`reward\.path`"):
        ClassifierScorer(str(folder))


def test_wrong_settings(save_classifier):
    with pytest.raises(ScorerError, match=r"auto, float32.*`reward\.dtype`"):
        ClassifierScorer(save_classifier(), dtype="int3")
    with pytest.raises(ScorerError, match=r"want response or prompt_response.*`judge\.text`"):
        checked_text("both", "judge")


@pytest.mark.parametrize(("name", "civil"), [("roberta-reward", 0), ("roberta-judge", 1)])
def test_lab_classifiers(lab, name, civil):
    scorer = ClassifierScorer(str(lab / name))
    assert scorer.head.civil_index == civil
    assert scorer._model.dtype == torch.float32
    check_scorer(scorer, tolerance=1e-5)
    insult = "You are a stupid idiot and I hate you."
    long_text = "The committee met in the old town hall on Monday to talk about the budget. " * 20
    scores = scorer.score([""] * 3, [long_text, long_text + insult, insult])
    assert scores.toxicity[0] < scores.toxicity[1]
    assert scores.toxicity[2] > 0.8


@pytest.mark.parametrize(
    ("prompt", "response", "joined"),
    [
        ("the mat", "the cat", "the mat the cat"),
        ("the mat ", "the cat", "the mat the cat"),
        ("the mat", " the cat", "the mat the cat"),
        ("the mat\n", " the cat", "the mat\n the cat"),
        ("a b", "c d", "a b c d"),
        ("", "the cat", "the cat"),
        ("the mat", "", "the mat"),
    ],
)
def test_one_white_space_parts_prompt_and_response(prompt, response, joined):
    assert _join(prompt, response) == joined


def batches_of(scorer, texts, monkeypatch):
    """Shapes of the forward passes over some texts."""
    shapes, forward = [], scorer._model.forward
    monkeypatch.setattr(
        scorer._model,
        "forward",
        lambda **batch: shapes.append(tuple(batch["input_ids"].shape)) or forward(**batch),
    )
    scorer.score(prompts_for(texts), texts)
    return shapes


def test_passes_hold_the_rows_that_were_asked_for(save_classifier, monkeypatch):
    texts = [f"{place:02}" for place in range(65)]
    folder = save_classifier()
    sizes = [rows for rows, _ in batches_of(ClassifierScorer(folder), texts, monkeypatch)]
    assert sizes == [64, 1]
    for batch_size in (1, 0):
        one = ClassifierScorer(folder, batch_size=batch_size)
        assert [rows for rows, _ in batches_of(one, texts[:3], monkeypatch)] == [1, 1, 1]


def test_passes_on_a_cpu_hold_no_more_tokens_than_its_caches(save_classifier, monkeypatch):
    texts = [f"{place:02} " + "xyz " * 9 for place in range(60)]
    scorer = ClassifierScorer(save_classifier(), device="cpu")
    shapes = batches_of(scorer, texts, monkeypatch)
    assert max(rows * tokens for rows, tokens in shapes) <= CPU_BATCH_TOKENS < 60 * shapes[0][1]


def test_the_toxic_label_of_a_multi_label_head_by_name(save_classifier):
    labels = {"labels": ("toxic", "insult"), "problem_type": "multi_label_classification"}
    folder = save_classifier(**labels)
    assert check_classifier(folder, "insult").toxic_indices == (1,)
    assert check_classifier(folder).toxic_indices == (0,)


def test_the_dtype_and_the_padding_are_those_asked_for_and_stored(save_classifier):
    scorer = ClassifierScorer(save_classifier(), dtype="bfloat16")
    assert scorer._model.dtype == torch.bfloat16
    assert scorer._windower._tokenizer.pad_token == "<pad>"
    bare = ClassifierScorer(save_classifier("gpt2"))
    assert bare._windower._tokenizer.pad_token == "</s>"
    assert bare._model.config.pad_token_id == 2


def test_an_id_holds_the_commit_else_the_revision_else_the_branch(save_classifier):
    def name(commit, revision):
        model = SimpleNamespace(config=SimpleNamespace(_commit_hash=commit))
        return identify("owner/name", "owner/name", model, revision)

    assert name("abc", "v1") == "owner/name@abc"
    assert name(None, "v1") == "owner/name@v1"
    assert name(None, None) == "owner/name@main"
    scorer_id = ClassifierScorer(save_classifier()).scorer_id
    assert len(scorer_id.removeprefix("roberta-classifier@")) == 12


def test_the_hub_is_asked_for_the_revision(monkeypatch):
    asked = []

    def refuse(self, path, *, revision=None, **_):
        asked.append((path, revision))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(ScorerError, match="hub cannot be reached"):
        ClassifierScorer("no-one/nothing-here", revision="v1")
    assert asked == [("no-one/nothing-here", "v1")]


def test_an_error_of_several_lines_is_told_by_its_first():
    error = load_error("owner/name", "judge", ValueError("\nfirst\nsecond"))
    assert "cannot load the classifier owner/name: ValueError: first; want" in str(error)
    assert "ValueError: ; want" in str(load_error("owner/name", "judge", ValueError()))
