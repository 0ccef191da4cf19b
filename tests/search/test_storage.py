"""Checkpoints and prompts in a bucket: a local S3 server, and no directory that nodes share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from s3_server import BUCKET, KEY, SECRET, s3_server
from search_fixtures import local_ray
from search_toys import KNOWN_RATES, bits, toy_job, with_rungs
from trial_toys import bench

from mpt.search.job import DONE, Execution
from mpt.search.run import run_search
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.study.study import OpenStudy

pytestmark = pytest.mark.timeout(900)


def test_a_search_whose_files_lie_in_a_bucket_gives_the_same_numbers(
    toy_checkpoint: Path,
    toy_gym: Path,
    study: OpenStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And one that is extended goes on there, from the checkpoints that the database knows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    one = (1.0,)  # inner rate, and so one trial of meta-learning
    whole = toy_job(toy_checkpoint, toy_gym, tmp_path / "local", inner_lrs=one)
    with bench(whole, study) as local:  # without Ray, and without a bucket
        local.run(0, chunk_s=1e9)
        local.run_baseline()
    where = Execution(signals=False, max_failures=0, resume="again", next_step="rest")
    with s3_server() as query, local_ray(1):  # its workers take over the environment
        files = f"s3://{BUCKET}/toy?{query}"
        long = toy_job(toy_checkpoint, toy_gym, tmp_path / "bucket", inner_lrs=one)
        short = with_rungs(long, (2, 4))
        assert (
            run_search(dataclasses.replace(short, storage=files), where, rates=KNOWN_RATES) == DONE
        )
        assert (
            run_search(dataclasses.replace(long, storage=files), where, rates=KNOWN_RATES) == DONE
        )
        with open_results(tmp_path / "bucket", read_only=True) as database:
            kept = database.artifacts()
        assert {artifact.kind for artifact in kept} == {"checkpoint", "rung"}
        assert all(artifact.uri.startswith(f"s3://{BUCKET}/toy/") for artifact in kept)
        for artifact in kept:
            if artifact.kind == "rung":
                assert Artifacts(files).read(artifact.uri, artifact.digest)
    # nothing but the database, TensorBoard's files and the driver's lock lies in the directory
    beside = {path.name for path in (tmp_path / "bucket").iterdir()}
    assert beside <= {"mpt.db", "tensorboard", "driver.lock"}
    assert bits(tmp_path / "bucket") == bits(tmp_path / "local")
