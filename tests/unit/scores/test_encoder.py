"""Relevance of a response to its prompt, by a tiny random BERT that is built and saved offline."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, T5Config

from lora_detox.errors import ScorerError
from lora_detox.scores import Encoder, check_encoder
from tests.encoders import write_encoder
from tests.unit.scores.conftest import make_tokenizer

CPU = torch.device("cpu")
LONG = "the cat sat on the mat and then it sat on the other mat " * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder):
    return Encoder(check_encoder(str(folder)), CPU)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def pools_by(folder, config, modules=None):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    return check_encoder(str(folder)).pooling


def test_relevance_is_the_cosine_of_pooled_states(encoder, folder):
    """Against the plain forward of the model on one text at a time."""
    model, tokenizer = BertModel.from_pretrained(folder, add_pooling_layer=False), make_tokenizer()
    prompt, response = "the cat", "sat on the mat"

    def mean(text):
        ids = tokenizer(text, return_tensors="pt", truncation=False)["input_ids"]
        assert ids[0, 0] == 0
        assert ids[0, -1] == 2  # the special tokens are among the tokens
        return model.eval()(input_ids=ids).last_hidden_state[0].mean(dim=0)

    with torch.no_grad():
        expected = torch.cosine_similarity(mean(prompt), mean(response), dim=0)
    cosine = encoder.relevance([prompt], [response])
    assert cosine.shape == (1,)
    assert float(cosine) == pytest.approx(float(expected), abs=1e-6)
    assert float(encoder.relevance([prompt], [prompt])) == pytest.approx(1.0, abs=1e-6)


def test_a_text_reads_the_same_alone_and_in_any_company(encoder):
    texts = ["the", LONG, "", "cat mat", "the cat sat on the mat", "the"]
    together = encoder.embed(texts)
    alone = torch.cat([encoder.embed([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(texts)))
    assert len({tuple(row) for row in together.tolist()}) == len(set(texts))
    backwards = encoder.embed(texts[::-1]).flip(0)
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)


def test_a_long_text_is_read_up_to_the_last_position(encoder):
    head = encoder.embed([LONG[:12]])
    assert not torch.allclose(encoder.embed([LONG]), head, atol=1e-3)
    torch.testing.assert_close(encoder.embed([LONG]), encoder.embed([LONG + " and cat" * 9]))


def test_empty_texts_are_not_relevant_and_the_order_is_kept(encoder):
    prompts = ["the cat", "the cat", "", "on the mat", "the cat"]
    responses = ["sat", "", "sat", " \n", "sat"]
    cosine = encoder.relevance(prompts, responses)
    assert cosine[1:4].tolist() == [0.0, 0.0, 0.0]
    assert cosine[0] == cosine[4] != 0.0
    assert float(cosine[0]) == pytest.approx(
        float(encoder.relevance(["the cat"], ["sat"])), abs=1e-6
    )
    assert encoder.relevance([], []).shape == (0,)
    with pytest.raises(ScorerError, match="2 prompts but 1 responses"):
        encoder.relevance(["a", "b"], ["c"])


def test_prompts_that_are_kept_are_read_once(folder, monkeypatch):
    encoder = Encoder(check_encoder(str(folder)), CPU)
    prompts, responses = ["the cat", "the mat"], ["sat", "on the mat"]
    read = []
    embed = Encoder.embed
    monkeypatch.setattr(
        Encoder, "embed", lambda self, texts: read.append(texts) or embed(self, texts)
    )
    first = encoder.relevance(prompts, responses, keep_prompts=True)
    assert torch.equal(encoder.relevance(prompts, responses, keep_prompts=True), first)
    assert torch.equal(encoder.relevance(prompts, responses), first)
    assert read.count(tuple(prompts)) == 1
    assert read.count(tuple(responses)) == 3


def test_what_sentence_transformers_wrote_down_is_followed(copied, encoder):
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    assert pools_by(copied, modes, modules) == "cls"
    first = Encoder(check_encoder(str(copied)), CPU).embed(["the cat sat"])
    assert not torch.allclose(first, encoder.embed(["the cat sat"]), atol=1e-2)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls", "word_embedding_dimension": 16}, "cls"),
        ({"pooling_mode_max_tokens": True}, "pools by max .*1_Pooling/config.json.*mean or cls"),
        ({"pooling_mode_lasttoken": True}, "pools by lasttoken"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "pools by mean_sqrt_len"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "by cls, mean"),
        ({}, "pools by nothing"),
    ],
)
def test_poolings(copied, config, expected):
    if expected in ("mean", "cls"):
        assert pools_by(copied, config) == expected
        return
    with pytest.raises(ScorerError, match=f"{expected}.*change `evaluation.encoder`"):
        pools_by(copied, config)


def test_a_module_that_changes_embeddings_is_refused(copied):
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    with pytest.raises(ScorerError, match=r"modules\.json .* has a Dense in '2_Dense'"):
        pools_by(copied, {"pooling_mode_mean_tokens": True}, modules)


def test_what_is_no_encoder_is_refused_before_weights_load(copied, tmp_path):
    (copied / "model.safetensors").unlink()
    assert check_encoder(str(copied)).pooling == "mean"  # weights are not looked at
    with pytest.raises(ScorerError, match=r"the encoder .*`evaluation\.encoder"):
        Encoder(check_encoder(str(copied)), CPU)
    for path in ("./nowhere", "embedded:nothing", str(tmp_path)):
        with pytest.raises(ScorerError, match=r"change `evaluation\.encoder`"):
            check_encoder(path)
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(ScorerError, match=r"encoder-decoder \(t5\).*`evaluation.encoder`"):
        check_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "unheard of"}')
    with pytest.raises(ScorerError, match=r"cannot load the encoder .*evaluation\.encoder=FOLDER"):
        check_encoder(str(tmp_path))


def test_weights_that_lack_a_layer_or_are_not_finite_are_refused(copied):
    weights = load_file(copied / "model.safetensors")
    broken = {name: tensor for name, tensor in weights.items() if "layer.1.output" not in name}
    save_file(broken, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerError, match=r"lack encoder\.layer\.1\.output.*evaluation\.encoder"):
        Encoder(check_encoder(str(copied)), CPU)
    weights["encoder.layer.1.output.dense.bias"][0] = torch.nan
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerError, match=r"NaN or infinite.*`evaluation.encoder`"):
        Encoder(check_encoder(str(copied)), CPU)


def test_an_encoder_that_reads_padding_is_refused(copied, monkeypatch):
    forward = BertModel.forward
    monkeypatch.setattr(
        BertModel,
        "forward",
        lambda self, input_ids, attention_mask: forward(self, input_ids, attention_mask * 0 + 1),
    )
    with pytest.raises(ScorerError, match=r"padding changes what the encoder .* reads"):
        Encoder(check_encoder(str(copied)), CPU)
