"""Tables 2 to 8 from records that are written by the program's own stores."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_factory import Results, flat

from analysis.results.reading import load_study
from analysis.tables.lookup import Lookup
from analysis.tables.main import (
    backbone_table,
    case_table,
    detail_table,
    main_table,
    pilot_table,
    pilot_values,
    result_tables,
    shots_table,
    similarity_table,
    sources_table,
)
from analysis.tables.table import Table, TableCell
from mpt.errors import DataError

PT = flat({"a": 0.5, "b": 0.4})


def _scores(gain: float) -> dict[str, dict[int, float]]:
    """Return scores with the same relative gain (in %) on every task."""
    return flat({"a": 0.5 * (1 + gain / 100), "b": 0.4 * (1 + gain / 100)})


def _look(root: Path) -> Lookup:
    return Lookup(load_study(root))


def _at(table: Table, row: str, column: str) -> TableCell:
    line = next(line for line in table.rows if line[0].text == row)
    return line[table.columns.index(column)]


def test_table_2_has_a_row_a_method_and_a_column_a_partition(tmp_path: Path) -> None:
    results = Results(tmp_path)
    key = results.point("maml", "cls_to_cls", _scores(20), PT)
    results.point("multitask", "qa_to_qa", _scores(-5), PT)
    table = main_table(_look(tmp_path))
    assert [row[0].text for row in table.rows] == ["MAML", "FoMAML", "Reptile", "MTL", "FT"]
    assert table.columns[1:3] == ("R→R", "Cls→Cls")
    assert len(table.columns) == 11
    cell = _at(table, "MAML", "Cls→Cls")
    assert cell.value == pytest.approx(20.0, rel=1e-12)
    assert (cell.done, cell.of, cell.flags, cell.link) == (8, 8, (), f"cells/{key}.html")
    assert _at(table, "MTL", "QA→QA").value == pytest.approx(-5.0, rel=1e-12)


def test_a_cell_that_was_not_run_is_missing_and_never_0(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(20), PT)
    cell = _at(main_table(_look(tmp_path)), "Reptile", "R→R")
    assert (cell.value, cell.number, cell.link) == (None, "–", None)


def test_points_of_a_search_do_not_stand_in_table_2(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(20), PT, role="validation")
    assert _at(main_table(_look(tmp_path)), "MAML", "Cls→Cls").value is None


@pytest.mark.parametrize(
    ("body", "flag"),
    [
        ({"partial": "partial: 1 target task missing"}, "partial"),
        ({"status": "stopped", "note": "raced away"}, "stopped"),
        ({"status": "diverged", "leaves": {}, "baseline": {}}, "diverged"),
    ],
)
def test_what_a_record_says_of_itself_is_marked(
    body: dict[str, object], flag: str, tmp_path: Path
) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(20), PT, **body)
    cell = _at(main_table(_look(tmp_path)), "MAML", "Cls→Cls")
    assert cell.flags == (flag,)
    assert (cell.value is None) == (flag == "diverged")
    assert cell.link is not None


def test_a_baseline_near_zero_is_marked_and_named_with_the_mean_without_it(
    tmp_path: Path,
) -> None:
    scores = flat({"a": 0.6, "b": 0.08})  # +20 %, and +300 % over 0.02
    Results(tmp_path).point("maml", "cls_to_cls", scores, flat({"a": 0.5, "b": 0.02}))
    look = _look(tmp_path)
    assert _at(main_table(look), "MAML", "Cls→Cls").flags == ("near_zero",)
    table = detail_table(look)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["ARG %"].value == pytest.approx(160.0, rel=1e-9)
    assert row["median RG %"].value == pytest.approx(160.0, rel=1e-9)
    assert row["near zero"].text == "b"
    assert row["ARG % without them"].value == pytest.approx(20.0, rel=1e-9)
    assert row["over tasks"].low == pytest.approx(20.0, rel=1e-9)
    assert row["tasks with RG"].text == "2/2"


def test_a_missing_leaf_leaves_a_count_a_mark_and_a_reason(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", _scores(20), PT)
    key = load_study(tmp_path).cells[0].tasks["b"][13].keys[0][1]
    (tmp_path / "leaves" / key[:2] / f"{key}.json").unlink()
    look = _look(tmp_path)
    cell = _at(main_table(look), "MAML", "Cls→Cls")
    assert (cell.count, cell.flags) == ("7/8", ("some_tasks",))
    assert "Cls→Cls MAML: b: method lacks data seed 13" in detail_table(look).notes


def test_fine_tuning_serves_the_partitions_with_the_same_target_tasks(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("fine_tuning", "cls_to_cls", _scores(16), PT, trajectory=None)
    results.point("maml", "both_to_cls", _scores(3), PT)
    results.point("maml", "qa_to_qa", flat({"c": 0.5}), flat({"c": 0.5}))
    table = main_table(_look(tmp_path))
    shared = _at(table, "FT", "Both→Cls")
    assert shared.value == pytest.approx(16.0, rel=1e-12)
    assert shared.flags == ("same_targets",)
    assert _at(table, "FT", "Cls→Cls").flags == ()
    assert _at(table, "FT", "QA→QA").value is None


def test_table_3_has_the_target_shots_and_figure_3_the_source_shots(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for gain, shots in ((20, None), (9, 32), (3, "all")):
        for which in ("target_shots", "source_shots"):
            if shots is None and which == "source_shots":
                continue
            results.point(
                "maml", "cls_to_cls", _scores(gain), PT,
                trajectory=f"{which} {shots}", **{which: shots},
            )  # fmt: skip
    look = _look(tmp_path)
    for which in ("target", "source"):
        table = shots_table(look, which)
        assert table.columns == ("method", "own", "32", "all")
        values = [cell.value for cell in table.rows[0][1:]]
        assert values == pytest.approx([20.0, 9.0, 3.0], rel=1e-9)


def test_table_4_has_the_sizes_of_the_source_sets_in_order(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for gain, name, sources in ((20, "all", 45), (8, "12", 12), (12, "24", 24), (1, "lowest5", 5)):
        results.point(
            "maml", "cls_to_cls", _scores(gain), PT,
            source_set=name, sources=sources, trajectory=name,
        )  # fmt: skip
    table = sources_table(_look(tmp_path))
    assert table.columns == ("method", "12 (12 tasks)", "24 (24 tasks)", "all (45 tasks)")
    values = [cell.value for cell in table.rows[0][1:]]
    assert values == pytest.approx([8.0, 12.0, 20.0], rel=1e-9)


def test_table_5_has_a_row_a_backbone_with_the_papers_name_where_it_has_one(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    for gain, name in ((14, "google/t5-xl-lm-adapt"), (3, "toy-bart")):
        results.point("maml", "nonpara_to_para", _scores(gain), PT, backbone=name, trajectory=name)
    table = backbone_table(_look(tmp_path))
    assert _at(table, "T5-XL (google/t5-xl-lm-adapt)", "MAML").value == pytest.approx(14.0)
    assert _at(table, "toy-bart", "MAML").value == pytest.approx(3.0)
    assert _at(table, "toy-bart", "FT").value is None


def test_the_single_backbone_of_the_other_tables_is_t5_large_or_the_one_with_most_cells(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    for partition in ("cls_to_cls", "qa_to_qa"):
        results.point("maml", partition, _scores(1), PT, backbone="small")
    assert _look(tmp_path).backbone == "small"
    results.point("maml", "cls_to_cls", _scores(2), PT, backbone="google/t5-large-lm-adapt")
    assert _look(tmp_path).backbone == "google/t5-large-lm-adapt"
    assert Lookup(load_study(tmp_path), backbone="small").backbone == "small"


def test_table_6_takes_the_meta_method_of_the_highest_arg_on_the_partition(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    # MAML wins on task a alone, FoMAML on the mean; Reptile's last task is missing
    results.point("maml", "qa_to_qa", flat({"a": 0.8, "b": 0.2}), PT)
    results.point("fomaml", "qa_to_qa", _scores(10), PT)
    results.point("reptile", "qa_to_qa", {**_scores(90), "b": {13: 0.9}}, PT)
    results.point("multitask", "qa_to_qa", _scores(-4), PT)
    table = case_table(_look(tmp_path))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["task"].text, row["partition"].text, row["best MPT"].text) == (
        "a", "QA→QA", "FoMAML",
    )  # fmt: skip
    assert row["ΔMPT"].value == pytest.approx(10.0, rel=1e-9)
    assert row["ΔMPT"].count == "4/4"  # of this task
    assert row["ΔMTL"].value == pytest.approx(-4.0, rel=1e-9)


def test_table_6_is_the_papers_where_its_tasks_are_there(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "qa_to_qa", flat({"ai2_arc": 0.6}), flat({"ai2_arc": 0.5}))
    table = case_table(_look(tmp_path))
    assert len(table.rows) == 8
    assert {cell.value for row in table.rows for cell in row[3:]} == {None}


def test_table_7_shows_the_given_pairs_and_their_means() -> None:
    table = similarity_table({"similar": [("a", "b", 0.75), ("c", "d", 0.25)], "dissimilar": []})
    assert [row[3].value for row in table.rows] == [0.75, 0.25, 0.5]
    assert table.rows[2][1].text == "mean"
    assert similarity_table({}).legend[0] == "Nothing of this is recorded."


def test_table_8_has_the_gain_on_each_target_by_choice_of_sources(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for task in ("a", "b"):
        for gain, name in ((7, "highest5"), (3, f"random5:{task}"), (1, "lowest5")):
            results.point(
                "maml", "cls_to_cls", {task: _scores(gain)[task]}, {task: PT[task]},
                source_set=name, trajectory=f"{task} {name}",
            )  # fmt: skip
    table = pilot_table(pilot_values(_look(tmp_path)))
    assert table.columns == ("target task", "highest5", "random5", "lowest5")
    for task, row in zip("ab", table.rows, strict=True):
        assert row[0].text == task
        assert [cell.value for cell in row[1:]] == pytest.approx([7.0, 3.0, 1.0], rel=1e-9)


def test_a_subset_named_like_a_random_partition_is_no_pilot(tmp_path: Path) -> None:
    Results(tmp_path).point(
        "maml", "cls_to_cls", _scores(1), PT, source_set="random_to_random_12", sources=12
    )
    look = _look(tmp_path)
    assert pilot_values(look) == {}
    assert sources_table(look).columns == ("method", "random_to_random_12 (12 tasks)")


def test_two_records_of_different_tasks_for_one_table_cell_are_an_error(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for task in ("a", "b"):
        results.point("maml", "cls_to_cls", {task: PT[task]}, {task: PT[task]}, trajectory=task)
    with pytest.raises(DataError, match="both are maml on cls_to_cls"):
        main_table(_look(tmp_path))


def test_every_table_can_be_made_of_a_search_alone(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(1), PT, role="validation")
    assert len(result_tables(_look(tmp_path))) == 9
