"""Tables 2 to 8 from databases that are written through the program's own interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from results_factory import Results, flat

from analysis.results.reading import read_results
from analysis.results.sections import PAIRS, RANKING
from analysis.tables.lookup import Lookup
from analysis.tables.main import (
    backbone_table,
    case_table,
    detail_table,
    main_table,
    result_tables,
    shots_table,
    sources_table,
)
from analysis.tables.similarity import (
    pilot_notes,
    pilot_table,
    pilot_values,
    similarity_table,
)
from analysis.tables.table import Table, TableCell
from mpt.store.records import Stop

PT = flat({"a": 0.5, "b": 0.4})


def _scores(gain: float) -> dict[str, dict[int, float]]:
    """Return scores with the same relative gain (in %) on every task."""
    return flat({"a": 0.5 * (1 + gain / 100), "b": 0.4 * (1 + gain / 100)})


def _look(root: Path) -> Lookup:
    return Lookup(read_results(root).main)


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
        ({"smoke": True}, "smoke"),
        ({"point": {"status": "diverged"}}, "diverged"),
    ],
)
def test_what_a_record_says_of_itself_is_marked(
    body: dict[str, Any], flag: str, tmp_path: Path
) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(20), PT, **body)
    cell = _at(main_table(_look(tmp_path)), "MAML", "Cls→Cls")
    assert cell.flags == (flag,)
    assert (cell.value is None) == (flag == "diverged")
    assert cell.link is not None


def test_a_trial_that_was_stopped_before_its_runs_were_there_is_marked(tmp_path: Path) -> None:
    results = Results(tmp_path)
    point = results.point("maml", "cls_to_cls", {"a": _scores(20)["a"]}, PT)
    assert _at(main_table(_look(tmp_path)), "MAML", "Cls→Cls").flags == ("some_tasks",)
    stop = Stop(point=point, trial="t", steps=100, by="racing", reason="1 < 2")
    results.database.add_stop(stop)
    flags = _at(main_table(_look(tmp_path)), "MAML", "Cls→Cls").flags
    assert flags == ("some_tasks", "stopped")


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


def test_a_missing_run_leaves_a_count_a_mark_and_a_reason(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", _scores(20), PT, without=[("b", 13, 0.5)])
    look = _look(tmp_path)
    cell = _at(main_table(look), "MAML", "Cls→Cls")
    assert (cell.count, cell.flags) == ("7/8", ("some_tasks",))
    assert "Cls→Cls MAML: b: method lacks data seed 13" in detail_table(look).notes


def test_a_note_is_said_once_for_all_rows_it_is_of(tmp_path: Path) -> None:
    results = Results(tmp_path)
    low = flat({"a": 0.5, "b": 0.0})
    for method in ("maml", "reptile"):
        results.point(method, "cls_to_cls", _scores(20), low)
    results.point("maml", "qa_to_qa", _scores(20), PT, without=[("b", 13, 0.5)])
    _, *notes = detail_table(_look(tmp_path)).notes
    zero = "b: the baseline scores 0, a relative gain needs more than 0"
    assert f"Cls→Cls MAML, Reptile: {zero}" in notes
    assert "QA→QA MAML: b: method lacks data seed 13" in notes
    assert sum(zero in note for note in notes) == 1


def test_a_note_of_every_row_does_not_list_them(tmp_path: Path) -> None:
    results = Results(tmp_path)
    low = flat({"a": 0.5, "b": 0.0})
    for method in ("maml", "reptile"):
        results.point(method, "cls_to_cls", _scores(20), low)
    _, *notes = detail_table(_look(tmp_path)).notes
    assert notes == ["all rows: b: the baseline scores 0, a relative gain needs more than 0"]


def test_fine_tuning_serves_the_partitions_with_the_same_target_tasks(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("fine_tuning", "cls_to_cls", _scores(16), PT)
    results.point("maml", "both_to_cls", _scores(3), PT)
    results.point("maml", "noncls_to_cls", _scores(3), PT, edited={"a": "edited"})
    results.point("maml", "qa_to_qa", flat({"c": 0.5}), flat({"c": 0.5}))
    table = main_table(_look(tmp_path))
    shared = _at(table, "FT", "Both→Cls")
    assert shared.value == pytest.approx(16.0, rel=1e-12)
    assert shared.flags == ("same_targets",)
    assert _at(table, "FT", "Cls→Cls").flags == ()
    assert _at(table, "FT", "QA→QA").value is None
    assert _at(table, "FT", "Non-Cls→Cls").value is None  # other data


def test_table_3_has_the_target_shots_and_figure_3_the_source_shots(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for gain, shots in ((20, None), (9, 32), (3, "all")):
        for which in ("target_shots", "source_shots"):
            if shots is None and which == "source_shots":
                continue
            results.point(
                "maml", "cls_to_cls", _scores(gain), PT, **{which: shots},
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
            "maml", "cls_to_cls", _scores(gain), PT, source_set=name, sources=sources,
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
        results.point("maml", "nonpara_to_para", _scores(gain), PT, backbone=name)
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
    assert Lookup(read_results(tmp_path).main, backbone="small").backbone == "small"


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


def test_table_7_shows_the_pairs_of_its_backbone_and_their_means(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", _scores(20), PT)
    assert similarity_table(_look(tmp_path)).legend[0] == "Nothing of this is recorded."
    pairs = {"similar": [["a", "b", 0.75], ["c", "d", 0.25]], "dissimilar": []}
    for backbone in ("embedded-bart", "embedded"):
        body = {"gym": "embedded", "smoke": False, "backbone": backbone, "about": backbone}
        found = pairs if backbone == "embedded" else {"similar": [["a", "b", 0.1]]}
        results.database.put_document(PAIRS, backbone, {**body, "pairs": found})
    table = similarity_table(_look(tmp_path))
    assert [row[3].value for row in table.rows] == [0.75, 0.25, 0.5]
    assert table.rows[2][1].text == "mean"
    assert table.notes == ("embedded",)


def test_table_8_has_the_gain_on_each_target_by_choice_of_sources(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for task in ("a", "b"):
        for gain, how in ((7, "highest5"), (3, "random5"), (1, "lowest5")):
            results.point(
                "maml", "cls_to_cls", {task: _scores(gain)[task]}, {task: PT[task]},
                source_set=f"{how}-{task}",
            )  # fmt: skip
    table = pilot_table(pilot_values(_look(tmp_path)))
    assert table.columns == ("target task", "highest5", "random5", "lowest5")
    for task, row in zip("ab", table.rows, strict=True):
        assert row[0].text == task
        assert [cell.value for cell in row[1:]] == pytest.approx([7.0, 3.0, 1.0], rel=1e-9)


def test_notes_of_table_8_list_the_sources_with_their_similarities(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point(
        "maml", "cls_to_cls", {"a": PT["a"]}, {"a": PT["a"]}, source_set="lowest2-a", sources=2
    )
    about = "Sources are ranked by the similarity of tuned prompts, as in the paper (A.7)."
    assert pilot_notes(_look(tmp_path)) == (about, "a, lowest2: s00, s01")
    body = {
        "by": "prompts",
        "gym": "embedded",
        "smoke": False,
        "backbone": "embedded",
        "partition": "cls_to_cls",
        "target": "a",
    }
    for name, ranked in (("one", [["s01", 0.5], ["s00", 0.25]]), ("two", [["s01", 0.75]])):
        results.database.put_document(RANKING, name, {**body, "ranked": ranked})
        found = pilot_notes(_look(tmp_path))
        # of rankings that contradict each other none is told
        listed = "s01 0.500, s00 0.250" if name == "one" else "s00, s01"
        assert found == (about, f"a, lowest2: {listed}")


def test_sources_ranked_by_inputs_have_a_column_and_a_caveat_of_their_own(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for gain, how in ((7, "highest5-a"), (3, "highest5-a-by_inputs")):
        results.point(
            "maml", "cls_to_cls", {"a": _scores(gain)["a"]}, {"a": PT["a"]}, source_set=how
        )
    body = {
        "gym": "embedded",
        "smoke": False,
        "backbone": "embedded",
        "partition": "cls_to_cls",
        "target": "a",
        "ranked": [["s00", 0.5]],
    }
    results.database.put_document(RANKING, "of inputs, as stored before prompts were", body)
    look = _look(tmp_path)
    table = pilot_table(pilot_values(look), pilot_notes(look))
    assert table.columns == ("target task", "highest5", "highest5, by inputs")
    assert [cell.value for cell in table.rows[0][1:]] == pytest.approx([7.0, 3.0], rel=1e-9)
    assert "The paper ranks them by tuned prompts" in table.notes[1]
    own, other = (note for note in table.notes if note.startswith("a, highest5"))
    assert ("0.500" in own, "0.500" in other) == (False, True)


def test_a_subset_named_like_a_random_partition_is_no_pilot(tmp_path: Path) -> None:
    Results(tmp_path).point(
        "maml", "cls_to_cls", _scores(1), PT, source_set="random_to_random_12", sources=12
    )
    look = _look(tmp_path)
    assert pilot_values(look) == {}
    assert sources_table(look).columns == ("method", "random_to_random_12 (12 tasks)")


def test_studies_that_claim_one_column_have_columns_of_their_own(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", _scores(20), PT)
    results.point("maml", "cls_to_cls", _scores(-8), PT, edited={"a": "edited"})
    results.point("maml", "cls_to_cls", _scores(4), PT, target_shots=32)
    results.point("maml", "nonpara_to_para", _scores(3), PT)
    results.point("maml", "nonpara_to_para", _scores(5), PT, backbone_digest="0" * 64)
    look = _look(tmp_path)
    ids = {cell.key: cell.study.id for cell in look.targets()}
    by_gain = {round(look.rank_value(cell) or 0): ids[cell.key] for cell in look.targets()}
    table = main_table(look)
    for gain in (20, -8):
        assert _at(table, "MAML", f"Cls→Cls [{by_gain[gain]}]").value == pytest.approx(gain)
    assert "Cls→Cls" not in table.columns
    assert _at(table, "FoMAML", "R→R").value is None
    assert set(shots_table(look, "target").columns[1:]) == {
        f"own [{by_gain[20]}]", f"own [{by_gain[-8]}]", "32",
    }  # fmt: skip
    rows = {row[0].text: row[1].value for row in backbone_table(look).rows}
    assert rows == {
        f"embedded [{by_gain[3]}]": pytest.approx(3.0),
        f"embedded [{by_gain[5]}]": pytest.approx(5.0),
    }
    assert len(detail_table(look).rows) == 4


def test_a_method_that_nobody_knows_has_a_row_of_its_own_everywhere(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for partition in ("cls_to_cls", "nonpara_to_para"):
        results.point("my_method", partition, _scores(30), PT)
    results.point("maml", "cls_to_cls", _scores(20), PT)
    results.point("my_method", "cls_to_cls", _scores(7), PT, target_shots=32)
    results.point("my_method", "cls_to_cls", _scores(5), PT, source_set="12", sources=12)
    look = _look(tmp_path)
    known = ["MAML", "FoMAML", "Reptile", "MTL", "FT"]
    assert [row[0].text for row in main_table(look).rows] == [*known, "my_method"]
    assert _at(main_table(look), "my_method", "Cls→Cls").value == pytest.approx(30.0)
    assert _at(shots_table(look, "target"), "my_method", "32").value == pytest.approx(7.0)
    assert _at(sources_table(look), "my_method", "12 (12 tasks)").value == pytest.approx(5.0)
    assert _at(backbone_table(look), "embedded", "my_method").value == pytest.approx(30.0)
    assert case_table(look).rows[0][2].text == "my_method"


def test_older_settings_of_a_cell_have_a_row_of_their_own(tmp_path: Path) -> None:
    results = Results(tmp_path)
    key = results.point("maml", "cls_to_cls", _scores(1), PT, point={"created": "2025"})
    point = {"trajectory": "other", "settings": {"outer_lr": 9.0}}
    results.point("maml", "cls_to_cls", _scores(20), PT, point=point)
    table = main_table(_look(tmp_path))
    assert _at(table, "MAML", "Cls→Cls").value == pytest.approx(20.0)
    assert _at(table, f"MAML [{key[:8]}]", "Cls→Cls").value == pytest.approx(1.0)


def test_every_table_can_be_made_of_a_search_alone(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(1), PT, role="validation")
    assert len(result_tables(_look(tmp_path))) == 9
