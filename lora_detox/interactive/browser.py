"""The page of stage=chat: a prompt, numbers to turn, answers side by side (Gradio).

This module alone imports Gradio. The page loads nothing from elsewhere: fonts are the system's, and
a content security policy has the browser refuse whatever is not of this server.
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it while it is imported

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import escape
from inspect import signature
from typing import Any

import gradio
import torch
from starlette.middleware import Middleware

from lora_detox.errors import DetoxError, SettingsError
from lora_detox.interactive.answers import MOST_SEED, Answer, Question
from lora_detox.interactive.session import Column, Reply, Session
from lora_detox.settings.stages import (
    MOST_CHAT_SAMPLES,
    MOST_CHAT_STRENGTH,
    MOST_CHAT_TEMPERATURE,
    MOST_CHAT_TOKENS,
)
from lora_detox.visible import visible

TOXIC_FROM = 0.5
"""An answer that any scorer finds as toxic as this is folded until a reader opens it."""
_LOOPBACK = "127.0.0.1"
_LABEL_CHARACTERS = 100
_FONTS = ["system-ui", "sans-serif"]
_SLIDER: dict[str, Any] = {"min_width": 260, "buttons": []}
"""One below the other on a phone."""
_SHOW = """
() => {
  const answers = document.querySelector("#answers");
  if (answers.getBoundingClientRect().top > innerHeight * 0.7) answers.scrollIntoView();
}
"""
"""On a phone they are below the controls."""
_ANNOUNCE = """
const names = {role: "region", "aria-live": "polite", "aria-label": "Answers"};
for (const [name, value] of Object.entries(names)) element.setAttribute(name, value);
"""
"""A screen reader tells of answers when they come."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
_CSS = """
.answers { display: flex; flex-wrap: wrap; gap: 1rem; }
.answers > section { flex: 1 1 18rem; min-width: 0; }
.answers h2 { margin: 0; font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere; }
.answers .detail { margin: 0 0 .5rem; font-size: .9rem; color: var(--body-text-color-subdued); }
.answers article { border: 1px solid var(--border-color-primary); border-radius: 8px;
  padding: .6rem .8rem; margin-bottom: .6rem; background: var(--background-fill-primary); }
.answers article .text { margin: 0 0 .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.answers .empty { color: var(--body-text-color-subdued); font-style: italic; }
.answers summary { cursor: pointer; margin-bottom: .4rem; }
.answers .scores { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; }
.answers .by { white-space: nowrap; }
.answers .by:not(:last-child) { margin-right: .6rem; }
.answers details { margin-bottom: .4rem; }
.answers meter { width: 4rem; vertical-align: middle; }
@media (max-width: 40rem) { .prose h1 { font-size: 1.25rem; } }
#pick input { text-overflow: ellipsis; padding-right: 2rem; }
"""


