"""Figures of a classifier, against counts by hand."""

import pytest

from lora_detox.metrics.classification import classification_figures, identity_gap


def test_figures_by_hand():
    toxicity = [0.9, 0.8, 0.3, 0.6, 0.1]
    toxic = [True, True, True, False, False]
    figures = classification_figures(toxicity, toxic)
    assert figures["n"] == 5
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx(2 / 3)
    assert figures["false_positive_rate"] == pytest.approx(1 / 2)
    assert figures["auc"] == pytest.approx(5 / 6)  # of the six pairs only (0.3, 0.6) is wrong
    gaps = [0.1, 0.2, 0.7, 0.6, 0.1]
    assert figures["calibration_error"] == pytest.approx(sum(gaps) / 5)
    assert figures["brier"] == pytest.approx(sum(gap**2 for gap in gaps) / 5)


def test_ties_count_half_and_one_class_has_no_auc():
    assert classification_figures([0.5, 0.5], [True, False])["auc"] == 0.5
    alone = classification_figures([0.7, 0.2], [False, False])
    assert "auc" not in alone
    assert "f1" not in alone
    assert alone["false_positive_rate"] == 0.5


def test_a_calibrated_classifier_has_no_calibration_error():
    toxicity = [0.25] * 8 + [0.75] * 8
    toxic = [True] * 2 + [False] * 6 + [True] * 6 + [False] * 2
    assert classification_figures(toxicity, toxic)["calibration_error"] == pytest.approx(0)


def test_the_identity_gap_reads_civil_texts_only():
    identities = ["a"] * 4 + ["b"] * 4 + ["rare"] + [None] * 3
    toxicity = [0.9, 0.9, 0.1, 0.9] + [0.1, 0.1, 0.9, 0.1] + [0.9] + [0.1] * 3
    toxic = [False, False, False, True] + [False, False, True, False] + [False] + [False] * 3
    gap = identity_gap(toxicity, toxic, identities, least=3)
    assert gap["identities"] == 2
    assert gap["highest"]["a"] == pytest.approx(2 / 3)
    assert gap["lowest"]["b"] == 0
    assert gap["gap"] == pytest.approx(2 / 3)
    assert gap["overall"] == pytest.approx(3 / 10)
    assert gap["equality_difference"] == pytest.approx((2 / 3 - 0.3) + 0.3)
    assert identity_gap(toxicity, toxic, identities, least=4) is None
