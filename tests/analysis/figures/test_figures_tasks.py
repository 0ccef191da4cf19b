"""Figures with a row for each task, and sweeps: what was drawn is what was given."""

from __future__ import annotations

import dataclasses
import math

import pytest
from drawn import labels, legend, places, points, segments, texts

from analysis.figures.charts.data import Estimate, Sweep, TaskChart, missing
from analysis.figures.drawing.curves import draw_sweep
from analysis.figures.drawing.tasks import draw_tasks, limits, shorten
from analysis.figures.interactive.tasks import task_plot


def _chart(**series: tuple[Estimate, ...]) -> TaskChart:
    return TaskChart(
        title="Gain", axis="relative gain, %", tasks=("a", "b", "c"), series=series, zero=True
    )


def _of(value: float, half: float = 2.0) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


# --- values ---------------------------------------------------------------------------------


def test_an_estimate_is_a_finite_number_or_a_reason() -> None:
    with pytest.raises(ValueError, match="must be finite; missing is None"):
        Estimate(value=math.nan)
    with pytest.raises(ValueError, match="must have a note and no interval"):
        Estimate(value=None)
    with pytest.raises(ValueError, match="must have a note and no interval"):
        Estimate(value=None, low=0, high=1, note="gone")
    with pytest.raises(ValueError, match="needs both ends in order"):
        Estimate(value=1, low=2, high=0)
    with pytest.raises(ValueError, match="needs both ends in order"):
        Estimate(value=1, low=0)


# --- tasks ----------------------------------------------------------------------------------


def test_each_method_has_a_dot_and_an_interval_in_each_row() -> None:
    figure = draw_tasks(
        _chart(reptile=(_of(4), _of(5), _of(6)), maml=(_of(1), _of(2), _of(3, 0.5)))
    )
    maml = points(figure, "value:maml")
    assert [x for x, _ in maml] == [1, 2, 3]
    assert [round(y) for _, y in maml] == [0, 1, 2]
    ends = [(low[0], high[0]) for low, high in segments(figure, "interval:maml")]
    assert ends == [(-1, 3), (0, 4), (2.5, 3.5)]
    # The interval of a dot is at its height, and methods do not lie on each other.
    assert [low[1] for low, _ in segments(figure, "interval:maml")] == [y for _, y in maml]
    assert {y for _, y in maml}.isdisjoint(y for _, y in points(figure, "value:reptile"))
    # Tasks run from top to bottom, methods in the paper's order.
    assert labels(figure.axes[0], "y") == ["a", "b", "c"]
    assert figure.axes[0].yaxis_inverted()
    assert legend(figure) == ["MAML", "Reptile"]
    assert figure.axes[0].get_xlabel() == "relative gain, %"


def test_the_summary_stands_above_the_tasks() -> None:
    chart = TaskChart(
        title="Gain",
        axis="%",
        tasks=("a",),
        series={"maml": (_of(1),)},
        summary={"maml": _of(9)},
        summary_label="ARG",
    )
    figure = draw_tasks(chart)
    assert labels(figure.axes[0], "y") == ["ARG", "a"]
    assert points(figure, "value:maml") == [(9, 0), (1, 1)]


def test_a_missing_value_is_a_question_mark_and_not_a_dot_at_zero() -> None:
    figure = draw_tasks(_chart(maml=(_of(1), missing("no runs"), _of(3))))
    assert [x for x, _ in points(figure, "value:maml")] == [1, 3]
    assert len(segments(figure, "interval:maml")) == 2
    assert texts(figure, "missing") == ["?"]
    assert [round(y) for _, y in places(figure, "missing")] == [1]
    assert legend(figure) == ["MAML", "no value"]


def test_a_chart_without_any_value_can_be_drawn() -> None:
    figure = draw_tasks(_chart(maml=(missing("x"), missing("x"), missing("x"))))
    assert points(figure, "value:maml") == []
    assert texts(figure, "missing") == ["?"] * 3


def test_an_extreme_gain_is_an_arrow_with_its_number_and_leaves_the_others_their_room() -> None:
    usual = tuple(_of(value) for value in range(-10, 11))
    chart = TaskChart(
        title="Gain",
        axis="%",
        tasks=tuple(map(str, range(23))),
        series={"maml": (*usual, Estimate(value=1234.4), Estimate(value=-99.6))},
        zero=True,
    )
    figure = draw_tasks(chart)
    assert texts(figure, "outside") == ["1234 →", "← -100"]
    assert [round(y) for _, y in places(figure, "outside")] == [21, 22]
    assert len(points(figure, "value:maml")) == 21
    left, right = figure.axes[0].get_xlim()
    assert -40 < left < -12
    assert 12 < right < 40


