"""Best points: the argmax over a search's records, by method, backbone and setting."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from search_toys import toy_study

from mpt.errors import DataError, UsageError
from mpt.records import LeafStore, PointStore
from mpt.replay.best import BestPoints
from mpt.search.job import SearchJob
from mpt.study.study import Study
from mpt.trial.course_work import course_work
from mpt.trial.objective import score_point

KEYS = ("schema", "key", "identity", "checksum")


@pytest.fixture(scope="module")
def searched(
    toy_checkpoint: Path, toy_gym: Path, study: Study, tmp_path_factory: pytest.TempPathFactory
) -> SearchJob:
    """A finished toy search of two trajectories with three rungs."""
    from search_toys import toy_job

    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("searched"))
    for course in job.courses:
        list(course_work(study, course, job.results).units())
    return job


def _again(results: Path, point: dict[str, Any], **changes: Any) -> None:
    """Put a point once more, as of another place."""
    body = {name: value for name, value in point.items() if name not in KEYS}
    identity = {**point["identity"], "copy": sorted(map(str, changes.items()))}
    PointStore(results).put(identity, {**body, **changes})


def test_the_best_point_is_the_argmax_with_its_steps_and_settings(
    searched: SearchJob, study: Study
) -> None:
    store = LeafStore(searched.results)
    points = PointStore(searched.results).all()
    top = max(points, key=lambda point: score_point(point, store).score)
    best = BestPoints(searched.results).best("maml", study.config)
    assert best is not None
    assert best.trajectory.rungs == (top["steps"],)
    assert dataclasses.asdict(best.trajectory.config) == top["config"]
    assert best.origin.startswith(f"best of 6 points on random_to_random in {searched.results}")
    assert f"ARG {score_point(top, store).score:+.2f} [" in best.origin


def test_another_method_or_backbone_has_no_best_point(searched: SearchJob, study: Study) -> None:
    found = BestPoints(searched.results)
    assert found.best("fomaml", study.config) is None
    assert found.best("maml", dataclasses.replace(study.config, backbone="embedded")) is None


def test_a_setting_that_was_searched_has_its_own_best_and_others_the_common_one(
    searched: SearchJob, study: Study, tmp_path: Path
) -> None:
    import shutil

    results = Path(shutil.copytree(searched.results, tmp_path / "results"))
    store = LeafStore(results)
    points = PointStore(results).all()
    worst = min(points, key=lambda point: score_point(point, store).score)
    _again(results, worst, partition="qa_to_qa")
    found = BestPoints(results)

    def best(partition: str) -> tuple[Any, ...]:
        one = found.best("maml", dataclasses.replace(study.config, partition=partition))
        assert one is not None
        return one.trajectory.config.inner_lr, one.trajectory.rungs

    assert best("qa_to_qa") == (worst["config"]["inner_lr"], (worst["steps"],))
    assert best("cls_to_cls") == best("random_to_random") != best("qa_to_qa")


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "target"},
        {"source_set": "12"},
        {"source_shots": 32},
        {"target_shots": "all"},
        {"status": "diverged"},
        {"leaves": {"v-one": {"13": [[0.5, "0" * 64]]}}},  # a leaf that is not there
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_points_of_replays_sweeps_and_incomplete_ones_do_not_count(
    searched: SearchJob, study: Study, tmp_path: Path, changes: dict[str, Any]
) -> None:
    import shutil

    results = Path(shutil.copytree(searched.results, tmp_path / "results"))
    _again(results, PointStore(results).all()[0], partition="qa_to_qa", note="", **changes)
    best = BestPoints(results).best(
        "maml", dataclasses.replace(study.config, partition="qa_to_qa")
    )
    assert best is not None
    assert "on random_to_random" in best.origin


def test_what_differs_from_the_search_is_said(searched: SearchJob, study: Study) -> None:
    longer = dataclasses.replace(study.config.prompt, length=9)
    best = BestPoints(searched.results).best(
        "maml", dataclasses.replace(study.config, prompt=longer)
    )
    assert best is not None
    assert best.origin.endswith("searched with 3 prompt tokens, replayed with 9")


def test_settings_of_another_program_are_an_error_with_the_points_name(
    searched: SearchJob, study: Study, tmp_path: Path
) -> None:
    import shutil

    results = Path(shutil.copytree(searched.results, tmp_path / "results"))
    point = PointStore(results).all()[0]
    _again(results, point, partition="qa_to_qa", config={**point["config"], "momentum": 1})
    found = BestPoints(results)
    with pytest.raises(DataError, match=r"point [0-9a-f]{64}: its settings .*momentum"):
        found.best("maml", dataclasses.replace(study.config, partition="qa_to_qa"))


def test_the_points_of_the_searched_backbone_serve_another_one_and_that_is_said(
    searched: SearchJob, study: Study
) -> None:
    other = dataclasses.replace(study.config, backbone="embedded")
    assert BestPoints(searched.results).best("maml", other) is None
    found = BestPoints(searched.results, searched_on=study.config.backbone)
    own, served = found.best("maml", study.config), found.best("maml", other)
    assert own is not None
    assert served is not None
    assert served.trajectory == own.trajectory
    assert served.origin == f"{own.origin}; searched on {study.config.backbone}"


def test_an_absent_results_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be the results directory of a search"):
        BestPoints(tmp_path / "absent")


def test_a_relative_or_local_backbone_is_the_one_of_the_records(
    searched: SearchJob, toy_checkpoint: Path, toy_gym: Path
) -> None:
    config = toy_study(toy_checkpoint, toy_gym)
    assert BestPoints(searched.results).best("maml", config) is not None
