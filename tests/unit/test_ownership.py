"""A folder that others use too: only our own files of it are ever replaced or removed."""

import json

import pytest

from lora_detox.errors import ExportError
from lora_detox.export.adapter import put_in_place, temporary_folder
from lora_detox.export.push import folder_files
from lora_detox.ownership import LIST, in_the_way, listed_files, ownership, put_files


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_md", ".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.fixture
def target(tmp_path):
    """A folder with an export in it."""
    first = write(tmp_path / "first", README_md="card", adapter="1", merged__model="m")
    put_files(first, tmp_path / "target")
    return tmp_path / "target"


def test_what_we_wrote_is_ours_and_is_replaced(target, tmp_path):
    assert ownership(target).own == ("README.md", "adapter", "merged/model")
    assert ownership(target).others == ()
    second = write(tmp_path / "second", README_md="new card", adapter="2")
    put_in_place(second, target, overwrite=False)
    assert content(target) == {"README.md": "new card", "adapter": "2"}
    assert not (target / "merged").exists()
    assert listed_files(target) == ["README.md", "adapter"]
    assert not list(target.glob("*.tmp"))


def test_what_others_put_there_stays(target, tmp_path):
    write(target, **{".git__HEAD": "ref", "notes": "mine", "merged__note": "mine too"})
    assert ownership(target).others == (".git", "merged/note", "notes")
    second = write(tmp_path / "second", README_md="new card")
    with pytest.raises(ExportError, match=r"now holds \.git.*export\.overwrite=true"):
        put_in_place(second, target, overwrite=False)
    put_in_place(second, target, overwrite=True)
    kept = {".git/HEAD": "ref", "notes": "mine", "merged/note": "mine too"}
    assert content(target) == {**kept, "README.md": "new card"}
    assert [name for name, _ in folder_files(target)] == ["README.md"]  # no note is pushed


def test_a_file_of_ours_that_was_edited_is_its_editors(target, tmp_path):
    write(target, README_md="edited", merged__model="trained on")
    assert ownership(target).others == ("README.md", "merged")  # a folder with nothing of ours
    put_files(write(tmp_path / "second", adapter="2"), target)
    assert content(target) == {"README.md": "edited", "merged/model": "trained on", "adapter": "2"}


@pytest.mark.parametrize("listed", ["[]", "garbage", '{"files": 3}', '{"files": {"README.md": 1}}'])
def test_a_list_that_is_garbage_owns_nothing(target, listed):
    (target / LIST).write_text(listed)
    assert ownership(target).own == ()
    assert ownership(target).others == ("README.md", "adapter", "merged")


def test_a_list_never_reaches_out_of_its_folder(target, tmp_path):
    outside = write(tmp_path / "outside", secret="x") / "secret"
    listed = json.loads((target / LIST).read_text())
    digests = listed["files"]["adapter"]
    outside.write_text("1")  # the same bytes as a listed file
    for name in ("../outside/secret", str(outside), "link/secret"):
        listed["files"][name] = digests
    (target / "link").symlink_to(tmp_path / "outside")
    (target / LIST).write_text(json.dumps(listed))
    assert ownership(target).others == ("link",)
    put_files(write(tmp_path / "second", README_md="new"), target)
    assert outside.read_text() == "1"
    assert (target / "link").is_symlink()


def test_links_and_folders_in_the_way_are_named(target, tmp_path):
    names = ("README.md", "merged/", "merged/model")
    assert in_the_way(target, names) is None
    elsewhere = write(tmp_path / "elsewhere", model="precious")
    (target / "merged" / "model").unlink()
    (target / "merged").rmdir()
    (target / "merged").symlink_to(elsewhere)
    assert in_the_way(target, names) == str(target / "merged")
    (target / "merged").unlink()
    (target / "README.md").unlink()
    (target / "README.md").mkdir()
    assert in_the_way(target, names) == str(target / "README.md")
    with pytest.raises(ExportError, match="cannot write into"):
        put_in_place(write(tmp_path / "second", README_md="new"), target, overwrite=True)
    assert (target / "README.md").is_dir()


def test_a_link_in_place_of_a_file_is_replaced_and_what_it_leads_to_stays(target, tmp_path):
    notes = write(tmp_path / "elsewhere", notes="mine") / "notes"
    (target / "README.md").unlink()
    (target / "README.md").symlink_to(notes)
    assert ownership(target).others == ("README.md",)
    put_files(write(tmp_path / "second", README_md="new"), target)
    assert notes.read_text() == "mine"
    assert (target / "README.md").read_text() == "new"


def test_a_process_that_is_killed_meanwhile_leaves_what_can_be_replaced(
    target, tmp_path, monkeypatch
):
    second = write(tmp_path / "second", README_md="new", adapter="2", extra="3")
    places = []

    def dies(path, place):
        if len(places) == 1:
            raise KeyboardInterrupt
        places.append(place)
        path.rename(place)

    with monkeypatch.context() as patch:
        real = type(second).replace
        patch.setattr(
            type(second),
            "replace",
            lambda path, place: real(path, place) if LIST in str(place) else dies(path, place),
        )
        with pytest.raises(KeyboardInterrupt):
            put_files(second, target)
    assert ownership(target).others == ()
    put_files(write(tmp_path / "third", README_md="newest"), target)
    assert content(target) == {"README.md": "newest"}


def test_the_temporary_folder_is_a_new_one_and_follows_a_link(tmp_path):
    (tmp_path / "disk" / "export").mkdir(parents=True)
    (tmp_path / "export").symlink_to(tmp_path / "disk" / "export")
    first, second = (temporary_folder(tmp_path / "export") for _ in range(2))
    assert first != second
    assert first.parent == tmp_path / "disk"
