"""The JSON document of a search, against what the database holds of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_toys import SEEDS, VALIDATION, toy_job, tpe_job
from trial_toys import Bench, bench

from mpt.search.display.document import document_of, plan_document
from mpt.search.leaderboard import Leaderboard
from mpt.store.records import Cost, Point
from mpt.study.record import study_record
from mpt.study.specs import settings_of
from mpt.study.study import OpenStudy
from mpt.trial.score import BAD_SCORE

POINT = len(VALIDATION) * len(SEEDS) * 2
"""Runs of a point: two learning rates."""
RUNGS = (2, 4, 6)


@pytest.fixture(scope="module")
def found(
    toy_checkpoint: Path, toy_gym: Path, study: OpenStudy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Trials: one whole, one stopped behind its first rung, one diverged, one not begun."""
    results = tmp_path_factory.mktemp("document") / "results"
    job = toy_job(toy_checkpoint, toy_gym, results, inner_lrs=(0.1, 1.0, 5.0, 7.0))
    job = dataclasses.replace(job, racing=True)
    with bench(job, study) as made:
        made.run(0, chunk_s=1e9)
        first = dataclasses.replace(job.trials[1].upstream, rungs=RUNGS[:1])
        short = dataclasses.replace(job.trials[1], upstream=first)
        list(made.trial_of(short, chunk_s=1e9).units())
        made.run_baseline()
        board = _board(made)
        for rung in RUNGS:
            made.database.add_point(_diverged(made, board, rung))
        board.stop(1, 4, "racing", "it cannot reach the leader")
        yield made


def _board(found: Bench, **changes: Any) -> Leaderboard:
    job = dataclasses.replace(found.job, **changes)
    return Leaderboard(job, lambda _: found.studies[0], found.database)


def _diverged(found: Bench, board: Leaderboard, steps: int) -> Point:
    return Point(
        study=board.studies[found.job.plans[0]].key,
        method="maml",
        settings=settings_of(found.job.trials[2].upstream.config),
        steps=steps,
        upstream=board.upstream[2],
        prompt=None,
        runs=(),
        status="diverged",
        note="diverged at step 1",
        cost=Cost(steps=1, examples=2, tokens=3, seconds=4.0),
    )


REST = ("points", "cost", "rankings", "best")


@pytest.fixture(scope="module")
def document(found: Bench) -> dict[str, Any]:
    """The document, as a program reads it."""
    failures = {"maml-x": "OSError: no space"}
    body = document_of(
        found.job, _board(found), exit_code=1, failures=failures, command="mpt again"
    )
    read: dict[str, Any] = json.loads(json.dumps(body, allow_nan=False))
    return read


def test_the_head_says_what_was_searched_and_how_it_ended(
    found: Bench, document: dict[str, Any]
) -> None:
    record = study_record(found.studies[0])
    assert {name: document[name] for name in document if name not in REST} == {
        "version": 3,
        "exit_code": 1,
        "results": str(found.job.results),
        "title": 'space "toy"',
        "partial": [],
        "smoke": False,
        "stoppers": ["racing"],
        "cells": [],
        "studies": [
            {"id": record.id, "key": record.key, "partition": record.partition, "starts": 1}
        ],
        "failures": [{"trial": "maml-x", "reason": "OSError: no space"}],
        "next": "mpt again",
    }


def test_a_smoke_run_has_no_best_point(found: Bench) -> None:
    plan = dataclasses.replace(found.job.trials[0].plan, smoke=True)
    trials = tuple(dataclasses.replace(trial, plan=plan) for trial in found.job.trials)
    job = dataclasses.replace(found.job, trials=trials)
    body = document_of(job, _board(found), exit_code=0, failures={}, command="mpt again")
    assert (body["smoke"], body["best"]) == (True, None)


