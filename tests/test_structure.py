"""The tree: which part may import which, how large files and folders are, what a wheel holds.

And that no test leaves its process changed.
"""

from __future__ import annotations

import ast
import gc
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from process_state import left_as_it_was

ROOT = Path(__file__).resolve().parents[1]
CODE = ("mpt", "analysis", "tests", "tune_jobs", "benchmarks", "tools")
MOST_FILES, MOST_LINES = 15, 500


def test_imports_point_down_the_data_flow_and_in_no_circle() -> None:
    script = "import sys; from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", script, "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


BUILT_BELOW = (
    *("SearchJob", "Suggestions", "TrialSpec", "UpstreamSpec", "StudyPlan", "StudyConfig"),
    *("plan_study", "load_study", "trials_of", "grid_trials", "replicates_of"),
)
"""What searches and replays are made of: a command asks `mpt.api` for them."""


def test_commands_are_written_on_the_public_interface() -> None:
    """None makes a study, a trial or a job of its own beside it."""
    made = [
        f"{path.name}:{node.lineno} {name}"
        for path in _python("mpt/cli")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        if (name := getattr(node.func, "attr", getattr(node.func, "id", ""))) in BUILT_BELOW
    ]
    assert not made


def _python(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*.py") if ".venv" not in path.parts]


@pytest.mark.parametrize("folder", CODE)
def test_no_file_has_more_lines_than_a_reader_holds(folder: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _python(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long


@pytest.mark.parametrize("folder", CODE)
def test_no_folder_has_more_files_than_a_reader_sees(folder: str) -> None:
    count: dict[str, int] = {}
    for path in _python(folder):
        if path.name != "__init__.py":
            name = str(path.parent.relative_to(ROOT))
            count[name] = count.get(name, 0) + 1
    assert {name: files for name, files in count.items() if files > MOST_FILES} == {}


def test_the_wheel_names_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    here = {".".join(path.parent.relative_to(ROOT).parts) for path in _python("mpt")}
    there = {
        "mpt." + ".".join(path.parent.relative_to(ROOT).parts) for path in _python("analysis")
    }
    assert set(setuptools["packages"]) == here | there | {"mpt.search_spaces"}
    assert setuptools["package-dir"] == {
        "mpt.analysis": "analysis",
        "mpt.search_spaces": "search_spaces",
    }


def _leave_much(folder: Path) -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)
    gc.disable()
    os.chdir(folder)
    os.environ["MPT_TEST_LEFT"] = "1"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def test_what_is_left_changed_in_the_process_is_named_and_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads(), os.getcwd(), signal.getsignal(signal.SIGUSR1)
    said = rf"threads \({before[0]} → {before[0] + 1}\), the garbage collector \(True → False\)"
    with pytest.raises(AssertionError, match=said) as caught, left_as_it_was():
        _leave_much(tmp_path)
    assert "the working directory" in str(caught.value)
    assert "MPT_TEST_LEFT" in str(caught.value)
    assert (torch.get_num_threads(), os.getcwd(), signal.getsignal(signal.SIGUSR1)) == before
    assert gc.isenabled()
    assert "MPT_TEST_LEFT" not in os.environ
    with left_as_it_was():
        pass
