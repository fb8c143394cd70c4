"""What scorers learned from, and whether two of them learned from the same.

stage=reward_model writes `training_data.json` beside the weights. Two classifiers that learned from
the same texts, or from parts of the same corpora, share their mistakes: their agreement confirms
nothing by itself. Nothing here calls two scorers independent; what is not known is called unknown.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lora_detox.json_text import parse_json
from lora_detox.text.words import compared_words

FILE = "training_data.json"
_SKETCH = 256
_SAME_FROM = 0.02
"""Overlap from which two scorers count as having learned from the same texts."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a classifier learned from.

    Attributes:
        data: path or hub id of the texts.
        texts: how many.
        digest: of texts and labels in their order.
        corpora: name in the column `source` -> texts of it; empty where the data has none.
        sketch: the 256 smallest hashes of its texts, from which the overlap of two sets is told.
        started_from: the model that was fine-tuned.
    """

    data: str
    texts: int
    digest: str
    corpora: dict[str, int] = field(default_factory=dict)
    sketch: list[int] = field(default_factory=list)
    started_from: str = ""


EMBEDDED = {
    name: TrainingData(
        data="embedded:labelled",
        texts=texts,
        digest=f"half of embedded:{name}",
        corpora={"embedded:labelled": texts},
        started_from="drawn weights",
    )
    for name, texts in (("reward", 30000), ("judge", 30000))
}
"""The embedded classifiers learned from two halves of what one generator writes."""


def describe_training(
    data: str,
    texts: Sequence[str],
    toxic: Sequence[bool],
    sources: Iterable[Any],
    started_from: str,
) -> TrainingData:
    """The record of a training.

    Args:
        data: path or hub id of the texts.
        texts: that it learned from.
        toxic: their labels.
        sources: the column `source` of each; None where a text has none.
        started_from: the model that was fine-tuned.

    Returns:
        The record; no text can be read out of it.
    """
    digest = hashlib.blake2b(digest_size=8)
    for text, label in zip(texts, toxic, strict=True):
        digest.update(f"{int(label)}{text}\n".encode("utf-8", "replace"))
    corpora = Counter(str(source) for source in sources if source is not None)
    hashes = sorted({_hash(text) for text in texts})
    return TrainingData(
        data=data,
        texts=len(texts),
        digest=digest.hexdigest(),
        corpora=dict(sorted(corpora.items())),
        sketch=hashes[:_SKETCH],
        started_from=started_from,
    )


def write_training_data(folder: Path, record: TrainingData) -> None:
    """Write the record beside a classifier's weights."""
    text = json.dumps(asdict(record), indent=1) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def training_data_of(path: str | None) -> TrainingData | None:
    """What the classifier of a path learned from.

    Args:
        path: `embedded:reward`, `embedded:judge`, a folder or a hub id; None for no classifier.

    Returns:
        Its record; None where it has none, as everything that others have trained.
    """
    if path is None:
        return None
    name = path.removeprefix("embedded:")
    if name != path:
        return EMBEDDED.get(name)
    file = Path(path).expanduser() / FILE
    try:
        stored = parse_json(file.read_text(encoding="utf-8"))
        return TrainingData(**stored)
    except (OSError, ValueError, TypeError):
        return None


def overlap(first: Sequence[int], second: Sequence[int]) -> float | None:
    """About what fraction of two sets of texts is in both, told by their sketches.

    Args:
        first: sketch of one set.
        second: of the other.

    Returns:
        Jaccard's index (Broder 1997, bottom-k); None where a sketch is empty.
    """
    if not first or not second:
        return None
    known = [sketch[-1] for sketch in (first, second) if len(sketch) >= _SKETCH]
    # Beyond the last hash of a full sketch nothing is known of its set.
    horizon = min(known) if known else None
    one, other = (
        {value for value in sketch if horizon is None or value <= horizon}
        for sketch in (first, second)
    )
    return len(one & other) / len(one | other)


def shared_training(
    first: Sequence[TrainingData | None], second: Sequence[TrainingData | None]
) -> str:
    """What two scorers have in common of what they learned from.

    Args:
        first: records of the classifiers of one scorer, None for an unknown one.
        second: of the other's.

    Returns:
        `texts`, `corpora`, `folder` (files of one folder, nothing else known), `start` (the same
        pretrained model alone), `none known` or `unknown`: the first that holds for any pair.
    """
    pairs = [_relation(one, other) for one in first for other in second]
    order = ("texts", "corpora", "unknown", "folder", "start", "none known")
    return min(pairs, key=order.index, default="unknown")


def _relation(first: TrainingData | None, second: TrainingData | None) -> str:
    if first is None or second is None:
        return "unknown"
    common = overlap(first.sketch, second.sketch)
    if first.digest == second.digest or (common or 0.0) >= _SAME_FROM:
        return "texts"
    if set(first.corpora) & set(second.corpora):
        return "corpora"
    if not (first.corpora and second.corpora):
        one, other = Path(first.data), Path(second.data)
        beside = bool(one.suffix) and one.parent == other.parent  # a hub id has no suffix
        return "folder" if one == other or beside else "unknown"
    return "start" if first.started_from == second.started_from else "none known"


def _hash(text: str) -> int:
    """Of the words of a text, so that case and punctuation make no other text."""
    words = " ".join(compared_words(text)) or text
    digest = hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=6).digest()
    return int.from_bytes(digest, "big")
