from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mpt.config import StudyConfig, UpstreamConfig
from mpt.metrics.relative_gain import Gain, TaskGain
from mpt.search.choosers import Search
from mpt.search.cost.plan import Load
from mpt.search.display.display import Display
from mpt.search.display.status import Status
from mpt.search.job import Course, SearchJob, courses_of
from mpt.search.standing import Entry, ranked
from mpt.search.stops import Stop
from mpt.study.spaces import Trajectory, load_space
from mpt.study.study import StudyPlan
from mpt.trial.objective import BAD_SCORE, PointScore

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


def _entries(job: SearchJob) -> list[Entry]:
    """Return a recorded point at the first rung of every course."""
    return [
        dataclasses.replace(_entry(0, 2500, float(place)), index=place, course=course)
        for place, course in enumerate(job.courses)
    ]


def test_courses_of_several_studies_and_methods_have_columns_for_what_differs() -> None:
    job, (first, second, third) = _job(), _job().courses
    other = dataclasses.replace(
        second.plan,
        config=StudyConfig(partition="qa_to_qa", backbone="google/t5-base-lm-adapt"),
        target_shots=32,
    )
    learned = Trajectory(config=UpstreamConfig(method="multitask"), rungs=(2500,))
    job = dataclasses.replace(
        job,
        courses=(
            first,
            dataclasses.replace(second, plan=other),
            dataclasses.replace(third, trajectory=learned),
        ),
    )
    show = Display(job, Console(file=io.StringIO(), width=120, markup=False, soft_wrap=True))
    show.ranking(_entries(job))
    text = _printed(show)
    head = next(line for line in text.splitlines() if "rank" in line)
    assert head.split()[:6] == [
        *("rank", "method", "partition", "backbone", "target_shots", "inner_lr"),
    ]
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["1"][1:6] == ["multitask", "random_to_random", "embedded", "own", "–"]
    assert rows["2"][1:6] == ["maml", "qa_to_qa", "t5-base-lm-adapt", "32", "3e-05"]
    show.lines_head()
    show.landed(_entries(job)[1], 1, 1.0, 10.0)
    head, line = _printed(show).splitlines()[-2:]
    assert len(line) == len(head), "columns stand under each other"


def test_multitask_learning_has_no_inner_rate_to_show() -> None:
    plan = _job().plans[0]
    many = [
        Trajectory(config=UpstreamConfig(method="multitask", batch_size=n), rungs=(50,))
        for n in (4, 8)
    ]
    job = dataclasses.replace(_job(), courses=courses_of(plan, many))
    assert Display(job)._columns.names == ["outer_lr", "batch_size"]


def test_a_search_that_chooses_has_columns_for_what_it_searches() -> None:
    space = load_space("reptile", "wide")
    search = Search(space=space, plan=_job().plans[0], count=7, seed=0)
    job = dataclasses.replace(_job(), courses=(search.first,), search=search)
    assert Display(job)._columns.names == ["inner_lr", "outer_lr", "inner_steps"]
    show = Display(job, Console(file=io.StringIO(), width=100, markup=False, soft_wrap=True))
    load = Load(
        courses=(), points=3, points_there=0, leaves=1, leaves_there=0, shared=0, shared_there=0
    )
    show.header(load)
    assert "points   21 from 7 trajectories" in _printed(show)


def _stop(course: Course, steps: int = 5000) -> Stop:
    return Stop(point="k", course=course.name, steps=steps, by="asha", reason="+1 is below +2")


def test_what_was_stopped_stands_under_the_ranking_and_fails_nothing(show: Display) -> None:
    stop = _stop(_job().courses[1])
    missing = [
        dataclasses.replace(_entry(1, steps, 0.0), score=None, record=None, stopped=stop)
        for steps in (5000, 10000)
    ]
    show.ranking([_entry(0, 2500, 3.0), _entry(1, 2500, 1.0), *missing])
    text = _printed(show)
    line = "stopped  maml-inner3e-05-outer0.5-k1-b2-random_to_random: by asha at rung 5000: +1 is"
    assert text.count(line) == 1
    assert "2 points of 1 stopped courses were not computed; without --scheduler" in text


def test_a_long_list_of_stops_is_cut(show: Display) -> None:
    stops = [
        dataclasses.replace(_stop(_job().courses[1]), point=str(number)) for number in range(50)
    ]
    entries = [
        dataclasses.replace(_entry(1, 5000, 0.0), score=None, record=None, stopped=stop)
        for stop in stops
    ]
    show.ranking([_entry(0, 2500, 3.0), *entries])
    text = _printed(show)
    assert text.count("stopped  maml-") == 20
    assert "stopped  … and 30 more (stops.jsonl)" in text


def test_the_document_goes_to_stdout_and_nothing_else_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = Display(_job(), as_json=True)
    show.lines_head()
    show.landed(_entry(1, 5000, 10.14), 4, 12.5, 3000.0)
    show.problem("x.json: torn")
    show.ranking([_entry(0, 2500, 1.0)])
    show.document(lambda: {"points": [1], "name": "φ"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"points": [1], "name": "φ"}
    assert "x.json: torn" in err
    assert "rank" in err


def test_without_json_no_document_is_even_made(
    show: Display, capsys: pytest.CaptureFixture[str]
) -> None:
    show.document(lambda: pytest.fail("made in vain"))
    assert capsys.readouterr().out == ""


def test_in_a_pipe_a_status_line_comes_at_most_every_thirty_seconds() -> None:
    now = [0.0]
    console = Console(file=io.StringIO(), width=100, markup=False, soft_wrap=True)
    show = Display(_job(), console, clock=lambda: now[0])
    with show.live():
        for second in range(0, 100, 5):
            now[0] = float(second)
            show.status(f"runs at {second}" if second != 30 else "")
    assert _printed(show).split("\n")[:-1] == ["runs at 35", "runs at 65", "runs at 95"]


def test_on_a_terminal_the_status_line_stays_at_the_bottom_and_goes_in_the_end() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, markup=False)
    show = Display(_job(), console)
    with show.live():
        show.status("runs 1")
        show.say("a point")
        show.status("runs 2")
    show.say("after")
    show.status("runs 3")  # no line of its own when the search is over
    text = _printed(show)
    assert text.index("runs 1") < text.index("a point") < text.rindex("runs 2")
    assert "runs 3" not in text
    assert text.endswith("after\n")
    # what is printed while it is shown goes above it: the line is written again after it
    assert "runs 1" in text[text.index("a point") :]


def test_the_status_adds_up_over_trials_and_forgets_those_that_ended() -> None:
    status = Status()
    assert status.text(60.0) == ""
    tuning = {"finished": 3, "running": 4, "waiting": 5, "steps_s": 1.5, "examples_s": 12.0}
    status.report(0, tuning)
    status.report(1, {**tuning, "finished": 10})
    assert status.text(60.0) == (
        "runs     13 finished, 8 running, 10 waiting · 3 steps/s, 24 examples/s · about 60 s left"
    )
    status.report(0, {**tuning, "finished": 4})  # the newest report of a trial counts
    assert status.text(60.0).startswith("runs     14 finished")
    status.report(0, None)
    status.report(1, None)
    assert status.text(60.0) == ""


def test_a_problem_is_said_once(show: Display) -> None:
    for _ in range(2):
        show.problem("x.json: torn")
    assert _printed(show) == "note: x.json: torn\n"
