"""What a person sees of a search, word for word."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from display_toys import (
    RUNGS,
    Shown,
    console_of,
    job_of,
    maml_job,
    missing_of,
    point_of,
    rows_of,
    stop_of,
    trial_of,
    work_of,
)
from rich.console import Console

from mpt.config import StudyConfig, UpstreamConfig
from mpt.search.display.display import Display, make_console
from mpt.search.display.header import SMOKE, folder_text, studies_text
from mpt.search.job import Suggestions
from mpt.search.leaderboard import Leaderboard, PointStatus
from mpt.store.records import StudyRecord
from mpt.study.spaces import load_space
from mpt.study.study import StudyPlan
from mpt.trial.score import BAD_SCORE


@pytest.fixture
def show() -> Shown:
    return Shown()


def _point(index: int, steps: int, arg: float | None, **changes: Any) -> PointStatus:
    return point_of(maml_job().trials[index], steps, arg, index=index, **changes)


def _board(*records: StudyRecord) -> Leaderboard:
    """Return as much of a leaderboard as a header reads."""
    studies = dict(enumerate(records))
    return cast(Leaderboard, SimpleNamespace(studies=studies))


def _study(**changes: Any) -> StudyRecord:
    values = {"backbone": "embedded", "backbone_digest": "d", "gym": "embedded"}
    return StudyRecord(**{**values, "partition": "p", "role": "validation", **changes})


def test_the_head_names_the_steps_of_all_trials_and_whether_they_share_runs() -> None:
    """As where an outer rate decays, which needs a trial for every number of steps."""
    trials = [trial_of(UpstreamConfig(decay_horizon=n), rungs=(n,)) for n in (36, 12)]
    show = Shown(job_of(*trials))
    show.display.opening()
    assert "points   2 from 2 trials (steps 12, 36)" in show.text


def test_the_header_says_what_how_much_and_where(show: Shown) -> None:
    study = _study(precision="bfloat16", train_seed=7)
    show.display.opening()
    show.display.header(work_of(), _board(study))
    for part in (
        "MAML search · random_to_random · backbone embedded",
        "points   9 from 3 trials (steps 2500, 5000, 10000 are rungs of one run)",
        'space    space "paper"',
        "500 downstream runs (450 + 50 shared baseline), 150 stored",
        "2 validation tasks × 5 data seeds",
        f"study    {study.id} (bfloat16, train seed 7)",
        "results  /results",
    ):
        assert part in show.text
    assert max(map(len, show.lines)) <= 100
    assert "smoke" not in show.text
    assert "partial" not in show.text


def test_a_folder_is_shown_from_here_where_it_lies_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_text(tmp_path / "results" / "search") == "results/search"
    # "." would not say where
    assert folder_text(tmp_path) == str(tmp_path)
    assert folder_text(tmp_path.parent / "other") == str(tmp_path.parent / "other")


def test_without_a_board_the_header_names_no_study(show: Shown) -> None:
    show.display.opening()
    show.display.header(work_of())
    assert "study  " not in show.text


def test_a_smoke_run_is_labelled_and_a_partial_one_too() -> None:
    show = Shown(maml_job(smoke=True, partial="partial: smoke, 3 source tasks"))
    show.display.opening()
    show.display.header(work_of())
    assert "a smoke run shows that the path works; its numbers mean nothing" in show.text
    assert "  partial: smoke, 3 source tasks" in show.lines


def test_a_landed_line_has_blanks_between_its_words_whatever_they_are() -> None:
    show = Shown(maml_job())
    trial = show.job.trials[0]
    wide = point_of(trial, 10000, 1234.5)
    for point in (point_of(trial, 10000, None), wide, point_of(trial, 10000, -100.0)):
        show.display.landed(point, 9, 1234.5, 40.0)
    undefined, large, _ = (line.split()[3:-2] for line in show.lines)
    assert undefined == ["10000", "undefined", "–", "+1234.50"]
    assert large == ["10000", "+1234.50", "[+1233.50,", "+1235.50]", "+1234.50"]


def test_no_number_of_a_smoke_run_is_called_the_best() -> None:
    shown = []
    for smoke in (False, True):
        show = Shown(maml_job(smoke=smoke))
        points = [point_of(trial, RUNGS[0], 1.0) for trial in show.job.trials]
        show.display.lines_head()
        for point in points:
            show.display.landed(point, 1, 2.0, 3.0)
        show.display.ranking(points)
        shown.append(show)
    real, smoke_run = shown
    assert "best" in real.text
    assert real.text.count("+2.00") > smoke_run.text.count("+2.00"), "the best so far"
    assert "best" not in smoke_run.text
    assert smoke_run.lines[-1] == SMOKE
    assert SMOKE not in real.text


def test_a_job_over_several_studies_and_methods_names_each_once() -> None:
    reptile = UpstreamConfig(method="reptile")
    other = StudyConfig(partition="qa_to_qa", backbone="google/t5-base-lm-adapt")
    trials = [trial_of(role="target"), trial_of(reptile, role="target"), trial_of(study=other)]
    show = Shown(job_of(*trials))
    show.display.opening()
    show.display.header(work_of())
    assert show.lines[0] == (
        "MAML, REPTILE replay · random_to_random, qa_to_qa · backbone embedded, "
        "google/t5-base-lm-adapt"
    )
    assert "2 target tasks × 5 data seeds" in show.text


def test_one_of_something_is_singular_in_a_header() -> None:
    study = StudyConfig(data_seeds=(13,))
    trial = trial_of(study=study, role="target", rungs=(7,), scored=("a",))
    show = Shown(job_of(trial))
    show.display.opening()
    show.display.header(work_of())
    assert "  points   1 from 1 trial (steps 7)" in show.text
    assert "on 1 target task × 1 data seed\n" in show.text


def test_of_many_studies_the_first_four_are_named() -> None:
    records = [_study(partition=str(number)) for number in range(6)]
    ids = [record.id for record in records]
    assert len(set(ids)) == 6
    assert studies_text(records) == f"{', '.join(ids[:4])} and 2 more (float32, train seed 42)"
    assert studies_text(records[:4]) == f"{', '.join(ids[:4])} (float32, train seed 42)"


def test_the_head_says_how_many_downstream_starts_there_are_where_it_is_not_one() -> None:
    record = _study(settings={"starts": 2})
    assert studies_text([record]) == f"{record.id} (float32, train seed 42, starts 2)"
    show = Shown(job_of(trial_of(study=StudyConfig(starts=2))))
    show.display.opening()
    assert "validation tasks × 5 data seeds × 2 starts\n" in show.text
    one = Shown(job_of(trial_of()))
    one.display.opening()
    assert "starts" not in one.text.split("results")[0].replace("restarts", "")


def test_the_plan_lists_every_point_and_whether_it_is_stored(show: Shown) -> None:
    trial = show.job.trials[1]
    stop = stop_of(trial.name)
    show.display.points_table(
        [_point(0, 2500, 1.0), missing_of(trial, 5000), missing_of(trial, 10000, stopped=stop)]
    )
    assert rows_of(show.text) == [
        ["1", "2e-05", "0.5", "2500", "yes"],
        ["2", "3e-05", "0.5", "5000", "no"],
        ["3", "3e-05", "0.5", "10000", "stopped"],
    ]


def test_a_point_is_one_line_under_its_head(show: Shown) -> None:
    show.display.lines_head()
    show.display.landed(_point(1, 5000, 10.14), 4, 12.5, 3000.0)
    head, line = show.lines[-2:]
    assert line.split() == [
        *("4/9", "3e-05", "0.5", "5000", "+10.14"),
        *("[+9.14,", "+11.14]", "+12.50", "50", "min"),
    ]
    assert len(line) == len(head) <= 80


def test_a_search_over_two_rates_fits_a_terminal_of_80_columns() -> None:
    show = Shown(width=80)
    show.display.opening()
    show.display.header(work_of())
    show.display.lines_head()
    points = [_point(n, steps, -12.34) for n in range(3) for steps in (2500, 5000, 10000)]
    for done, point in enumerate(points, start=397):
        show.display.landed(point, done, 12.34, 2e5)
    show.display.ranking(points)
    lines = [line.rstrip() for line in show.lines]
    assert max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.parametrize("best", [None, BAD_SCORE])
def test_a_point_lands_where_there_is_no_best_one(show: Shown, best: float | None) -> None:
    show.display.landed(_point(1, 5000, None, gain=None), 1, best, 10.0)
    (line,) = show.lines
    assert line.split() == ["1/9", "3e-05", "0.5", "5000", "diverged", "–", "–", "10", "s"]


def test_trials_of_several_studies_and_methods_have_columns_for_what_differs() -> None:
    first, second, _ = maml_job().trials
    other = dataclasses.replace(
        second.plan,
        config=StudyConfig(partition="qa_to_qa", backbone="google/t5-base-lm-adapt"),
        target_shots=32,
    )
    learned = trial_of(UpstreamConfig(method="multitask"), rungs=(2500,))
    show = Shown(job_of(first, dataclasses.replace(second, plan=other), learned), width=120)
    points = [
        point_of(trial, 2500, float(place), index=place)
        for place, trial in enumerate(show.job.trials)
    ]
    show.display.ranking(points)
    head = next(line for line in show.lines if "rank" in line)
    assert head.split()[:6] == [
        *("rank", "method", "partition", "backbone", "target_shots", "inner_lr"),
    ]
    rows = {row[0]: row for row in rows_of(show.text)}
    assert rows["1"][1:6] == ["multitask", "random_to_random", "embedded", "own", "–"]
    assert rows["2"][1:6] == ["maml", "qa_to_qa", "t5-base-lm-adapt", "32", "3e-05"]
    show.display.lines_head()
    show.display.landed(points[1], 1, 1.0, 10.0)
    head, line = show.lines[-2:]
    assert len(line) == len(head), "columns stand under each other"


def test_the_header_counts_the_trials_that_a_search_will_choose() -> None:
    space = load_space("reptile", "wide")
    plan: StudyPlan = maml_job().plans[0]
    search = Suggestions(space=space, plan=plan, count=7, seed=0)
    show = Shown(dataclasses.replace(maml_job(), trials=(search.first,), suggestions=search))
    show.display.opening()
    show.display.header(work_of())
    assert "points   21 from 7 trials" in show.text
    show.display.landed(point_of(search.first, search.first.upstream.rungs[0], 1.0), 1, 1.0, 0.0)
    assert show.lines[-1].split()[0] == "1/21"


def test_lines_of_further_upstream_seeds_fit_80_columns_and_count_all_points() -> None:
    """Then there are more points than were to be chosen, and none is the best by one seed."""
    space = load_space("maml", "embedded_wide")
    plan: StudyPlan = maml_job().plans[0]
    search = Suggestions(space=space, plan=plan, count=2, seed=0)
    config = search.first.upstream.config
    assert isinstance(config, UpstreamConfig)
    seeds = [dataclasses.replace(config, seed=seed) for seed in (None, 1042, 2042)]
    trials = tuple(trial_of(one, rungs=RUNGS) for one in seeds)
    job = dataclasses.replace(maml_job(), trials=trials, suggestions=search)
    show = Shown(job, width=80)
    show.display.lines_head()
    show.display.landed(point_of(trials[2], RUNGS[0], -11.21), 9, 20.08, 2e5)
    head, line = show.lines[-2:]
    assert "best" not in head
    assert "20.08" not in line
    assert line.split()[0] == f"9/{3 * len(RUNGS)}"
    assert len(line) == len(head) <= 80


def test_a_stop_is_told_with_its_reason(show: Shown) -> None:
    show.display.stopped(stop_of("maml-k1-b2"))
    assert show.lines == ["stopped  maml-k1-b2: by asha at rung 5000: +1 is below +2"]


def test_the_document_goes_to_stdout_and_nothing_else_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show = Display(maml_job(), as_json=True)
    show.lines_head()
    show.landed(_point(1, 5000, 10.14), 4, 12.5, 3000.0)
    show.problem("x.json: torn")
    show.ranking([_point(0, 2500, 1.0)])
    show.document(lambda: {"points": [1], "name": "φ"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"points": [1], "name": "φ"}
    assert "φ" in out
    assert "x.json: torn" in err
    assert "rank" in err


def test_without_json_no_document_is_even_made(
    show: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    show.display.document(lambda: pytest.fail("made in vain"))
    assert capsys.readouterr().out == ""


def test_in_a_pipe_a_status_line_comes_at_most_every_thirty_seconds() -> None:
    now = [0.0]
    show = Shown(clock=lambda: now[0])
    with show.display.live():
        for second in range(0, 100, 5):
            now[0] = float(second)
            show.display.status(f"runs at {second}" if second != 30 else "")
    assert show.lines == ["runs at 35", "runs at 65", "runs at 95"]


def test_on_a_terminal_the_status_line_stays_at_the_bottom_and_goes_in_the_end() -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, markup=False)
    show = Display(maml_job(), console)
    with show.live():
        show.status("runs 1")
        show.say("a point")
        show.status("runs 2")
    show.say("after")
    show.status("runs 3")  # no line of its own when the search is over
    text = file.getvalue()
    assert text.index("runs 1") < text.index("a point") < text.rindex("runs 2")
    assert "runs 3" not in text
    assert text.endswith("after\n")
    # what is printed while it is shown goes above it: the line is written again after it
    assert "runs 1" in text[text.index("a point") :]


def test_a_problem_is_said_once(show: Shown) -> None:
    for _ in range(2):
        show.display.problem("x.json: torn")
    assert show.text == "note: x.json: torn\n"


def test_the_document_goes_where_the_caller_wants_it(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[object] = []
    Shown(as_json=True, sink=found.append).display.document(lambda: {"points": [1]})
    assert found == [{"points": [1]}]
    assert capsys.readouterr().out == ""


def test_a_number_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Display(maml_job(), as_json=True).document(lambda: {"arg": float("nan")})


def test_words_in_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    assert console.width == 100  # in a pipe
    console.print("[bold] 3.5 [/x]" + 200 * "y")
    assert capsys.readouterr().out == "[bold] 3.5 [/x]" + 200 * "y" + "\n"


def test_a_plan_without_known_points_prints_no_empty_table() -> None:
    show = Shown(maml_job())
    show.display.points_table([])
    assert show.text == ""


def test_on_a_terminal_a_long_line_is_folded_under_its_own_label() -> None:
    """Its own wrap would break words, and put them under the labels."""
    file = io.StringIO()
    console = Console(
        file=file, width=40, force_terminal=True, soft_wrap=True, no_color=True, highlight=False
    )
    show = Display(maml_job(), console)
    show.fact("  seeds    42 for all, 1042, 2042 for those that may be the best")
    show.fact("note: " + "word " * 9)
    show.say("a command that is copied stays one line, however long")
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "  seeds    42 for all, 1042, 2042 for",
        "           those that may be the best",
        "note: word word word word word word word",
        "      word word",
        "a command that is copied stays one line, however long",
    ]
    pipe, text = console_of(40)
    Display(maml_job(), pipe).fact("  seeds    " + "42, " * 12)
    assert text().count("\n") == 1  # what other programs read is one line