def test_with_one_upstream_seed_the_best_has_no_honest_number_and_the_document_says_so(
    document: dict[str, Any],
) -> None:
    (ranking,) = document["rankings"]
    best, configurations = ranking["best"], ranking["configurations"]
    assert document["best"] == best
    assert (best["arg"], best["interval"]) == (None, None)
    assert best["how"].startswith("one upstream seed: nothing shows what the choice has added")
    args = [one["arg"] for one in configurations]
    assert args == sorted(args, reverse=True)
    assert best["selected_arg"] == args[best["place"]] == args[0]
    assert ranking["levels"] == ["data seeds"]
    assert all(one["expected"] is None and one["data_only"] for one in configurations)
    assert ranking["ties"] == list(range(len(configurations)))
    scored = [point for point in document["points"] if point["rank"] is not None]
    assert len(configurations) == len(scored)


def test_every_point_is_there_the_ranked_ones_first_and_the_others_in_the_jobs_order(
    found: Bench, document: dict[str, Any]
) -> None:
    points = document["points"]
    assert len(points) == len(found.job.points) == 12
    ranked = [point for point in points if point["rank"] is not None]
    assert points[:7] == ranked
    assert [point["rank"] for point in ranked] == list(range(1, 8))
    scores = [point["score"] for point in ranked]
    assert scores == sorted(scores, reverse=True)
    assert [point["status"] for point in ranked] == 4 * ["ok"] + 3 * ["diverged"]
    names = [trial.name for trial in found.job.trials]
    assert [(point["trial"], point["steps"], point["status"]) for point in points[7:]] == [
        (names[1], 4, "stopped"),
        (names[1], 6, "stopped"),
        *((names[3], rung, "missing") for rung in RUNGS),
    ]


def test_a_point_has_its_settings_score_and_keys(found: Bench, document: dict[str, Any]) -> None:
    board = _board(found)
    for trial, steps in ((0, 2), (0, 4), (0, 6), (1, 2)):
        entry = board.entry(trial, steps)
        (point,) = (
            one
            for one in document["points"]
            if (one["trial"], one["steps"]) == (entry.trial.name, steps)
        )
        score, record = entry.score, entry.record
        assert score is not None
        assert score.gain is not None
        assert record is not None
        spec = found.job.trials[trial]
        assert point["settings"]["inner_lr"] == (0.1, 1.0)[trial]
        assert point["settings"] == json.loads(json.dumps(settings_of(spec.upstream.config)))
        assert (point["method"], point["role"]) == ("maml", "validation")
        assert point["partition"] == "random_to_random"
        assert point["backbone"] == spec.plan.config.backbone
        assert point["arg"] == score.gain.arg_of_defined
        assert point["interval"] == [score.gain.low, score.gain.high]
        assert point["tasks"] == {"defined": score.gain.defined, "of": len(VALIDATION)}
        assert (point["score"], point["mean_test"]) == (score.score, score.mean_test)
        assert (point["runs"], point["note"]) == (POINT, score.note)
        assert point["keys"] == {
            "study": study_record(found.studies[0]).key,
            "point": record.key,
            "upstream": record.upstream,
            "prompt": record.prompt,
        }
        assert list(found.database.points_of([point["keys"]["point"]]).values()) == [record]


def test_the_cost_of_a_point_is_its_upstream_learning_from_step_0_and_its_own_runs(
    found: Bench, document: dict[str, Any]
) -> None:
    name = found.job.trials[0].name
    own = {one["steps"]: one for one in document["points"] if one["trial"] == name}
    for steps, point in own.items():
        (record,) = found.database.points_of([point["keys"]["point"]]).values()
        assert point["cost"]["upstream"] == dataclasses.asdict(record.cost)
        assert point["cost"]["upstream"]["steps"] == steps
        runs = found.database.runs(record.runs).values()
        assert point["cost"]["downstream"] == {
            "runs": POINT,
            "steps": sum(run.cost.steps for run in runs),
            "tokens": sum(run.cost.tokens for run in runs),
            "seconds": pytest.approx(sum(run.cost.seconds for run in runs)),
        }


