"""A worker ends when its raylet does, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mpt
from mpt.search.ray import watchdog
from mpt.search.ray.watchdog import lives

ROOT = Path(mpt.__file__).resolve().parents[1]

_WORKER = """
import os, time
from mpt.search.ray.watchdog import end_with_raylet
end_with_raylet(check_s=0.01)
print(os.getpid(), flush=True)
for number in range(10):
    time.sleep(0.05)
    print("works", flush=True)
time.sleep(3600)
"""

_RAYLET = """
import os, subprocess, sys
environment = {**os.environ, "RAY_RAYLET_PID": str(os.getpid())}
subprocess.run([sys.executable, "-c", sys.argv[1]], env=environment)
"""


def test_an_idle_worker_ends_when_its_raylet_is_killed_and_not_before() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RAYLET, _WORKER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as raylet:
        assert raylet.stdout is not None
        worker = int(raylet.stdout.readline())
        # many looks at the raylet later it is still at work
        assert [raylet.stdout.readline() for _ in range(10)] == ["works\n"] * 10
        assert lives(worker)
        raylet.kill()  # the worker is left alone
        assert raylet.stdout.read() == ""  # closed: it is gone; a hang ends at the test's limit


def test_outside_of_a_worker_of_ray_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    monkeypatch.setattr(watchdog, "_end_after", lambda *_: pytest.fail("watched"))
    watchdog.end_with_raylet()


def test_a_dead_process_does_not_live_though_nobody_has_taken_note_of_it() -> None:
    assert lives(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as dead:
        assert dead.stdout is not None
        dead.stdout.read()
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        assert Path(f"/proc/{dead.pid}").exists()
        assert not lives(dead.pid)
    assert not lives(dead.pid)


def test_without_proc_a_process_lives_until_its_parent_has_taken_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "PROCESSES", tmp_path / "absent")
    assert lives(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    assert not lives(dead.pid)
