"""What a run is audited with: the embedded prompts, files of a user's own, texts for scorers."""

import gzip
import json

import pytest

from lora_detox import api
from lora_detox.builders.audit import audit_prompts, audit_texts, group_of
from lora_detox.builders.audit_groups import grouped
from lora_detox.embedded.identities import GROUPS, KINDS, identity_rows
from lora_detox.errors import DataError, SettingsError
from lora_detox.text.mentions import mentions

TASKS = {"gptj_continuation": "openings", "flan_summary": "dialogues", "rewrite": "sentences"}


def composed(tmp_path, *overrides, task="gptj_continuation"):
    return api.compose_settings([f"task={task}", *overrides], tmp_path / "run")


def write_csv(path, rows, names="prompt,group"):
    path.write_text("\n".join([names, *rows]) + "\n")
    return path


@pytest.mark.parametrize(("task", "kind"), TASKS.items())
def test_every_run_is_asked_about_twelve_groups(task, kind, tmp_path):
    prompts = audit_prompts(composed(tmp_path, task=task))
    assert [row.prompt for row in prompts.rows] == [row["prompt"] for row in identity_rows(kind)]
    assert len(prompts.rows) == len(GROUPS) * 10
    about = grouped([row.columns for row in prompts.rows], prompts.column)
    named = [mentions(row.prompt, own) for row, own in zip(prompts.rows, about.terms, strict=True)]
    assert all(named)  # so that each answer can still speak of the group, or not


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_names_the_group_that_it_is_about_and_no_other(kind):
    terms = {group.name: group.mentions for group in GROUPS}
    for row in identity_rows(kind):
        others = {
            name: own
            for name, own in terms.items()
            if name != row["group"] and mentions(row["prompt"], own)
        }
        assert not others, (row["prompt"], others)


def test_a_file_of_ones_own(tmp_path):
    rows = [f"The nurse number {n} is kind and,nurses" for n in range(6)]
    rows += [f"The pilot number {n} is kind and,pilots" for n in range(4)] + ["Nobody,"]
    file = write_csv(tmp_path / "own.csv", rows)
    prompts = audit_prompts(composed(tmp_path, f"evaluation.audit={file}"))
    assert (len(prompts.rows), prompts.column) == (10, "group|domain|identity")
    assert prompts.read == "10 of 11 prompts about 2 groups"
    about = grouped([row.columns for row in prompts.rows], prompts.column)
    assert set(about.groups) == {"nurses", "pilots"}
    assert set(about.terms) == {("nurse",), ("pilot",)}
    few = audit_prompts(
        composed(tmp_path, f"evaluation.audit={file}", "evaluation.audit_prompts=4")
    )
    assert [row.columns["group"] for row in few.rows] == ["nurses"] * 2 + ["pilots"] * 2


@pytest.mark.parametrize(
    ("names", "row", "overrides", "expected"),
    [
        ("text,identity", "the woman works as,the woman", [], "the woman"),
        ("prompt,Domain,Group", "hello there,gender,women", [], "women"),
        ("prompt,domain,group", "hi,gender,women", ["evaluation.audit_group=domain"], "gender"),
        ("prompt,Who", "hello there,nurses", ["evaluation.audit_group=who"], "nurses"),
        ("comment,group", "hello,men", ["data.fields.prompt=comment"], "men"),
    ],
)  # fmt: skip
def test_the_column_of_the_group(names, row, overrides, expected, tmp_path):
    file = write_csv(tmp_path / "own.csv", [row], names)
    prompts = audit_prompts(composed(tmp_path, f"evaluation.audit={file}", *overrides))
    assert group_of(prompts.rows[0].columns, prompts.column) == expected


def test_words_of_known_groups_and_words_of_ones_own():
    own = {"group": "7", "mentions": "sailor|old salt"}
    women = {"identity": "the women"}
    actors = {"group": "American_actors", "entity": "Jacob_Zachar"}
    about = grouped([own, women, actors, {}], "group|domain|identity")
    assert about.terms[0] == ("sailor", "old salt")
    assert {"woman", "she"} <= set(about.terms[1])
    assert about.terms[2] == ("american", "actor", "jacob", "zachar")
    assert about.groups == ["7", "the women", "American_actors", None]
    assert grouped([{}, {}], "group") is None


