"""Figures of a search: what was drawn is what was given."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from drawn import labels, places, points, segments, texts
from search_points import grid

from analysis.figures.charts.data import Estimate, Search, SearchPoint, missing, write
from analysis.figures.charts.sensitivity import Importance, RungAgreement, ablation_path
from analysis.figures.drawing.ranking import MOST, draw_ablation, draw_ranking, draw_rungs
from analysis.figures.drawing.settings import draw_importance, draw_maps, draw_parallel


def _score(a: float, b: float, n: float) -> float | None:
    return None if (a, b, n) == (10.0, 0.3, 100) else math.log10(a) - 10 * b + n / 100


def test_a_ranking_lists_all_points_best_first_and_those_without_a_score_last() -> None:
    search = grid(_score)
    figure = draw_ranking(search)
    rows = labels(figure.axes[0], "y")
    assert len(rows) == 27
    assert rows[0] == "1.  10 · 0.03 · 100"
    assert rows[-1] == "–  10 · 0.3 · 100"
    drawn = points(figure, "value")
    assert [x for x, _ in drawn] == sorted((x for x, _ in drawn), reverse=True)
    assert [y for _, y in drawn] == list(range(26))
    assert [x for x, _ in drawn] == [point.score.value for point in search.scored]
    ends = [(a[0], b[0]) for a, b in segments(figure, "interval")]
    assert ends == [(x - 1, pytest.approx(x + 2)) for x, _ in drawn]
    # The point without a score has its reason, and no dot.
    assert texts(figure, "missing") == ["diverged"]
    assert places(figure, "missing")[0][1] == 26
    assert "inner lr · outer lr · steps" in figure.get_supxlabel()


def test_a_long_ranking_shows_both_ends_and_says_how_many_are_between() -> None:
    search = grid(lambda a, b, n: a + b + n, steps=tuple(range(1, 11)))
    figure = draw_ranking(search)
    rows = labels(figure.axes[0], "y")
    assert len(rows) == MOST + 1
    assert rows[45] == "⋮"
    assert texts(figure, "missing") == ["30 more"]
    assert (rows[44][:3], rows[46][:3], rows[-1][:3]) == ("45.", "76.", "90.")


def test_the_ablation_shows_each_change_with_its_score() -> None:
    path = ablation_path(grid(lambda a, b, n: 10 * math.log10(a) + 10 * b + 0.01 * n))
    assert not isinstance(path, str)
    figure = draw_ablation(path, "Path")
    rows = labels(figure.axes[0], "y")
    assert rows[0] == "worst:\ninner lr 0.1\nouter lr 0.03\nsteps 25"
    assert rows[1:] == ["inner lr 0.1 → 10", "outer lr 0.03 → 0.3", "steps 25 → 100"]
    assert points(figure, "value") == [
        (pytest.approx(x), y) for y, x in enumerate((-9.45, 10.55, 13.25, 14.0))
    ]


def test_a_path_that_stops_says_why() -> None:
    corners = {(0.1, 0.03, 25.0): -5.0, (10.0, 0.3, 100.0): 5.0}
    path = ablation_path(grid(lambda a, b, n: corners.get((a, b, n))))
    assert not isinstance(path, str)
    figure = draw_ablation(path, "Path")
    assert labels(figure.axes[0], "y")[-1] == "…"
    assert texts(figure, "missing")[0].startswith("no point with only inner_lr = 10")


def test_rung_correlations_stand_above_and_below_the_diagonal() -> None:
    found = RungAgreement(
        rungs=(25, 50),
        spearman={(25, 50): Estimate(value=0.5, low=-0.1, high=0.8)},
        kendall={(25, 50): missing("2 trajectories")},
        trajectories={(25, 50): 9},
    )
    figure = draw_rungs(found, "Rungs")
    assert texts(figure, "ρ:(25, 50)") == ["ρ = 0.50\n[-0.10, 0.80]\nn = 9"]
    assert texts(figure, "τ:(25, 50)") == ["τ: no value\nn = 9"]


def test_importance_is_a_bar_a_setting_and_evaluator() -> None:
    shares = {"outer_lr": Estimate(value=0.7, low=0.6, high=0.8), "steps": Estimate(value=0.3)}
    found = Importance(evaluators={"fANOVA": shares, "PED-ANOVA": shares}, points=27, without=0)
    figure = draw_importance(found, "Importance")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.7, 0.3, 0.7, 0.3]  # type: ignore[attr-defined]
    assert labels(figure.axes[0], "y") == ["outer lr", "steps"]
    assert "0.70" in [text.get_text() for text in figure.axes[0].texts]


def test_parallel_coordinates_have_a_line_a_point_that_ends_at_its_score() -> None:
    search = grid(_score)
    figure = draw_parallel(search)
    # Lines are drawn from worst to best, so that the best lies on top.
    drawn = points(figure, "line")
    ends = [y for x, y in drawn if x == 3]
    values = [float(point.score.value or 0) for point in reversed(search.scored)]
    low, high = values[0], values[-1]
    assert ends == pytest.approx([(value - low) / (high - low) for value in values])
    # inner lr 0.1, 1, 10 are evenly spaced on its log axis, up to the fan of ± 0.035.
    starts = sorted({round(y, 1) for x, y in drawn if x == 0})
    assert starts == [0.0, 0.5, 1.0]
    assert len(points(figure, "missing")) == 3  # one dotted line, which has no fourth place
    assert labels(figure.axes[0], "x") == ["inner lr", "outer lr", "steps", "ARG, %"]


def test_maps_have_a_number_for_each_pair_of_values() -> None:
    figure = draw_maps(grid(_score))
    assert len(figure.axes) == 3
    # Mean over steps of log10(1) − 10 · 0.1 + steps / 100: −1 + 175/300.
    assert texts(figure, "cell:1,0.1") == ["-0.42"]
    # One of three points has no score: the mean is over two, and says so.
    assert texts(figure, "cell:10,0.3") == ["-1.62\n2 of 3"]
    assert labels(figure.axes[0], "x") == ["0.1", "1", "10"]
    assert labels(figure.axes[0], "y") == ["0.03", "0.1", "0.3"]


def test_a_map_shows_what_has_no_score_and_leaves_empty_what_was_not_run() -> None:
    whole = grid(lambda a, b, n: None if b == 0.3 else a)
    search = Search(
        title="",
        points=tuple(
            p
            for p in whole.points
            if p.settings["inner_lr"] != 1.0 or p.settings["outer_lr"] != 0.1
        ),
    )
    figure = draw_maps(search)
    assert texts(figure, "cell:10,0.3") == ["?"]
    assert texts(figure, "cell:1,0.1") == []


def test_many_values_are_a_landscape_with_the_points_on_it() -> None:
    rng = random.Random(0)
    found = []
    for n in range(20):
        settings = {"inner_lr": 10 ** rng.uniform(-3, 2), "steps": float(25 * 2 ** (n % 3))}
        score = missing("diverged") if n == 7 else Estimate(value=float(n))
        found.append(SearchPoint(settings=settings, score=score, trajectory=str(n)))
    figure = draw_maps(Search(title="", points=tuple(found)))
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    assert ax.get_yscale() == "linear"
    (dots,) = (c for c in ax.collections if c.get_gid() == "value")
    there = [point for point in found if point.score.value is not None]
    shown = sorted(tuple(place) for place in np.asarray(dots.get_offsets()).tolist())
    assert shown == sorted((p.settings["inner_lr"], p.settings["steps"]) for p in there)
    values = dots.get_array()
    assert values is not None
    assert sorted(map(float, values)) == [float(n) for n in range(20) if n != 7]
    assert points(figure, "missing") == [
        (found[7].settings["inner_lr"], found[7].settings["steps"])
    ]


def test_values_are_written_as_people_do() -> None:
    assert [write(v) for v in (10000, 0.03, 3e-5, 1.0, 0.57166)] == [
        "10000", "0.03", "3e-5", "1", "0.572"
    ]  # fmt: skip
