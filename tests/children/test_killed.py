"""The helper that kills a search waits for no process that has ended by itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import killed
import pytest


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits all the same fails with other words."""
    monkeypatch.setattr(killed, "PATIENCE_S", 30.0)


def test_a_process_that_dies_at_once_is_told_with_what_it_said(tmp_path: Path) -> None:
    said = "results in /tmp/test-1/r\\nno such gym"
    command = [sys.executable, "-c", f"raise SystemExit('{said}')"]
    with pytest.raises(AssertionError, match=r"ended before it printed .*:\n.*\nno such gym"):
        killed.run_after_a_kill(command, tmp_path, os.environ)


def test_a_process_that_ends_with_its_first_point_cannot_be_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('1/1')"]
    with pytest.raises(AssertionError, match=r"ended before .*:\n(.*\n)*1/1"):
        killed.run_after_a_kill(command, tmp_path, os.environ)


def test_the_second_time_it_is_left_to_its_end(tmp_path: Path) -> None:
    script = (
        "import pathlib, time\n"
        "again = pathlib.Path('first').exists()\n"
        "pathlib.Path('first').touch()\n"
        "print('1/2', flush=True)\n"
        "again or time.sleep(1000)\n"
    )
    said = killed.run_after_a_kill([sys.executable, "-c", script], tmp_path, os.environ)
    assert said == "1/2\n"
