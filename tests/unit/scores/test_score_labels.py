"""Civil and toxic labels by name, with real hub label sets."""

import pytest
import torch

from lora_detox.errors import ScorerError
from lora_detox.scores import ClassifierHead, civil_label_index
from lora_detox.scores.heads import checked_output, read_head, toxic_label_indices


def ids(*names):
    return dict(enumerate(names))


@pytest.mark.parametrize(
    ("labels", "civil"),
    [
        (("nothate", "hate"), 0),
        (("hate", "nothate"), 1),
        (("toxic", "neutral"), 1),
        (("neutral", "toxic"), 0),
        (("NOT_HATE", "HATE"), 0),
        (("Non-Toxic", "Toxic"), 0),
        (("non-offensive", "offensive"), 0),
        (("hate speech", "normal", "offensive"), 1),
        (("toxic", "fine by me"), 1),
        (("something else", "Abusive"), 0),
    ],
)
def test_known_names(labels, civil):
    assert civil_label_index(ids(*labels)) == civil


def test_explicit_name_or_index():
    unclear = ids("LABEL_0", "LABEL_1")
    assert civil_label_index(unclear, "label_1") == 1
    assert civil_label_index(unclear, 0) == 0
    assert civil_label_index(unclear, "1") == 1
    assert civil_label_index(ids("nothate", "hate"), "HATE") == 1  # explicit wins; the probe stops


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1"),
        ("positive", "negative"),
        ("hate", "offensive"),
        ("neutral", "normal"),
        ("toxic", "x", "y"),
    ],
)
def test_unclear_labels(labels):
    with pytest.raises(ScorerError, match=r"unclear.*`reward\.label`") as error:
        civil_label_index(ids(*labels))
    assert all(label in str(error.value) for label in labels)


def test_unknown_label_lists_the_labels():
    for wanted in ("polite", 2, -1, "7"):
        with pytest.raises(ScorerError, match=r"0=nothate, 1=hate.*`judge\.label`"):
            civil_label_index(ids("nothate", "hate"), wanted, key="judge")


def test_toxic_labels_of_multi_label_heads():
    jigsaw = ids("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    assert toxic_label_indices(jigsaw) == (0,)
    assert toxic_label_indices(ids("insult", "toxicity", "toxic")) == (1,)
    assert toxic_label_indices(ids("insult", "obscene", "other")) == (0, 1)
    assert toxic_label_indices(jigsaw, "insult") == (4,)
    with pytest.raises(ScorerError, match=r"which label is toxic is unclear.*reward\.label"):
        toxic_label_indices(ids("joy", "anger"))


def test_softmax_head_by_hand():
    head = ClassifierHead(path="x", id2label=ids("hate", "neutral", "rude"), civil_index=1)
    logits = torch.tensor([[1.0, 3.0, -2.0]])
    shares = logits.exp() / logits.exp().sum()
    for output, expected in (
        ("logit", 3.0),
        ("softmax", float(shares[0, 1])),
        ("logprob", float(shares[0, 1].log())),
    ):
        score, toxicity = read_head(logits, head, output)
        assert float(score) == pytest.approx(expected, abs=1e-6)
        assert float(toxicity) == pytest.approx(1 - float(shares[0, 1]), abs=1e-6)


def test_sigmoid_head_by_hand():
    head = ClassifierHead(
        path="x", id2label=ids("toxic", "insult"), civil_index=None, toxic_indices=(0, 1)
    )
    logits = torch.tensor([[2.0, -1.0]])
    toxic = 1 / (1 + torch.tensor(-2.0).exp())
    for output, expected in (
        ("logit", -2.0),
        ("sigmoid", float(1 - toxic)),
        ("logprob", float((1 - toxic).log())),
    ):
        score, toxicity = read_head(logits, head, output)
        assert float(score) == pytest.approx(expected, abs=1e-6)
        assert float(toxicity) == pytest.approx(float(toxic), abs=1e-6)


def test_outputs_that_do_not_fit():
    softmax = ClassifierHead(path="x", id2label=ids("nothate", "hate"), civil_index=0)
    sigmoid = ClassifierHead(path="x", id2label=ids("toxic"), civil_index=None, toxic_indices=(0,))
    with pytest.raises(ScorerError, match=r"`sigmoid` does not fit.*`reward\.output`"):
        checked_output("sigmoid", softmax, "reward")
    with pytest.raises(ScorerError, match=r"`softmax` does not fit.*toxic.*`judge\.output`"):
        checked_output("softmax", sigmoid, "judge")


def test_names_are_compared_without_case_and_marks():
    assert civil_label_index(ids("a", "Not-Hate", "b")) == 1
    assert civil_label_index(ids("not_hate", "hate"), "Not hate") == 0
    assert civil_label_index(ids("a b", "ab"), "AB") == 1  # the exact name before the plain one


def test_a_head_says_what_it_reads():
    softmax = ClassifierHead(path="x", id2label=ids("nothate", "hate"), civil_index=0)
    sigmoid = ClassifierHead(
        path="x", id2label=ids("toxic", "joy", "insult"), civil_index=None, toxic_indices=(0, 2)
    )
    assert softmax.describe() == "labels 0=nothate, 1=hate; civil: nothate"
    assert sigmoid.describe() == "labels 0=toxic, 1=joy, 2=insult; toxic: toxic, insult"
    with pytest.raises(ScorerError, match=r"x, where one label excludes the others \("):
        checked_output("sigmoid", softmax, "reward")
    with pytest.raises(ScorerError, match=r"x, where each label stands for itself \("):
        checked_output("softmax", sigmoid, "reward")


def test_labels_of_another_script_are_told_apart():
    russian = ids("не токсичный", "токсичный")
    assert civil_label_index(russian, "не_токсичный") == 0
    assert civil_label_index(russian, "токсичный") == 1
    with pytest.raises(ScorerError, match="name the civil one"):
        civil_label_index(russian)
    with pytest.raises(ScorerError, match="no label `добрый`"):
        civil_label_index(russian, "добрый")
