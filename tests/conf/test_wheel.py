"""What is installed works without the checkout: conf/, weights and templates are in the wheel."""

import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ["wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", *BUILD, "--wheel-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 20e6
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_what_runs_need_and_nothing_else(unpacked):
    package = unpacked / "lora_detox"
    for path in (ROOT / "conf").rglob("*.yaml"):
        copy = package / "conf" / path.relative_to(ROOT / "conf")
        assert copy.read_bytes() == path.read_bytes()
    for path in (ROOT / "lora_detox").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (package / path.relative_to(ROOT / "lora_detox")).is_file(), path
    tops = {path.name for path in unpacked.iterdir()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"lora_detox", "hydra_plugins"}
    plugins = {path.name for path in (unpacked / "hydra_plugins").iterdir()}
    assert plugins == {"lora_detox_optuna"}  # a namespace without __init__.py
    licences = list(unpacked.glob("*.dist-info/licenses/LICENSE"))
    assert len(licences) == 1
    kinds = {path.suffix for path in unpacked.rglob("*") if path.is_file()}
    assert not kinds & {".gz", ".jsonl", ".csv", ".parquet", ".bin", ".pt"}


def test_from_another_folder_it_composes_with_its_own_conf(unpacked, tmp_path):
    code = "import lora_detox.__main__ as m; print(m.__file__); print(m.conf_dir())"
    environment = os.environ | {"PYTHONPATH": str(unpacked)}

    def output(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    package = unpacked / "lora_detox"
    assert output("-c", code).split() == [str(package / "__main__.py"), str(package / "conf")]
    composed = output("-m", "lora_detox", "--cfg", "job", "task=gptj_continuation", "seed=7")
    assert "name: gptj_continuation" in composed
    assert "seed: 7" in composed
    # the console script of the wheel calls the same function, under another program name
    script = "import sys; sys.argv[0] = 'lora-detox'; from lora_detox.__main__ import main; main()"
    assert output("-c", script, "--cfg", "job", "task=gptj_continuation", "seed=7") == composed
    entry = (next(unpacked.glob("*.dist-info")) / "entry_points.txt").read_text()
    assert "lora-detox = lora_detox.__main__:main" in entry


def test_no_text_of_the_shared_corpora_is_shipped(unpacked, shared):
    rows = []
    for name in ("toxic_turn.test", "rtp.val", "dialogsum.test"):
        with gzip.open(shared / "data" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows += [json.loads(line) for _, line in zip(range(200), file, strict=False)]
    passages = {text[:60] for row in rows for text in texts_of(row) if len(text.split()) > 8}
    assert len(passages) > 300
    for path in unpacked.rglob("*"):
        if path.suffix in {".py", ".json", ".yaml", ".j2", ".md", ".txt"}:
            shipped = path.read_text(encoding="utf-8")
            assert not [p for p in passages if p in shipped], path


def texts_of(node):
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from texts_of(part)
