"""What is left of a job, counted against the records."""

from __future__ import annotations

import dataclasses
import itertools

from search_toys import SEEDS, VALIDATION, with_rungs

from mpt.config import DownstreamConfig
from mpt.search.job import Course, SearchJob
from mpt.search.stock import take_stock
from mpt.study.study import Study
from mpt.trial.course_work import course_work
from mpt.trial.fine_tuning import FineTuning, FineTuningConfig

LEAVES = len(VALIDATION) * len(SEEDS) * 2  # two learning rates
ROWS = 2 * 8 + 8  # dev twice (after 2 and 4 steps), test once


def test_an_empty_directory_leaves_everything_to_do(study: Study, job: SearchJob) -> None:
    load = take_stock(job, lambda _: study)
    assert (load.points, load.points_there) == (6, 0)
    assert (load.leaves, load.leaves_there, load.shared, load.shared_there) == (
        6 * LEAVES,
        0,
        LEAVES,
        0,
    )
    (shared,) = load.shared_left
    assert (shared.runs, shared.steps, shared.rows) == (LEAVES, 4 * LEAVES, ROWS * LEAVES)
    for course in load.courses:
        assert (course.steps, course.begin, course.points) == (6, 0, 3)
        assert (course.leaves.runs, course.leaves.rows) == (3 * LEAVES, 3 * ROWS * LEAVES)
    assert not job.results.exists()  # nothing is written


def test_what_is_on_disk_is_taken_off(study: Study, job: SearchJob) -> None:
    short = with_rungs(job, (4,))
    list(course_work(study, short.courses[0], job.results).units())
    load = take_stock(job, lambda _: study)
    assert load.points_there == 1
    assert load.shared_left == ()
    first, second = load.courses
    # the rung at 4 is there: 2 steps before it are needed again, 2 behind it
    assert (first.steps, first.points, first.leaves.runs) == (4, 2, 2 * LEAVES)
    assert (second.steps, second.points, second.leaves.runs) == (6, 3, 3 * LEAVES)
    assert load.all_there == 2 * LEAVES
    # a leaf that is gone is left to do again, with the point that names it
    victim = next(iter((job.results / "leaves").glob("??/*.json")))
    victim.unlink()
    assert take_stock(job, lambda _: study).all_there == 2 * LEAVES - 1


def test_a_finished_job_has_nothing_left(study: Study, job: SearchJob) -> None:
    one = dataclasses.replace(job, courses=job.courses[:1])
    list(course_work(study, one.courses[0], one.results).units())
    load = take_stock(one, lambda _: study)
    assert load.points_there == load.points == 3
    (course,) = load.courses
    assert (course.steps, course.leaves.runs, course.points) == (0, 0, 0)


def test_what_two_settings_share_is_counted_once(study: Study, job: SearchJob) -> None:
    """Same sources: one trajectory. Same scored tasks: the same leaves, under two points."""
    config = dataclasses.replace(study.config, partition="another")
    twin = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    other = dataclasses.replace(
        study,
        plan=dataclasses.replace(study.plan, scored=VALIDATION[:1]),
        scored={VALIDATION[0]: study.scored[VALIDATION[0]]},
    )
    first = job.courses[0]
    studies = {one.plan: one for one in (study, twin, other)}
    courses = tuple(dataclasses.replace(first, plan=plan) for plan in studies)
    three = dataclasses.replace(job, courses=courses)
    load = take_stock(three, studies.__getitem__)
    assert [part.steps for part in load.courses] == [6, 0, 0]
    assert [part.leaves.runs for part in load.courses] == [3 * LEAVES, 0, 3 * LEAVES // 2]
    assert (load.points, load.shared) == (9, LEAVES)
    for course in courses:
        list(course_work(studies[course.plan], course, job.results).units())
    done = take_stock(three, studies.__getitem__)
    assert done.points_there == 9
    assert done.all_there == done.all_leaves == load.all_leaves


def test_fine_tuning_in_two_settings_is_counted_once(study: Study, job: SearchJob) -> None:
    down = DownstreamConfig(lrs=(1e-2, 1e-3), steps=3, eval_every=2)
    trajectory = FineTuning(config=FineTuningConfig(downstream=down))
    config = dataclasses.replace(study.config, partition="another")
    twin = dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))
    courses = tuple(Course(plan=s.plan, trajectory=trajectory) for s in (study, twin))
    both = dataclasses.replace(job, courses=courses)
    opened = {study.plan: study, twin.plan: twin}
    load = take_stock(both, opened.__getitem__)
    assert (load.points, load.leaves, load.shared) == (2, LEAVES, LEAVES)
    assert [part.leaves.runs for part in load.courses] == [LEAVES, 0]
    assert load.courses[0].leaves.steps == 3 * LEAVES
    assert load.courses[0].leaves.kind.startswith("weights tuning")
    work = course_work(study, courses[0], both.results)
    for _ in itertools.islice(work.units(), len(VALIDATION) + 3):  # the baseline, three runs
        pass
    assert take_stock(both, opened.__getitem__).leaves_there == 3
