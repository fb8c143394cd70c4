"""What the files of conf/ say of themselves and of their keys, in comments."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

_PACKAGE = "# @package"
_CONTINUED = re.compile(r"\s+#\s*(.*)")


def heading(path: Path) -> str:
    """The comment at the head of a file, line by line, without Hydra's line of its package."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(_PACKAGE):
            lines.append(line.lstrip("# "))
    return "\n".join(lines)


def key_comments(path: Path) -> dict[str, str]:
    """The comment of each key: on its line, further down behind it, or else on the line above.

    Args:
        path: of a YAML file whose keys have comments.

    Returns:
        Key, dotted where nested -> its comment, for keys that have one; a key without takes that
        of the mapping that it stands in. The heading of the file belongs to no key.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    begin = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return dict(_of_mapping(root, lines, begin)) if root is not None else {}


def _of_mapping(
    node: yaml.Node, lines: list[str], begin: int, prefix: str = "", inherited: str = ""
) -> Iterator[tuple[str, str]]:
    """Pairs of dotted key and comment; `begin` is the first line below the heading."""
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        key = f"{prefix}{name.value}"
        block = value.start_mark.line > name.end_mark.line
        end = name.end_mark if block else value.end_mark
        rest = lines[end.line][end.column :].lstrip(":").strip() if end.line < len(lines) else ""
        if rest.startswith("#"):
            comment = " ".join([rest.lstrip("# "), *_below(lines, end.line, end.column)])
        else:
            comment = _above(lines, name.start_mark.line, begin)
        if comment or inherited:
            yield key, comment or inherited
        if block:
            yield from _of_mapping(value, lines, begin, f"{key}.", comment)


def _below(lines: list[str], line: int, column: int) -> list[str]:
    """Lines of a comment that goes on below its key, well to the right of where keys stand."""
    texts = []
    for following in lines[line + 1 :]:
        match = _CONTINUED.fullmatch(following)
        if match is None or following.index("#") <= min(column, 10):
            break
        texts.append(match[1])
    return texts


def _above(lines: list[str], line: int, begin: int) -> str:
    """A comment on the line above a key, at its indentation."""
    if line <= begin:
        return ""
    above, indent = lines[line - 1], len(lines[line]) - len(lines[line].lstrip())
    return above.lstrip("# ") if above.startswith(" " * indent + "#") else ""
