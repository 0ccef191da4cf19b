from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from mpt.config import StudyConfig
from mpt.records import append_line, read_lines
from mpt.search.choosers import ListChooser, Search, TpeChooser, open_chooser, suggested_before
from mpt.search.job import Course, SearchJob
from mpt.study.spaces import load_space
from mpt.study.study import StudyPlan
from mpt.trial.objective import BAD_SCORE

PLAN = StudyPlan(config=StudyConfig(), source=("s",), scored=("v",), partial=None)


def _search(name: str = "wide", count: int = 12, seed: int = 42) -> Search:
    return Search(space=load_space("maml", name), plan=PLAN, count=count, seed=seed)


def _job(results: Path, search: Search) -> SearchJob:
    return SearchJob(courses=(search.first,), results=results, title="t", search=search)


def _score(course: Course) -> float:
    """A hill in log space with its top at inner 1e-2, outer 0.1."""
    config = course.trajectory.config
    inner, outer = math.log10(config.inner_lr / 1e-2), math.log10(config.outer_lr / 0.1)
    return 20.0 - inner**2 - 4 * outer**2


def _run(chooser: TpeChooser, steps: int = 10**6) -> list[Course]:
    done: list[Course] = []
    while len(done) < steps and (course := chooser.next()) is not None:
        chooser.report(course, {2500: _score(course) - 1, 5000: _score(course)}, final=True)
        done.append(course)
    return done


def test_a_list_is_handed_out_in_its_order() -> None:
    courses = [Course(plan=PLAN, trajectory=one) for one in load_space("maml", "paper").grid()]
    chooser = ListChooser(courses)
    taken = []
    while (course := chooser.next()) is not None:
        chooser.report(course, {}, final=True)
        taken.append(course)
    assert taken == courses


def test_tpe_starts_with_the_papers_best_point_and_stays_inside_the_ranges() -> None:
    search = _search()
    courses = _run(TpeChooser(search))
    assert len(courses) == len(set(courses)) == 12
    first = courses[0].trajectory.config
    assert (first.inner_lr, first.outer_lr) == (3e-5, 0.5)
    assert courses[0] == search.first
    for course in courses:
        point = search.space.settings(course.trajectory)
        assert all(domain.holds(point[domain.name]) for domain in search.space.domains)
        assert course.trajectory.rungs == (2500, 5000, 10000)


def test_tpe_finds_a_better_place_than_random_draws_do() -> None:
    # mean over seeds of what is tried after the start: TPE must go where the scores are
    learned, drawn = [], []
    for seed in range(4):
        search = _search(count=25, seed=seed)
        learned += [_score(course) for course in _run(TpeChooser(search))[10:]]
        drawn += [
            _score(Course(plan=PLAN, trajectory=one)) for one in search.space.sample(25, seed)[10:]
        ]
    assert np.mean(learned) > np.mean(drawn) + 3


def test_a_listed_space_is_gone_through_once_and_then_there_is_nothing_more() -> None:
    search = _search("paper", count=9)
    courses = _run(TpeChooser(search))
    assert {course.trajectory for course in courses} == set(search.space.grid())
    assert len(courses) == 9
    beyond = dataclasses.replace(search, count=12)
    assert len(_run(TpeChooser(beyond))) == 9


def test_a_range_of_whole_numbers_is_gone_through_once_too() -> None:
    space = load_space("reptile", "wide")
    steps = next(domain for domain in space.domains if domain.name == "inner_steps")
    small = dataclasses.replace(
        space, domains=(steps,), first={}, fixed={**space.fixed, "inner_lr": 1.0, "outer_lr": 0.1}
    )
    search = Search(space=small, plan=PLAN, count=20, seed=0)
    chooser = TpeChooser(search)
    found = []
    while (course := chooser.next()) is not None:
        chooser.report(course, {1: 0.0}, final=True)
        found.append(course.trajectory.config.inner_steps)
    assert sorted(found) == list(range(2, 11))


def test_the_seed_acts_and_the_same_seed_repeats() -> None:
    courses = _run(TpeChooser(_search(seed=1)))
    assert courses == _run(TpeChooser(_search(seed=1)))
    assert courses[1:] != _run(TpeChooser(_search(seed=2)))[1:]


def test_the_scores_act_and_only_final_ones() -> None:
    def last(sign: float, final: bool) -> Course:
        chooser = TpeChooser(_search(count=20))
        for _ in range(19):
            course = chooser.next()
            assert course is not None
            chooser.report(course, {2500: sign * _score(course)}, final=final)
        course = chooser.next()
        assert course is not None
        return course

    assert last(1.0, True) != last(-1.0, True)
    assert last(1.0, False) == last(-1.0, False)


