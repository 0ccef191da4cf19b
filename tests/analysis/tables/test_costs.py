from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from results_factory import SEEDS, Results, flat

from analysis.results.reading import read_results
from analysis.tables.costs import (
    budget_table,
    common_budget,
    cost_table,
    device_hours,
    downstream_cost,
    search_budget_table,
    within_budget,
)
from analysis.tables.lookup import Lookup
from analysis.tables.searches import search_tables
from mpt.store.records import Cost, Stop, point_key

PT = flat({"a": 0.5})


def _scores(gain: float) -> dict[str, dict[int, float]]:
    return flat({"a": 0.5 * (1 + gain / 100)})


def _look(root: Path) -> Lookup:
    return Lookup(read_results(root).main)


def _rungs(
    results: Results, method: str, gains: dict[int, float], name: str = "", **study: Any
) -> None:
    for steps, gain in gains.items():
        point = {"steps": steps, "trajectory": f"{method} {name}"}
        results.point(method, "cls_to_cls", _scores(gain), PT, point=point, **study)


def test_costs_stand_beside_the_score(tmp_path: Path) -> None:
    point = {
        "cost": Cost(steps=100, examples=400, seconds=1800.0),
        "provenance": {"devices": 2, "machine": {"system": "Linux", "device": "a GPU"}},
    }
    Results(tmp_path).point("maml", "cls_to_cls", _scores(20), PT, point=point)
    look = _look(tmp_path)
    table = cost_table(look)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["ARG %"].value == pytest.approx(20.0)
    assert (row["upstream steps"].value, row["upstream samples"].value) == (100, 400)
    assert row["upstream device-hours"].value == pytest.approx(1.0, rel=1e-12)
    # one task, two data seeds, two learning rates: four runs of 10 steps, 1000 tokens, 1.5 s
    assert row["runs"].text == "4"
    assert (row["downstream steps"].value, row["downstream tokens"].value) == (40, 4000)
    assert downstream_cost(look.section.cells[0])["seconds"] == pytest.approx(6.0, rel=1e-12)
    assert table.notes[0].startswith("Recorded on: Linux, a GPU.")
    assert "GPU-hours on a GPU" in table.notes[0]


def test_device_hours_are_seconds_times_devices() -> None:
    assert device_hours(7200, 4) == pytest.approx(8.0, rel=1e-12)


@pytest.mark.parametrize(("budget", "steps"), [(24, None), (25, 25), (99, 50), (1e9, 100)])
def test_the_largest_recorded_rung_within_a_budget_is_taken(
    budget: float, steps: int | None, tmp_path: Path
) -> None:
    _rungs(Results(tmp_path), "maml", {25: 1.0, 50: 2.0, 100: 3.0})
    section = read_results(tmp_path).main
    found = within_budget(section.rungs[section.cells[0].key], "steps", budget)
    assert (found.steps if found else None) == steps


def test_a_cost_that_was_not_recorded_fits_no_budget(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(1), PT, point={"cost": Cost()})
    cells = read_results(tmp_path).cells
    assert within_budget(cells, "steps", 1e9) is None
    assert common_budget([cells], "steps") is None


