"""One driver per directory of results."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mpt
from mpt.errors import StorageError, UsageError
from mpt.store.lock import driver_lock, is_held

_HOLDER = """
import sys, time
from pathlib import Path
from mpt.store.lock import driver_lock, is_held
with driver_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def _hold(results: Path) -> subprocess.Popen[str]:
    root = str(Path(mpt.__file__).parents[1])
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(results)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_the_second_driver_is_told_who_holds_the_directory_and_a_dead_one_is_replaced(
    tmp_path: Path,
) -> None:
    with _hold(tmp_path) as holder:
        pattern = f"in use by process {holder.pid} on {platform.node()} since"
        for _ in range(2):  # asking does not erase the name
            with pytest.raises(UsageError, match=pattern), driver_lock(tmp_path):
                pytest.fail("two drivers")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # its name still stands in the file; the kernel has freed the lock
        assert str(holder.pid) in (tmp_path / "driver.lock").read_text()
        with driver_lock(tmp_path):
            assert str(os.getpid()) in (tmp_path / "driver.lock").read_text()


def test_whether_a_driver_is_there_can_be_asked_without_being_in_its_way(tmp_path: Path) -> None:
    assert is_held(tmp_path) is False
    with _hold(tmp_path) as holder:
        for _ in range(2):
            assert is_held(tmp_path) is True
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert is_held(tmp_path) is False
    with driver_lock(tmp_path):
        assert is_held(tmp_path) is True
    assert is_held(tmp_path) is False  # the process in the file lives, and has let go
    (tmp_path / "driver.lock").write_text("no JSON")
    assert is_held(tmp_path) is False


def test_the_lock_is_free_after_its_block_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), driver_lock(tmp_path / "new" / "results"):
        raise ValueError("inside")
    with driver_lock(tmp_path / "new" / "results"):
        pass


def test_one_process_does_not_hold_it_twice(tmp_path: Path) -> None:
    line = f"in use by process {os.getpid()}"
    with driver_lock(tmp_path), pytest.raises(UsageError, match=line), driver_lock(tmp_path):
        pytest.fail("two drivers")


def test_a_holder_that_wrote_no_name_is_still_reported(tmp_path: Path) -> None:
    with driver_lock(tmp_path):
        (tmp_path / "driver.lock").write_text("garbage")
        with pytest.raises(UsageError, match="in use by another process"), driver_lock(tmp_path):
            pytest.fail("two drivers")


@pytest.mark.timeout(300)  # waiting for a pipe is what must not happen
def test_a_lock_that_is_no_file_is_refused_by_name(
    tmp_path: Path, make_no_file: Callable[[Path], object]
) -> None:
    make_no_file(tmp_path / "driver.lock")
    with pytest.raises(StorageError, match=r"driver\.lock: .*; move away"), driver_lock(tmp_path):
        pytest.fail("held")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.raises(StorageError, match="give a directory on a file system with file locks"),
        driver_lock(tmp_path),
    ):
        pytest.fail("held")