def test_what_cannot_be_audited_is_refused_by_name(tmp_path):
    plain = write_csv(tmp_path / "plain.csv", ["hello there,3"], "prompt,number")
    with pytest.raises(DataError, match=r"evaluation\.audit: none of the 1 rows.*audit_group"):
        audit_prompts(composed(tmp_path, f"evaluation.audit={plain}"))
    with pytest.raises(DataError, match=r"evaluation\.audit`"):
        audit_prompts(composed(tmp_path, f"evaluation.audit={tmp_path / 'none.csv'}"))
    columns = write_csv(tmp_path / "columns.csv", ["hello,women"], "phrase,group")
    with pytest.raises(DataError, match=r"evaluation\.audit: no row has the column"):
        audit_prompts(composed(tmp_path, f"evaluation.audit={columns}"))
    with pytest.raises(DataError, match=r"evaluation\.audit_texts"):
        audit_texts(composed(tmp_path, f"evaluation.audit_texts={columns}"))
    with pytest.raises(SettingsError, match=r"evaluation\.audit_least: got 1"):
        composed(tmp_path, "evaluation.audit_least=1")
    with pytest.raises(SettingsError, match=r"evaluation\.audit_group"):
        composed(tmp_path, "evaluation.audit_group='group|'")


def test_null_leaves_the_audit_out(tmp_path):
    settings = composed(tmp_path, "evaluation.audit=null", "evaluation.audit_texts=null")
    assert audit_prompts(settings) is None
    assert audit_texts(settings) is None


def test_labelled_texts_with_identities_and_swapped_ones(tmp_path):
    rows = [
        {"text": "He is kind.", "label": 0, "target": "men", "text_swapped": "She is kind."},
        {"text": "You fool.", "label": 1, "target": "men", "text_swapped": "You fool."},
        {"text": "Rain.", "label": 0, "text_swapped": "Rain."},
        {"text": "no label"},
    ]
    file = tmp_path / "swap.jsonl.gz"
    with gzip.open(file, "wt") as lines:
        lines.write("".join(json.dumps(one) + "\n" for one in rows))
    texts = audit_texts(composed(tmp_path, f"evaluation.audit_texts={file}"))
    assert texts.labelled.texts == ["He is kind.", "You fool.", "Rain."]
    assert texts.labelled.toxic == [False, True, False]
    assert texts.labelled.identities == ["men", "men", None]
    assert texts.swapped == ["She is kind.", "You fool.", "Rain."]
    assert texts.labelled.dropped == 1
    embedded = audit_texts(composed(tmp_path))
    assert not any(embedded.labelled.toxic)
    assert embedded.swapped == []


@pytest.mark.parametrize(
    ("name", "groups"),
    [("bold_prompts", 43), ("honest_prompts_en", 50), ("toxigen_demonstrations", 13)],
)
def test_public_audits_are_read_as_they_are(name, groups, tmp_path, shared):
    file = shared / "data" / f"{name}.jsonl.gz"
    prompts = audit_prompts(composed(tmp_path, f"evaluation.audit={file}"))
    about = grouped([row.columns for row in prompts.rows], prompts.column)
    assert len(set(about.groups)) >= groups
    assert len(prompts.rows) <= 500
    named = [mentions(row.prompt, own) for row, own in zip(prompts.rows, about.terms, strict=True)]
    assert sum(named) / len(named) > 0.25


@pytest.mark.parametrize(
    ("name", "identities"),
    [("sentence_templates_en", 50), ("hatecheck.test", 7), ("wiki_identity_swap", 0)],
)
def test_public_texts_for_scorers_are_read_as_they_are(name, identities, tmp_path, shared):
    file = shared / "data" / f"{name}.jsonl.gz"
    texts = audit_texts(composed(tmp_path, f"evaluation.audit_texts={file}"))
    assert len(set(texts.labelled.identities) - {None}) == identities
    assert 1000 < len(texts.labelled.texts) <= 10_000
    assert bool(texts.swapped) == (name == "wiki_identity_swap")
