"""The page of stages that end in tables and pictures, in a real browser."""

import pytest

from lora_detox.report.frontier import FrontierCurve, FrontierPoint, frontier_plot
from lora_detox.report.tables import Table, write_page
from tests.browser.pages import DESKTOP, PHONE
from tests.browser.test_samples import HOSTILE

HEADINGS = "return Array.from(document.querySelectorAll('h1, h2, h3'), one => one.tagName)"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "report.html"
    spans = [(0.1 * place, 0.1 * place - 0.05, 0.1 * place + 0.05) for place in range(1, 5)]
    points = [FrontierPoint(label=f"{place}", x=span, y=span) for place, span in enumerate(spans)]
    curves = [FrontierCurve(label=text, points=points) for text in HOSTILE[:3]]
    wide = ["model", *(f"measure number {place}" for place in range(15))]
    write_page(
        path,
        title=HOSTILE[0],
        tables=[
            Table(
                columns=["set", "when", "accuracy"],
                rows=[[text, "before", "0.9"] for text in HOSTILE],
            ),
            Table(
                columns=wide,
                rows=[[text, *["0.123 [-0.1, 0.2]"] * 15] for text in HOSTILE],
                title="Wide",
            ),
        ],
        notes=HOSTILE,
        settings_yaml="\n".join(HOSTILE),
        plots=[frontier_plot("Frontier", curves, ("quality", "toxicity"))],
    )
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_hostile_tables_stay_text_and_inside(browser, tables, size, dark):
    page = browser.open(tables, size, dark=dark)
    page.unfold()
    assert page.driver.title == HOSTILE[0]
    assert page.texts("h1") == [HOSTILE[0]]
    assert page.run("return document.scripts.length") == 1
    assert [int(tag[1]) for tag in page.run(HEADINGS)] == [1, 2, 2, 3, 2, 2]
    assert page.overflow() == 0
    assert page.errors() == []
    assert page.requests() == []


def test_a_wide_table_moves_in_its_own_frame_by_keyboard(browser, tables):
    page = browser.open(tables, PHONE)
    frame = page.one(".scroll:has(.dense)")
    assert page.run("return arguments[0].scrollWidth > arguments[0].clientWidth", frame)
    frame.send_keys("\ue014" * 5)  # arrow right
    page.run("return new Promise(done => setTimeout(done, 300))")
    assert page.run("return arguments[0].scrollLeft", frame) > 0
