"""The language of tasks.toml: paths, filters, templates, and errors in rows."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from mpt.errors import DataError
from mpt.gym.crossfit.special import CODE
from mpt.gym.crossfit.tasks import load_rows, read_rows
from mpt.gym.crossfit.template import Expression, Missing, RowError, Template, get

ROW = """
[toy]
hub = "owner/toy"
revision = "main"
splits = { train = "train", test = "validation" }
input = "{text|strip}"
label = { field = "label", words = ["no", "yes"] }
sampler = "per_label"
shots = 16
metric = "ACC"
family = "classification"
group_of_family = "other"
"""


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("a|nl", "x\ny\tz", "x y\tz"),
        ("a|ws3", "x\ny\tz\rw", "x y z w"),
        ("a|strip", "\n x ", "x"),
        ("a|nospace|lower", "A b C", "abc"),
        ("a|litnl", "x\\ny\nz", "x y\nz"),
        ("a|nlmark", "x\ny", "x [n] y"),
        ("a|comma", "x_comma_ y", "x, y"),
        ("a|unquote", "''x'y'", "x'y"),
        ("a|maskfix", "a <mask>", "a [MASK]"),
        ("a|tidy", " x \u2028 y\\nz ", "x y\\nz"),
        ("a|clean", " x \u2028 y\\nz ", "x y z"),
        ("a|sp", ["x", "y"], "x y"),
        ("a|csv", ["x", "y"], "x, y"),
        ("a|sep", ["x", "y"], "x [SEP] y"),
        ("a|unique", ["y", "x", "y"], ["y", "x"]),
        ("a|nonempty", ["", "x"], ["x"]),
        ("a|sorted", ["b", "a"], ["a", "b"]),
        ("a|flat", [["b"], ["a", "c"]], ["b", "a", "c"]),
        ("a|keys", {"b": 1, "a": 2}, ["b", "a"]),
        ("a|strip|nl", [" x\ny ", "z"], ["x y", "z"]),
        ("a|whole", 3.0, 3),
    ],
)
def test_a_filter_does_what_the_head_of_the_file_says(
    text: str, value: Any, expected: Any
) -> None:
    assert Expression(text)({"a": value}) == expected


def test_a_path_enters_structs_lists_and_lists_of_structs() -> None:
    row = {"a": {"b": ["x", "y"]}, "c": [{"d": 1}, {"d": 2}], "e": {"d": [1, 2]}}
    assert get(row, "a.b.1") == "y"
    assert get(row, "c.d") == get(row, "e.d") == [1, 2]
    for path in ("z", "a.z", "a.b.2", "c.z"):
        with pytest.raises(Missing, match=f"field '{path}' is missing"):
            get(row, path)


def test_a_template_writes_numbers_and_refuses_null_and_lists() -> None:
    assert Template("n {a} {b|strip}.")({"a": 3, "b": " x "}) == "n 3 x."
    with pytest.raises(RowError, match="field 'a' is null, but must be text"):
        Template("{a}")({"a": None})
    with pytest.raises(RowError, match=r"field 'a' is .*, but must be text"):
        Template("{a}")({"a": ["x"]})
    with pytest.raises(RowError, match="field 'a': 3 must be text"):
        Template("{a|strip}")({"a": 3})
    with pytest.raises(RowError, match=r"field 'a': 2\.5 must be a whole number"):
        Template("{a|whole}")({"a": 2.5})


def test_the_package_rows_are_160_and_each_names_its_source() -> None:
    rows = load_rows()
    assert len(rows) == 160
    assert all((row.hub and row.revision) or row.url for row in rows.values())
    assert sum(row.reference is not None for row in rows.values()) == 154  # the paper's Table 11
    assert all(row.per_label == (row.shots == 16) for row in rows.values())
    assert set(CODE) == {row.code for row in rows.values() if row.code}


def test_every_row_reads_only_fields_of_its_schema() -> None:
    from gym_rows import SCHEMAS

    for name, row in load_rows().items():
        today = {row.label_today.field} if row.label_today else set()
        assert set(row.fields) - today <= set(SCHEMAS[name]), name


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "shots = 16",
            "shots = 16\nshot = 1",
            r"\[toy\] has the unknown key 'shot' \(did you mean 's",
        ),
        ("{text|strip}", "{text|stripp}", r"unknown filter 'stripp' in 'text\|stripp'"),
        ("words =", "word =", r"\[toy.label\] has the unknown key 'word' \(did you mean 'words'"),
        ('train = "train", ', "", "splits: splits needs either train and test, or pool"),
        (
            '{ train = "train", test = "validation" }',
            "3",
            r"\[toy.splits\] is 3, but must be a table",
        ),
        ("[toy]", "toy = 3\n[other]", r"\[toy\] is 3, but must be a table"),
        ('hub = "owner/toy"', "", "needs either hub or url"),
        ('sampler = "per_label"', 'sampler = "label"', "sampler is 'label'"),
        ("shots = 16", 'shots = 16\ncode = "nosuch"', "code 'nosuch' is not in"),
        ("shots = 16", 'shots = 16\noutput = "{a}"', "needs one of output, label, references"),
        (
            "shots = 16",
            'shots = 16\ndrop = [{ field = "a", isnt = 1 }]',
            "drop: 'isnt' is not one of",
        ),
        (
            "shots = 16",
            "shots = 16\nanswer = { first = 1 }",
            "answer needs either letter or index",
        ),
        ("[toy]", ROW + "[toy]", r"Cannot declare \('toy',\) twice|twice"),
    ],
)
def test_a_bad_row_is_named_with_its_task_and_key(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    assert before in ROW
    path = tmp_path / "tasks.toml"
    path.write_text(ROW, encoding="utf-8")
    assert list(read_rows(path)) == ["toy"]
    path.write_text(ROW.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_the_package_file_explains_every_key_and_filter_that_it_uses() -> None:
    text = (files("mpt.gym") / "tasks.toml").read_text(encoding="utf-8")
    head, _, body = text.partition("\n[acronym_identification]")
    keys = {line.split(" = ")[0] for line in body.splitlines() if line[:1].isalpha()}
    for key in {key.split(".")[0] for key in keys}:
        assert key in head, key
