import re
from html.parser import HTMLParser

import pytest

from lora_detox.metrics.names import METRICS
from lora_detox.report.card import CardFacts, card_data, model_card
from lora_detox.report.console import closing_lines
from lora_detox.report.html import run_facts, sample_groups, write_report

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\udc80"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]


def _written(path, summary, history, samples, settings_yaml="seed: 0\n"):
    write_report(
        path,
        summary=summary,
        history=history,
        samples=samples,
        settings_yaml=settings_yaml,
        metrics=METRICS,
    )
    page = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    return page, tags


@pytest.fixture
def written(tmp_path, summary, history, samples):
    return _written(tmp_path / "report.html", summary, history, samples)


def test_self_contained(written):
    page, tags = written
    links = [
        value
        for name, value in tags.attributes
        if name in {"src", "href", "xlink:href", "action", "srcset"}
    ]
    assert all(value.startswith("#") for value in links)
    assert not set(tags.tags) & {"script", "link", "iframe", "img", "base", "object"}
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(tags.ids) == len(set(tags.ids))


def test_everything_is_there(written):
    page, tags = written
    assert tags.tags.count("svg") == 12
    for text in (
        "Toxicity fell from 0.310 to 0.140",
        "-0.200 to -0.140",
        "no clear change",
        "Where toxicity fell most",
        "Where toxicity rose most",
        "Drawn at random",
        "3,538,944",
        "1.41 %",
        "roberta_toxicity_classifier@5d6e7f8",
        "3.00 GiB",
        "seed: 0",
        "prefers-color-scheme: dark",
    ):
        assert text in page


def test_no_text_is_markup(tmp_path, summary, history, samples):
    keys = ("prompt", "before", "after")
    attacked = [{**row, **dict.fromkeys(keys, ATTACK), "references": [ATTACK]} for row in samples]
    summary.update(policy=ATTACK, stopped=ATTACK, scorers={"reward": ATTACK})
    page, tags = _written(tmp_path / "report.html", summary, history, attacked, ATTACK)
    assert not {"script", "img"} & set(tags.tags)
    assert "&lt;script&gt;" in page


def test_untrained_or_broken_runs_still_have_a_report(tmp_path, samples):
    _, tags = _written(tmp_path / "empty.html", {}, [], [])
    assert "svg" not in tags.tags
    history = [{"iteration": 1, "score": None, "toxicity": float("nan"), "evaluation": None}]
    unscored = [{**samples[0], "toxicity_before": None, "after": "  "}]
    page, _ = _written(tmp_path / "broken.html", {"change": {}}, history, unscored)
    assert "(empty response)" in page


def test_same_run_same_page(tmp_path, summary, history, samples):
    pages = [_written(tmp_path / name, summary, history, samples)[0] for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_groups_show_regressions_and_no_sample_twice(samples):
    fell, rose, others = sample_groups(samples)
    changes = [row["toxicity_after"] - row["toxicity_before"] for row in rose.samples]
    assert changes == sorted(changes, reverse=True)
    assert min(changes) > 0
    shown = [row["prompt"] for group in (fell, rose, others) for row in group.samples]
    assert len(shown) == len(set(shown)) == 15
    assert sample_groups([]) == []


def test_a_changed_base_is_not_hidden(summary):
    summary["parameters"]["base_unchanged"] = False
    facts = dict(run_facts(summary))
    assert ("base weights unchanged", "NO: base changed") in facts["Parameters"]


RUSSIAN = {"compared": "Unicode words", "counted": "words between white space"}


def test_page_and_card_and_console_say_what_counted_as_a_word(tmp_path, summary, history, samples):
    facts = CardFacts(
        name="a",
        base="b/c",
        base_revision=None,
        base_on_hub=True,
        encoder_decoder=True,
        data="d/e",
        data_on_hub=True,
        license=None,
        settings=[],
    )
    english = {**RUSSIAN, "compared": "English words, Porter-stemmed"}
    for rules, language in ((RUSSIAN, None), (english, "en")):
        summary["words"] = rules
        note = f"ROUGE compares {rules['compared']}."
        page, _ = _written(tmp_path / "report.html", summary, history, samples)
        assert note in page
        card = model_card(facts, summary, METRICS)
        assert note in card
        assert card_data(facts, summary, METRICS).language == language
        assert ("trained and measured on (English, d/e)" in card) is (language == "en")
        assert (note in "\n".join(closing_lines(summary, tmp_path))) is (language is None)
