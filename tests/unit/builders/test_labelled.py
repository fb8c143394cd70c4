"""Labelled texts of stage=reward_model come through the reader of prompts."""

import pytest

from lora_detox.api import compose_settings
from lora_detox.builders.labelled import labelled_splits, test_set
from lora_detox.errors import DataError


def settings_of(path, *overrides):
    return compose_settings(
        [
            "stage=reward_model",
            "data=local",
            f"data.path={path}",
            "data.fields.prompt=text",
            "data.fields.toxicity=label",
            "data.cache=false",
            *overrides,
        ]
    )


@pytest.fixture
def table(tmp_path):
    """Semicolons, a quote that is never closed, labels as Excel writes truth, an identity."""
    lines = [
        f'{i};"text; {i}";{"TRUE" if i % 2 else "FALSE"};{"women" if i < 9 else ""}'
        for i in range(60)
    ]
    lines[5] = '5;"text 5;TRUE;women'
    path = tmp_path / "a.csv"
    path.write_text("\r\n".join(["id;Text;label;target", *lines]))
    return path


test_set.__test__ = False  # a function of the package, no test


def test_a_table_of_labels(table):
    splits = labelled_splits(settings_of(table))
    assert sum(len(split.texts) for split in splits.values()) == 59
    further = test_set("more", str(table), settings_of(table))
    assert (len(further.texts), further.dropped) == (59, 1)
    assert further.texts[3] == "text; 3"
    assert further.toxic[:4] == [False, True, False, True]
    assert further.identities[0] == "women"
    assert further.identities[-1] is None


def test_labels_that_are_no_numbers_and_columns_that_stand_twice(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {i},high\n" for i in range(200)))
    with pytest.raises(DataError, match=r"all 200 rows.*no number.*data\.fields\.toxicity"):
        test_set("more", str(path), settings_of(path))
    path.write_text("text,label,label\na,1,0\nb,0,1\n")
    for read in (labelled_splits, lambda settings: test_set("more", str(path), settings)):
        with pytest.raises(DataError, match=r"`label` stands twice.*data\.fields\.toxicity"):
            read(settings_of(path))
