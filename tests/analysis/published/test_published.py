"""The published numbers against a second transcription, and the rules of paper mode."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.paper.comparison import Ours, compare, paper_table
from analysis.published.caveats import CAVEATS
from analysis.published.numbers import Published, published_numbers
from analysis.tables.table import TableCell
from mpt.gym.catalogue import PARTITIONS, load_catalogue

PRINTED = (Path(__file__).parent / "printed.md").read_text(encoding="utf-8")
METHODS = {"MAML": "maml", "FoMAML": "fomaml", "Reptile": "reptile", "MTL": "multitask"}
_NUMBER = r"[−-]?\d*\.\d+"


def _float(word: str) -> float:
    return float(word.replace("−", "-"))


def _line(start: str) -> str:
    """Return the line that begins like this."""
    return next(line for line in PRINTED.splitlines() if line.startswith(start))


def _values(place: str) -> list[float]:
    return [one.value for one in published_numbers() if one.place == place]


def test_table_2_is_the_printed_one_with_every_spread() -> None:
    text = PRINTED[PRINTED.index("Table 2, ARG") :]
    found = {(one.row, one.column): one for one in published_numbers() if one.place == "Table 2"}
    for label, method in {**METHODS, "FT": "fine_tuning"}.items():
        line = next(x for x in text.splitlines() if x.startswith(f"| {label} | "))
        cells = line.strip("| ").split(" | ")[1:]
        assert len(cells) == len(PARTITIONS)
        for partition, cell in zip(PARTITIONS, cells, strict=True):
            one = found.pop((method, partition))
            assert [one.value, one.spread] == [_float(part) for part in cell.split("±")]
    assert not found


@pytest.mark.parametrize(
    "place", ["Table 3", "Table 4", "Table 5", "Table 6", "Table 7", "Table 8"]
)
def test_the_other_tables_hold_the_printed_numbers(place: str) -> None:
    numbers = re.findall(_NUMBER, _line(f"{place} (").removeprefix(place))
    assert sorted(_values(place)) == sorted(map(_float, numbers))


def test_the_searchs_best_and_worst_are_the_printed_ones() -> None:
    line = _line("Section A.5")
    assert [f"{abs(value):.2f}" in line for value in _values("A.5")] == [True, True]
    assert "10.14 at {3e-5, 5e-1, 5000}" in line
    assert "−16.21 at {5e-5, 2e-1, 2500}" in line


def test_every_number_has_one_place() -> None:
    numbers = published_numbers()
    assert len(numbers) == 50 + 10 + 3 + 25 + 16 + 12 + 9 + 2 == 127
    assert len({(one.place, one.row, one.column) for one in numbers}) == len(numbers)


def test_fine_tuning_has_the_same_number_where_the_target_tasks_are_the_same() -> None:
    """It learns nothing upstream: a partition's sources do not matter to it."""
    partitions = load_catalogue().partitions
    by_targets: dict[tuple[str, ...], set[float]] = {}
    for one in published_numbers():
        if (one.place, one.row) == ("Table 2", "fine_tuning"):
            by_targets.setdefault(partitions[one.column].target, set()).add(one.value)
    assert sorted(map(len, by_targets.values())) == [1] * 5


def test_numbers_that_two_tables_print_agree() -> None:
    by_place = {(one.place, one.row, one.column): one.value for one in published_numbers()}
    main = by_place["Table 2", "maml", "cls_to_cls"]
    assert by_place["Table 3", "maml", "16"] == by_place["Table 4", "maml", "45"] == main
    for method in ("maml", "fomaml", "reptile", "multitask", "fine_tuning"):
        same = by_place["Table 5", "T5-large", method]
        assert by_place["Table 2", method, "nonpara_to_para"] == same


def test_caveats_name_what_they_are_about() -> None:
    assert all(about and text.endswith(".") for about, text in CAVEATS.items())


PAPER = Published(place="Table 2", row="maml", column="cls_to_cls", value=20.16, spread=0.84)


def _ours(value: float | None, low: float | None = None, high: float | None = None) -> Ours:
    return Ours(cell=TableCell(value=value, low=low, high=high))


@pytest.mark.parametrize(
    ("ours", "status", "why"),
    [
        (None, "not attempted", "no record"),
        (_ours(None), "not attempted", "no number"),
        (Ours(cell=TableCell(value=20.16), lacking="3 of 4 runs"), "not attempted", "3 of 4 "),
        # printed the same: rounding to two decimals moves by at most 0.005
        (_ours(20.164, 19.0, 21.0), "reproduced", ""),
        (_ours(20.156, 30.0, 31.0), "reproduced", ""),
        (_ours(20.16), "reproduced", ""),
        (_ours(20.166, 19.0, 21.0), "within interval", ""),
        (_ours(10.0, 5.0, 20.156), "within interval", ""),
        (_ours(10.0, 5.0, 20.154), "contradicted", ""),
        (_ours(30.0, 20.164, 40.0), "within interval", ""),
        (_ours(30.0, 20.166, 40.0), "contradicted", ""),
        (_ours(10.0), "not attempted", "no interval"),
    ],
)
def test_the_status_of_a_number(ours: Ours | None, status: str, why: str) -> None:
    found = compare(PAPER, ours)
    assert found.status == status
    assert found.why.startswith(why)


def test_a_number_with_three_decimals_is_reproduced_to_three() -> None:
    paper = Published(place="Table 7", row="similar", column="mean", value=0.768, digits=3)
    assert compare(paper, _ours(0.7684, 0.1, 0.2)).status == "reproduced"
    assert compare(paper, _ours(0.7686, 0.1, 0.2)).status == "contradicted"


def test_the_papers_spread_plays_no_part() -> None:
    # 20.16 ± 0.84 would hold 20.9
    assert compare(PAPER, _ours(20.9, 20.5, 21.0)).status == "contradicted"


def test_the_table_counts_every_status() -> None:
    table = paper_table([compare(PAPER, None), compare(PAPER, _ours(20.16))])
    assert table.notes[0] == (
        "2 numbers: 1 reproduced, 0 within interval, 0 contradicted, 1 not attempted."
    )
    assert [row[-2].text for row in table.rows] == ["not attempted", "reproduced"]