def test_all_runs_are_counted_once_in_the_cost_of_the_search(
    found: Bench, document: dict[str, Any]
) -> None:
    runs = found.database.table("runs")
    assert document["cost"]["runs"] == len(runs) == 5 * POINT  # four points and the baseline
    assert document["cost"]["steps"] == 5 * POINT * 4


def test_a_point_without_a_score_says_why_and_has_no_numbers(
    found: Bench, document: dict[str, Any]
) -> None:
    stopped, missing = document["points"][7], document["points"][9]
    assert stopped["note"] == "stopped by racing at rung 4: it cannot reach the leader"
    assert missing["note"] == ""
    for point in (stopped, missing):
        for name in ("arg", "interval", "tasks", "score", "mean_test", "runs", "cost", "rank"):
            assert point[name] is None
        assert point["keys"]["prompt"] is None
    board = _board(found)
    for point, place in ((stopped, (1, 4)), (missing, (3, 2))):
        assert point["keys"]["point"] == board.point_key(board.entry(*place))


def test_a_diverged_point_ranks_last_and_says_where_it_diverged(document: dict[str, Any]) -> None:
    for point in document["points"][4:7]:
        assert point["note"] == "diverged at step 1"
        assert point["score"] == BAD_SCORE
        assert (point["arg"], point["interval"], point["tasks"]) == (None, None, None)
        assert point["cost"]["upstream"]["seconds"] == 4.0
        assert point["cost"]["downstream"]["runs"] == 0


@pytest.mark.parametrize("trial", [2, 3], ids=["diverged", "missing"])
def test_without_any_arg_no_point_is_the_best(found: Bench, trial: int) -> None:
    job = dataclasses.replace(found.job, trials=found.job.trials[trial : trial + 1])
    board = _board(found, trials=job.trials)
    body = document_of(job, board, exit_code=0, failures={}, command="")
    assert body["best"] is None
    assert len(body["points"]) == 3


def test_a_partial_search_says_so(found: Bench) -> None:
    label = "partial: 1 of 2 source tasks"
    plan = dataclasses.replace(found.job.plans[0], partial=label)
    trials = tuple(dataclasses.replace(one, plan=plan) for one in found.job.trials)
    job = dataclasses.replace(found.job, trials=trials)
    assert plan_document(job, [], [])["partial"] == [label]
    body = document_of(job, _board(found), exit_code=0, failures={}, command="")
    assert body["partial"] == [label]


def test_the_plan_has_every_point_in_the_jobs_order_and_what_is_said_of_cost(
    found: Bench,
) -> None:
    entries = _board(found).entries()
    body = json.loads(json.dumps(plan_document(found.job, entries, ["work  1 h", "disk  2 MiB"])))
    assert body["plan"] == ["work  1 h", "disk  2 MiB"]
    assert (body["version"], body["title"], body["trials"]) == (3, 'space "toy"', 4)
    assert body["results"] == str(found.job.results)
    places = [(trial.name, steps) for trial, steps in found.job.points]
    assert [(one["trial"], one["steps"]) for one in body["points"]] == places
    assert [one["status"] for one in body["points"]] == [
        *("ok", "ok", "ok"),
        *("ok", "stopped", "stopped"),
        *("diverged", "diverged", "diverged"),
        *("missing", "missing", "missing"),
    ]
    inner = [one["settings"]["inner_lr"] for one in body["points"]]
    assert inner == [lr for lr in (0.1, 1.0, 5.0, 7.0) for _ in RUNGS]


def test_a_plan_counts_the_trials_that_will_be_chosen(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, study: OpenStudy
) -> None:
    job = tpe_job(toy_checkpoint, toy_gym, tmp_path / "results", count=3)
    with bench(job, study) as empty:
        body = plan_document(job, _board(empty).entries(), [])
        assert (body["trials"], len(body["points"])) == (3, 3)
        assert {one["status"] for one in body["points"]} == {"missing"}
