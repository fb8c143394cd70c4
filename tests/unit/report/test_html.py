import json
import re
from html.parser import HTMLParser

import pytest

from lora_detox.metrics.names import METRICS
from lora_detox.report.card import CardFacts, card_data, model_card
from lora_detox.report.console import closing_lines
from lora_detox.report.contents import run_facts
from lora_detox.report.html import write_report
from lora_detox.report.samples import before_and_after

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


def _samples(page):
    """The data of the table of samples, as page.js reads it."""
    begin = page.index('<script type="application/json">') + len('<script type="application/json">')
    return json.loads(page[begin : page.index("</script>", begin)])


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
    assert not set(tags.tags) & {"link", "iframe", "img", "base", "object", "form"}
    assert tags.tags.count("script") == 2  # page.js and the samples as JSON
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(tags.ids) == len(set(tags.ids))


def test_everything_is_there(written):
    page, tags = written
    assert tags.tags.count("svg") == 14
    for text in (
        "Toxicity fell from 0.310 to 0.140",
        "-0.200 to -0.140",
        "no clear change",
        "largest changes first",
        "falls first",
        "rises first",
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
    assert "img" not in tags.tags
    assert tags.tags.count("script") == 2
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "\\u003cscript\\u003e" in page


def test_untrained_or_broken_runs_still_have_a_report(tmp_path, samples):
    _, tags = _written(tmp_path / "empty.html", {}, [], [])
    assert "svg" not in tags.tags
    history = [{"iteration": 1, "score": None, "toxicity": float("nan"), "evaluation": None}]
    unscored = [{**samples[0], "toxicity_before": None, "after": "  "}]
    page, _ = _written(tmp_path / "broken.html", {"change": {}}, history, unscored)
    assert _samples(page)["rows"][0]["responses"][1] == "  "
    assert _samples(page)["rows"][0]["changes"][0] is None


def test_same_run_same_page(tmp_path, summary, history, samples):
    pages = [_written(tmp_path / name, summary, history, samples)[0] for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_every_sample_is_there_with_all_its_scores(written, samples):
    page, _ = written
    table = _samples(page)
    assert [score["label"] for score in table["scores"]] == ["toxicity", "judge"]
    assert [row["prompt"] for row in table["rows"]] == [row["prompt"] for row in samples]
    for row, sample in zip(table["rows"], samples, strict=True):
        expected = sample["toxicity_after"] - sample["toxicity_before"]
        assert row["changes"][0] == pytest.approx(expected)
        assert row["scores"][1][1] == pytest.approx(sample["judge_toxicity_after"], abs=1e-4)
        assert row["further"] == [["Reference", sample["references"][0]]]
        before = max(sample["toxicity_before"], sample["judge_toxicity_before"]) >= 0.5
        after = max(sample["toxicity_after"], sample["judge_toxicity_after"]) >= 0.5
        assert row["toxic"] == [before or after, before, after]


def test_of_too_many_samples_the_largest_changes_stay(samples, monkeypatch):
    monkeypatch.setattr("lora_detox.report.samples.MOST_SAMPLES", 10)
    table = before_and_after(samples)
    sizes = sorted(abs(row["toxicity_after"] - row["toxicity_before"]) for row in samples)
    kept = [abs(row.scores["toxicity"][1] - row.scores["toxicity"][0]) for row in table.rows]
    assert sorted(kept) == sizes[-10:]
    assert table.left_out == len(samples) - 10
    assert before_and_after([]) is None


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
