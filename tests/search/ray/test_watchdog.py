"""A driver whose Ray has died ends with one line, a worker with its raylet, and only then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from children import environment

import mpt
from mpt.search.ray import watchdog
from mpt.search.ray.watchdog import lives

ROOT = Path(mpt.__file__).resolve().parents[1]
NOBODY = 2**22 + 1
"""No process of Linux has this number."""

_DRIVER = """
import os, signal, subprocess, sys, threading
from mpt.search.ray import watchdog

AGENT = "import time; name = 'agent'; time.sleep(3600)"
RAYLET = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', sys.argv[1]]);"
    "print(child.pid, flush=True); child.wait(); time.sleep(3600)"
)

def process(*words, out=subprocess.DEVNULL):
    return subprocess.Popen(
        [sys.executable, "-c", *words], stdout=out, stderr=subprocess.DEVNULL, text=True
    )

raylet = process(RAYLET, AGENT, out=subprocess.PIPE)
agent = int(raylet.stdout.readline())
gcs, other = process(AGENT), process(AGENT)
watchdog._LOOK_S = watchdog._GRACE_S = 0.05
watchdog._processes = lambda: {"raylet": [raylet.pid], "gcs_server": [gcs.pid]}
print(raylet.pid, gcs.pid, agent, other.pid, flush=True)
looked = threading.Event()
lives = watchdog.lives
watchdog.lives = lambda one: looked.set() or lives(one)
with watchdog.watched(lambda text: print(text, flush=True), "python job.py --results r"):
    assert looked.wait(300)
    os.kill({"raylet": raylet.pid, "gcs": gcs.pid, "agent": agent}[sys.argv[1]], signal.SIGKILL)
    threading.Event().wait()  # as a driver waits inside of Ray: for ever
"""


@pytest.mark.parametrize("dead", ["raylet", "gcs", "agent"])
def test_a_driver_that_waits_for_a_dead_ray_ends_with_one_line_and_code_75(dead: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, dead],
        capture_output=True,
        text=True,
        env=environment(ROOT),
        check=False,
    )
    processes, *said = done.stdout.splitlines()
    raylet, gcs, agent, other = map(int, processes.split())
    try:
        assert done.returncode == 75, done.stderr
        (line,) = said
        assert line.startswith("Ray's own process on this machine has ended")
        assert line.endswith("what was finished is kept. Resume with: python job.py --results r")
        while lives(raylet) or lives(gcs):  # the rest of this Ray is ended too
            time.sleep(0.01)  # a hang ends at the test's limit
        assert lives(other), "nothing else is ended"
    finally:
        for one in (agent, other):  # Ray's own agents end with their raylet
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, 9)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(watchdog.os, "_exit", codes.append)
    monkeypatch.setattr(watchdog, "_LOOK_S", 0.001)
    return codes


@pytest.fixture(autouse=True)
def no_older_watch() -> None:
    """Wait for the watch of an earlier search in this process, which ends in its own time."""
    for one in _threads():
        one.join(300)


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.endswith("(_watch)")]


def test_an_end_in_order_is_not_taken_for_a_death(
    exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    def gone(process: int) -> bool:
        looked.set()
        return False

    monkeypatch.setattr(watchdog, "_GRACE_S", 3600.0)
    monkeypatch.setattr(watchdog, "_processes", lambda: {"raylet": [NOBODY]})
    monkeypatch.setattr(watchdog, "lives", gone)
    with watchdog.watched(pytest.fail, "again"):
        (watch,) = _threads()
        assert looked.wait(300)  # the raylet was seen dead; the block ends within the grace
    watch.join(300)
    assert not watch.is_alive()
    assert exits == []


def test_a_raylet_that_lives_is_looked_at_until_the_block_ends(
    exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    often = threading.Event()

    def there(process: int) -> bool:
        looks.append(process)
        if len(looks) > 5:
            often.set()
        return True

    monkeypatch.setattr(watchdog, "_processes", lambda: {"raylet": [NOBODY], "gcs_server": [7]})
    monkeypatch.setattr(watchdog, "lives", there)
    with watchdog.watched(pytest.fail, "again"):
        (watch,) = _threads()
        assert often.wait(300)
    watch.join(300)
    assert not watch.is_alive()
    assert set(looks) == {NOBODY, 7}
    assert exits == []


def test_a_raylet_that_has_lost_an_agent_is_stopped_before_anything_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else Ray may end the driver between the two, and nobody hears a word."""

    class Left(Exception):
        pass

    def leave(code: int) -> None:
        raise Left(code)

    raylet, agent = (subprocess.Popen(["sleep", "1000"]) for _ in range(2))
    states = []

    def state() -> str:
        return Path(f"/proc/{raylet.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def say(_: str) -> None:
        hangs = time.monotonic() + 300
        while state() != "T" and time.monotonic() < hangs:  # its system stops it in its own time
            time.sleep(0.01)
        states.append(state())

    monkeypatch.setattr(watchdog, "_agents", lambda _: [agent.pid])
    monkeypatch.setattr(os, "_exit", leave)
    agent.kill()
    agent.wait()
    try:
        with pytest.raises(Left, match="75"):
            watchdog._watch({"raylet": [raylet.pid]}, threading.Event(), say, "again")
        assert states == ["T"]
        assert raylet.wait(100) == -signal.SIGKILL
    finally:
        raylet.kill()
        raylet.wait()


def test_a_ray_of_somebody_else_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_processes", lambda: {})
    with watchdog.watched(pytest.fail, "again"):
        assert _threads() == []


def test_without_a_ray_there_are_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.worker._global_node", None)
    assert watchdog._processes() == {}


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
        env=environment(ROOT),
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


@pytest.mark.skipif(not watchdog.PROCESSES.exists(), reason="the system tells of no processes")
def test_a_child_that_hangs_before_it_is_another_program_is_ended_and_no_other() -> None:
    """Its start would wait for it; another program, and a copy from before, are left alone."""
    copy = os.fork()
    if copy == 0:
        time.sleep(3600)
        os._exit(0)
    try:
        with watchdog.unhung(0.5):
            program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            hung = subprocess.Popen(["true"], preexec_fn=lambda: time.sleep(60))
            assert hung.wait(300) == -signal.SIGKILL
            assert program.poll() is None
            assert os.waitpid(copy, os.WNOHANG) == (0, 0)
    finally:
        program.kill()
        program.wait()
        os.kill(copy, signal.SIGKILL)
        os.waitpid(copy, 0)
