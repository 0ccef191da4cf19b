"""A script that is killed at its first point, and run again."""

from __future__ import annotations

import re
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
        first = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=folder, env=environment
        )
        try:
            _wait_for(first, log, r"^ *1/\d")
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


def _wait_for(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    """Wait until a process that still runs has printed a line that matches into its log."""
    deadline = time.monotonic() + PATIENCE_S
    while not re.search(text, log.read_text(), re.MULTILINE):
        assert process.poll() is None, f"it ended before it printed {text!r}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"waited in vain for {text!r}:\n{log.read_text()}"
        time.sleep(0.2)
    assert process.poll() is None, f"it ended before it could be killed:\n{log.read_text()}"