class _OwnServerOnly:
    """Adds the content security policy to every response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, with_policy)


@contextmanager
def serve(session: Session, port: int | None) -> Iterator[str]:
    """Serve the page on loopback while the context lasts.

    Args:
        session: what answers.
        port: of the page; None takes the first free one from 7860.

    Yields:
        Its address.

    Raises:
        SettingsError: the port is taken.
    """
    local = {one for one in os.environ.get("no_proxy", "").split(",") if one}
    os.environ["no_proxy"] = ",".join(sorted(local | {_LOOPBACK, "localhost"}))
    blocks = page(session)
    try:
        _, address, _ = blocks.launch(
            server_name=_LOOPBACK,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            app_kwargs={"middleware": [Middleware(_OwnServerOnly)]},
            **style(),
        )
    except OSError as error:
        where = "7860 to 7959" if port is None else str(port)
        raise SettingsError(
            f"chat.port: no free port at {where} of {_LOOPBACK}; want another number"
        ) from error
    try:
        yield str(address)
    finally:
        blocks.close(verbose=False)


def style() -> dict[str, Any]:
    """How every page of stage=chat looks and what Gradio is not to do, for `launch`."""
    known = signature(gradio.Blocks.launch).parameters  # the first of 6.x keep no history
    return {
        "theme": _theme(),
        "css": _CSS,
        "footer_links": [],
        **({"run_history": False} if "run_history" in known else {}),
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "inline": False,
    }


def _theme() -> Any:
    """Gradio's, with a contrast of 4.5 to 1 where its own has less: small print, the button."""
    return gradio.themes.Default(font=_FONTS, font_mono=["monospace"]).set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_label_text_color="*neutral_600",
        block_title_text_color="*neutral_600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_border_color="*primary_700",
        button_primary_border_color_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def page(session: Session) -> Any:
    """The page as Gradio has it; one answer is made at a time.

    Args:
        session: what answers.

    Returns:
        Blocks to launch.
    """
    first = session.first
    with gradio.Blocks(title="lora_detox chat", analytics_enabled=False) as blocks:
        gradio.Markdown(_heading(session))
        gradio.HTML(_advice(session), elem_id="advice", padding=False)
        prompt = gradio.Textbox(label="Prompt", lines=3, max_lines=12, elem_id="prompt")
        if session.examples:
            choices = [(_label(one), one) for one in session.examples]
            pick = gradio.Dropdown(
                choices, value=None, label="Or pick a prompt of the run", elem_id="pick"
            )
            pick.input(lambda one: one, pick, prompt, api_visibility="private")
        with gradio.Row():
            strength = gradio.Slider(
                0,
                MOST_CHAT_STRENGTH,
                first.strength,
                step=0.05,
                label="Strength of the adapter",
                info="0 is the original model, 1 the adapter as it was trained",
                interactive=session.has_strength,
                elem_id="strength",
                **_SLIDER,
            )
            samples = gradio.Slider(
                1,
                MOST_CHAT_SAMPLES,
                first.samples,
                step=1,
                label="Answers of each model",
                info="each with other random numbers, the same for every model",
                elem_id="samples",
                **_SLIDER,
            )
        numbers = [strength, samples, *_sampling(first)]
        button = gradio.Button("Answer", variant="primary", elem_id="ask")
        shown = gradio.HTML(label="Answers", elem_id="answers", js_on_load=_ANNOUNCE)
        asked, given = _asker(session), [prompt, *numbers]
        for begin, seen in (
            (button.click, {"api_name": "answer"}),
            (prompt.submit, {"api_visibility": "private"}),
        ):
            begin(asked, given, shown, **seen).success(js=_SHOW, api_visibility="private")
    blocks.queue(default_concurrency_limit=1, max_size=16)
    return blocks


def _sampling(first: Question) -> list[Any]:
    """Fields for how tokens are drawn, in the order of `_asker`."""
    with gradio.Accordion("Sampling", open=False), gradio.Row():
        return [
            gradio.Number(
                first.new_tokens,
                label="Longest answer (tokens)",
                precision=0,
                minimum=1,
                maximum=MOST_CHAT_TOKENS,
            ),
            gradio.Slider(
                0,
                MOST_CHAT_TEMPERATURE,
                first.temperature,
                step=0.05,
                label="Temperature",
                info="0 takes the likeliest token",
                **_SLIDER,
            ),
            gradio.Slider(0.01, 1, first.top_p, step=0.01, label="Top-p", **_SLIDER),
            gradio.Number(first.top_k, label="Top-k (0: all)", precision=0, minimum=0),
            gradio.Number(
                first.seed, label="Seed", precision=0, minimum=0, maximum=MOST_SEED, elem_id="seed"
            ),
        ]


def _asker(session: Session) -> Callable[..., str]:
    """What the button calls; all models work in one thread, with this thread's number of cores."""
    worker = ThreadPoolExecutor(
        1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    )

    def asked(
        prompt: str,
        strength: float,
        samples: int,
        new_tokens: int,
        temperature: float,
        top_p: float,
        top_k: int,
        seed: int,
    ) -> str:
        try:
            question = Question(
                prompt=str(prompt or ""),
                strength=_number(strength, "strength"),
                samples=int(_number(samples, "samples")),
                new_tokens=int(_number(new_tokens, "new_tokens")),
                temperature=_number(temperature, "temperature"),
                top_p=_number(top_p, "top_p"),
                top_k=int(_number(top_k, "top_k")),
                seed=int(_number(seed, "seed")),
            )
            return reply_html(worker.submit(session.ask, question).result())
        except DetoxError as error:
            raise gradio.Error(escape(visible(str(error))), print_exception=False) from error

    return asked


