from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from mpt.config import StudyConfig, UpstreamConfig
from mpt.metrics.relative_gain import Gain, TaskGain
from mpt.plan import Load
from mpt.search.display import Display
from mpt.search.job import SearchJob, courses_of
from mpt.search.objective import BAD_SCORE, PointScore
from mpt.search.spaces import Trajectory
from mpt.search.standing import Entry, ranked
from mpt.search.study import StudyPlan

INNER = (2e-5, 3e-5, 5e-5)


def _job(partial: str | None = None) -> SearchJob:
    return SearchJob(
        courses=courses_of(
            StudyPlan(config=StudyConfig(), source=("s",), scored=("a", "b"), partial=partial),
            [
                Trajectory(config=UpstreamConfig(inner_lr=lr), rungs=(2500, 5000, 10000))
                for lr in INNER
            ],
        ),
        results=Path("/results"),
        title='space "paper"',
    )


def _entry(index: int, steps: int, arg: float | None, **changes: object) -> Entry:
    """Return a recorded point with this ARG; None: every baseline is zero."""
    gain = None if arg is None else arg / 100
    reason = "the baseline scores 0" if arg is None else None
    task = TaskGain(task="a", score=0.5, baseline=0.4, gain=gain, reason=reason)
    bounds = {"low": None, "high": None} if arg is None else {"low": arg - 1, "high": arg + 1}
    score = PointScore(
        gain=Gain(tasks=(task,), arg=arg, undefined_resamples=0, **bounds),
        score=BAD_SCORE if arg is None else arg,
        mean_test=0.5,
        leaves=50,
        of=50,
        note="",
    )
    return Entry(
        index=index,
        course=_job().courses[index],
        steps=steps,
        record={},
        score=dataclasses.replace(score, **changes),  # type: ignore[arg-type]
    )


def _printed(show: Display) -> str:
    file = show._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.fixture
def show() -> Display:
    return Display(_job(), Console(file=io.StringIO(), width=100, markup=False, soft_wrap=True))


def test_the_header_says_what_how_much_and_where(show: Display) -> None:
    load = Load(
        courses=(),
        points=9,
        points_there=0,
        leaves=450,
        leaves_there=100,
        shared=50,
        shared_there=50,
    )
    show.header(load)
    text = _printed(show)
    for part in (
        "MAML search · random_to_random · backbone embedded",
        "points   9 from 3 trajectories (steps 2500, 5000, 10000 are rungs of one run)",
        "500 downstream runs (450 + 50 shared baseline), 150 on disk",
        "2 validation tasks × 5 data seeds",
        "/results",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_point_is_one_line_under_its_head(show: Display) -> None:
    show.lines_head()
    show.landed(_entry(1, 5000, 10.14), 4, 12.5, 3000.0)
    head, line = _printed(show).splitlines()[-2:]
    assert line.split() == [
        *("4/9", "3e-05", "0.5", "5000", "+10.14"),
        *("[+9.14,", "+11.14]", "+12.50", "50", "min"),
    ]
    assert len(line) == len(head) <= 100


def test_every_point_stands_in_the_ranking_best_first(show: Display) -> None:
    entries = [
        _entry(index, steps, float(10 * index + steps / 5000))
        for index in range(3)
        for steps in (2500, 5000, 10000)
    ]
    show.ranking(entries)
    text = _printed(show)
    rows = [
        line.split()
        for line in text.splitlines()
        if line.split()[:1] and line.split()[0].isdigit()
    ]
    assert [int(row[0]) for row in rows] == list(range(1, 10))
    assert rows[0][1:5] == ["5e-05", "0.5", "10000", "+22.00"]
    assert rows[-1][1:5] == ["2e-05", "0.5", "2500", "+0.50"]
    assert "50 of 50" in text
    assert (
        "best     inner_lr 5e-05, outer_lr 0.5, steps 10000: ARG +22.00 [+21.00, +23.00]" in text
    )
    assert "worst    inner_lr 2e-05, outer_lr 0.5, steps 2500: ARG +0.50" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_winner_is_the_argmax_over_trajectory_and_rung() -> None:
    # The best rung is an early one: neither the last row nor the last rung of a trial.
    entries = [_entry(0, 2500, 1.0), _entry(0, 5000, 33.02), _entry(0, 10000, -66.97)]
    entries += [_entry(1, 2500, 13.02), _entry(1, 5000, 2.0), _entry(1, 10000, 3.0)]
    best = ranked(entries)[0]
    assert (best.index, best.steps) == (0, 5000)


def test_equal_scores_keep_the_order_of_the_search_and_fewer_steps_first() -> None:
    entries = [_entry(0, 2500, 1.0), _entry(0, 5000, 1.0), _entry(1, 2500, 1.0)]
    assert [(one.index, one.steps) for one in ranked(entries)] == [
        (0, 2500),
        (0, 5000),
        (1, 2500),
    ]


def test_points_without_an_arg_come_last_and_say_so(show: Display) -> None:
    diverged = _entry(0, 5000, 1.0, gain=None, score=BAD_SCORE, note="diverged at step 7")
    show.ranking([diverged, _entry(1, 5000, -99.0)])
    text = _printed(show)
    assert "diverged at step 7" in text
    assert "best     inner_lr 3e-05" in text
    assert "ARG -99.00" in text


def test_without_any_arg_no_point_is_called_best(show: Display) -> None:
    show.ranking([_entry(0, 2500, None), _entry(1, 2500, None)])
    text = _printed(show)
    assert "no point has an ARG: there is no best one" in text
    assert "best  " not in text
    assert "note: no relative gain on a: the baseline scores 0" in text


def test_a_partial_search_says_so_beside_its_ranking() -> None:
    console = Console(file=io.StringIO(), width=100, markup=False, soft_wrap=True)
    show = Display(_job(partial="partial: 3 of 45 source tasks missing"), console)
    show.ranking([_entry(0, 2500, 1.0)])
    assert "partial: 3 of 45 source tasks missing" in _printed(show)


def test_a_problem_is_said_once(show: Display) -> None:
    for _ in range(2):
        show.problem("x.json: torn")
    assert _printed(show) == "note: x.json: torn\n"
