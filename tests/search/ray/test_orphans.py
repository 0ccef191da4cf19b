from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mpt
from mpt.search.ray import orphans
from mpt.storage import exclusive

ROOT = Path(mpt.__file__).resolve().parents[1]

_WORKER = """
import sys, time
from pathlib import Path
from mpt.search.ray.orphans import end_with_raylet
from mpt.storage import exclusive
end_with_raylet(check_s=0.05)
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""

_RAYLET = """
import os, subprocess, sys
environment = {**os.environ, "RAY_RAYLET_PID": str(os.getpid())}
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]], env=environment)
"""


def test_an_idle_worker_lets_go_of_its_lock_when_its_raylet_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RAYLET, _WORKER, str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as raylet:
        assert raylet.stdout is not None
        assert raylet.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError), exclusive(tmp_path / "lock", timeout_s=0.3):
            pytest.fail("the worker ended although its raylet lives")
        raylet.kill()  # the worker is left alone
        with exclusive(tmp_path / "lock", timeout_s=30):
            pass
        assert raylet.stdout.read() == ""  # closed: the worker is gone


def test_outside_of_a_worker_of_ray_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    monkeypatch.setattr(orphans, "_watch", lambda *_: pytest.fail("watched"))
    orphans.end_with_raylet()
