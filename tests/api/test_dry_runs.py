"""Dry runs, requests and errors of `mpt.search` and `mpt.replay`; nothing here is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from search_toys import write_toy_gym

import mpt
from mpt.api.jobs import replay_job
from mpt.errors import DataError, UsageError
from mpt.replay.replay import plan_replay
from mpt.search.comparison import seed_of

PARTITION = "nonpara_to_para"


@pytest.fixture(scope="module")
def study() -> mpt.Study:
    return mpt.Study(smoke=True)


@pytest.fixture
def best(study: mpt.Study, tmp_path: Path) -> mpt.BestPoint:
    """A point that has not been computed."""
    spec = mpt.Space("maml", outer_lr=[0.1], steps=[1]).grid()[0]
    return mpt.BestPoint(
        method="maml",
        settings={"outer_lr": 0.1},
        steps=1,
        arg=None,
        low=None,
        high=None,
        study="0123abcd",
        point="89abcdef" * 8,
        config=study.config,
        upstream=spec,
        results=tmp_path / "results",
    )


def _space(**settings: Any) -> Any:
    return mpt.Space("maml", **{"outer_lr": [0.1, 0.2], "steps": [1, 2], **settings})


def test_a_dry_run_measures_and_tells_what_is_left_and_writes_nothing(
    study: mpt.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    found = mpt.search(study, _space(), results=results, dry_run=True, price=2.5, plan_gpus=8)
    assert found.plan is not None
    assert [point["steps"] for point in found.plan["points"]] == [1, 2, 1, 2]
    assert {point["status"] for point in found.plan["points"]} == {"missing"}
    text = "\n".join(found.plan["plan"])
    assert "at 2.5 per CPU-hour" in text
    assert "on a cluster of 8 CPUs" in text
    assert text in capsys.readouterr().out
    assert (found.exit_code, found.points().empty, results.exists()) == (0, True, False)


def test_a_replay_is_planned_from_a_stated_throughput_without_a_word(
    best: mpt.BestPoint, capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[str, Any] = {"partitions": PARTITION, "smoke": True, "quiet": True, "dry_run": True}
    found = mpt.replay(best, **said, plan_gpus=4, throughput="200,25")
    assert found.plan is not None
    assert "follow from 200 TFLOP/s in bfloat16 and 25 in float32" in "".join(found.plan["plan"])
    assert capsys.readouterr().out == ""
    assert not best.results.exists()


def test_what_a_plan_is_told_is_refused_of_a_real_run(study: mpt.Study, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^price says something only with dry_run; give both"):
        mpt.search(study, _space(), results=tmp_path, price=2.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_samples": 3}, "^num_samples is for searcher random and optuna; a grid has all"),
        ({"num_samples": 3, "searcher": "random"}, "^num_samples is 3, but space 'own' holds 2"),
        ({"scheduler": "asha", "steps": [2]}, "^scheduler asha needs .*; use scheduler none$"),
        ({"dry_run": True, "price": -1}, "^price is -1, but must be ≥ 0$"),
        ({"dry_run": True, "throughput": 9}, "say of how many GPUs with plan_gpus$"),
    ],
)
def test_errors_name_keywords_in_the_place_of_flags(
    options: dict[str, Any], said: str, study: mpt.Study, tmp_path: Path
) -> None:
    own = mpt.Study() if "scheduler" in options else study
    space = _space(steps=options.pop("steps", [1, 2]))
    with pytest.raises(UsageError, match=said):
        mpt.search(own, space, results=tmp_path, quiet=True, **options)


def test_an_error_keeps_the_flags_of_other_programs(tmp_path: Path) -> None:
    study = mpt.Study(gym=str(write_toy_gym(tmp_path)), data_seeds=[99])
    with pytest.raises(DataError, match=r"gym build; .* --shots K .*: allow_missing labels every"):
        mpt.search(study, _space(), results=tmp_path, quiet=True)


def test_a_request_replays_what_the_command_line_does(tmp_path: Path) -> None:
    request = mpt.ReplayRequest(
        results=Path("r"), storage="s", partitions=(PARTITION,), methods=("maml",), smoke=True
    )
    found = replay_job(request)
    assert found.notes
    here = dataclasses.replace(request, results=Path.cwd() / "r", storage=str(Path.cwd() / "s"))
    assert found == plan_replay(here)
    plan = mpt.replay(request, dry_run=True, quiet=True, plan_gpus=1, throughput=9).plan
    assert plan is not None
    assert plan["results"] == str(Path.cwd() / "r")


def test_what_a_request_says_itself_is_refused_beside_it() -> None:
    request = mpt.ReplayRequest(results=Path("r"))
    with pytest.raises(UsageError, match=r"^partitions, zero_shot is for best points, but a requ"):
        mpt.replay(request, partitions=PARTITION, zero_shot=True)


def test_points_are_replayed_on_all_seeds_beside_what_is_asked_for(best: mpt.BestPoint) -> None:
    other = dataclasses.replace(best, upstream=_space(outer_lr=[0.3]).grid()[0])
    said: dict[str, Any] = {
        "partitions": [PARTITION],
        "upstream_seeds": [7, 8],
        "fine_tuning": True,
    }
    job = replay_job([best, other], **said, zero_shot=True).job
    assert [(trial.method, seed_of(trial)) for trial in job.trials] == [
        *[("maml", 7)] * 2, ("fine_tuning", 42), ("zero_shot", 42), *[("maml", 8)] * 2
    ]  # fmt: skip
    assert job.title == "replay: the best points of a search, 2 upstream seeds a cell"
    assert job.results == best.results
    assert [plan.role for plan in job.plans] == ["target"]
    with pytest.raises(UsageError, match="points of 2 studies"):
        replay_job([best, dataclasses.replace(best, study="4567abcd")])


def test_a_seed_of_the_point_stays_and_a_smoke_replay_has_two_tasks(best: mpt.BestPoint) -> None:
    seeded = dataclasses.replace(
        best, upstream=dataclasses.replace(best.upstream, config=_seeded(best))
    )
    job = replay_job(seeded, partitions="random_to_random", smoke=True).job
    assert [seed_of(trial) for trial in job.trials] == [1042]
    assert len(job.plans[0].scored) == 2
    everywhere = replay_job(best, smoke=True).job
    assert len({plan.config.partition for plan in everywhere.plans}) == 10


def _seeded(best: mpt.BestPoint) -> Any:
    return dataclasses.replace(best.upstream.config, seed=1042)
