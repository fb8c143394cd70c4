"""Arbitrary bytes and structures as data files give rows or a DataError, nothing else."""

import gzip
import io
import json
import zipfile

import pyarrow
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lora_detox.errors import DataError
from lora_detox.prompts import load_prompt_sets

FIELDS = {
    "prompt": "prompt|dialogue|text",
    "references": "summary|references",
    "toxicity": "toxicity|prompt.toxicity",
    "id": "id",
}
SUFFIXES = ("jsonl", "json", "csv", "tsv", "txt")
BINARY = ("parquet", "arrow", "feather", "xlsx")
LIGHT = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**320, 10**330),
    st.floats(),
    st.text(),
    st.sampled_from(["nan", "['a' 'b']", '{"toxicity": 1}', "[", "\ud800", "\x1b[0m"]),
)
value = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = ["prompt", "dialogue", "text", "summary", "toxicity", "id", "speaker", "Prompt", "x"]
row = st.dictionaries(st.sampled_from(NAMES), value, max_size=5)
pieces = st.sampled_from(
    [b"prompt", b"toxicity", b",", b"\t", b";", b"\n", b"\r\n", b"\r", b'"', b'""', b"\\", b"{",
     b"}", b"[", b"]", b":", b"null", b"1", b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\x1f\x8b",
     b"sep=;", b"caf\xc3\xa9", b"\xe9", b'{"prompt": "a"}']
)  # fmt: skip
texts = st.lists(pieces, max_size=40).map(b"".join) | st.binary(max_size=200)


def rows_or_data_error(path, **options):
    """Read a file; whatever else than a DataError comes out of it fails the test."""
    try:
        sets = load_prompt_sets(path=str(path), fields=FIELDS, cache=False, **options)
    except DataError:
        return
    for one in (*sets.train, *sets.validation, *sets.test):
        assert one.prompt.strip()
        one.prompt.encode()
        assert isinstance(one.row_id, str)
        assert one.toxicity is None or isinstance(one.toxicity, float)
        assert all(isinstance(reference, str) for reference in one.references)


@LIGHT
@given(
    content=texts,
    suffix=st.sampled_from(SUFFIXES),
    packed=st.booleans(),
    limit=st.none() | st.integers(1, 3),
    encoding=st.sampled_from([None, "utf-16", "utf-32", "latin-1", "idna", "utf-7", "punycode"]),
)
def test_bytes_of_any_kind(tmp_path_factory, content, suffix, packed, limit, encoding):
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    rows_or_data_error(path, limit=limit, encoding=encoding)


@LIGHT
@given(rows=st.lists(row, max_size=6), suffix=st.sampled_from(["jsonl", "json", "jsonl.gz"]))
def test_json_of_any_structure(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.getbasetemp() / f"rows.{suffix}"
    text = json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    rows_or_data_error(path)
    rows_or_data_error(path, turns="prompts", limit=2)


@LIGHT
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from(
        [b"", b"PAR1", b"ARROW1\x00\x00", b"FEA1", b"PK\x03\x04", b"\x1f\x8b\x08"]
    ),
    suffix=st.sampled_from([*BINARY, "jsonl.gz"]),
)
def test_what_only_begins_like_its_kind(tmp_path_factory, content, start, suffix):
    path = tmp_path_factory.getbasetemp() / f"begins.{suffix}"
    path.write_bytes(start + content)
    rows_or_data_error(path)


def _whole_file(suffix):
    rows = [{"prompt": f"Number {n} is it.", "toxicity": n / 20, "id": str(n)} for n in range(20)]
    file = io.BytesIO()
    table = pyarrow.Table.from_pylist(rows)
    if suffix == "parquet":
        parquet.write_table(table, file)
    elif suffix == "arrow":
        with pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    elif suffix == "feather":
        with pyarrow.ipc.new_file(file, table.schema) as stream:
            stream.write_table(table)
    elif suffix == "jsonl.gz":
        file.write(gzip.compress("\n".join(map(json.dumps, rows)).encode(), mtime=0))
    else:
        _write_workbook(file, rows)
    return file.getvalue()


def _write_workbook(file, rows):
    link = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    cells = "".join(
        f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t>{text}</t></is></c></row>'
        for n, text in enumerate(["prompt", *(one["prompt"] for one in rows)], start=1)
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/workbook.xml", f'<workbook xmlns:r="{link}"><sheet r:id="a"/></workbook>')
        book.writestr("xl/_rels/workbook.xml.rels", '<a><b Id="a" Target="worksheets/s.xml"/></a>')
        book.writestr("xl/worksheets/s.xml", f"<worksheet>{cells}</worksheet>")


WHOLE = {suffix: _whole_file(suffix) for suffix in (*BINARY, "jsonl.gz")}


@LIGHT
@example(suffix="feather", place=0.734375, flip=1, cut=False)  # an offset below 0
@given(
    suffix=st.sampled_from(list(WHOLE)),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(0, 255),
    cut=st.booleans(),
)
def test_whole_files_that_were_cut_or_overwritten(tmp_path_factory, suffix, place, flip, cut):
    content = bytearray(WHOLE[suffix])
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= flip
    path = tmp_path_factory.getbasetemp() / f"changed.{suffix}"
    path.write_bytes(content)
    rows_or_data_error(path)
    if flip == 0 and not cut:
        assert load_prompt_sets(path=str(path), fields=FIELDS, cache=False).report.read == 20
