"""How many trials fit, now and after growth; a real autoscaler is asked for a first node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import growing_cluster
import pytest
import yaml
from ray_processes import run_ray_script

import mpt
from mpt.errors import UsageError
from mpt.search.ray import capacity
from mpt.search.ray.capacity import room_for_trials, trials_after_growth, trials_on

ROOT = Path(mpt.__file__).resolve().parents[1]
HEAD: dict[str, float] = {"memory": 1.0}
EIGHT = {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("gpus", "trials"),
    [
        (0.0, 8),  # a CPU each
        (0.5, 4),  # two on each GPU
        (0.3333, 6),
        (0.4, 4),  # what is left of a GPU holds none
        (0.1, 8),  # the CPUs are the limit
        (1.0, 2),
        (2.0, 1),
        (3.0, 0),
    ],
)
def test_a_trial_takes_one_cpu_and_its_gpus_of_one_node(gpus: float, trials: int) -> None:
    assert trials_on(EIGHT, gpus) == trials
    assert trials_on(HEAD, gpus) == 0


def bootstrap(folder: Path, **changes: Any) -> Path:
    """The shipped AWS file as `ray up` leaves it on the head."""
    config = {**yaml.safe_load((ROOT / "cluster.yaml").read_text()), **changes}
    path = folder / "bootstrap.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(("gpus", "trials"), [(1.0, 8), (0.5, 16), (2.0, 0)])
def test_growth_counts_the_workers_and_not_the_head(
    tmp_path: Path, gpus: float, trials: int
) -> None:
    assert trials_after_growth(gpus, bootstrap(tmp_path)) == trials


def test_growth_ends_at_the_clusters_own_limit(tmp_path: Path) -> None:
    assert trials_after_growth(1.0, bootstrap(tmp_path, max_workers=3)) == 3


@pytest.mark.parametrize("text", [None, "", "[1]", '{"max_workers": 8}', '{"available_node_types'])
def test_without_a_cluster_file_nothing_grows(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "bootstrap.json"
    if text is not None:
        path.write_text(text)
    assert trials_after_growth(1.0, path) == 0


class Cluster:
    """Stands in for Ray: nodes join one look after they are requested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, arrivals: Iterator[list[Any]]) -> None:
        self.requests: list[Any] = []
        self.said: list[str] = []
        monkeypatch.setattr(capacity, "_nodes", lambda: next(arrivals))
        monkeypatch.setattr(capacity.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(
            "ray.autoscaler.sdk.request_resources", lambda bundles: self.requests.append(bundles)
        )


def test_a_cluster_that_can_grow_is_asked_for_a_node_and_the_request_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "BOOTSTRAP", bootstrap(tmp_path))
    arrivals = iter([[HEAD], [HEAD], [HEAD], [HEAD, EIGHT], [HEAD, EIGHT]])
    cluster = Cluster(monkeypatch, arrivals)
    assert room_for_trials(0.25, growing=True, say=cluster.said.append) == 32
    assert cluster.requests == [[{"CPU": 1, "GPU": 1}], []]
    assert cluster.said == ["waiting for a first node with room for a trial, at most 30 minutes"]


def test_a_node_that_never_comes_is_an_error_and_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "BOOTSTRAP", bootstrap(tmp_path))
    cluster = Cluster(monkeypatch, iter(lambda: [HEAD], None))
    with pytest.raises(UsageError, match="came within 0 s; `ray exec CLUSTER"):
        room_for_trials(1.0, growing=True, say=cluster.said.append, patience_s=0.0)
    assert cluster.requests[-1] == []


@pytest.mark.parametrize("growing", [True, False])
def test_what_no_node_can_ever_hold_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growing: bool
) -> None:
    monkeypatch.setattr(capacity, "BOOTSTRAP", bootstrap(tmp_path))
    cluster = Cluster(monkeypatch, iter([[HEAD, EIGHT]]))
    text = "--gpus-per-trial 4 on one node, but the largest of 2 nodes has 8 CPUs and 2 GPUs"
    with pytest.raises(UsageError, match=text):
        room_for_trials(4.0, growing=growing, say=cluster.said.append)
    assert not cluster.requests


def test_a_ray_of_its_own_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "BOOTSTRAP", bootstrap(tmp_path))
    cluster = Cluster(monkeypatch, iter([[HEAD, EIGHT]] * 2))
    assert room_for_trials(1.0, growing=False, say=cluster.said.append) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rays_autoscaler_gives_a_first_trial_room() -> None:
    printed = run_ray_script(growing_cluster.__file__, source=lambda _: ROOT, timeout_s=800)
    says = json.loads(printed.splitlines()[-1])
    assert says["half a GPU"] == 4  # two machines may come, each with room for two
    assert sorted(says["nodes"]) == [0, 1]  # and one has
    assert len(says["said"]) == 1
    assert says["too much"].startswith("a trial needs 1 CPU and --gpus-per-trial 2 on one node")
