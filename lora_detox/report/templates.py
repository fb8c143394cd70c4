"""The templates of pages and cards: whatever text is put into one is made visible first."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from lora_detox.report.glossary import meaning_of
from lora_detox.visible import visible


def template(name: str) -> Template:
    """A template of this folder.

    Args:
        name: of its file; in one for HTML every text is escaped.

    Returns:
        The template; a name that it is not given is an error. Its filter `drawn` takes markup that
        was made here, from numbers and escaped labels: a picture, or data for a script.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=".html." in name,  # else Markdown
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=".html." not in name,
    )
    environment.filters["drawn"] = Markup
    environment.filters["md"] = lambda value: " ".join(_without_tags(value).splitlines())
    environment.filters["md_table"] = _without_tags
    environment.globals["meaning_of"] = meaning_of
    return environment.get_template(name)


def _without_tags(value: Any) -> str:
    """A text for Markdown, in which HTML would be obeyed."""
    return visible(str(value)).replace("<", "&lt;")


def _finalized(value: Any) -> Any:
    """What is printed for a value; pictures are Markup, made here from visible labels."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
