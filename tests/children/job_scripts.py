"""The scripts of `tune_jobs/`, run without a process of their own: its imports take seconds."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "tune_jobs"


def run_script(name: str, *words: str) -> str:
    """Run a script with these words behind it, to exit code 0; return what it prints."""
    script = str(FOLDER / name)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as said,
    ):
        patch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_path(script, run_name="__main__")
    return said.getvalue()
