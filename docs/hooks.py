"""What the site has beside docs/: the configuration reference, recipes, links between files."""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from lora_detox.settings.reference import Key, Option, reference_keys, reference_options

TOP = Path(__file__).resolve().parents[1]
CONFIGURATION = "reference/configuration.md"
OF_THE_PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
SHOWN = (".md", ".png", ".svg", ".json", ".py", ".sh", ".ipynb")
"""Files of recipes that the site has: their pages and what these link to."""
INTRODUCTION = """\
# Configuration reference

Generated from the schema in `lora_detox/settings` and the comments in `conf/`. An option of a group
is chosen with `GROUP=OPTION`, a key is set with `KEY=VALUE`. *Default* is what a run has without
any override (`task=flan_summary` on the miniature); tasks and options change it, and `config.yaml`
of a run says what it had. A list is written `[a,b]` and nothing `null`; a value with `=`, braces,
commas or quotes wants quotes of its own: `'task.template="{prompt} TL;DR="'`.
"""
_LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)]*)?\)")
_NAMED = re.compile(
    r"(?<![\w/.])(docs/(?:decisions/(?P<number>\d{4})|[\w/]+\.md)|recipes/(?P<recipe>\w+))(?![\w/.]*\w)"
)
_SECTION_HERE = "<!-- README.md: What came out -->"
_FROM_OUTSIDE = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?://[^\"]+")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: every recipe, every decision."""
    recipes = [f"recipes/{path.parent.name}/README.md" for path in _recipes()]
    decisions = [f"decisions/{path.name}" for path in sorted((TOP / "docs/decisions").glob("*.md"))]
    more = {"Recipes": ["recipes/README.md", *recipes], "Decisions": decisions}
    for entry in config.nav or []:
        for title in entry:
            entry[title] = more.get(title, entry[title])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not lie in docs/."""
    page = configuration_page(TOP / "conf")
    files.append(File.generated(config, CONFIGURATION, content=page))
    shown = [path for path in (TOP / "recipes").rglob("*") if path.suffix in SHOWN]
    for path in [*sorted(shown), *(TOP / name for name in OF_THE_PROJECT)]:
        name = path.relative_to(TOP).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository become links between pages of the site."""
    here = page.file.src_uri
    lines, fenced = [], False
    for line in markdown.replace(_SECTION_HERE, _results_of_readme()).splitlines():
        fenced ^= line.lstrip().startswith("```")
        code = fenced or line.startswith("    ")
        lines.append(line if code else _linked(line, here, files))
    return "\n".join(lines)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that loads anything from elsewhere: the site is read offline."""
    if match := _FROM_OUTSIDE.search(output):
        raise PluginError(f"{page.file.src_uri} loads from outside: {match[0]}")
    return output


def configuration_page(conf: Path) -> str:
    """The page of all keys and options, as Markdown.

    Args:
        conf: folder of the configuration files.

    Returns:
        A section for each group: its options, and a table of its keys.
    """
    lines = [INTRODUCTION]
    options = {group: list(some) for group, some in groupby(reference_options(conf), _group)}
    for group, keys in groupby(reference_keys(conf), lambda key: _first(key.name)):
        lines += _section(group, list(keys), options.get(group, []))
    return "\n".join(lines) + "\n"


def _section(group: str, keys: list[Key], options: list[Option]) -> Iterator[str]:
    yield from (f"## {group or 'The run'}", "")
    if options:
        yield from ("| option | what it is |", "|---|---|")
        for one in options:
            yield f"| `{one.group}={one.name}` | {_cell(_with_commands(one.meaning))} |"
        yield ""
    yield from ("| key | type | range | default | meaning |", "|---|---|---|---|---|")
    for key in keys:
        default = f"`{key.default}`" if key.default else ""
        texts = (f"`{key.name}`", key.type, key.range, default, key.meaning)
        yield f"| {' | '.join(map(_cell, texts))} |"
    yield ""


def _group(option: Option) -> str:
    return option.group


def _first(key: str) -> str:
    """The group of a key; empty for a key of the run itself."""
    return key.split(".", maxsplit=1)[0] if "." in key else ""


def _with_commands(text: str) -> str:
    """The lines of a heading as one text, whole commands as code."""
    lines = (f"`{line}`:" if line.startswith("python -m ") else line for line in text.split("\n"))
    return " ".join(lines)


def _cell(text: str) -> str:
    """A text for a table: what Markdown would read as its own is escaped outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = [re.sub(r"([\\*|<\[\]])", r"\\\1", part) for part in parts[::2]]
    parts[::2] = plain
    return "".join(parts)


def _linked(line: str, here: str, files: Files) -> str:
    """A line of a page whose links and names of files lead to pages."""
    line = _LINK.sub(lambda match: f"]({_target(match[1], here, files)}{match[2] or ''})", line)
    parts = re.split(r"(`[^`]*`|\[[^\]]*\]\([^)]*\))", line)
    parts[::2] = [
        _NAMED.sub(lambda match: _name_link(match, here, files), one) for one in parts[::2]
    ]
    if line.startswith("|"):  # code in a table knows no escaped bar
        parts[1::2] = [one.replace("\\|", "|") for one in parts[1::2]]
    return "".join(parts)


def _target(target: str, here: str, files: Files) -> str:
    """A path relative to a file of the repository as one relative to its page."""
    source = here if _is_outside(here) else f"docs/{here}"
    name = normpath(join(dirname(source), target))
    if (TOP / name).is_dir():
        name += "/README.md"
    page = name.removeprefix("docs/")
    return relpath(page, dirname(here) or ".") if files.get_file_from_path(page) else target


def _name_link(match: re.Match[str], here: str, files: Files) -> str:
    """`docs/stages.md`, `docs/decisions/0006` or `recipes/headline` in a text as a link."""
    page = match[0].removeprefix("docs/")
    if match["number"]:
        page = next((one.src_uri for one in files if one.src_uri.startswith(f"{page}-")), page)
    elif match["recipe"]:
        page += "/README.md"
    if files.get_file_from_path(page) is None or page == here:
        return match[0]
    return f"[{match[0]}]({relpath(page, dirname(here) or '.')})"


def _results_of_readme() -> str:
    """What the README says came out, without its heading, its links as a page of docs/ has them."""
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    section = readme.split("## What came out\n")[1].split("\n## ")[0]
    return section.replace("](docs/", "](").replace("](recipes/", "](../recipes/")


def _is_outside(page: str) -> bool:
    """Whether a page of the site lies at the top of the repository or in recipes/."""
    return page.startswith("recipes/") or page in OF_THE_PROJECT


def _recipes() -> list[Path]:
    return sorted((TOP / "recipes").glob("*/README.md"))
