from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpt.errors import UsageError
from mpt.search import lock
from mpt.search.lock import driver_lock

_HOLDER = """
import sys, time
from pathlib import Path
from mpt.search.lock import driver_lock
with driver_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def _hold(results: Path) -> subprocess.Popen[str]:
    root = str(Path(lock.__file__).parents[2])
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
        with pytest.raises(UsageError, match=pattern), driver_lock(tmp_path):
            pytest.fail("two drivers")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # its name still stands in the file; the kernel has freed the lock
        assert str(holder.pid) in (tmp_path / "driver.lock").read_text()
        with driver_lock(tmp_path):
            assert str(os.getpid()) in (tmp_path / "driver.lock").read_text()


def test_the_lock_is_free_after_its_block_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), driver_lock(tmp_path):
        raise ValueError("inside")
    with driver_lock(tmp_path):
        pass
    assert (tmp_path / "driver.lock").read_text() == "{}"


def test_a_holder_that_wrote_no_name_is_still_reported(tmp_path: Path) -> None:
    with driver_lock(tmp_path):
        (tmp_path / "driver.lock").write_text("garbage")
        with pytest.raises(UsageError, match="in use by another process"), driver_lock(tmp_path):
            pytest.fail("two drivers")
