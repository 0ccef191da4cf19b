from __future__ import annotations

from pathlib import Path

import pytest
from results_factory import SEEDS, Results, flat

from analysis.results.cells import Cell, scores_of
from analysis.results.reading import load_study
from analysis.results.summary import summary_of
from mpt.errors import DataError, UsageError
from mpt.trial.objective import score_point

PT = flat({"a": 0.5, "b": 0.4})
MAML = flat({"a": 0.6, "b": 0.2})


def _only(root: Path) -> Cell:
    cells = load_study(root).cells
    assert len(cells) == 1
    return cells[0]


def test_a_point_becomes_a_cell_with_the_place_that_its_record_says(tmp_path: Path) -> None:
    key = Results(tmp_path).point("maml", "cls_to_cls", MAML, PT, source_set="12", target_shots=32)
    cell = _only(tmp_path)
    place = cell.place
    assert cell.key == key
    assert (place.role, place.method, place.partition) == ("target", "maml", "cls_to_cls")
    assert (place.source_set, place.source_shots, place.target_shots) == ("12", "own", "32")
    assert (cell.steps, cell.cost["examples"], cell.devices) == (100, 400.0, 1)
    assert cell.leaves == (8, 8)  # two tasks, two data seeds, two learning rates
    assert scores_of(cell.tasks) == MAML
    assert scores_of(cell.baseline) == PT


def test_the_best_dev_score_takes_the_run_and_ties_keep_the_earlier_rate(tmp_path: Path) -> None:
    results = Results(tmp_path, lrs=(0.5, 0.4, 0.3))
    rows = [(0.5, 0.7, 0.1), (0.4, 0.8, 0.2), (0.3, 0.8, 0.3)]  # lr, dev, test
    keys = [
        (lr, results.leaf("a", 13, lr, init="x", dev=dev, test=test)) for lr, dev, test in rows
    ]
    results.point("maml", "cls_to_cls", {}, flat({"a": 0.5}, [13]), leaves={"a": {"13": keys}})
    taken = _only(tmp_path).tasks["a"][13].taken
    assert taken is not None
    assert (taken.lr, taken.dev, taken.test, taken.key) == (0.4, 0.8, 0.2, keys[1][1])
    assert (taken.data, taken.metric) == ("data of a 13", "ACC")


def test_a_missing_leaf_makes_its_sample_missing_and_never_0(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, PT)
    # the loser on dev is missing: the choice would still not be the recipe's
    key = _only(tmp_path).tasks["a"][21].keys[1][1]
    (tmp_path / "leaves" / key[:2] / f"{key}.json").unlink()
    cell = _only(tmp_path)
    assert cell.tasks["a"][21].taken is None
    assert cell.tasks["a"][21].reason == "1 of 2 leaves are missing"
    assert scores_of(cell.tasks) == {"a": {13: 0.6}, "b": {13: 0.2, 21: 0.2}}
    assert cell.leaves == (7, 8)
    summary = summary_of(cell)
    assert summary is not None
    assert summary.gain.arg is None
    assert summary.gain.reasons == ("a: method lacks data seed 21",)


