"""What a job consists of, and the schedulers it refuses: they would compare unlike trials."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import MedianStoppingRule

from mpt.config import StudyConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.job import SearchJob, Suggestions
from mpt.study.spaces import load_space
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import StudyPlan

PLAN = StudyPlan(config=StudyConfig(), source=("s",), scored=("v",), partial=None)
RUNGS = (25, 50, 100)


def _job(*rungs: tuple[int, ...], **changes: Any) -> SearchJob:
    trials = tuple(
        TrialSpec(
            plan=PLAN,
            upstream=UpstreamSpec(config=UpstreamConfig(outer_lr=0.1 + place), rungs=steps),
        )
        for place, steps in enumerate(rungs)
    )
    return SearchJob(trials=trials, results=Path("/r"), title="t", **changes)


@pytest.mark.parametrize("rungs", [(25, 50, 100), (1, 2), (4, 6, 9), (7, 10)])
def test_rungs_with_one_ratio_can_be_halved(rungs: tuple[int, ...]) -> None:
    assert _job(rungs, scheduler="asha").stoppers == {"asha"}


@pytest.mark.parametrize("rungs", [(25, 50, 75), (2, 4, 6), (5, 10, 21), (50,)])
def test_other_rungs_are_refused_with_the_cure(rungs: tuple[int, ...]) -> None:
    listed = ", ".join(map(str, rungs))
    with pytest.raises(UsageError, match=rf"has {listed}; use --scheduler none") as caught:
        _job(RUNGS, rungs, scheduler="asha")
    assert "\n" not in str(caught.value)
    assert _job(rungs).stoppers == frozenset()


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(UsageError, match="scheduler is 'pbt', but must be one of none, asha"):
        _job(RUNGS, scheduler="pbt")


@pytest.mark.parametrize("scheduler", ["asha", MedianStoppingRule()], ids=["asha", "any"])
@pytest.mark.parametrize("other", ["partition", "method"])
def test_what_cannot_be_compared_is_not_given_to_one_scheduler(scheduler: Any, other: str) -> None:
    job = _job(RUNGS, RUNGS)
    first, second = job.trials
    if other == "method":
        config = UpstreamConfig(method="reptile")
        second = dataclasses.replace(second, upstream=UpstreamSpec(config=config, rungs=RUNGS))
    else:
        plan = dataclasses.replace(PLAN, config=StudyConfig(partition="cls_to_cls"))
        second = dataclasses.replace(second, plan=plan)
    with pytest.raises(UsageError, match="trials of one method in one study, but 2 are searched"):
        dataclasses.replace(job, trials=(first, second), scheduler=scheduler)
    dataclasses.replace(job, trials=(first, second), racing=True)  # races are run apart


def test_a_scheduler_is_named_by_its_class() -> None:
    assert _job(RUNGS, scheduler=MedianStoppingRule()).stoppers == {"MedianStoppingRule"}
    assert _job(RUNGS, scheduler="asha", racing=True).stoppers == {"asha", "racing"}


def test_what_a_searcher_of_the_callers_own_will_suggest_is_not_known() -> None:
    space = load_space("maml", "wide")
    of = Suggestions(space=space, plan=PLAN, count=7, seed=0)
    job = SearchJob(trials=(of.first,), results=Path("/r"), title="t", suggestions=of)
    assert job.known == (of.first,)  # TPE's first suggestion
    own = dataclasses.replace(of, searcher=object())
    job = dataclasses.replace(job, suggestions=own)
    assert job.known == ()
    assert job.total == (7, 7 * len(space.rungs))
    on_record = dataclasses.replace(job, trials=(of.first, of.first))
    assert on_record.known == (of.first,)


@pytest.mark.parametrize(
    ("changes", "decides"),
    [({}, False), ({"scheduler": "asha"}, True), ({"racing": True}, True)],
)
def test_trials_wait_for_scores_where_somebody_decides_by_them(
    changes: dict[str, Any], decides: bool
) -> None:
    assert _job(RUNGS, **changes).decides is decides


def test_files_go_beside_the_database_unless_they_are_told_to_go_elsewhere() -> None:
    job = _job(RUNGS)
    assert (job.files, job.url) == ("/r", "sqlite:////r/mpt.db")
    there = dataclasses.replace(job, storage="s3://bucket/x", store="postgresql://h/d")
    assert (there.files, there.url) == ("s3://bucket/x", "postgresql://h/d")
