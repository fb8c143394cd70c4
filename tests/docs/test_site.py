"""The pages that the site makes itself, and the links between files of the repository."""

import importlib.util
import re
from pathlib import Path

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from lora_detox.__main__ import conf_dir
from lora_detox.settings import known_keys

TOP = Path(__file__).resolve().parents[2]
PAGES = ("stages.md", "decisions/0006-quality-budget.md", "recipes/headline/README.md")


def page_named(name):
    return Page(None, File(name, "", "", use_directory_urls=False), MkDocsConfig())


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", TOP / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_and_option_stands_in_the_configuration_reference(hooks):
    page = hooks.configuration_page(conf_dir())
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    rows = [re.split(r"(?<!\\)\|", re.sub("`[^`]*`", "code", line))[1:-1] for line in lines]
    names = [line.split("`")[1] for line in lines]
    files = [path.relative_to(conf_dir()) for path in conf_dir().glob("*/*.yaml")]
    assert set(names) == {*known_keys(), *(f"{path.parent}={path.stem}" for path in files)}
    assert len(set(names)) == len(names)
    assert {len(row) for row in rows} == {2, 5}
    assert all(row[-1].strip() for row in rows)


@pytest.mark.parametrize(
    ("here", "text", "linked"),
    [
        ("index.md", "see docs/stages.md.", "see [docs/stages.md](stages.md)."),
        ("stages.md", "see docs/stages.md", "see docs/stages.md"),
        ("stages.md", "    docs/decisions/0006", "    docs/decisions/0006"),
        ("stages.md", "`docs/decisions/0006`", "`docs/decisions/0006`"),
        (
            "stages.md",
            "(docs/decisions/0006)",
            "([docs/decisions/0006](decisions/0006-quality-budget.md))",
        ),
        (
            "decisions/0006-quality-budget.md",
            "recipes/headline has it",
            "[recipes/headline](../recipes/headline/README.md) has it",
        ),
        ("stages.md", "[x](../recipes/headline)", "[x](recipes/headline/README.md)"),
        (
            "recipes/headline/README.md",
            "[x](../../docs/stages.md#data)",
            "[x](../../stages.md#data)",
        ),
        ("stages.md", "recipes/nowhere and docs/none.md", "recipes/nowhere and docs/none.md"),
        ("stages.md", r"| `a\|b` | c\|d |", r"| `a|b` | c\|d |"),
    ],
)
def test_names_of_files_lead_to_pages(hooks, here, text, linked):
    files = Files([page_named(name).file for name in (*PAGES, "index.md")])
    assert hooks.on_page_markdown(text, page_named(here), MkDocsConfig(), files) == linked


def test_the_site_loads_nothing_from_elsewhere(hooks):
    page = page_named("a.md")
    link = '<a href="https://example.org">a</a><script src="assets/a.js"></script>'
    assert hooks.on_post_page(link, page, None) == link
    with pytest.raises(hooks.PluginError, match=r"a\.md loads from outside"):
        hooks.on_post_page('<link rel="x" href="https://fonts.example">', page, None)
