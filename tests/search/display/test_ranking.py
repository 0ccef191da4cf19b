"""The ranking at the end of a search, and what stands under it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from display_toys import (
    RUNGS,
    Shown,
    console_of,
    maml_job,
    missing_of,
    point_of,
    rows_of,
    score_of,
    stop_of,
)

from mpt.metrics.relative_gain import Gain, TaskGain
from mpt.search.display.display import ONE_SEED, Display
from mpt.search.display.setting_display import CellDisplay
from mpt.search.leaderboard import PointStatus
from mpt.trial.score import BAD_SCORE

NAME = "maml-inner3e-05-outer0.5-k1-b2-random_to_random"


@pytest.fixture
def show() -> Shown:
    return Shown()


def _point(index: int, steps: int, arg: float | None, **changes: Any) -> PointStatus:
    return point_of(maml_job().trials[index], steps, arg, index=index, **changes)


def test_every_point_stands_in_the_ranking_best_first(show: Shown) -> None:
    points = [
        _point(index, steps, float(10 * index + steps / 5000))
        for index in range(3)
        for steps in RUNGS
    ]
    show.display.ranking(points)
    rows = rows_of(show.text)
    assert [int(row[0]) for row in rows] == list(range(1, 10))
    assert rows[0][1:] == [
        *("5e-05", "0.5", "10000", "+22.00"),
        *("[+21.00,", "+23.00]", "50.0", "50"),
    ]
    assert rows[-1][1:5] == ["2e-05", "0.5", "2500", "+0.50"]
    best = "best     inner_lr 5e-05, outer_lr 0.5, steps 10000: ARG +22.00 [+21.00, +23.00]"
    assert best in show.lines
    assert "worst    inner_lr 2e-05, outer_lr 0.5, steps 2500: ARG +0.50" in show.text
    assert max(map(len, show.lines)) <= 100


def test_the_winner_may_stand_at_an_early_rung(show: Shown) -> None:
    """Neither the last row nor the last rung of a trial."""
    scores = {0: (1.0, 33.02, -66.97), 1: (13.02, 2.0, 3.0)}
    show.display.ranking(
        [
            _point(index, steps, arg)
            for index, args in scores.items()
            for steps, arg in zip(RUNGS, args, strict=True)
        ]
    )
    assert rows_of(show.text)[0][1:5] == ["2e-05", "0.5", "5000", "+33.02"]
    assert "best     inner_lr 2e-05, outer_lr 0.5, steps 5000: ARG +33.02" in show.text
    assert "worst    inner_lr 2e-05, outer_lr 0.5, steps 10000: ARG -66.97" in show.text


def test_equal_scores_keep_the_order_of_the_search_and_fewer_steps_first(show: Shown) -> None:
    show.display.ranking([_point(0, 2500, 1.0), _point(0, 5000, 1.0), _point(1, 2500, 1.0)])
    assert [row[1:4:2] for row in rows_of(show.text)] == [
        ["2e-05", "2500"],
        ["2e-05", "5000"],
        ["3e-05", "2500"],
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_a_table_is_as_wide_as_its_words_on_a_narrow_console(width: int) -> None:
    wide, narrow = Shown(), Shown(width=width)
    for show in (wide, narrow):
        show.display.ranking([_point(0, 2500, 1.0), _point(1, 2500, 2.0)])
        show.display.points_table([_point(0, 2500, 1.0)])
    assert [line.rstrip() for line in narrow.lines] == [line.rstrip() for line in wide.lines]
    assert max(len(line.rstrip()) for line in narrow.lines) > 40


def test_points_without_an_arg_come_last_and_say_so(show: Shown) -> None:
    changes = {"gain": None, "score": BAD_SCORE, "mean_test": None, "note": "diverged at step 7"}
    diverged = [_point(0, steps, 1.0, **changes) for steps in (5000, 10000)]
    show.display.ranking([*diverged, _point(1, 5000, -99.0)])
    assert rows_of(show.text)[1][3:] == ["5000", "diverged", "–", "–", "50"]
    assert show.lines.count("note: diverged at step 7") == 1, "of both rungs"
    assert "best     inner_lr 3e-05, outer_lr 0.5, steps 5000: ARG -99.00" in show.text


def test_without_any_arg_no_point_is_called_best(show: Shown) -> None:
    show.display.ranking([_point(0, 2500, None), _point(1, 2500, None)])
    assert "no point has an ARG: there is no best one" in show.text
    assert "best  " not in show.text
    assert "worst" not in show.text
    assert [row[4] for row in rows_of(show.text)] == ["undefined", "undefined"]
    # the reason is the same for both, and said once
    assert show.text.count("note: no relative gain on a: the baseline scores 0") == 1


def test_an_arg_over_a_part_of_the_tasks_is_marked_and_the_mark_explained(show: Shown) -> None:
    tasks = (
        TaskGain(task="a", score=0.5, baseline=0.4, gain=0.25, reason=None),
        TaskGain(task="b", score=0.5, baseline=0.0, gain=None, reason="the baseline scores 0"),
    )
    gain = Gain(tasks=tasks, arg=None, low=20.0, high=30.0, undefined_resamples=0)
    note = "* ARG over 1 of 2 tasks"
    score = score_of(1.0, gain=gain, score=25.0, note=note)
    show.display.ranking([dataclasses.replace(_point(0, 2500, 1.0), score=score)])
    assert rows_of(show.text)[0][4:7] == ["+25.00*", "[+20.00,", "+30.00]"]
    assert f"note: {note}" in show.lines
    assert "note: no relative gain on b: the baseline scores 0" in show.lines


def test_a_partial_search_says_so_beside_its_ranking() -> None:
    job = maml_job(partial="partial: 3 of 45 source tasks missing")
    show = Shown(job)
    show.display.ranking([point_of(job.trials[0], 2500, 1.0)])
    assert "partial: 3 of 45 source tasks missing" in show.lines


def test_what_was_stopped_stands_under_the_ranking_and_fails_nothing(show: Shown) -> None:
    trial = show.job.trials[1]
    missing = [missing_of(trial, steps, stopped=stop_of(trial.name)) for steps in (5000, 10000)]
    show.display.ranking([_point(0, 2500, 3.0), _point(1, 2500, 1.0), *missing])
    line = f"stopped  {NAME}: by asha at rung 5000: +1 is below +2"
    assert show.lines.count(line) == 1
    assert len(rows_of(show.text)) == 2 + 1  # two ranks, and the count of what is missing
    assert "2 points of 1 stopped trial were not computed; without --scheduler" in show.text
    assert "worst    inner_lr 3e-05, outer_lr 0.5, steps 2500" in show.text


def test_a_long_list_of_stops_is_cut(show: Shown) -> None:
    trial = show.job.trials[1]
    stops = [stop_of(trial.name, point=str(number)) for number in range(50)]
    missing = [missing_of(trial, 5000, stopped=stop) for stop in stops]
    show.display.ranking([_point(0, 2500, 3.0), *missing])
    assert show.text.count("stopped  maml-") == 20
    assert "stopped  … and 30 more" in show.lines
    assert "50 points of 50 stopped trials were not computed" in show.text


def test_exactly_twenty_stops_are_all_listed(show: Shown) -> None:
    trial = show.job.trials[1]
    missing = [
        missing_of(trial, 5000, stopped=stop_of(trial.name, point=str(number)))
        for number in range(20)
    ]
    show.display.ranking([_point(0, 2500, 3.0), *missing])
    assert show.text.count("stopped  maml-") == 20
    assert "more" not in show.text


def test_an_interval_of_one_upstream_seed_is_said_to_be_one() -> None:
    for kind in (Display, CellDisplay):
        console, text = console_of()
        kind(maml_job(), console=console).ranking([_point(0, 2500, 1.0)])
        assert "[+0.00, +2.00]" in text()
        assert ONE_SEED in text()
    console, text = console_of()
    Display(maml_job(), console).ranking([_point(0, 2500, 1.0, gain=None)])
    assert ONE_SEED not in text()  # no interval, nothing to say of one
