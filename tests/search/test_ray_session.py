"""When a search checks the nodes it runs on, and where it looks for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from mpt.errors import UsageError
from mpt.search.job import Execution
from mpt.search.ray import capacity, preflight
from mpt.search.ray import session as ray_session


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A Ray with room for five trials is there already; what it is asked is noted."""
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_session, "prepare_environment", lambda address: None)
    monkeypatch.setattr(
        preflight, "check_cluster", lambda results, *, gpus: seen.append((results, gpus))
    )

    def room(gpus: float, *, growing: bool, say: Any) -> int:
        seen.append(("growing" if growing else "fixed", gpus))
        return 5

    monkeypatch.setattr(capacity, "room_for_trials", room)
    return seen


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (Execution(), [("fixed", 0.0)]),
        (Execution(address="auto"), [("growing", 0.0), (Path("/r"), 0.0)]),
        (
            Execution(address="10.0.0.1:6379", gpus_per_trial=0.5),
            [("growing", 0.5), (Path("/r"), 0.5)],
        ),
        # the trials compute on the CPU: what GPUs there are does not matter
        (
            Execution(address="auto", gpus_per_trial=1.0, device="cpu"),
            [("growing", 1.0), (Path("/r"), 0.0)],
        ),
    ],
)
def test_the_nodes_of_a_cluster_are_checked_and_a_ray_of_its_own_is_not(
    checks: list[tuple[Any, ...]], execution: Execution, expected: list[tuple[Any, ...]]
) -> None:
    with ray_session.ray_session(execution, 9, results=Path("/r")) as slots:
        assert slots == 5
    assert checks == expected


def test_there_are_no_more_slots_than_trials(checks: list[tuple[Any, ...]]) -> None:
    with ray_session.ray_session(Execution(), 3) as slots:
        assert slots == 3


@pytest.mark.parametrize(
    ("variables", "folder"),
    [({}, "/tmp"), ({"TMPDIR": "/t"}, "/t"), ({"TMPDIR": "/t", "RAY_TMPDIR": "/r"}, "/r")],
)
def test_the_cluster_of_this_machine_is_where_ray_notes_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    from ray._common.utils import get_ray_address_file

    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    there = ray_session._current_cluster()
    assert str(there) == f"{folder}/ray/ray_current_cluster" == get_ray_address_file(None)


def test_without_a_cluster_on_this_machine_auto_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="no cluster runs on this machine"):
        ray_session._check_reachable("auto")