def _some_wide() -> TaskChart:
    """Gains of two methods on seven tasks; three tasks have a baseline near zero."""
    usual = tuple(_of(value, 20) for value in (-20, 0, 20, 40))
    wide = (
        Estimate(value=100, low=-60, high=600),
        Estimate(value=120, low=-50, high=700),
        Estimate(value=110, low=-60, high=1245.9),
    )
    return TaskChart(
        title="Gain",
        axis="%",
        tasks=tuple("abcdefg"),
        series={"maml": (*usual, *wide), "fomaml": (*usual, *wide)},
        zero=True,
    )


def test_long_intervals_over_baselines_near_zero_are_cut_and_their_ends_written() -> None:
    figure = draw_tasks(_some_wide())
    left, right = figure.axes[0].get_xlim()
    assert -100 < left < -60, "the side that fits is not cut"
    assert 260 < right < 300, "room for the range of values, -20 to 120, and a margin"
    assert len(points(figure, "value:maml")) == 7, "every value is a dot"
    assert texts(figure, "cut") == ["→ 600", "→ 700", "→ 1246"]
    assert texts(figure, "outside") == []
    assert [round(y) for _, y in places(figure, "cut")] == [4, 5, 6]


def test_the_interactive_figure_has_the_same_axis_and_notes() -> None:
    chart = _some_wide()
    layout = task_plot(chart)["layout"]
    every = [one for line in chart.series.values() for one in line]
    assert layout["xaxis"]["range"] == list(limits(every, zero=True))
    notes = [(note["text"], note["y"], note["x"]) for note in layout["annotations"]]
    assert notes == [("→ 600", 4, 1.0), ("→ 700", 5, 1.0), ("→ 1246", 6, 1.0)]
    scores = dataclasses.replace(chart, zero=False)
    assert "range" not in task_plot(scores)["layout"]["xaxis"]


def test_intervals_that_are_long_everywhere_are_not_cut() -> None:
    estimates = [_of(value, 50) for value in (1, 2, 3)]
    low, high = limits(estimates, zero=True)
    assert low < -49 < 53 < high


def test_the_axis_holds_all_ends_where_none_is_extreme() -> None:
    estimates = [_of(value, 3) for value in (-4, 0, 5)]
    low, high = limits(estimates, zero=True)
    assert low < -7 < 8 < high
    # Scores are bounded, so nothing is cut, however skewed they are.
    low, _ = limits([_of(99, 0.1)] * 20 + [_of(20, 1)], zero=False)
    assert low < 19
    # 0 is always within a chart of gains.
    assert limits([_of(50, 1)], zero=True)[0] < 0


def test_long_names_lose_their_middle_and_stay_different() -> None:
    names = ["short", "a" * 20 + "-one-and-" + "b" * 20]
    assert shorten(names, 12)[0] == "short"
    assert len(shorten(names, 12)[1]) == 12
    alike = ["start" + "x" * 30 + "1" + "end-end-end", "start" + "x" * 30 + "2" + "end-end-end"]
    assert shorten(alike, 12) == alike


# --- sweeps ---------------------------------------------------------------------------------


def _sweep() -> Sweep:
    return Sweep(
        title="Shots",
        setting="examples per class",
        axis="ARG, %",
        values=("16", "32", "all"),
        series={"maml": (_of(20), missing("not run"), _of(3)), "multitask": (_of(-5),) * 3},
        published={"maml": (20.16, 9.10, None)},
    )


def test_a_sweep_shows_each_value_with_its_interval_and_a_gap_where_it_is_missing() -> None:
    figure = draw_sweep(_sweep())
    ys = [y for _, y in points(figure, "value:maml")]
    assert ys[0] == 20
    assert math.isnan(ys[1])
    assert ys[2] == 3
    assert [round(x) for x, _ in points(figure, "value:maml")] == [0, 1, 2]
    assert [(a[1], b[1]) for a, b in segments(figure, "interval:maml")] == [(18, 22), (1, 5)]
    assert [round(x) for x, _ in places(figure, "missing")] == [1]
    assert labels(figure.axes[0], "x") == ["16", "32", "all"]
    assert legend(figure) == ["MAML", "MTL", "published", "no value"]


def test_published_numbers_stand_beside_ours_with_a_gap_where_none_is_printed() -> None:
    figure = draw_sweep(_sweep())
    ys = [y for _, y in points(figure, "published:maml")]
    assert ys[:2] == [20.16, 9.10]
    assert math.isnan(ys[2])
    assert [x for x, _ in points(figure, "published:maml")] == [
        x for x, _ in points(figure, "value:maml")
    ]
    assert points(figure, "published:multitask") == []
