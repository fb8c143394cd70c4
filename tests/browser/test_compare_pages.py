"""compare.html, sweep.html and the samples of several models in a real browser."""

import statistics

import pytest

from lora_detox.comparison.candidates import read_candidates
from lora_detox.comparison.compare import compare, side_by_side
from lora_detox.comparison.jobs import Job, write_job
from lora_detox.comparison.sweep_page import write_sweep
from lora_detox.metrics.names import METRICS
from lora_detox.report.compare import MOST_SIDES, Section, answer_table, write_comparison
from tests.browser.pages import DESKTOP, PHONE
from tests.finished import rising, write_evaluated, write_trained

HOSTILE = "<script>document.title = 'taken'</script>\u202e" + "W" * 400


def written(path, folders):
    candidates = read_candidates([str(folder) for folder in folders])
    comparison = compare(candidates, 100)
    samples = answer_table(*side_by_side(candidates, MOST_SIDES), comparison["toxicity"], METRICS)
    section = Section(comparison=comparison, samples=samples)
    write_comparison(path, title="x", about="x", sections=[section], metrics=METRICS)
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    long = [f"{number} {HOSTILE}" for number in range(40)]
    start = f"{HOSTILE} 0"
    runs = [
        write_trained(folder / "a", rising(0.0, 0.3), prompts=long, said=HOSTILE, start=start),
        write_trained(folder / "b", rising(0.3, 0.9), prompts=long, nll=7.0, start=start),
        write_evaluated(
            folder / "e", {"base": 0.6, HOSTILE: {0: 0.6, 1: 0.3, 2: 0.1}}, prompts=long
        ),
    ]
    sweep = folder / "sweep"
    for number, level in enumerate((0.5, 0.4, 0.2, 0.3)):
        overrides = (
            f"algorithm.learning_rate={(0.1, 0.2)[number // 2]}",
            f"seed={number % 2}",
            "task=gptj_continuation",
        )
        run = write_trained(sweep / f"{number}", rising(level, level + 0.1), overrides=overrides)
        write_job(sweep, Job(number=number, folder=str(run), stage="detox", overrides=overrides))
    broken = Job(number=9, folder="x", stage="detox", overrides=("seed=9",), error=HOSTILE)
    write_job(sweep, broken)
    write_sweep(sweep)
    return {"compare": written(folder / "compare.html", runs), "sweep": sweep / "sweep.html"}


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["compare", "sweep"])
def test_a_page_fits_fetches_nothing_and_complains_of_nothing(browser, pages, name, size, dark):
    page = browser.open(pages[name], size, dark=dark)
    assert page.overflow() == 0
    assert page.errors() == []
    assert page.requests() == []
    assert page.run("return document.title").startswith("lora_detox")
    assert "is the least toxic" in page.texts(".verdict h1")[0]
    ids = page.run("return Array.from(document.querySelectorAll('[id]'), one => one.id)")
    assert len(ids) == len(set(ids))
    links = page.run("return Array.from(document.querySelectorAll('nav a'), one => one.hash)")
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_candidates_stand_beside_each_other_with_intervals(browser, pages):
    page = browser.open(pages["compare"])
    ranked = page.texts("#ranking + .card tbody th")
    assert len(ranked) == 4
    assert ranked[0].startswith("1. e: <script>")
    cells = page.texts("#ranking + .card tbody tr:first-child td")
    assert cells[0] == "0.090"
    assert cells[1].split("\n")[1].startswith("[-0.4")
    measures = page.texts("#measures + .card tbody th")
    assert any(one.startswith("Distinct-2") for one in measures)
    heads = page.texts("#measures + .card thead th")
    assert [one.split(":")[0] for one in heads] == ["Measure", "Start", "e", "a", "e", "b"]


def test_a_phone_shows_verdict_interval_and_candidates_without_scrolling_sideways(browser, pages):
    page = browser.open(pages["sweep"], PHONE)
    assert page.texts(".tile .interval")[0].startswith("-0.")
    first = page.one("#ranking + .card tbody tr")
    assert "Toxicity by the judge" in page.run(
        "return Array.from(arguments[0].querySelectorAll('td'), one => one.dataset.label).join()",
        first,
    )
    assert page.run("return arguments[0].getBoundingClientRect().right", first) <= PHONE[0]
    for name in pages:
        frames = browser.open(pages[name], PHONE).all(".scroll:has(.cells)")
        assert frames
        for frame in frames:
            assert (
                page.run("return arguments[0].scrollWidth - arguments[0].clientWidth", frame) == 0
            )


def test_texts_of_many_models_stay_wide_enough_to_read(browser, pages):
    wide = """
        return Array.from(document.querySelectorAll(".samples thead th.side"), one =>
          one.getBoundingClientRect().width / parseFloat(getComputedStyle(document.body).fontSize))
    """
    texts = browser.open(pages["compare"]).run(wide)
    assert len(texts) == 6
    assert min(texts) > 9.0
    frame = browser.open(pages["compare"], PHONE).one(".samples .scroll")
    assert browser.run("return arguments[0].scrollWidth <= arguments[0].clientWidth", frame)


def test_samples_of_several_models_are_searched_and_ordered(browser, pages):
    page = browser.open(pages["compare"])
    sides = page.texts(".samples thead th.side")
    assert [one.split(":")[0] for one in sides] == ["Prompt", "Start", "e", "a", "e", "b"]
    page.one(".samples input[type=search]").send_keys("after 7 of")
    assert page.texts(".samples [role=status]") == ["1 shown of 1 matching, of 40 samples"]
    page.one(".samples input[type=checkbox]").click()
    assert "after 7 of no great length" in page.one(".samples tbody").text
    assert page.run("return document.title").startswith("lora_detox")


def test_failed_jobs_are_listed_as_text(browser, pages):
    page = browser.open(pages["sweep"])
    assert "1 job failed" in page.one(".verdict").text
    assert "job 9 seed=9: <script>document.title" in page.one("#failed").text


def test_the_values_behind_a_picture_are_there(browser, pages):
    page = browser.open(pages["compare"])
    page.one("figure summary").click()
    rows = page.texts("figure tbody th")
    assert len(rows) == 5
    assert rows[-1] == "start"


def test_5000_samples_of_three_models_open_in_two_seconds(browser, tmp_path):
    folders = [write_trained(tmp_path / name, rising(0.0, 0.3)) for name in ("a", "b")]
    comparison = compare(read_candidates([str(folder) for folder in folders]), 100)
    rows = [
        {
            "prompt": f"Prompt number {number} " + "and more words " * 10,
            "responses": [f"{side} {number} " * 20 for side in "sab"],
            "scores": {"judge_toxicity": [0.5, 0.0001 * number, 0.2]},
        }
        for number in range(5000)
    ]
    samples = answer_table(["Start", "a", "b"], rows, "judge_toxicity", METRICS)
    section = Section(comparison=comparison, samples=samples)
    path = tmp_path / "compare.html"
    write_comparison(path, title="x", about="x", sections=[section], metrics=METRICS)
    seconds = [browser.seconds_to_open(path) for _ in range(3)]
    assert browser.texts(".samples [role=status]") == ["25 shown of 5000 samples"]
    assert 0.05 < statistics.median(seconds) < 2
