"""What took long to read is read once; a change of file, setting or cache file is noticed."""

import os

import pytest

from lora_detox import cache
from lora_detox.prompts import load, load_prompt_sets

ROWS = [
    {"prompt": f"Text {i} — ünï", "refs": [f"a {i}", "b"] if i % 2 else None, "tox": i / 40}
    for i in range(40)
]
FIELDS = {"prompt": "prompt", "references": "refs|r", "toxicity": "tox|t", "id": "id"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of the test's own, in which everything is worth keeping."""
    monkeypatch.setenv("LORA_DETOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(load, "_WORTH_CACHING_SECONDS", 0.0)
    return tmp_path / "cache" / "prompts"


def kept(folder):
    return sorted(path.name for path in folder.glob("*"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_the_second_load_is_the_first_without_reading(name, folder, write_rows, monkeypatch):
    path = write_rows(name, [*ROWS[:20], "{torn", *ROWS[20:]])
    first = load_prompt_sets(path=path, fields=FIELDS, min_toxicity=0.2, prefixes=["x ", "y "])
    assert first.report.kept_in is None
    assert len(kept(folder)) == 1

    def no_reading(*_, **__):
        raise AssertionError("the file was read again")

    monkeypatch.setattr(load, "_make_sets", no_reading)
    again = load_prompt_sets(path=path, fields=FIELDS, min_toxicity=0.2, prefixes=["x ", "y "])
    assert again == first
    assert again.report.bad == 1
    assert again.report.describe().endswith(f"from the cache {folder.parent}")


def test_a_changed_file_or_setting_is_read_again(folder, write_rows):
    path = write_rows("rows.jsonl", ROWS)
    first = load_prompt_sets(path=path, fields=FIELDS)
    for change in (
        {"min_toxicity": 0.5},
        {"limit": 3},
        {"seed": 1},
        {"split_fractions": (0.5, 0.2, 0.3)},
        {"fields": {**FIELDS, "references": None}},
    ):
        other = load_prompt_sets(**{"path": path, "fields": FIELDS, **change})
        assert other.report.kept_in is None
        assert other != first
    before = os.stat(path)
    write_rows("rows.jsonl", [{**ROWS[0], "prompt": ROWS[1]["prompt"]}, *ROWS[1:]])
    assert os.stat(path).st_size == before.st_size
    changed = load_prompt_sets(path=path, fields=FIELDS)
    assert changed.report.kept_in is None
    assert changed.report.duplicates == 1


def test_a_torn_cache_file_is_made_again(folder, write_rows):
    path = write_rows("rows.jsonl", ROWS)
    first = load_prompt_sets(path=path, fields=FIELDS)
    (stored,) = folder.glob("*.parquet")
    whole = stored.read_bytes()
    for torn in (whole[: len(whole) // 2], b"", whole[:60] + b"\0\0\0\0" + whole[64:]):
        stored.write_bytes(torn)
        again = load_prompt_sets(path=path, fields=FIELDS)
        assert again == first
        assert again.report.kept_in is None
        assert load_prompt_sets(path=path, fields=FIELDS).report.kept_in


def test_what_is_quick_generated_or_unwanted_is_not_kept(folder, write_rows, monkeypatch):
    path = write_rows("rows.jsonl", ROWS)
    load_prompt_sets(path=path, fields=FIELDS, cache=False)
    load_prompt_sets(path="embedded:comments", fields={"prompt": "prompt"}, limit=5)
    monkeypatch.setattr(load, "_WORTH_CACHING_SECONDS", 1e9)
    load_prompt_sets(path=path, fields=FIELDS)
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_stops_nothing(folder, write_rows):
    folder.parent.write_text("a file where the folder should be")
    assert load_prompt_sets(path=write_rows("rows.jsonl", ROWS), fields=FIELDS).report.read == 40


def test_the_oldest_are_removed_and_no_part_is_left(folder, write_rows, monkeypatch):
    monkeypatch.setattr(cache, "_KEPT", 2)
    path = write_rows("rows.jsonl", ROWS)
    for seed in range(4):
        load_prompt_sets(path=path, fields=FIELDS, seed=seed)
    assert len(kept(folder)) == 2
    assert load_prompt_sets(path=path, fields=FIELDS, seed=3).report.kept_in
    assert not load_prompt_sets(path=path, fields=FIELDS, seed=0).report.kept_in


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LORA_DETOX_CACHE": "/a/b"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/lora_detox"),
        ({"HOME": "/home/me"}, "/home/me/.cache/lora_detox"),
    ],
)
def test_where_the_cache_is(variables, expected, monkeypatch):
    for name in ("LORA_DETOX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.cache_folder().as_posix() == expected
