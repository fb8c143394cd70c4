"""The page of stage=chat in a real browser, and its server."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import httpx
import pytest
from huggingface_hub import metadata_load

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'lora-detox[chat]'")
pytest.importorskip("selenium", reason="selenium is not installed")
from gradio_client import Client
from gradio_client.exceptions import AppError
from selenium.common.exceptions import WebDriverException

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.interactive.answers import Answer, Question
from lora_detox.interactive.browser import reply_html, serve
from lora_detox.interactive.runs import read_runs, scorers_of
from lora_detox.interactive.session import Column, Reply, open_session
from lora_detox.settings import settings_yaml
from tests.browser.pages import DESKTOP, PHONE
from tests.runs import write_adapter

PROMPTS = ["Nobody here wants your opinion about the parking rules, you", "I am so sick of the"]
HOSTILE = (
    "<script>document.title='taken'</script><img src=http://203.0.113.7/x> \u202e\x1b[2J\ud800"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run on the miniature, whose base writes insults."""
    folder = tmp_path_factory.mktemp("chat") / "civil_one"
    write_adapter("gptj", folder / "adapter", embedded_path("gptj"))
    settings = api.compose_settings(["task=gptj_continuation"], folder / "nowhere")
    (folder / "config.yaml").write_text(settings_yaml(settings))
    (folder / "summary.json").write_text('{"schema": 1}')
    rows = [{"prompt": one, "toxicity_before": 0.9 - place} for place, one in enumerate(PROMPTS)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def served(written, tmp_path_factory):
    overrides = ["stage=chat", f"chat.run={written}", "threads=1", "chat.new_tokens=12"]
    settings = api.compose_settings(overrides, tmp_path_factory.mktemp("out") / "run")
    runs = read_runs(settings)
    session = open_session(settings, runs, scorers_of(runs, settings), [f"Shared {HOSTILE}"])
    with serve(session, None) as address:
        yield session, address


@pytest.fixture
def page(browser, served):
    browser.open(served[1])
    wait(lambda: browser.all("#pick input"))
    return browser


def wait(condition, seconds=120, act=None, every=10):
    """What a condition gives once it is true.

    Args:
        condition: without effects; elements may vanish under it, as Gradio draws parts anew.
        seconds: after which it fails.
        act: is done first, and again after `every` seconds in vain: Gradio shows a control before
            it listens to it.
        every: in seconds.
    """
    end, next_act = time.monotonic() + seconds, 0.0
    while True:
        with contextlib.suppress(IndexError, WebDriverException):
            if act is not None and time.monotonic() >= next_act:
                next_act = time.monotonic() + every
                act()
            if value := condition():
                return value
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


def click(page, selector):
    return lambda: page.one(selector).click()


def pick(page, place):
    """Choose a prompt; once the server has filled it in, the page listens to every control."""

    def choose():
        page.one("#pick input").click()
        wait(lambda: page.all("[role=option]"), 5)[place].click()

    wait(lambda: page.one("#prompt textarea").get_attribute("value") == PROMPTS[place], act=choose)


def fill(page, selector, value):
    box = page.one(selector)
    box.clear()
    box.send_keys(value)
    box.send_keys("\t")


def test_a_prompt_is_picked_and_answered_side_by_side_with_scores(page, served, tmp_path):
    session, address = served
    assert "Shared <script>" in page.one("#advice").text
    pick(page, 0)
    page.one("#ask").click()
    wait(lambda: len(page.all("#answers article")) == 2)
    assert page.run("return document.title") != "taken"
    assert page.texts("#answers h2") == ["original", "detoxified"]
    for scores in page.texts("#answers .scores"):
        assert re.search(r"toxicity: reward [01]\.\d\d\s+judge [01]\.\d\d\s+score [+-]\d", scores)
        assert re.search(r"\d+ tokens", scores)
    assert session.asked == 1
    page.screenshot(tmp_path / "chat.png")
    assert page.errors() == []
    assert {one for one in page.requests() if not one.startswith((address, "data:"))} == set()


def test_several_answers_and_toxic_ones_are_folded(page, served):
    pick(page, 0)
    fill(page, "#samples input[type=number]", "8")
    page.one("#ask").click()
    wait(lambda: len(page.all("#answers article")) == 16)
    folded = page.all("#answers details")
    assert folded, "the miniature's base insults in two of three answers"
    assert page.all("#answers details p") == []
    folded[0].find_element("css selector", "summary").click()
    assert len(page.all("#answers details p")) == 1
    fill(page, "#strength input[type=number]", "0")
    page.one("#ask").click()
    wait(lambda: "strength 0" in "".join(page.texts("#answers .detail")))
    left, right = page.run(
        "return Array.from(document.querySelectorAll('#answers section'), one => "
        "Array.from(one.querySelectorAll('.text'), text => text.textContent).join('|'))"
    )
    assert left == right
    assert page.errors() == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_screen_and_can_be_read(browser, served, size, dark):
    browser.open(served[1], size, dark=dark)
    wait(lambda: browser.all("#pick input"))
    pick(browser, 0)
    fill(browser, "#samples input[type=number]", "8")
    browser.one("#ask").click()
    wait(lambda: len(browser.all("#answers article")) == 16)
    browser.unfold()
    assert browser.overflow() == 0
    width = size[0]
    for part in browser.all("#answers article, #ask, input, textarea, meter"):
        box = part.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    seen = browser.contrasts()
    assert len(seen) >= 3
    assert [one for one in seen if one[0] < 4.5] == []
    top = "return document.querySelector('#answers').getBoundingClientRect().top"
    wait(lambda: browser.run(top) < size[1] - 200, 10)  # on a phone they are below the controls
    assert browser.errors() == []


def test_an_answer_says_which_it_is_and_a_screen_reader_is_told(page):
    pick(page, 0)
    fill(page, "#samples input[type=number]", "2")
    page.one("#ask").click()
    wait(lambda: len(page.all("#answers article")) == 4)
    said = [text.split("of")[0] for text in page.texts("#answers .scores > span:first-child")]
    assert said == ["answer 1 ", "answer 2 "] * 2
    assert page.texts("h1, h2")[1:] == ["original", "detoxified"]
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "combobox", "slider", "spinbutton", "textbox", "meter"}
    named = [
        (one["role"]["value"], one["name"]["value"])
        for one in nodes
        if one.get("role", {}).get("value") in controls and not one["ignored"]
    ]
    assert {role for role, _ in named} == controls
    assert all(name for _, name in named)
    assert page.all("#answers [aria-live=polite], #answers[aria-live=polite]")


