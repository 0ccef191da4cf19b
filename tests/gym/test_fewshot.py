"""Few-shot files: what is read, and that everything malformed is named with file and line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mpt.errors import DataError
from mpt.gym.catalogue import TaskInfo, load_catalogue
from mpt.gym.fewshot import (
    AnswerDraw,
    Example,
    available_seeds,
    load_task,
    one_answer_each,
    some_rows,
)

INFO = TaskInfo("toy", "classification", "ACC", 2)
REAL = Path(__file__).resolve().parents[2].parent / "shared" / "gym"


def gym_with(folder: Path, seed: int = 13, **parts: bytes) -> Path:
    (folder / "toy").mkdir(exist_ok=True)
    for part in ("train", "dev", "test"):
        path = folder / "toy" / f"toy_2_{seed}_{part}.tsv"
        path.write_bytes(parts.get(part, b"good film\tyes\nbad film\tno\n"))
    return folder


def test_a_line_is_an_input_and_its_answers(tmp_path: Path) -> None:
    gym = gym_with(tmp_path, train="q one\ta\tb c\nq two\té".encode())
    task = load_task(gym, INFO, 13)
    assert task.train == (Example("q one", ("a", "b c")), Example("q two", ("é",)))
    assert (task.name, task.shots, task.seed, task.metric) == ("toy", 2, 13, "ACC")


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    odd = "a\rb\x85c\u2028d\x0be\ty\n"
    task = load_task(gym_with(tmp_path, dev=odd.encode()), INFO, 13)
    assert task.dev == (Example("a\rb\x85c\u2028d\x0be", ("y",)),)


def test_blanks_around_a_line_windows_line_ends_and_empty_extra_answers_are_dropped(
    tmp_path: Path,
) -> None:
    task = load_task(gym_with(tmp_path, test=b"  q \ta\t\t b \r\nr\tc\t\t\n"), INFO, 13)
    assert task.test == (Example("q ", ("a", " b")), Example("r", ("c",)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nno tab here\n", r"toy_2_13_dev\.tsv:2: no tab in 'no tab here'"),
        (b"a\tb\n\nc\td\n", r"toy_2_13_dev\.tsv:2: no tab in ''"),
        (b"", r"toy_2_13_dev\.tsv: the file is empty"),
        (b" \n\n", r"toy_2_13_dev\.tsv: the file is empty"),
        (b"a\tb\nc\t\xff\n", r"toy_2_13_dev\.tsv:2: byte 0xff is not UTF-8"),
        (b"a\tb\nc\t \t\n", r"toy_2_13_dev\.tsv:2: empty output in 'c"),
        (b"a\tb\n \td\n", r"toy_2_13_dev\.tsv:2: empty input"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_task(gym_with(tmp_path, dev=content), INFO, 13)


def test_a_missing_seed_names_the_seeds_that_are_there(tmp_path: Path) -> None:
    gym = gym_with(gym_with(tmp_path, seed=13), seed=100)
    (gym / "toy" / "toy_2_7_train.tsv").write_bytes(b"a\tb\n")  # incomplete: no dev, no test
    (gym / "toy" / "toy_22_5_train.tsv").write_bytes(b"a\tb\n")  # another k
    assert available_seeds(gym, INFO) == (13, 100)
    with pytest.raises(DataError, match=r"toy_2_21_train\.tsv: no such file; .*: 13, 100"):
        load_task(gym, INFO, 21)


def test_a_missing_test_file_is_an_error(tmp_path: Path) -> None:
    gym = gym_with(tmp_path)
    (gym / "toy" / "toy_2_13_test.tsv").unlink()
    with pytest.raises(DataError, match=r"toy_2_13_test\.tsv: no such file; .*: none"):
        load_task(gym, INFO, 13)


def test_the_digest_changes_with_any_byte_of_any_part_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    good = dict.fromkeys(("train", "dev", "test"), b"good film\tyes\nbad film\tno\n")
    variants = (
        good,
        good | {"train": b"good film\tyes\nbad film\tnO\n"},
        good | {"dev": b"good film\tyes\nbad film\tno"},
        good | {"test": b"good film\tyes\n"},
        # the same bytes in all, cut at another place
        good | {"train": b"good film\tyes\n", "dev": b"bad film\tno\n" + good["dev"]},
    )
    digests = []
    for number, parts in enumerate(variants):
        folder = tmp_path / str(number)
        folder.mkdir()
        gym = gym_with(folder, 13, **parts)
        digests.append(load_task(gym, INFO, 13).digest)
        assert load_task(gym, INFO, 13).digest == digests[-1]
    assert len(set(digests)) == len(digests)


def test_existing_crossfit_directories_are_read_as_they_are() -> None:
    if not REAL.is_dir():
        pytest.skip("no CrossFit data directory beside the checkout")
    catalogue = load_catalogue(REAL)
    names = [path.name for path in REAL.iterdir() if path.is_dir()]
    assert len(names) > 100
    for name in names:
        info = catalogue.task(name)
        seeds = available_seeds(REAL, info)
        assert seeds == (13, 21, 42, 87, 100), name
        task = load_task(REAL, info, seeds[0])
        flat = info.shots == 32
        assert (
            len(task.train) == 32
            if flat
            else len(task.train) <= 16 * len({example.outputs for example in task.train})
        )


SEVERAL = (Example("one", ("a",)), Example("three", ("b", "c", "d")), Example("two", ("e", "f")))


def test_every_answer_becomes_a_row_of_its_own() -> None:
    pairs = [(row.input, row.outputs) for row in one_answer_each(SEVERAL)]
    expected = [("one", "a"), ("three", "b"), ("three", "c"), ("three", "d")]
    assert pairs == [(text, (answer,)) for text, answer in [*expected, ("two", "e"), ("two", "f")]]


def test_each_answer_of_a_row_is_drawn_equally_often_and_no_other_rows() -> None:
    draw = AnswerDraw(SEVERAL)
    generator = np.random.default_rng(0)
    found = [draw.rows(generator, (2, 0, 1, 1)) for _ in range(900)]
    counts = [Counter(places) for places in zip(*found, strict=True)]
    # 900 draws: 450 of two with a standard deviation of 15, 300 of three with one of 14.
    assert set(counts[0]) == {4, 5}
    assert all(abs(count - 450) < 75 for count in counts[0].values())
    assert counts[1] == {0: 900}
    for column in counts[2:]:
        assert set(column) == {1, 2, 3}
        assert all(abs(count - 300) < 71 for count in column.values())
    # the same row twice in a batch: its answers are drawn apart
    assert any(places[2] != places[3] for places in found)


def test_rows_with_one_answer_each_are_what_they_are() -> None:
    draw = AnswerDraw([Example("one", ("a",)), Example("two", ("b",)), Example("more", ("c",))])
    assert not draw.chooses
    assert draw.rows(np.random.default_rng(0), (2, 0, 1)) == (2, 0, 1)
    assert AnswerDraw(SEVERAL).chooses


def _labelled(**counts: int) -> list[Example]:
    """Rows sorted by label, as many published test files are."""
    rows = [label for label, count in counts.items() for _ in range(count)]
    return [Example(f"text {place}", (label,)) for place, label in enumerate(rows)]


def test_the_first_rows_of_a_sorted_file_are_one_class_and_a_stratified_sample_is_not() -> None:
    rows = _labelled(yes=600, no=400)
    first = some_rows(rows, 100, stratified=False, name="toy test")
    assert first == rows[:100]
    for name in ("toy test", "other test", "toy dev"):
        sample = some_rows(rows, 100, stratified=True, name=name)
        assert Counter(row.outputs[0] for row in sample) == {"yes": 60, "no": 40}
        places = [rows.index(row) for row in sample]
        assert places == sorted(set(places))


@pytest.mark.parametrize("most", [1, 7, 25, 49, 50])
def test_every_label_keeps_its_share_up_to_rounding(most: int) -> None:
    rows = _labelled(a=1, b=9, c=16, d=25)  # 51 rows
    for n in range(40):
        counts = Counter(
            row.outputs[0] for row in some_rows(rows, most, stratified=True, name=str(n))
        )
        assert sum(counts.values()) == most
        for label, size in (("a", 1), ("b", 9), ("c", 16), ("d", 25)):
            assert counts[label] in (size * most // 51, -(-size * most // 51))


@pytest.mark.parametrize(
    "rows", [_labelled(a=3, b=7), _labelled(**dict.fromkeys("abcdefghij", 1))]
)
def test_every_row_is_drawn_with_the_same_chance(rows: list[Example]) -> None:
    counts: Counter[str] = Counter()
    for n in range(1000):
        drawn = some_rows(rows, 4, stratified=True, name=str(n))
        counts.update(row.input for row in drawn)
    # 1000 draws of 4 in 10: 400 each with a standard deviation of at most 15.5
    assert len(counts) == 10
    assert all(abs(count - 400) < 78 for count in counts.values())


def test_all_rows_are_used_where_none_have_to_go() -> None:
    rows = _labelled(a=2, b=1)
    for most in (None, 3, 9):
        assert some_rows(rows, most, stratified=True, name="toy") == rows


def test_the_drawn_rows_never_change() -> None:
    """Stored scores are of these rows: another draw would be another study."""
    rows = _labelled(a=6, b=4)
    drawn = some_rows(rows, 5, stratified=True, name="toy test")
    assert [rows.index(row) for row in drawn] == [0, 2, 4, 8, 9]