def test_a_test_score_of_0_is_a_score(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", flat({"a": 0.0}), flat({"a": 0.5}))
    cell = _only(tmp_path)
    assert scores_of(cell.tasks) == flat({"a": 0.0})
    summary = summary_of(cell)
    assert summary is not None
    assert summary.gain.arg == pytest.approx(-100.0, rel=1e-12)


def test_a_sample_whose_runs_all_diverged_says_so(tmp_path: Path) -> None:
    results = Results(tmp_path, lrs=(0.5,))
    key = results.leaf("a", 13, 0.5, init="x", dev=None, test=None, status="diverged")
    results.point(
        "maml", "cls_to_cls", {}, flat({"a": 0.5}, [13]), leaves={"a": {"13": [(0.5, key)]}}
    )
    sample = _only(tmp_path).tasks["a"][13]
    assert (sample.taken, sample.reason) == (None, "every run diverged")


def test_the_summary_is_the_score_that_the_search_itself_computes(tmp_path: Path) -> None:
    results = Results(tmp_path)
    scores = {"a": {13: 0.6, 21: 0.9}, "b": {13: 0.2, 21: 0.3}}
    results.point("maml", "cls_to_cls", scores, PT)
    summary = summary_of(_only(tmp_path))
    theirs = score_point(results.points.all()[0], results.leaves).gain
    assert summary is not None
    assert summary.gain == theirs


def test_the_cost_of_a_sample_is_the_sum_over_its_learning_rates(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", MAML, PT)
    assert _only(tmp_path).tasks["a"][13].cost == {
        "steps": 20, "examples": 160, "tokens": 2000, "seconds": 3.0,
    }  # fmt: skip


def test_of_the_rungs_of_a_trajectory_the_longest_stands_for_the_target_cell(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    keys = [results.point("maml", "cls_to_cls", MAML, PT, steps=steps) for steps in (50, 100, 25)]
    study = load_study(tmp_path)
    assert [cell.key for cell in study.cells] == [keys[1]]
    assert [cell.steps for cell in study.rungs[keys[1]]] == [25, 50, 100]


def test_the_points_of_a_search_are_all_cells(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for trajectory in ("x", "y"):
        for steps in (50, 100):
            results.point(
                "maml", "random_to_random", MAML, PT,
                role="validation", trajectory=trajectory, steps=steps,
            )  # fmt: skip
    study = load_study(tmp_path)
    assert len(study.cells) == 4
    assert study.select(role="target") == []
    assert len(study.select(role="validation", method="maml")) == 4


def test_two_records_of_one_target_cell_are_an_error_that_names_both_and_the_difference(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    one = results.point("maml", "cls_to_cls", MAML, PT, identity={"downstream": {"steps": 10}})
    two = results.point("maml", "cls_to_cls", MAML, PT, identity={"downstream": {"steps": 20}})
    with pytest.raises(DataError) as caught:
        load_study(tmp_path)
    text = str(caught.value)
    assert one in text
    assert two in text
    assert "downstream.steps" in text
    assert "move one of them out of points/" in text
    assert "\n" not in text


def test_two_settings_for_one_target_cell_are_contradictory(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for lr in (0.1, 0.2):
        results.point("maml", "cls_to_cls", MAML, PT, trajectory=f"{lr}", config={"outer_lr": lr})
    with pytest.raises(DataError, match=r"config\.outer_lr \(0\.[12] and 0\.[12]\)"):
        load_study(tmp_path)


def test_pilots_with_other_target_tasks_stand_side_by_side(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for task in ("a", "b"):
        results.point(
            "maml", "cls_to_cls", {task: MAML[task]}, {task: PT[task]},
            source_set="highest5", trajectory=task,
        )  # fmt: skip
    assert [set(cell.tasks) for cell in load_study(tmp_path).cells] == [{"a"}, {"b"}]


def test_a_partial_record_gives_way_to_a_whole_one_with_a_note(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point(
        "maml", "cls_to_cls", {"a": MAML["a"]}, {"a": PT["a"]},
        partial="partial: 1 of 2 target tasks missing", trajectory="old",
    )  # fmt: skip
    whole = results.point("maml", "cls_to_cls", MAML, PT, trajectory="new")
    study = load_study(tmp_path)
    assert [cell.key for cell in study.cells] == [whole]
    assert len(study.notes) == 1
    assert "1 of 2 target tasks missing" in study.notes[0]


def test_different_baselines_of_one_sample_are_noted(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, PT)
    assert load_study(tmp_path).notes == ()
    other = results.table(flat({"a": 0.5, "b": 0.1}), "another start")
    results.point("reptile", "cls_to_cls", MAML, PT, baseline=other)
    notes = load_study(tmp_path).notes
    assert [note.split(":")[0] for note in notes] == ["a", "b"]
    assert "have different baselines" in notes[0]


def test_a_point_that_names_the_leaf_of_another_run_is_an_error(tmp_path: Path) -> None:
    results = Results(tmp_path)
    table = results.table(PT, "x")
    table["a"], table["b"] = table["b"], table["a"]
    point = results.point("maml", "cls_to_cls", MAML, PT, leaves=table)
    with pytest.raises(DataError, match=f"point {point} names leaf"):
        load_study(tmp_path)


def test_a_diverged_cell_has_no_summary_and_keeps_its_note(tmp_path: Path) -> None:
    Results(tmp_path).point(
        "maml", "cls_to_cls", {}, {}, status="diverged", note="loss nan", prompt=None
    )
    cell = _only(tmp_path)
    assert (cell.status, cell.note, summary_of(cell)) == ("diverged", "loss nan", None)


def test_records_of_older_programs_are_points_of_a_search(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point(
        "maml", "cls_to_cls", MAML, PT,
        role=None, backbone=None, gym=None, source_set=None, sources=None,
    )  # fmt: skip
    place = _only(tmp_path).place
    assert (place.role, place.backbone) == ("validation", "digest bbbbbbbbbbbb")


def test_torn_files_are_named_and_leave_their_numbers_missing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, PT)
    key = _only(tmp_path).tasks["b"][13].keys[0][1]
    path = tmp_path / "leaves" / key[:2] / f"{key}.json"
    path.write_bytes(path.read_bytes()[:40])
    (tmp_path / "points" / "foreign.json").write_text("{}")
    study = load_study(tmp_path)
    assert [str(path.parent) in line or "foreign.json" in line for line in study.problems]
    assert len(study.problems) == 2
    assert scores_of(study.cells[0].tasks)["b"] == {21: 0.2}


def test_reading_writes_nothing(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", MAML, PT)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load_study(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_no_directory_and_no_points_are_errors_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory; run a search first"):
        load_study(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no point record; run a search into it first"):
        load_study(tmp_path)


def test_a_record_without_its_parts_is_an_error_that_names_it(tmp_path: Path) -> None:
    key = Results(tmp_path).point("maml", "cls_to_cls", MAML, PT, leaves=None)
    with pytest.raises(DataError, match=f"point {key}: is no point record of this program"):
        load_study(tmp_path)


def test_data_seeds_are_those_of_the_leaves(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", MAML, PT)
    assert _only(tmp_path).seeds == SEEDS
