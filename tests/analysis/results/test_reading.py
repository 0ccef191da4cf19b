"""From a database to cells: places, the runs that count, what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from results_factory import SEEDS, Results, flat

from analysis.results.cells import Cell, scores_of
from analysis.results.reading import read_results
from analysis.results.summary import summary_of
from mpt.errors import DataError, UsageError
from mpt.metrics.relative_gain import average_relative_gain
from mpt.seeds import numpy_generator
from mpt.store.records import Cost, Stop

PT = flat({"a": 0.5, "b": 0.4})
MAML = flat({"a": 0.6, "b": 0.2})


def _only(root: Path) -> Cell:
    (cell,) = read_results(root).cells
    return cell


def test_a_point_becomes_a_cell_with_the_place_that_its_study_says(tmp_path: Path) -> None:
    key = Results(tmp_path).point(
        "maml", "cls_to_cls", MAML, PT, source_set="12", sources=12, target_shots=32,
        gym="/data/my tasks",
    )  # fmt: skip
    cell = _only(tmp_path)
    place = cell.place
    assert cell.key == key
    assert (place.role, place.method, place.partition) == ("target", "maml", "cls_to_cls")
    assert (place.source_set, place.source_shots, place.target_shots) == ("12", "own", "32")
    assert (place.backbone, place.gym, place.edition) == ("embedded", "my tasks", "")
    assert (cell.steps, cell.cost["examples"], cell.devices, cell.sources) == (100, 400.0, 1, 12)
    assert cell.counts == (8, 8)  # two tasks, two data seeds, two learning rates
    assert scores_of(cell.tasks) == MAML
    assert scores_of(cell.baseline) == PT


def test_the_best_dev_score_takes_the_run_and_ties_keep_the_earlier_rate(tmp_path: Path) -> None:
    results = Results(tmp_path, lrs=(0.3, 0.5, 0.4), seeds=[13])
    rows = [(0.5, 0.8, 0.1), (0.4, 0.8, 0.2), (0.3, 0.7, 0.3)]  # lr, dev, test
    keys = [results.run("a", 13, lr, init="x", dev=dev, test=test) for lr, dev, test in rows]
    results.point("maml", "cls_to_cls", {}, flat({"a": 0.5}, [13]), runs=keys)
    sample = _only(tmp_path).tasks["a"][13]
    assert [run.lr for run in sample.runs] == [0.3, 0.5, 0.4]
    (taken,) = sample.taken
    # of the two best, the first in the order of the study's recipe
    assert (taken.lr, taken.dev, taken.test) == (0.5, 0.8, 0.1)
    assert taken.run == keys[0]
    assert sample.test == 0.1


def test_fine_tuning_has_learning_rates_of_its_own_and_their_order(tmp_path: Path) -> None:
    results = Results(tmp_path, seeds=[13])
    keys = [results.run("a", 13, lr, init="x", dev=0.7, test=lr) for lr in (1e-4, 3e-4, 5e-4)]
    settings = {"downstream": {"lrs": [3e-4, 5e-4, 1e-4]}}
    results.point(
        "fine_tuning", "cls_to_cls", {}, flat({"a": 0.5}, [13]), runs=keys,
        point={"settings": settings},
    )  # fmt: skip
    sample = _only(tmp_path).tasks["a"][13]
    assert [run.lr for run in sample.runs] == [3e-4, 5e-4, 1e-4]
    assert sample.test == 3e-4


def test_a_missing_run_makes_its_sample_missing_and_never_0(tmp_path: Path) -> None:
    results = Results(tmp_path)
    # the loser on dev is missing: the choice would still not be the recipe's
    results.point("maml", "cls_to_cls", MAML, PT, without=[("a", 21, 0.3)])
    cell = _only(tmp_path)
    sample = cell.tasks["a"][21]
    assert (sample.taken, sample.test, sample.reason) == ((), None, "1 of 2 runs are missing")
    assert sample.runs[1] == (0.3, 42, None)
    assert scores_of(cell.tasks) == {"a": {13: 0.6}, "b": {13: 0.2, 21: 0.2}}
    assert cell.counts == (7, 8)
    assert sample.cost["steps"] == 10
    summary = summary_of(cell)
    assert summary is not None
    assert summary.gain.arg is None
    assert summary.gain.reasons == ("a: method lacks data seed 21",)


def test_at_every_downstream_start_a_run_is_taken_and_their_mean_is_the_score(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path, seeds=[13])
    rows = [  # train seed, lr, dev, test
        *((42, 0.5, 0.9, 0.3), (42, 0.3, 0.1, 0.7)),
        *((1042, 0.5, 0.1, 0.5), (1042, 0.3, 0.2, 0.6)),
    ]
    keys = [
        results.run("a", 13, lr, init="x", train_seed=start, dev=dev, test=test)
        for start, lr, dev, test in rows
    ]
    two, plain = {"starts": 2}, flat({"a": 0.3}, [13])
    results.point("maml", "cls_to_cls", {}, plain, runs=keys, settings=two)
    cell = _only(tmp_path)
    sample = cell.tasks["a"][13]
    assert [(run.train_seed, run.lr) for run in sample.runs] == [row[:2] for row in rows]
    assert [run.key for run in sample.runs] == keys
    assert [(row.run, row.test) for row in sample.taken] == [(keys[0], 0.3), (keys[3], 0.6)]
    assert sample.test == pytest.approx(0.45, rel=1e-12)
    assert sample.cost["steps"] == 4 * 10
    assert (cell.counts, cell.baseline["a"][13].done) == ((4, 4), 4)
    summary = summary_of(cell)
    assert summary is not None
    assert summary.gain.arg == pytest.approx(50.0, rel=1e-9)
    # without one of the second start's there is no score
    other = "upstream learned otherwise"
    results.point(
        "fomaml", "cls_to_cls", {}, plain, runs=keys[:3], settings=two, point={"trajectory": other}
    )
    (found,) = (one for one in read_results(tmp_path).cells if one.place.method == "fomaml")
    lacking = found.tasks["a"][13]
    assert (lacking.taken, lacking.test) == ((), None)
    assert lacking.reason == "1 of 4 runs are missing"
    assert found.counts == (3, 4)


def test_a_study_whose_baseline_is_not_there_yet_has_cells_without_a_gain(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, {}, tasks=["a", "b"])
    cell = _only(tmp_path)
    assert scores_of(cell.tasks) == MAML
    assert scores_of(cell.baseline) == {"a": {}, "b": {}}
    summary = summary_of(cell)
    assert summary is not None
    assert summary.value is None


def test_a_test_score_of_0_is_a_score(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", flat({"a": 0.0}), flat({"a": 0.5}))
    cell = _only(tmp_path)
    assert scores_of(cell.tasks) == flat({"a": 0.0})
    summary = summary_of(cell)
    assert summary is not None
    assert summary.gain.arg == pytest.approx(-100.0, rel=1e-12)


def test_a_sample_whose_runs_all_diverged_says_so(tmp_path: Path) -> None:
    results = Results(tmp_path, lrs=(0.5,), seeds=[13])
    key = results.run("a", 13, 0.5, init="x", dev=None, test=None, status="diverged")
    results.point("maml", "cls_to_cls", {}, flat({"a": 0.5}, [13]), runs=[key])
    sample = _only(tmp_path).tasks["a"][13]
    assert (sample.taken, sample.test, sample.reason) == ((), None, "every run diverged")


def test_the_summary_is_the_score_that_the_search_itself_computes(tmp_path: Path) -> None:
    results = Results(tmp_path)
    scores = {"a": {13: 0.6, 21: 0.9}, "b": {13: 0.2, 21: 0.3}}
    results.point("maml", "cls_to_cls", scores, PT)
    summary = summary_of(_only(tmp_path))
    assert summary is not None
    rng = numpy_generator(42, "bootstrap")
    assert summary.gain == average_relative_gain(scores, PT, ["a", "b"], SEEDS, rng=rng)


def test_the_cost_of_a_sample_is_the_sum_over_its_learning_rates(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", MAML, PT)
    cost = {"steps": 20, "tokens": 2000, "seconds": 3.0}
    assert _only(tmp_path).tasks["a"][13].cost == cost


def test_of_the_rungs_of_a_trajectory_the_longest_stands_for_the_target_cell(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    keys = [
        results.point("maml", "cls_to_cls", MAML, PT, point={"steps": n}) for n in (50, 100, 25)
    ]
    section = read_results(tmp_path).main
    assert [cell.key for cell in section.cells] == [keys[1]]
    assert [cell.steps for cell in section.rungs[keys[1]]] == [25, 50, 100]


def test_the_points_of_a_search_are_all_cells(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for trajectory in ("x", "y"):
        for steps in (50, 100):
            results.point(
                "maml", "random_to_random", MAML, PT, role="validation",
                point={"trajectory": trajectory, "steps": steps},
            )  # fmt: skip
    section = read_results(tmp_path).main
    assert len(section.cells) == 4
    assert section.select(role="target") == []
    assert len(section.select(role="validation", method="maml")) == 4


def test_a_diverged_cell_has_no_summary_and_keeps_its_note(tmp_path: Path) -> None:
    point = {"status": "diverged", "note": "loss nan", "prompt": None}
    Results(tmp_path).point("maml", "cls_to_cls", {}, PT, point=point)
    cell = _only(tmp_path)
    assert (cell.status, cell.note, summary_of(cell)) == ("diverged", "loss nan", None)


def test_a_point_is_stopped_only_if_runs_are_missing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name, without in (("maml", [("a", 13, 0.5)]), ("reptile", [])):
        key = results.point(name, "random_to_random", MAML, PT, role="validation", without=without)
        stop = Stop(point=key, trial="t", steps=100, by="racing", reason="1 < 2")
        results.database.add_stop(stop)
    section = read_results(tmp_path).main
    said = {cell.place.method: (cell.status, cell.note) for cell in section.cells}
    assert said["maml"] == ("stopped", "stopped by racing at rung 100: 1 < 2")
    assert said["reptile"] == ("ok", "")
    assert len(section.stops) == 2


def test_a_run_that_a_study_does_not_ask_for_is_named_and_left_out(tmp_path: Path) -> None:
    results = Results(tmp_path)
    keys = [results.run(task, 13, 0.5, init="x") for task in ("a", "strange")]
    keys.append(results.run("a", 13, 9.0, init="x", dev=1.0))
    point = results.point("maml", "cls_to_cls", {}, flat({"a": 0.5}), runs=keys)
    found = read_results(tmp_path)
    assert [line.split(" are ")[0] for line in found.problems] == [
        f"point {point}: its runs of a, data seed 13, learning rate 9",
        f"point {point}: its runs of strange, data seed 13, learning rate 0.5",
    ]
    assert set(found.cells[0].tasks) == {"a"}
    assert found.cells[0].tasks["a"][13].done == 1


def test_a_score_that_somebody_edited_is_named_and_missing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, PT)
    key = _only(tmp_path).tasks["b"][13].runs[0].key
    results.edit("update run set test = 0.99 where key = ?", key)
    found = read_results(tmp_path)
    (line,) = found.problems
    assert str(key)[:8] in line
    assert "checksum" in line
    assert scores_of(found.cells[0].tasks)["b"] == {21: 0.2}
    assert found.cells[0].tasks["b"][13].reason == "1 of 2 runs are missing"


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("update point set steps = 900 where method = 'maml'", "point"),
        ("update study set precision = 'float16' where partition = 'cls_to_cls'", "study"),
    ],
)
def test_a_point_or_study_that_somebody_edited_is_named_and_left_out(
    command: str, what: str, tmp_path: Path
) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, PT)
    results.point("reptile", "qa_to_qa", MAML, PT)
    results.edit(command)
    found = read_results(tmp_path)
    assert [cell.place.method for cell in found.cells] == ["reptile"]
    assert found.problems[0].startswith(f"{what} ")


def test_a_study_that_is_only_begun_is_no_problem(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, PT)
    results.database.add_study(results.study("qa_to_qa", ["a"]))
    found = read_results(tmp_path)
    assert (len(found.cells), found.problems) == (1, ())


def test_reading_writes_nothing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", MAML, PT)
    results.close()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    section = read_results(tmp_path).main
    assert section.runs([section.cells[0].point.runs[0]])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_runs_are_read_by_key(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", MAML, PT)
    section = read_results(tmp_path).main
    key = section.cells[0].point.runs[0]
    assert section.runs([key, "absent"])[key].identity.task in ("a", "b")


def test_a_database_may_stand_elsewhere(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.point("maml", "cls_to_cls", MAML, PT)
    results.close()
    shutil.move(tmp_path / "results" / "mpt.db", tmp_path / "other.db")
    section = read_results(tmp_path / "absent", store=str(tmp_path / "other.db")).main
    assert len(section.runs(section.cells[0].point.runs)) == 8


def test_no_database_and_no_points_are_errors_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run a search first"):
        read_results(tmp_path / "absent")
    results = Results(tmp_path)
    with pytest.raises(DataError, match="holds no point of a method; run a search into it first"):
        read_results(tmp_path)
    # a baseline alone is nothing to show either
    results.point("prompt_tuning", "cls_to_cls", {}, PT, point={"steps": 0, "trajectory": ""})
    with pytest.raises(DataError, match="holds no point of a method"):
        read_results(tmp_path)


def test_a_cost_that_was_not_recorded_is_0(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", MAML, PT, point={"cost": Cost()})
    assert set(_only(tmp_path).cost.values()) == {0.0}


def test_data_seeds_are_those_of_the_study(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", {"a": {13: 0.5}}, PT)
    assert _only(tmp_path).seeds == SEEDS