def test_an_empty_prompt_is_answered_by_a_sentence(page):
    sentence = "the prompt is empty; type one"
    wait(
        lambda: sentence in "".join(page.texts("[data-testid=toast-body]")),
        act=click(page, "#ask"),
    )
    assert not page.all("#answers article")  # nothing was answered


def test_it_is_served_on_loopback_alone_and_nothing_foreign_may_load(served):
    address = served[1]
    assert address.startswith("http://127.0.0.1:")
    policy = httpx.get(address).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    own = [one for one in _addresses() if not one.startswith("127.")]
    for other in own:
        with socket.socket() as tried:
            tried.settimeout(2)
            assert tried.connect_ex((other, port)) != 0


def _addresses():
    try:
        return {one[4][0] for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()


def test_the_server_checks_what_the_page_would_not_send(served):
    client = Client(served[1], verbose=False)
    good = [PROMPTS[0], 1.0, 1, 4, 1.0, 1.0, 0, 3]
    first = client.predict(*good, api_name="/answer")
    assert first.count("<article>") == 2
    assert client.predict(*good, api_name="/answer") == first
    asked = served[0].asked
    for place, value in ((1, 99), (2, 10**9), (1, None), (4, "hot"), (5, 0), (7, -1), (7, None)):
        bad = [*good]
        bad[place] = value
        with pytest.raises(AppError):
            client.predict(*bad, api_name="/answer")
    with pytest.raises(AppError, match="the prompt is empty"):
        client.predict(" ", *good[1:], api_name="/answer")
    with pytest.raises(AppError, match=r"chat\.new_tokens"):
        client.predict(PROMPTS[0], 1.0, 1, 2000, *good[4:], api_name="/answer")
    assert served[0].asked == asked


def test_whatever_a_model_writes_is_text():
    one = Answer(text=HOSTILE, tokens=1, score=None, toxicity={"judge": 0.9})
    columns = [Column(title=HOSTILE, detail=HOSTILE, answers=(one, one))]
    html = reply_html(Reply(question=Question(prompt="x"), columns=columns, notes=[HOSTILE]))
    assert "<script" not in html
    assert "<img" not in html
    assert not set("\u202e\x1b\ud800") & set(html)
    assert html.count("<details>") == 2


@pytest.mark.slow
def test_an_exported_space_answers_by_its_own_app(written, tmp_path):
    overrides = ["stage=export", f"run={written}", f"export.path={tmp_path / 'export'}"]
    api.run([*overrides, "export.space=true", "export.license=mit", "threads=1"], tmp_path / "out")
    space = tmp_path / "export" / "space"
    head = metadata_load(space / "README.md")
    assert (head["sdk"], head["app_file"], head["license"]) == ("gradio", "app.py", "mit")
    assert (space / "requirements.txt").read_text().startswith("lora-detox[chat]==")
    files = [one for one in space.rglob("*") if one.is_file() and one.suffix != ".safetensors"]
    texts = "".join(one.read_text() for one in files)
    assert str(tmp_path) not in texts
    assert str(embedded_path("gptj")) not in texts

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, str(space / "app.py")], env=environment, cwd=tmp_path
    )
    try:
        wait(lambda: process.poll() is None and _is_open(port), 240)
        client = Client(f"http://127.0.0.1:{port}/", verbose=False)
        html = client.predict(PROMPTS[0], 1.0, 1, 4, 1.0, 1.0, 0, 3, api_name="/answer")
    finally:
        process.kill()
        process.wait()
    assert re.findall(r"<h2>(\w+)</h2>", html) == ["original", "detoxified"]
    assert html.count('toxicity: <span class="by">reward') == 2


def _is_open(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
