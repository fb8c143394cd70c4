"""The table of samples in a real browser: its controls, hostile text, and its speed."""

import random
import statistics

import pytest

from lora_detox.metrics.names import METRICS
from lora_detox.report.html import write_report
from tests.browser.pages import DESKTOP, PHONE

HOSTILE = (
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "</script><script>document.title = 'taken'</script>",
    "<!--<script>",
    "{{ 7 * 7 }} {% raw %} ${document.title = 'taken'}",
    "\u202eright to left\u202c and \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "W" * 4000,
    "\x00\x07\x1b[2J\ud800\u2028\U000e0041",
    "<style>* { display: none }</style>",
    "",
)


def sample(number, start=0.1, end=0.1, **texts):
    row = {
        "prompt": f"Prompt number {number}",
        "references": ["What a person wrote"],
        "before": f"Before number {number}",
        "after": f"After number {number}",
        "toxicity_before": start,
        "toxicity_after": end,
        "judge_toxicity_before": start / 2,
        "judge_toxicity_after": end / 2,
    }
    return {**row, **texts}


def written(path, samples):
    write_report(
        path, summary={}, history=[], samples=samples, settings_yaml="seed: 0\n", metrics=METRICS
    )
    return path


@pytest.fixture
def page(browser, tmp_path):
    """Changes of -0.02 x number for even numbers, +0.01 x number for odd ones."""
    samples = [
        sample(number, 0.3, 0.3 + number * (0.01 if number % 2 else -0.01)) for number in range(30)
    ]
    samples += [sample(number, 0.9, 0.02) for number in range(30, 40)]
    return browser.open(written(tmp_path / "report.html", samples))


def prompts(page):
    return page.run(
        "return Array.from(document.querySelectorAll('.samples tbody tr'), one => "
        "Number(/number (\\d+)/.exec(one.textContent)[1]))"
    )


def test_largest_changes_come_first_and_headings_order(page):
    assert prompts(page)[:12] == [*range(30, 40), 29, 28]
    toxicity = page.one(".samples th.number button")
    heading = toxicity.find_element("xpath", "..")
    assert heading.get_attribute("aria-sort") == "other"
    toxicity.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert prompts(page)[9:12] == [39, 28, 26]
    toxicity.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert prompts(page)[:3] == [29, 27, 25]
    page.one(".samples th.side button").click()
    assert heading.get_attribute("aria-sort") == "none"
    assert prompts(page) == list(range(25))
    assert page.errors() == []


def test_a_change_that_is_shown_as_nothing_has_no_colour(browser, tmp_path):
    rows = [sample(0, 0.3, 0.3001), sample(1, 0.3, 0.2999), sample(2, 0.3, 0.31)]
    page = browser.open(written(tmp_path / "report.html", rows))
    shown = page.run(
        "return Array.from(document.querySelectorAll('.samples tbody tr'), one => "
        "[one.cells[3].textContent, one.cells[3].className])"
    )
    assert shown == [["+0.010", "worse"], ["0.000", ""], ["0.000", ""]]


def test_no_word_of_a_heading_is_broken(browser, tmp_path):
    numbers = {"reference_nll": 4.0, "response_tokens": 3.0}
    sides = {f"{key}_{side}": one for key, one in numbers.items() for side in ("before", "after")}
    rows = [sample(0, **sides)]
    page = browser.open(written(tmp_path / "report.html", rows))
    lines = page.run("""
        const lines = {};
        for (const button of document.querySelectorAll(".samples th.number button")) {
          const range = document.createRange(), text = button.firstChild;
          const start = text.data.lastIndexOf(" ") + 1;
          range.setStart(text, start);
          range.setEnd(text, text.data.length);
          lines[text.data.slice(start)] = range.getClientRects().length;
        }
        return lines;
    """)
    assert set(lines) >= {"toxicity", "judge", "perplexity"}
    assert set(lines.values()) == {1}


def test_search_finds_texts_and_says_how_many(page):
    search, status = page.one("input[type=search]"), page.one("[role=status]")
    assert status.text == "25 shown of 40 samples"
    page.one("button.more").click()
    assert status.text == "40 shown of 40 samples"
    assert page.all("button.more") == []
    search.send_keys("AFTER NUMBER 3")
    assert status.text == "11 shown of 11 matching, of 40 samples"
    assert set(prompts(page)) == {3, *range(30, 40)}
    search.send_keys("no such text")
    assert status.text == "0 shown of 0 matching, of 40 samples"
    search.clear()
    search.send_keys("person wrote")  # in the references
    assert len(prompts(page)) == 25
    assert page.errors() == []


def test_toxic_text_is_folded_until_asked_for(page):
    def shown():
        return [text for text in page.texts(".samples .text") if "number 30" in text]

    assert shown() == ["After number 30"]
    toxic = page.all("summary.toxic")
    assert len(toxic) == 30  # of ten samples before, of five after, each with its prompt
    toxic[1].send_keys("\ue007")  # Enter: a keyboard is enough
    assert shown() == ["Before number 30", "After number 30"]
    box = page.one(".controls input[type=checkbox]")
    box.click()
    assert shown() == ["Prompt number 30", "Before number 30", "After number 30"]
    page.one("input[type=search]").send_keys("number 30")
    assert shown() == ["Prompt number 30", "Before number 30", "After number 30"]
    box.click()
    assert shown() == ["After number 30"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_hostile_text_is_only_text(browser, tmp_path, size):
    keys = ("prompt", "before", "after")
    samples = [sample(0, **dict.fromkeys(keys, text), references=[text]) for text in HOSTILE]
    page = browser.open(written(tmp_path / "report.html", samples), size)
    page.unfold()
    shown = page.run(
        "return Array.from(document.querySelectorAll('.samples .text'), one => one.textContent)"
    )
    for text in HOSTILE[:5]:
        assert shown.count(text) == 3
    assert shown.count("<U+202E>right to left<U+202C> and العربية") == 3
    assert shown.count("\\x00\\x07\\x1b[2J<U+D800><U+2028><U+E0041>") == 3
    assert page.driver.title == "lora_detox: report"
    assert "(empty response)" in page.one(".samples").text
    assert page.overflow() == 0
    assert page.errors() == []
    assert page.requests() == []


def test_5000_samples_open_in_two_seconds(browser, tmp_path):
    random_numbers = random.Random(0)
    words = [f"word{number}" for number in range(2000)]
    samples = [
        sample(
            number,
            random_numbers.random(),
            random_numbers.random(),
            prompt=" ".join(random_numbers.choices(words, k=80)),
            before=" ".join(random_numbers.choices(words, k=30)),
            after=" ".join(random_numbers.choices(words, k=30)),
        )
        for number in range(5000)
    ]
    path = written(tmp_path / "report.html", samples)
    seconds = [browser.seconds_to_open(path) for _ in range(3)]
    assert browser.one("[role=status]").text == "25 shown of 5000 samples"
    assert 0.05 < statistics.median(seconds) < 2
