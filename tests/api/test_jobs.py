"""From a study and a space to a job, in Python as on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mpt
from mpt.api.jobs import search_job
from mpt.cli import search as cli
from mpt.errors import UsageError
from mpt.search.job import SearchJob

RESULTS = Path("/nonexistent/results")


def _job(study: mpt.Study, space: str = "embedded", **options: Any) -> SearchJob:
    options = {"results": RESULTS, **options}
    return search_job(study, mpt.load_space("maml", space), **options)


def _asked(*flags: str) -> SearchJob:
    words = ["--results", str(RESULTS), *flags]
    return cli._job("maml", cli.parser_of("maml").parse_args(words))


@pytest.mark.parametrize(
    ("flags", "study", "search"),
    [
        ([], {}, {}),
        (["--smoke"], {"smoke": True}, {}),
        (
            ["--preset", "paper", "--precision", "float32", "--partition", "cls_to_cls"],
            {"preset": "paper", "precision": "float32", "partition": "cls_to_cls"},
            {},
        ),
        (
            ["--searcher", "random", "--num-samples", "2", "--train-seed", "7", "--smoke"],
            {"train_seed": 7, "smoke": True},
            {"searcher": "random", "num_samples": 2},
        ),
        (
            ["--searcher", "optuna", "--scheduler", "asha", "--racing", "--allocation", "full"],
            {},
            {"searcher": "optuna", "scheduler": "asha", "racing": True, "allocation": "full"},
        ),
        (
            [
                "--replicates",
                "3",
                "--store",
                "a.db",
                "--storage",
                "~/b",
                "--space",
                "embedded_low",
            ],
            {"replicates": 3},
            {"store": "a.db", "storage": "~/b", "space": "embedded_low"},
        ),
    ],
)
def test_flags_and_keywords_make_the_same_job(
    flags: list[str], study: dict[str, Any], search: dict[str, Any]
) -> None:
    job = _job(mpt.Study(**study), **search)
    assert job == _asked(*flags)
    assert job.trials


def test_what_is_said_of_a_search_is_in_its_job() -> None:
    said: dict[str, Any] = {
        "scheduler": "asha",
        "racing": True,
        "allocation": "full",
        "keep_prompts": True,
    }
    job = _job(mpt.Study(), **said)
    assert {name: getattr(job, name) for name in said} == said
    assert (job.results, job.store, job.storage) == (RESULTS, None, None)
    there = _job(mpt.Study(), results="r", store="a.db", storage="s3://bucket/mpt")
    assert (there.results, there.store) == (Path.cwd() / "r", "a.db")
    assert there.storage == "s3://bucket/mpt"


def test_a_search_of_a_smoke_study_is_cut_to_the_smoke_size() -> None:
    job = _job(mpt.Study(smoke=True))
    assert [trial.upstream.rungs for trial in job.trials] == [(1, 2)] * 2
    assert job.title.endswith(", at smoke size")
    drawn = _job(mpt.Study(smoke=True), "embedded_wide", searcher="optuna", num_samples=9)
    assert drawn.suggestions is not None
    assert (drawn.suggestions.count, drawn.suggestions.space.rungs) == (2, (1, 2))


def test_a_search_draws_16_points_or_as_many_as_there_are() -> None:
    assert len(_job(mpt.Study(), searcher="random").trials) == 6
    assert len(_job(mpt.Study(), "embedded_wide", searcher="random").trials) == 16


def test_a_searcher_of_ones_own_chooses_while_the_search_runs() -> None:
    searcher = object()
    job = _job(mpt.Study(), "embedded_wide", searcher=searcher, num_samples=3)
    assert job.suggestions is not None
    assert job.suggestions.searcher is searcher
    assert job.suggestions.count == 3
    with pytest.raises(UsageError, match="searcher is 'tpe', but must be grid, random, optuna or"):
        _job(mpt.Study(), searcher="tpe")


def test_a_simulated_search_looks_for_no_files() -> None:
    study = mpt.Study(gym="/nonexistent/gym")
    (plan,) = _job(study, simulated=True).plans
    assert (plan.config, plan.source, plan.scored) == (study.config, (), ())
    with pytest.raises(UsageError, match="gym '/nonexistent/gym' is not a directory"):
        _job(study)


def test_a_search_scored_on_target_tasks_begins_with_the_first_upstream_seed_too() -> None:
    study = mpt.Study(role="target", upstream_seeds=[7, 8])
    specs = [trial.upstream for trial in _job(study).trials]
    assert [getattr(spec.config, "seed", None) for spec in specs] == [7] * 6
    assert [spec.without_seed() for spec in specs] == mpt.load_space("maml", "embedded").grid()
