"""A process that becomes others: what these have of it, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import environment
from ready_process import ready_process

from mpt.search.ray.watchdog import lives

PRELOADED = "colorsys"
"""What nobody else imports."""

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system has none")

SCRIPT = """
import json, os, sys
seen = {"process": os.getpid(), "words": sys.argv[1:], "folder": os.getcwd(), "own": __name__}
seen |= {"mark": os.environ["MARK"], "modules": [*sys.modules]}
print(json.dumps(seen), flush=True)
sys.stdin.read()
"""


def _asking(socket: str, folder: Path, mark: str) -> subprocess.Popen[str]:
    """Start a process that asks for a copy that runs the script."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    begin = Path(__file__).with_name("begin_worker.py")
    words = [str(begin), "--language=PYTHON", str(script), f"--mark={mark}"]
    return subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(MARK=mark, MPT_TEST_READY=socket),
        cwd=folder,
        text=True,
    )


def _seen(asking: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what the copy says of itself."""
    assert asking.stdout is not None
    found: dict[str, Any] = json.loads(asking.stdout.readline())
    return found


@pytest.fixture(scope="module")
def ready() -> Iterator[str]:
    with ready_process(PRELOADED) as path:
        yield path


def test_a_copy_has_modules_and_else_what_its_asker_has(ready: str, tmp_path: Path) -> None:
    for mark in ("one", "two"):
        with _asking(ready, tmp_path, mark) as asking:
            seen = _seen(asking)
            assert seen["process"] != asking.pid
            asking.communicate()  # its standard input ends, and with it the script
        assert seen["words"] == [f"--mark={mark}"]
        assert seen["mark"] == mark
        assert seen["folder"] == str(tmp_path)
        assert seen["own"] == "__main__"
        assert PRELOADED in seen["modules"]
        assert not {"mpt", "ray", "pytest"} & {*seen["modules"]}


@pytest.mark.parametrize("killed", ["asker", "copy"])
def test_asker_and_copy_end_together(ready: str, tmp_path: Path, killed: str) -> None:
    with _asking(ready, tmp_path, "one") as asking, _asking(ready, tmp_path, "two") as other:
        copy, another = _seen(asking)["process"], _seen(other)["process"]
        os.kill(asking.pid if killed == "asker" else copy, signal.SIGKILL)
        asking.wait(60)
        deadline = time.monotonic() + 60
        while lives(copy):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert lives(another)
        other.communicate()


def test_copies_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    with ready_process() as path:
        asking = _asking(path, tmp_path, "one")
        copy = _seen(asking)["process"]
    with asking:
        asking.wait(60)
    assert not lives(copy)


def test_where_nobody_answers_the_asker_becomes_what_it_asked_for(tmp_path: Path) -> None:
    with _asking(f"{tmp_path}/nobody", tmp_path, "one") as asking:
        seen = _seen(asking)
        asking.communicate()
    assert seen["process"] == asking.pid
    assert seen["words"] == ["--mark=one"]