def test_a_diverged_course_is_a_bad_one_and_a_failed_one_teaches_nothing() -> None:
    chooser = TpeChooser(_search(count=10))
    for number in range(10):
        course = chooser.next()
        assert course is not None
        chooser.report(course, {2500: BAD_SCORE} if number % 2 else {}, final=True)
        chooser.report(course, {2500: 50.0}, final=True)  # it has ended: nothing more counts
    values = [trial.value for trial in chooser._study.trials if trial.value is not None]
    assert values == [BAD_SCORE] * 5


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = _run(TpeChooser(_search()))
    job = _job(tmp_path, _search())
    first = open_chooser(job)
    assert first is not None
    before = _run(first, 7)
    assert before == whole[:7]
    cut_off = first.next()  # handed out, but its end was never told

    again = open_chooser(job)
    assert again is not None
    assert again.courses == [*before, cut_off]
    for course in before:  # what the records say
        again.report(course, {5000: _score(course)}, final=True)
    rest = _run(again)
    assert rest[0] == cut_off, "an unfinished suggestion comes first"
    assert [*before, *rest] == whole


def test_a_larger_count_goes_on_and_a_smaller_one_takes_the_first(tmp_path: Path) -> None:
    few = open_chooser(_job(tmp_path, _search(count=6)))
    assert few is not None
    first = _run(few)
    larger = open_chooser(_job(tmp_path, _search(count=8)))
    assert larger is not None
    for course in first:
        larger.report(course, {5000: _score(course)}, final=True)
    assert len(_run(larger)) == 2
    assert larger.courses[:6] == first
    smaller = open_chooser(_job(tmp_path, _search(count=3)))
    assert smaller is not None
    assert smaller.courses == first[:3]


def test_the_log_is_named_by_what_the_suggestions_depend_on(tmp_path: Path) -> None:
    search = _search()
    log = search.log(tmp_path)
    assert log.parent == tmp_path / "searches"
    longer = dataclasses.replace(search.space, rungs=(2500, 5000, 10000, 20000))
    for same in ({"count": 99}, {"space": longer}):
        assert dataclasses.replace(search, **same).log(tmp_path) == log
    other_plan = dataclasses.replace(PLAN, config=StudyConfig(partition="cls_to_cls"))
    for other in ({"seed": 43}, {"space": load_space("maml", "paper")}, {"plan": other_plan}):
        assert dataclasses.replace(search, **other).log(tmp_path) != log


def test_torn_and_foreign_lines_of_the_log_are_left_out(tmp_path: Path) -> None:
    search = _search()
    log = search.log(tmp_path)
    good = {"inner_lr": 0.1, "outer_lr": 0.2}
    for point in (
        good,
        good,  # twice
        {"inner_lr": 0.1},
        {"inner_lr": 0.1, "outer_lr": 1e9},  # outside of the range
        {"inner_lr": 0.1, "outer_lr": "0.2"},
        [0.1, 0.2],
    ):
        append_line(log, {"point": point})
    with log.open("a") as file:
        file.write('[1]\n{"point": {"inner_lr"')
    assert suggested_before(search, tmp_path) == [good]


def test_looking_writes_nothing(tmp_path: Path) -> None:
    job = _job(tmp_path, _search())
    chooser = open_chooser(job, read_only=True)
    assert chooser is not None
    assert chooser.next() == job.search.first  # type: ignore[union-attr]
    assert not list(tmp_path.iterdir())
    written = open_chooser(job)
    assert written is not None
    written.next()
    (entry,) = read_lines(_search().log(tmp_path))
    assert entry["point"] == {"inner_lr": 3e-5, "outer_lr": 0.5}


def test_a_job_with_all_its_courses_has_no_chooser(tmp_path: Path) -> None:
    job = dataclasses.replace(_job(tmp_path, _search()), search=None)
    assert open_chooser(job) is None


@pytest.mark.parametrize("method", ["fomaml", "reptile", "multitask"])
def test_every_method_can_be_searched_by_tpe(method: str) -> None:
    space = load_space(method, "wide").on_rows(1000)
    search = Search(space=space, plan=PLAN, count=8, seed=0)
    chooser = TpeChooser(search)
    for _ in range(8):
        course = chooser.next()
        assert course is not None
        chooser.report(course, {1: 0.0}, final=True)
    assert len(set(chooser.courses)) == 8
