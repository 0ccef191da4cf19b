"""The number of processors, on systems that know what a process may use and on others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mpt
from mpt.processes import usable_processors

PACKAGE = Path(mpt.__file__).parent


def test_only_those_that_the_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_processors() == 3


@pytest.mark.parametrize(("machine", "usable"), [(8, 8), (None, 1)])
def test_all_of_the_machine_count_where_the_system_does_not_say(
    machine: int | None, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS has none
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    assert usable_processors() == usable


def test_nobody_else_asks_the_system() -> None:
    asking = [p.name for p in PACKAGE.rglob("*.py") if "sched_getaffinity" in p.read_text()]
    assert asking == ["processes.py"]
