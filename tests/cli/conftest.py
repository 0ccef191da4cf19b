"""The searches of the command line are the toy searches of `tests/search`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))

from search_fixtures import job, toy_gym

from mpt.cli.flags import Parser

__all__ = ["job", "toy_gym"]


@pytest.fixture(autouse=True)
def _a_program_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget after every test by which words `mpt` was called."""
    monkeypatch.setattr(Parser, "command", ())
