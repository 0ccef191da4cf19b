from __future__ import annotations

from pathlib import Path

import pytest
from results_factory import SEEDS, Results, flat

from analysis.results.reading import load_study
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
from mpt.search.stops import Stop, record_stop

PT = flat({"a": 0.5})


def _scores(gain: float) -> dict[str, dict[int, float]]:
    return flat({"a": 0.5 * (1 + gain / 100)})


def _look(root: Path) -> Lookup:
    return Lookup(load_study(root))


def _rungs(results: Results, method: str, gains: dict[int, float], **body: object) -> None:
    for steps, gain in gains.items():
        results.point(method, "cls_to_cls", _scores(gain), PT, steps=steps, **body)


def test_costs_stand_beside_the_score(tmp_path: Path) -> None:
    cost = {"steps": 100, "examples": 400, "seconds": 1800.0, "devices": 2}
    Results(tmp_path).point("maml", "cls_to_cls", _scores(20), PT, cost=cost)
    look = _look(tmp_path)
    table = cost_table(look)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["ARG %"].value == pytest.approx(20.0)
    assert (row["upstream steps"].value, row["upstream samples"].value) == (100, 400)
    assert row["upstream device-hours"].value == pytest.approx(1.0, rel=1e-12)
    # one task, two data seeds, two learning rates: four leaves of 10 steps, 80 samples, 1.5 s
    assert row["leaves"].text == "4"
    assert (row["downstream steps"].value, row["downstream samples"].value) == (40, 320)
    assert downstream_cost(look.study.cells[0])["seconds"] == pytest.approx(6.0, rel=1e-12)
    assert "GPU-hours on a GPU" in table.notes[0]


def test_device_hours_are_seconds_times_devices() -> None:
    assert device_hours(7200, 4) == pytest.approx(8.0, rel=1e-12)


@pytest.mark.parametrize(("budget", "steps"), [(24, None), (25, 25), (99, 50), (1e9, 100)])
def test_the_largest_recorded_rung_within_a_budget_is_taken(
    budget: float, steps: int | None, tmp_path: Path
) -> None:
    _rungs(Results(tmp_path), "maml", {25: 1.0, 50: 2.0, 100: 3.0})
    study = load_study(tmp_path)
    found = within_budget(study.rungs[study.cells[0].key], "steps", budget)
    assert (found.steps if found else None) == steps


def test_a_cost_that_was_not_recorded_fits_no_budget(tmp_path: Path) -> None:
    Results(tmp_path).point("maml", "cls_to_cls", _scores(1), PT, cost={})
    cells = load_study(tmp_path).cells
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
        _rungs(results, "maml", gains, role="validation", trajectory=str(at))
    _rungs(results, "reptile", {50: 5.0}, role="validation")
    table = search_budget_table(_look(tmp_path), "steps")
    assert table.columns[2:] == ("≤ 25.0 steps", "≤ 50.0 steps")
    values = {row[1].text: [cell.value for cell in row[2:]] for row in table.rows}
    assert values["MAML"] == pytest.approx([3.0, 4.0], rel=1e-9)
    assert values["Reptile"] == [None, pytest.approx(5.0, rel=1e-9)]


def test_a_search_is_ranked_with_the_settings_that_differ(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for at, (lr, gain) in enumerate(((0.1, -3.0), (0.3, 8.0), (0.2, 5.0))):
        results.point(
            "maml", "random_to_random", _scores(gain), PT, role="validation",
            trajectory=str(at), config={"method": "maml", "inner_lr": 1.0, "outer_lr": lr},
        )  # fmt: skip
    results.point(
        "maml", "random_to_random", {}, {}, role="validation", trajectory="nan",
        status="diverged", config={"method": "maml", "inner_lr": 1.0, "outer_lr": 9.0},
    )  # fmt: skip
    (table,) = search_tables(_look(tmp_path))
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
        body = {"role": "validation", "trajectory": str(at), "config": {"inner_lr": gain}}
        results.point("maml", "random_to_random", scores, baseline, **body)
    (table,) = search_tables(_look(tmp_path))
    assert [row[1].text for row in table.rows] == ["7", "5", "2"]
    assert table.rows[0][3].flags == ("some_tasks",)
    # but a point that lacks a score cannot be compared, however good the rest is
    scores = {"a": {13: 0.99}, "zero": dict.fromkeys(SEEDS, 0.5)}
    body = {"role": "validation", "trajectory": "3", "config": {"inner_lr": 9.0}}
    results.point("maml", "random_to_random", scores, baseline, **body)
    (table,) = search_tables(_look(tmp_path))
    assert [row[1].text for row in table.rows] == ["7", "5", "2", "9"]


def test_courses_that_were_stopped_are_listed_with_the_reason(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "random_to_random", _scores(1), PT, role="validation")
    assert [table.name for table in search_tables(_look(tmp_path))] == ["search-1"]
    stop = Stop(point="k", course="maml-inner1", steps=50, by="racing", reason="1 < 2")
    record_stop(tmp_path, stop)
    table = search_tables(_look(tmp_path))[-1]
    assert [cell.text for cell in table.rows[0][:4]] == ["maml-inner1", "50", "racing", "1 < 2"]
