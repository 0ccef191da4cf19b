"""From a database to figures: the numbers are the records', what is absent is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_factory import SEEDS, Results, flat

from analysis.figures import Figure, all_figures
from analysis.figures.charts.from_cells import (
    Group,
    arg_of,
    gain_chart,
    score_chart,
    shots_label,
    sweep_of,
)
from analysis.figures.charts.from_search import search_of
from analysis.results.cells import Cell
from analysis.results.reading import read_results
from analysis.results.summary import summary_of

LARGE = {"backbone": "google/t5-large-lm-adapt", "gym": "crossfit"}
PT = flat({"a": 0.5, "b": 0.8})


def _cells(root: Path) -> tuple[Cell, ...]:
    return read_results(root).cells


def _group(cells: tuple[Cell, ...]) -> Group:
    return Group(partition="cls_to_cls", cells=cells, scored="2 tasks")


def _draw(root: Path, out: Path, suffix: str = "") -> list[Figure]:
    return all_figures(read_results(root).main, out, suffix)


# --- charts ---------------------------------------------------------------------------------


def test_gains_are_percent_of_the_baseline_with_the_tasks_own_interval(tmp_path: Path) -> None:
    results = Results(tmp_path)
    scores = {"a": {13: 0.5, 21: 0.7}, "b": {13: 0.4, 21: 0.4}}
    results.point("maml", "cls_to_cls", scores, PT)
    cells = _cells(tmp_path)
    chart = gain_chart(_group(cells))
    assert chart.tasks == ("a", "b")
    a, b = chart.series["maml"]
    # a: 0.6 against 0.5; two seeds, so a resample's gain is 0, 20 or 40 %.
    assert (a.value, a.low, a.high) == pytest.approx((20, 0, 40))
    assert (b.value, b.low, b.high) == pytest.approx((-50, -50, -50))
    # The row of the mean is the ARG that tables show.
    summary = summary_of(cells[0])
    assert summary is not None
    arg = chart.summary["maml"]
    assert arg.value == pytest.approx(-15)
    assert (arg.low, arg.high) == (summary.gain.low, summary.gain.high)
    assert chart.zero


def test_scores_are_percent_and_prompt_tuning_stands_among_them(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", {"a": {13: 0.5, 21: 0.7}, "b": {13: 0.4, 21: 0.4}}, PT)
    chart = score_chart(_group(_cells(tmp_path)))
    a, b = chart.series["maml"]
    assert (a.value, a.low, a.high) == pytest.approx((60, 50, 70))
    assert b.value == pytest.approx(40)
    assert [e.value for e in chart.series["prompt_tuning"]] == pytest.approx([50, 80])


def test_a_missing_run_is_a_missing_value_with_its_reason(tmp_path: Path) -> None:
    results = Results(tmp_path)
    scores = flat({"a": 0.6, "b": 0.9})
    results.point("maml", "cls_to_cls", scores, PT, without=[("a", SEEDS[0], 0.5)])
    group = _group(_cells(tmp_path))
    a, b = gain_chart(group).series["maml"]
    assert (a.value, a.note) == (None, f"method lacks data seed {SEEDS[0]}")
    assert b.value == pytest.approx(12.5)
    score = score_chart(group).series["maml"][0]
    assert (score.value, score.note) == (None, f"lacks data seed {SEEDS[0]}")
    # A mean over the other task alone is no ARG that could be compared.
    assert arg_of(group.cells[0]).value is None
    assert "a: method lacks data seed" in arg_of(group.cells[0]).note


def test_a_zero_baseline_leaves_the_arg_of_the_others_and_says_so(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", flat({"a": 0.6, "b": 0.9}), flat({"a": 0.0, "b": 0.6}))
    group = _group(_cells(tmp_path))
    assert gain_chart(group).series["maml"][0].value is None
    arg = arg_of(group.cells[0])
    assert arg.value == pytest.approx(50)
    assert arg.note == "1 of 2 tasks have a relative gain"


def test_a_diverged_cell_has_no_value_anywhere(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}))
    point = {"status": "diverged", "note": "NaN at step 3"}
    results.point("reptile", "cls_to_cls", {}, flat({"a": 0.5}), point=point)
    group = _group(_cells(tmp_path))
    chart = gain_chart(group)
    assert chart.summary["reptile"].note == "diverged: NaN at step 3"
    assert [e.value for e in chart.series["reptile"]] == [None]


# --- sweeps ---------------------------------------------------------------------------------


def test_a_sweep_is_in_the_order_of_its_numbers_and_all_comes_last(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for shots, score in (("all", 0.9), (128, 0.8), (None, 0.7), (32, 0.6)):
        results.point(
            "maml", "cls_to_cls", flat({"a": score}), flat({"a": 0.5}), target_shots=shots,
            **LARGE,
        )  # fmt: skip
    results.point("multitask", "cls_to_cls", flat({"a": 0.5}), flat({"a": 0.5}), **LARGE)
    cells = _cells(tmp_path)
    values = [shots_label(cell.place.target_shots) for cell in cells]
    sweep = sweep_of(cells, values, title="", setting="", paper_table="Table 3")
    assert sweep is not None
    assert sweep.values == ("16", "32", "128", "all")
    assert [e.value for e in sweep.series["maml"]] == pytest.approx([40, 20, 60, 80])
    assert [e.value for e in sweep.series["multitask"]] == [0, None, None, None]
    assert sweep.series["multitask"][1].note == "not run"
    # Table 3 as printed, for T5-large on Cls→Cls.
    assert sweep.published["maml"] == (20.16, 9.10, 8.36, 3.27)
    assert sweep.published["multitask"] == (-5.64, -14.17, -0.20, 0.53)


def test_published_numbers_stand_only_beside_their_own_setting(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for shots in (None, 32):
        results.point("maml", "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}), target_shots=shots)
    cells = _cells(tmp_path)
    values = [shots_label(cell.place.target_shots) for cell in cells]
    sweep = sweep_of(cells, values, title="", setting="", paper_table="Table 3")
    assert sweep is not None
    assert sweep.published == {}
    assert sweep_of(cells[:1], values[:1], title="", setting="", paper_table="") is None


# --- searches -------------------------------------------------------------------------------


def _search(results: Results, **study: Any) -> None:
    """Two inner learning rates at two rungs; the point (2, 50) is the best."""
    for inner, steps, score in ((1.0, 25, 0.5), (1.0, 50, 0.6), (2.0, 25, 0.55), (2.0, 50, 0.7)):
        settings = {"inner_lr": inner, "outer_lr": 0.1, "second_order": "auto"}
        results.point(
            "maml", "random_to_random", flat({"v": score}), flat({"v": 0.5}), role="validation",
            point={"steps": steps, "settings": settings, "trajectory": f"inner {inner}"}, **study,
        )  # fmt: skip


def test_a_search_has_the_settings_that_vary_and_the_scores_of_its_points(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _search(results)
    point = {
        "steps": 25,
        "settings": {"inner_lr": 3.0, "outer_lr": 0.1, "second_order": "auto"},
        "trajectory": "inner 3",
        "status": "diverged",
        "note": "loss is nan",
    }
    results.point(
        "maml", "random_to_random", {}, flat({"v": 0.5}), role="validation", point=point
    )  # fmt: skip
    (searched,) = read_results(tmp_path).main.searches
    search = search_of(searched)
    assert search.title == "MAML, R→R, embedded"
    assert search.varied == ("inner_lr", "steps")
    scored = [(*p.settings.values(), p.score.value) for p in search.scored]
    assert np.array(scored) == pytest.approx(
        np.array([(2, 50, 40), (1, 50, 20), (2, 25, 10), (1, 25, 0)])
    )
    assert [point.score.note for point in search.without] == ["diverged: loss is nan"]
    best = searched.leader
    assert best is not None
    assert (best.config["inner_lr"], best.steps) == (2.0, 50)
    assert search.best is search.scored[0]


# --- the whole ------------------------------------------------------------------------------


def _whole(root: Path) -> None:
    """Two settings, one with a sweep, and a search; curves of three evaluations."""
    results = Results(root)
    for method, score in (("maml", 0.6), ("multitask", 0.4)):
        scores = flat({"a": score, "b": 0.9})
        results.point(method, "cls_to_cls", scores, PT)
        results.point(method, "both_to_cls", scores, PT)
        results.point(method, "cls_to_cls", scores, PT, source_shots=32)
    results.point("fine_tuning", "cls_to_cls", flat({"a": 0.7, "b": 0.7}), PT)
    _search(results)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    root = tmp_path_factory.mktemp("whole")
    _whole(root / "results")
    return {figure.name: figure for figure in _draw(root / "results", root / "out")}


def test_every_figure_with_data_is_on_disk_and_every_other_one_says_why(
    figures: dict[str, Figure],
) -> None:
    for figure in figures.values():
        assert bool(figure.missing) == (figure.svg is None)
        if figure.svg is not None:
            assert figure.svg.stat().st_size > 1000
            assert figure.svg.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
            assert figure.caption
    there = {name for name, figure in figures.items() if not figure.missing}
    assert there == {
        "source-shots-cls-to-cls",
        "gain-cls-to-cls",
        "score-cls-to-cls",
        "gain-both-to-cls",
        "score-both-to-cls",
        "gain-validation-random-to-random",
        "score-validation-random-to-random",
        "search-ranking-maml-random-to-random",
        "search-parallel-maml-random-to-random",
        "search-maps-maml-random-to-random",
        "search-rungs-maml-random-to-random",
        "search-ablation-maml-random-to-random",
    }
    assert figures["target-shots"].missing.startswith("no setting was run with two choices")
    assert figures["gain-qa-to-qa"].missing == (
        "no result on the target tasks of QA→QA is recorded"
    )
    assert "fewer than two dev evaluations" in figures["curves-cls-to-cls"].missing
    assert figures["search-importance-maml-random-to-random"].missing.startswith(
        "importance needs 6"
    )


def test_fine_tuning_of_the_same_target_tasks_stands_in_other_settings_too(
    figures: dict[str, Figure],
) -> None:
    for name in ("gain-cls-to-cls", "gain-both-to-cls"):
        svg = figures[name].svg
        assert svg is not None
        assert ">FT</text>" in svg.read_text()


def test_a_second_backbone_has_files_of_its_own(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    for method in ("maml", "reptile"):
        results.point(method, "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}))
    large = "google/t5-large-lm-adapt"
    results.point("maml", "cls_to_cls", flat({"a": 0.7}), flat({"a": 0.5}), backbone=large)
    names = [f.name for f in _draw(tmp_path / "results", tmp_path / "out") if not f.missing]
    assert names == [
        "gain-cls-to-cls",
        "score-cls-to-cls",
        "gain-cls-to-cls-t5-large",
        "score-cls-to-cls-t5-large",
    ]


def test_a_caption_names_what_has_no_value(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.point("maml", "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}))
    found = {f.name: f for f in _draw(tmp_path / "results", tmp_path / "out")}
    assert "No value" not in found["gain-cls-to-cls"].caption
    results.point("reptile", "cls_to_cls", {"a": {21: 0.6}}, flat({"a": 0.5}))
    found = {f.name: f for f in _draw(tmp_path / "results", tmp_path / "out")}
    assert found["gain-cls-to-cls"].caption.endswith(
        "No value: a (Reptile: method lacks data seed 13)."
    )


def test_every_file_says_which_study_it_is_of(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.point("maml", "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}), smoke=True)
    figures = _draw(tmp_path / "results", tmp_path / "out", "x")
    label = read_results(tmp_path / "results").main.label
    name, _, mark = label.partition(", ")
    assert mark == "smoke run"
    for figure in figures:
        assert figure.name.endswith("-x")
        if figure.svg is not None:
            assert figure.svg.name == f"{figure.name}.svg"
            drawn = figure.svg.read_text()
            assert mark in drawn
            assert name.split()[-1] in drawn  # a long title has several lines


def test_editions_of_the_data_have_figures_of_their_own(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    for edited in ({}, {"a": "edited"}):
        results.point("maml", "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}), edited=edited)
    ids = [study.id for study in read_results(tmp_path / "results").main.studies]
    figures = [f for f in _draw(tmp_path / "results", tmp_path / "out") if not f.missing]
    assert len({figure.name for figure in figures}) == 4
    for one in ids:
        titles = [figure.title for figure in figures if f", study {one}" in figure.title]
        assert len(titles) == 2  # gains and scores


def test_a_method_that_nobody_knows_is_drawn_under_its_name(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    for method in ("maml", "my_method"):
        results.point(method, "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}))
    (gain,) = (
        f for f in _draw(tmp_path / "results", tmp_path / "out") if f.name == "gain-cls-to-cls"
    )
    assert gain.svg is not None
    assert ">my_method</text>" in gain.svg.read_text()


def test_a_caption_says_what_a_number_leaves_out(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    results.point(
        "maml", "cls_to_cls", flat({"a": 0.6, "b": 0.9}), flat({"a": 0.0, "b": 0.6}),
        partial="3 of 10 source tasks",
    )  # fmt: skip
    _search(results, partial="2 source tasks missing")
    found = {f.name: f for f in _draw(tmp_path / "results", tmp_path / "out")}
    assert found["gain-cls-to-cls"].caption.endswith(
        "Note: ARG of MAML: 1 of 2 tasks have a relative gain; "
        "MAML is partial: 3 of 10 source tasks."
    )
    ranking = found["search-ranking-maml-random-to-random"]
    assert ranking.caption.endswith("Note: MAML is partial: 2 source tasks missing.")
