"""The page of a run in a real browser: on a desktop, on a phone, by keyboard, light and dark."""

import re
from itertools import pairwise

import pytest

from lora_detox.metrics.names import METRICS
from lora_detox.report.html import write_report
from tests.browser.pages import DESKTOP, PHONE
from tests.fake_run import fake_history, fake_samples, fake_summary

GROUPS = [f"people of the {number}th long named group" for number in range(12)]
MEASURES = ("toxicity", "judge_toxicity", "mention_retention", "refused", "empty", "perplexity")


def _summary():
    numbers = dict.fromkeys(MEASURES, 0.25)
    change = {key: {"mean": -0.25, "interval": [-0.375, 0.125]} for key in MEASURES}
    group = {"prompts": 10, "before": numbers, "after": numbers, "change": change}
    entry = {"data": "mine.csv", "all": group, "groups": dict.fromkeys(GROUPS, group)}
    return {
        **fake_summary(),
        "overrides": ["task=flan_summary", "'policy.path=" + "long" * 60 + "'"],
        "memory_growth_bytes": {"loading": 2**30, "update": 2**29},
        "fairness": {
            "sets": {"audit": entry},
            "verdict": "Fairness on mine.csv: nothing is clear.",
        },
        "budget": {
            "bounds": {"perplexity": 8.0, "rougeL": 0.292, "ref_kl": 100.0},
            "start": {"perplexity": 7.1, "rougeL": 0.294},
            "measured": {"perplexity": 7.9},
            "chosen_iteration": 20,
        },
        "guard": {"rollbacks": [{"iteration": 33, "to": 30, "reason": "entropy fell"}]},
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "report.html"
    write_report(
        path,
        summary=_summary(),
        history=fake_history(),
        samples=fake_samples(),
        settings_yaml="seed: 0\n" + "key: " + "value " * 200,
        metrics=METRICS,
    )
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_no_complaint_no_request_no_sideways_scrolling(browser, report, size, dark):
    page = browser.open(report, size, dark=dark)
    page.unfold()
    assert page.overflow() == 0
    assert page.errors() == []
    assert page.requests() == []


def test_the_policy_forbids_every_request(browser, report):
    page = browser.open(report)
    for script in (
        "document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))",
        "fetch('https://example.org/').catch(() => 0)",
        "document.head.append(Object.assign(document.createElement('link'), "
        "{rel: 'stylesheet', href: 'https://example.org/x.css'}))",
    ):
        page.run(script)
        (message, *_) = page.errors()
        assert "Content Security Policy" in message


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_verdict_and_intervals_are_on_the_first_screen(browser, report, size, dark):
    page = browser.open(report, size, dark=dark)
    seen = page.all("#verdict h1, .tile")
    assert len(seen) == 6
    for part in seen:
        box = part.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]
    assert "-0.200 to -0.140" in page.one(".tile").text
    assert "better" in page.one(".tile").text


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_enough(browser, report, dark):
    """At least 4.5 to 1 for every text (WCAG 2.2, AA), on the colour that is behind it."""
    page = browser.open(report, dark=dark)
    page.unfold()
    seen = page.contrasts()
    assert len(seen) >= 8
    assert [one for one in seen if one[0] < 4.5] == []


def test_values_under_the_pointer_are_those_of_the_table(browser, report):
    page = browser.open(report)
    figure = next(
        one for one in page.all("figure") if one.find_element("tag name", "h3").text == "Perplexity"
    )
    left, right, first, last = map(float, figure.get_attribute("data-axis").split()[:4])
    svg = figure.find_element("tag name", "svg")
    page.run("arguments[0].scrollIntoView({block: 'center'})", svg)
    for iteration, row in ((1, 0), (20, 2), (40, 4)):
        place = left + (iteration - first) / (last - first) * (right - left)
        page.run(
            "const [svg, x] = arguments, box = svg.getBoundingClientRect();"
            "svg.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, "
            "clientX: box.left + x * box.width / svg.viewBox.baseVal.width + 2, "
            "clientY: box.top + 9}))",
            svg,
            place,
        )
        cells = page.run(
            "return Array.from(arguments[0].querySelectorAll('tbody tr')[arguments[1]].cells, "
            "one => one.textContent)",
            figure,
            row,
        )
        assert figure.find_element("class name", "readout").text == (
            f"iteration {cells[0]}, perplexity {cells[1]}"
        )
        assert int(cells[0]) == iteration
    assert page.errors() == []


def test_bounds_say_what_was_broken_and_when(browser, report):
    page = browser.open(report)
    bounds = page.one("#bounds").text
    assert re.search(r"ROUGE-L \(F\) 0\.294 at least 0\.292 n/a 3 by 0\.001", bounds)
    page.one("#bounds summary").click()
    assert re.search(r"iteration 40 ROUGE-L \(F\)", page.one("#bounds").text)
    assert "Red lines are where training went back" in page.one("#curves").text
    assert "The limit is 100, outside of the picture." in page.one("#curves").text


def test_structure_for_screen_readers(browser, report):
    page = browser.open(report)
    levels = [int(one.tag_name[1]) for one in page.all("h1, h2, h3, h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for landmark in ("header", "nav[aria-label]", "main", "[role=search][aria-label]"):
        assert len(page.all(landmark)) == 1
    assert (
        page.run("""
        const bad = [];
        for (const table of document.querySelectorAll("table")) {
          if (!table.caption) bad.push(table.outerHTML.slice(0, 80));
          for (const head of table.querySelectorAll("th:not([scope])")) bad.push(head.outerHTML);
        }
        bad.push(...document.querySelectorAll("svg:not([role=img][aria-label])"));
        for (const input of document.querySelectorAll("input"))
          if (!input.labels.length) bad.push("input");
        for (const link of document.querySelectorAll("a[href]"))
          if (!document.querySelector(link.getAttribute("href"))) bad.push(link.href);
        for (const part of document.querySelectorAll("[aria-labelledby]"))
          if (!document.getElementById(part.getAttribute("aria-labelledby"))) bad.push("label");
        return bad;
    """)
        == []
    )


def test_a_keyboard_reaches_every_control_and_the_focus_is_seen(browser, report):
    page = browser.open(report)
    page.run("document.body.focus()")
    reached, hidden = set(), []
    for _ in range(200):
        page.driver.switch_to.active_element.send_keys("\ue004")  # Tab
        tag, name, seen = page.run("""
            const one = document.activeElement, style = getComputedStyle(one);
            return [one.tagName, one.className || one.type || one.textContent.slice(0, 30),
                    style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
        """)
        if tag == "BODY":
            break
        reached.add(tag)
        if not seen:
            hidden.append((tag, name))
    assert reached >= {"A", "SUMMARY", "INPUT", "BUTTON", "DIV"}
    assert hidden == []


def test_terms_have_their_meaning_on_hover_and_in_the_glossary(browser, report):
    page = browser.open(report)
    meanings = page.run(
        "return Array.from(document.querySelectorAll('#change abbr'),"
        " one => [one.textContent, one.title])"
    )
    assert {name for name, _ in meanings} >= {"Toxicity (probability)", "ROUGE-L (F)", "Verdict"}
    assert all(len(meaning) > 20 for _, meaning in meanings)
    page.one("#words summary").click()
    shown = page.one("#words dl").text
    assert all(meaning in shown for _, meaning in meanings)
