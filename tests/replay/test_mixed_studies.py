"""One results directory with several studies: nothing is ranked, replayed or simulated across."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from stored import compute

from mpt.errors import UsageError
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request
from mpt.search.display.display import Display
from mpt.search.job import Execution, SearchJob
from mpt.search.run import run_search
from mpt.search.simulation import Recorded
from mpt.store.database import open_results
from mpt.store.records import StudyRecord
from mpt.study.options import StudyOptions

METHODS = ("maml",)
REAL = ("first", "other gym", "other seed", "other precision")


@pytest.fixture(scope="module")
def jobs(
    toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, SearchJob]:
    """Five finished searches in one directory; each differs from the first in one thing."""
    from search_toys import toy_job

    folder = tmp_path_factory.mktemp("mixed")
    other_gym = folder / "other-gym"
    shutil.copytree(toy_gym, other_gym)
    for path in other_gym.rglob("*_test.tsv"):
        path.write_text(path.read_text().replace("a", "b"))

    def job(gym: Path, **changes: Any) -> SearchJob:
        return toy_job(toy_checkpoint, gym, folder / "results", rungs=(2, 4), **changes)

    found = {
        "first": job(toy_gym),
        "other gym": job(other_gym),
        "other seed": job(toy_gym, train_seed=43),
        "other precision": job(toy_gym, precision="bfloat16"),
    }
    trials = tuple(
        dataclasses.replace(
            trial,
            plan=dataclasses.replace(trial.plan, smoke=True, partial="partial: smoke"),
        )
        for trial in found["first"].trials
    )
    found["smoke"] = dataclasses.replace(found["first"], trials=trials)
    for one in found.values():
        compute(one)
    return found


@pytest.fixture(scope="module")
def studies(jobs: dict[str, SearchJob]) -> dict[str, StudyRecord]:
    with open_results(jobs["first"].results, read_only=True) as database:
        return dict(zip(jobs, database.studies(), strict=True))


def test_every_study_has_a_ranking_of_its_own(
    jobs: dict[str, SearchJob], studies: dict[str, StudyRecord]
) -> None:
    """A finished search ranks at once, and only its own four points."""
    execution = Execution(resume="again", next_step="rest")
    for name, job in jobs.items():
        documents: list[Mapping[str, Any]] = []
        show = Display(job, as_json=True, sink=documents.append)
        assert run_search(job, execution, display=show) == 0
        (document,) = documents
        assert [point["rank"] for point in document["points"]] == [1, 2, 3, 4]
        assert {point["keys"]["study"] for point in document["points"]} == {studies[name].key}


def test_a_replay_refuses_to_choose_and_takes_the_study_that_is_named(
    jobs: dict[str, SearchJob], studies: dict[str, StudyRecord], toy_gym: Path
) -> None:
    config = jobs["first"].plans[0].config
    request = Request(
        results=jobs["first"].results,
        searched=jobs["first"].results,
        gym=str(toy_gym),
        backbones=(config.backbone,),
        methods=METHODS,
        precision="float32",
        partitions=("random_to_random",),
        options=StudyOptions(data_seeds=config.data_seeds),
    )
    with pytest.raises(UsageError) as caught:
        plan_replay(request)
    text = str(caught.value)
    assert "holds 4 studies of maml on" in text
    for name in REAL:
        assert studies[name].id in text
    assert studies["smoke"].id not in text
    for told in ("gym other-gym", "train seed 43", "precision bfloat16"):
        assert told in text
    for name in REAL:
        replay = plan_replay(dataclasses.replace(request, study=studies[name].id))
        assert len(replay.job.trials) == 1
        assert f"study {studies[name].id}, ARG" in replay.notes[0]
    with pytest.raises(UsageError, match=r"holds no finished search of maml .*\(smoke run\)"):
        plan_replay(dataclasses.replace(request, study=studies["smoke"].id))
    smoke = plan_replay(dataclasses.replace(request, smoke=True))
    assert f"study {studies['smoke'].id}, ARG" in smoke.notes[0]


def test_a_simulation_refuses_to_choose_and_takes_the_study_that_is_named(
    jobs: dict[str, SearchJob], studies: dict[str, StudyRecord]
) -> None:
    job = jobs["first"]
    with pytest.raises(UsageError, match="holds 3 studies of maml on random_to_random with") as e:
        Recorded(job.results, job.trials[0])
    assert studies["other seed"].id not in str(e.value)  # its trials have another seed
    recorded = Recorded(job.results, job.trials[0], study=studies["other gym"].id)
    assert recorded.study.key == studies["other gym"].key