def test_methods_are_compared_at_the_budget_that_all_have_used(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _rungs(results, "maml", {25: 1.0, 50: 2.0, 100: 3.0})
    _rungs(results, "multitask", {40: 5.0, 60: 6.0, 900: 9.0})
    _rungs(results, "reptile", {90: 7.0, 400: 8.0})
    table = budget_table(_look(tmp_path), "steps")
    row = dict(zip(table.columns, table.rows[0], strict=True))
    # MAML ends first, at 100 steps
    assert row["steps allowed"].value == 100
    found = {name: (row[name].value, row[f"{name} steps"].value) for name in ("MAML", "MTL")}
    assert found == {"MAML": (pytest.approx(3.0), 100), "MTL": (pytest.approx(6.0), 60)}
    assert (row["Reptile"].value, row["FoMAML"].value) == (pytest.approx(7.0), None)


def test_a_given_budget_in_samples_is_kept(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _rungs(results, "maml", {25: 1.0, 50: 2.0})  # 100 and 200 samples
    _rungs(results, "reptile", {900: 7.0})
    table = budget_table(_look(tmp_path), "examples", 150)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["MAML"].value, row["MAML samples"].value) == (pytest.approx(1.0), 100)
    assert row["Reptile"].value is None


def test_searches_are_compared_at_every_budget_that_was_recorded(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for at, gains in enumerate(({25: 1.0, 50: 4.0}, {25: 3.0, 50: 2.0})):
        _rungs(results, "maml", gains, str(at), role="validation")
    _rungs(results, "reptile", {50: 5.0}, role="validation")
    table = search_budget_table(_look(tmp_path), "steps")
    assert table.columns[2:] == ("≤ 25 steps", "≤ 50 steps")
    values = {row[1].text: [cell.value for cell in row[2:]] for row in table.rows}
    assert values["MAML"] == pytest.approx([3.0, 4.0], rel=1e-9)
    assert values["Reptile"] == [None, pytest.approx(5.0, rel=1e-9)]


def test_a_search_is_ranked_with_the_settings_that_differ(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for at, (lr, gain) in enumerate(((0.1, -3.0), (0.3, 8.0), (0.2, 5.0))):
        results.point(
            "maml", "random_to_random", _scores(gain), PT, role="validation",
            point={"trajectory": str(at), "settings": {"inner_lr": 1.0, "outer_lr": lr}},
        )  # fmt: skip
    results.point(
        "maml", "random_to_random", {}, PT, role="validation",
        point={
            "trajectory": "nan", "status": "diverged",
            "settings": {"inner_lr": 1.0, "outer_lr": 9.0},
        },
    )  # fmt: skip
    (table,) = search_tables(_look(tmp_path))
    assert table.title.endswith("validation tasks (embedded, gym embedded)")
    assert table.columns[:3] == ("rank", "outer_lr", "steps")
    assert [row[1].text for row in table.rows] == ["0.3", "0.2", "0.1", "9"]
    assert table.rows[-1][3].flags == ("diverged",)


def test_a_task_without_a_positive_baseline_does_not_keep_a_search_from_being_ranked(
    tmp_path: Path,
) -> None:
    results = Results(tmp_path)
    baseline = {**PT, "zero": dict.fromkeys(SEEDS, 0.0)}
    for at, gain in enumerate((2.0, 7.0, 5.0)):
        scores = {**_scores(gain), "zero": dict.fromkeys(SEEDS, 0.5)}
        point = {"trajectory": str(at), "settings": {"inner_lr": gain}}
        results.point("maml", "random_to_random", scores, baseline, role="validation", point=point)
    (table,) = search_tables(_look(tmp_path))
    assert [row[1].text for row in table.rows] == ["7", "5", "2"]
    assert table.rows[0][3].flags == ("some_tasks",)
    # but a point that lacks a score cannot be compared, however good the rest is
    scores = {"a": {13: 0.99}, "zero": dict.fromkeys(SEEDS, 0.5)}
    point = {"trajectory": "3", "settings": {"inner_lr": 9.0}}
    results.point("maml", "random_to_random", scores, baseline, role="validation", point=point)
    (table,) = search_tables(_look(tmp_path))
    assert [row[1].text for row in table.rows] == ["7", "5", "2", "9"]


def test_trials_that_were_stopped_are_listed_with_the_reason(tmp_path: Path) -> None:
    results = Results(tmp_path)
    key = results.point("maml", "random_to_random", _scores(1), PT, role="validation")
    assert [table.name for table in search_tables(_look(tmp_path))] == ["search-1"]
    made = results.database.points_of([key])[key]
    # on the way to a rung: there is no such point, but its trajectory is known
    rung = point_key(made.study, made.upstream, 200)
    for point in (rung, "k of a trial without a point"):
        stop = Stop(point=point, trial="maml-inner1", steps=200, by="racing", reason="1 < 2")
        results.database.add_stop(stop)
    table = search_tables(_look(tmp_path))[-1]
    assert [cell.text for cell in table.rows[0][:4]] == ["maml-inner1", "200", "racing", "1 < 2"]
    assert len(table.rows) == 1


def test_searches_of_several_studies_have_rankings_of_their_own(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for edited in ({}, {"a": "edited"}):
        results.point("maml", "random_to_random", _scores(1), PT, role="validation", edited=edited)
    results.point("reptile", "random_to_random", _scores(1), PT, role="validation")
    look = _look(tmp_path)
    tables = search_tables(look)
    assert [len(table.rows) for table in tables] == [1, 1, 1]
    assert {study.id for study in look.section.studies} == {
        table.title.rsplit(" ", 1)[1].rstrip(")") for table in tables
    }
    budget = search_budget_table(look, "steps")
    assert len(budget.rows) == 3
    assert sum("[" in (row[0].text or "") for row in budget.rows) == 3  # each names its study


def test_a_method_that_nobody_knows_has_its_costs_and_its_budget(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _rungs(results, "my_method", {25: 1.0, 50: 2.0})
    _rungs(results, "no_upstream", {0: 3.0})
    look = _look(tmp_path)
    assert [row[1].text for row in cost_table(look).rows] == ["my_method", "no_upstream"]
    columns = budget_table(look, "steps").columns
    assert "my_method" in columns
    assert "no_upstream" not in columns
    assert "FT" not in columns
