"""A script that is killed at its first point, and run again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE_S = 1500.0
"""For a machine that is busy and slow; it only catches hangs."""


def run_after_a_kill(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Kill a search as soon as it shows its first point; return what it prints the second time."""
    log = folder / "first.log"
    with log.open("w") as out:
        first = subprocess.Popen(command, stdout=out, cwd=folder, env=environment)
        try:
            _wait_for(log, "1/")
            assert first.poll() is None, "it ended before it could be killed"
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.2)
