"""Learning curves and steps to a share: from curves to numbers, and from numbers to lines."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from drawn import labels, legend, places, points, texts
from results_factory import SEEDS, Results

from analysis.figures.charts.data import Band, CurvePanel, Estimate, StepsTo, missing
from analysis.figures.charts.from_cells import Group
from analysis.figures.charts.from_curves import (
    band,
    curves_of,
    evaluations,
    mean_panel,
    steps_to,
    task_panels,
)
from analysis.figures.drawing.curves import draw_curves, draw_steps_to
from analysis.results.cells import Cell
from analysis.results.reading import read_results
from analysis.results.sections import Section

Curve = tuple[tuple[int, float | None, float | None], ...]
Curves = dict[str, dict[int, Curve]]


def _curve(*devs: float | None) -> Curve:
    return tuple((10 * (place + 1), dev, 0.1) for place, dev in enumerate(devs))


def _runs(results: Results, init: str, curves: Curves) -> list[str]:
    """Runs of one learning rate whose dev score is the best of their curve."""
    return [
        results.run(
            task, seed, 0.5, init=init, curve=curve,
            dev=max(dev for _, dev, _ in curve if dev is not None),
        )
        for task, row in curves.items()
        for seed, curve in row.items()
    ]  # fmt: skip


def _section(tmp_path: Path, maml: Curves, tuned: Curves) -> tuple[Section, Group]:
    results = Results(tmp_path, lrs=(0.5,))
    for method, curves, steps in (("prompt_tuning", tuned, 0), ("maml", maml, 100)):
        point = {"steps": steps, "trajectory": "" if steps == 0 else method}
        runs = _runs(results, method, curves)
        results.point(method, "cls_to_cls", {}, {}, tasks=list(maml), runs=runs, point=point)
    section = read_results(tmp_path).main
    return section, _group(section.cells)


def _group(cells: tuple[Cell, ...]) -> Group:
    return Group(partition="cls_to_cls", cells=cells, scored="tasks")


def test_a_method_that_tunes_nothing_has_no_curve(tmp_path: Path) -> None:
    results = Results(tmp_path, lrs=(0.0,))
    for method in ("zero_shot", "prompt_tuning"):
        curve = ((0, 0.4, None),) if method == "zero_shot" else _curve(0.2, 0.5)
        runs = _runs(results, method, {"a": dict.fromkeys(SEEDS, curve)})
        point = {"steps": 0, "trajectory": method if method == "zero_shot" else ""}
        results.point(method, "cls_to_cls", {}, {}, tasks=["a"], runs=runs, point=point)
    section = read_results(tmp_path).main
    assert set(curves_of(_group(section.cells), section.runs)) == {"prompt_tuning"}


@pytest.fixture
def two_tasks(tmp_path: Path) -> tuple[Section, Group]:
    maml = {
        "a": {13: _curve(0.4, 0.8, 0.9), 21: _curve(0.6, 0.8, 0.7)},
        "b": {13: _curve(0.2, 0.4, 0.5), 21: _curve(0.2, 0.2, 0.3)},
    }
    tuned = {task: dict.fromkeys(SEEDS, _curve(0.1, 0.3, 0.8)) for task in ("a", "b")}
    return _section(tmp_path, maml, tuned)


# --- from records to numbers ----------------------------------------------------------------


def test_a_band_is_mean_lowest_and_highest_of_its_curves_in_percent() -> None:
    found = band([{10: 0.2, 20: 0.4}, {10: 0.6, 20: 0.5}])
    assert found is not None
    assert found.steps == (10, 20)
    assert found.mean == pytest.approx((40, 45))
    assert found.low == pytest.approx((20, 40))
    assert found.high == pytest.approx((60, 50))


def test_a_band_has_a_gap_where_one_curve_has_no_score() -> None:
    found = band([{10: 0.2, 20: 0.4, 30: 0.4}, {10: 0.6, 30: 0.6}])
    assert found is not None
    assert found.steps == (10, 20, 30)
    assert found.mean[1] is found.low[1] is found.high[1] is None
    assert found.mean[2] == pytest.approx(50)
    assert band([]) is None
    assert band([{}]) is None


def test_panels_hold_each_methods_curve_over_the_seeds(two_tasks: tuple[Section, Group]) -> None:
    section, group = two_tasks
    curves = curves_of(group, section.runs)
    assert evaluations(curves) == 3
    a, b = task_panels(group, curves)
    assert (a.title, b.title) == ("a", "b")
    assert list(a.bands) == ["maml", "prompt_tuning"]
    assert a.bands["maml"].mean == pytest.approx((50, 80, 80))
    assert a.bands["maml"].high == pytest.approx((60, 80, 90))
    mean = mean_panel(group, curves).bands["maml"]
    # Seed 13: 30, 60, 70; seed 21: 40, 50, 50.
    assert mean.mean == pytest.approx((35, 55, 60))
    assert (mean.low[2], mean.high[2]) == pytest.approx((50, 70))


def test_a_method_without_all_its_seeds_has_no_curve_and_the_panel_says_so(
    tmp_path: Path,
) -> None:
    maml = {"a": {13: _curve(0.4, 0.8), 21: _curve(0.6, 0.8)}}
    section, group = _section(tmp_path, maml, {"a": {13: _curve(0.1, 0.3)}})
    curves = curves_of(group, section.runs)
    (panel,) = task_panels(group, curves)
    assert list(panel.bands) == ["maml"]
    assert panel.note == "incomplete: PT"
    assert mean_panel(group, curves).note == "incomplete: PT"


def test_steps_are_the_first_at_which_the_goal_is_reached(
    two_tasks: tuple[Section, Group],
) -> None:
    section, group = two_tasks
    # Prompt tuning ends at 0.8 everywhere: half of it is 0.4. MAML comes there at step 10 (a, 13),
    # 10 (a, 21), 20 (b, 13) and never (b, 21); of four numbers the upper middle one counts.
    chart = steps_to(group, curves_of(group, section.runs), shares=(0.25, 0.5, 1.0))
    quarter, half, whole = chart.series["maml"]
    assert quarter.value == 10
    assert half.value == 20
    assert half.note.startswith("3 of 4 runs came there")
    # 0.8 is reached at step 20 twice and never by task b: there is no median.
    assert (whole.value, whole.note) == (None, "2 of 4 runs came there")
    assert [estimate.value for estimate in chart.series["prompt_tuning"]] == [20, 30, 30]


def test_the_interval_of_steps_comes_from_the_seeds(two_tasks: tuple[Section, Group]) -> None:
    section, group = two_tasks
    curves = curves_of(group, section.runs)
    same = steps_to(group, curves, shares=(0.5,)).series["prompt_tuning"][0]
    assert (same.low, same.high) == (30, 30)  # both seeds are alike
    # Draws of (b, 21) twice have the numbers 10, 10, ∞, ∞: the interval has no upper end.
    open_ = steps_to(group, curves, shares=(0.5,)).series["maml"][0]
    assert open_.low is open_.high is None
    assert "no upper end" in open_.note


def test_a_baseline_without_a_positive_score_sets_no_goal(tmp_path: Path) -> None:
    maml = {"a": dict.fromkeys(SEEDS, _curve(0.4, 0.8))}
    section, group = _section(tmp_path, maml, {"a": dict.fromkeys(SEEDS, _curve(0.0, 0.0))})
    chart = steps_to(group, curves_of(group, section.runs))
    assert {estimate.note for estimate in chart.series["maml"]} == {"no run to compare"}


# --- from numbers to lines ------------------------------------------------------------------


def _band(*mean: float | None) -> Band:
    steps = tuple(10 * (place + 1) for place in range(len(mean)))
    low = tuple(None if m is None else m - 5 for m in mean)
    high = tuple(None if m is None else m + 5 for m in mean)
    return Band(steps=steps, mean=mean, low=low, high=high)


def test_each_method_has_a_line_with_a_band_and_a_gap_where_it_has_no_score() -> None:
    panel = CurvePanel(
        title="a", bands={"maml": _band(10, None, 30), "prompt_tuning": _band(1, 2)}
    )
    figure = draw_curves("Curves", [panel])
    drawn = points(figure, "mean:maml")
    assert (drawn[0], drawn[2]) == ((10, 10), (30, 30))
    assert math.isnan(drawn[1][1])
    assert points(figure, "mean:prompt_tuning") == [(10, 1), (20, 2)]
    ribbon = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    assert (ribbon.y0, ribbon.y1) == (5, 35)
    assert legend(figure) == ["MAML", "PT"]


def test_each_panel_has_its_title_and_says_what_it_lacks() -> None:
    panels = [CurvePanel(title=name, bands={"maml": _band(10, 20)}) for name in "ab"]
    panels.append(CurvePanel(title="c", bands={}, note="incomplete: maml"))
    figure = draw_curves("Curves", panels)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c", ""]
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]
    assert texts(figure, "note") == ["incomplete: maml"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "downstream steps"] * 1 + [
        "downstream steps",
        "",
    ]


def test_steps_to_a_share_are_dots_and_question_marks() -> None:
    series = {
        "maml": (Estimate(value=10, low=5, high=20), missing("never")),
        "prompt_tuning": (Estimate(value=50), Estimate(value=90)),
    }
    chart = StepsTo(title="Steps", shares=(0.5, 0.95), series=series)
    figure = draw_steps_to(chart)
    assert [y for _, y in points(figure, "value:maml")] == [10]
    assert [y for _, y in points(figure, "value:prompt_tuning")] == [50, 90]
    assert [round(x) for x, _ in places(figure, "missing")] == [1]
    assert labels(figure.axes[0], "x") == ["50 %", "95 %"]
    assert figure.axes[0].get_xlabel() == "share of PT's final dev score"
    assert legend(figure) == ["MAML", "PT", "no value"]