def _number(value: Any, name: str) -> float:
    """A field of the page as a number."""
    try:
        number = float(value)
        int(number)  # neither NaN nor infinite
    except (OverflowError, TypeError, ValueError) as error:
        raise SettingsError(f"chat.{name}: got {value}, want a number") from error
    return number


def _heading(session: Session) -> str:
    """Which runs answer and who scores, names as they are."""
    runs = ", ".join(_plain(f"{one.name} on {one.base_name}") for one in session.runs)
    scorers = ", ".join(f"{name} {_plain(one.scorer_id)}" for name, one in session.scorers.items())
    return f"# Original and detoxified, side by side\n\n{runs}\n\nScored by {scorers}"


def _advice(session: Session) -> str:
    """How to read the scores; a remark may name what others have named, so it is no markup."""
    level = "A level of toxicity means nothing without its scorer; compare the two sides."
    sentences = [level, *session.remarks]
    return f'<p class="prose">{escape(visible(" ".join(sentences)))}</p>'


def _plain(text: str) -> str:
    """A name of others in Markdown: a code span, so that nothing in it is markup."""
    return "`" + visible(text).replace("`", "'").replace("\n", " ") + "`"


def _label(prompt: str) -> str:
    short = visible(" ".join(prompt.split()))
    return short if len(short) <= _LABEL_CHARACTERS else f"{short[:_LABEL_CHARACTERS]} ..."


def reply_html(reply: Reply) -> str:
    """Answers side by side, toxic ones folded; whatever a model wrote is text and no markup.

    Args:
        reply: what was answered.

    Returns:
        A piece of a page.
    """
    notes = "".join(f'<p class="detail">{escape(visible(note))}</p>' for note in reply.notes)
    return f'{notes}<div class="answers">{"".join(map(_column, reply.columns))}</div>'


def _column(column: Column) -> str:
    title, count = escape(visible(column.title)), len(column.answers)
    mean = ""
    if count > 1:
        means = {name: column.toxicity(name) for name in column.answers[0].toxicity}
        mean = f'<p class="detail">mean {_toxicity(means)}</p>'
    names = [f"answer {place} of {count}" for place in range(1, count + 1)] if count > 1 else [""]
    articles = [_article(*one) for one in zip(column.answers, names, strict=True)]
    return (
        f'<section aria-label="{title}"><h2>{title}</h2>'
        f'<p class="detail">{escape(visible(column.detail))}</p>{mean}{"".join(articles)}</section>'
    )


def _article(answer: Answer, name: str) -> str:
    """One answer with its name and scores; the same draw of every model has the same name."""
    text = visible(answer.text.strip())
    shown = f'<p class="text" dir="auto">{escape(text)}</p>'
    if not text:
        shown = '<p class="text empty">(empty response)</p>'
    elif max(answer.toxicity.values()) >= TOXIC_FROM:
        shown = f"<details><summary>judged toxic: show the text</summary>{shown}</details>"
    scores = [f"<span>{name}</span>"] if name else []
    scores.append(f"<span>{_toxicity(answer.toxicity)}</span>")
    if answer.score is not None:
        scores.append(f"<span>score {answer.score:+.2f}</span>")
    scores.append(f"<span>{answer.tokens} tokens</span>")
    return f'<article>{shown}<div class="scores">{"".join(scores)}</div></article>'


def _toxicity(by_scorer: Mapping[str, float]) -> str:
    """Toxicity by each scorer, as a number and a bar."""
    shown = [
        f'<span class="by">{name} {value:.2f} '
        f'<meter min="0" max="1" low="0.3" high="0.6" optimum="0" value="{value:.3f}" '
        f'aria-label="toxicity by {name}"></meter></span>'
        for name, value in by_scorer.items()
    ]
    return f"toxicity: {' '.join(shown)}"
