"""What can be said at once is said before torch, transformers and Ray are imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mpt
from mpt.cli.main import COMMANDS, main

ROOT = Path(mpt.__file__).resolve().parents[1]
SLOW = ("torch", "transformers", "ray", "sqlalchemy", "scipy", "plotly")
"""Packages whose import takes a second or several, and that no help text needs."""

RUN = """
import gc, json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    code = end.code
else:
    code = None
assert gc.get_threshold()[0] == 200_000
print(json.dumps([code, sorted(sys.modules)]))
"""
"""Runs a script and prints its exit code and what was imported.

A program of ours has told Python to look for garbage seldom, before all that it imports.
"""


def _run(script: str, *words: str) -> tuple[int, set[str], str]:
    """Return a script's exit code, what it imported, and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(ROOT / script), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code or 0, set(modules), done.stderr


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("mpt/__main__.py", ["--help"]),
        ("mpt/__main__.py", ["search", "maml", "--help"]),
        ("mpt/__main__.py", ["paper", "--help"]),
        ("mpt/__main__.py", ["gym", "--help"]),
        ("mpt/__main__.py", ["report", "--help"]),
        ("tune_jobs/maml_rr.py", ["--help"]),
        ("tune_jobs/real.py", ["--help"]),
        ("tune_jobs/beat_mtl.py", ["--help"]),
    ],
)
def test_help_imports_nothing_slow(script: str, words: list[str]) -> None:
    code, modules, error = _run(script, *words)
    assert (code, error) == (0, "")
    assert not modules.intersection(SLOW)


@pytest.mark.parametrize(
    ("script", "words", "text"),
    [
        ("mpt/__main__.py", ["serach"], "command is 'serach'"),
        ("mpt/__main__.py", ["search", "mamml"], "method is 'mamml'"),
        ("tune_jobs/maml_rr.py", ["--lr", "1"], "unrecognized arguments: --lr 1"),
        ("tune_jobs/maml_rr.py", ["--tuning-lrs", "0"], "lrs is (0.0,)"),
        ("tune_jobs/maml_rr.py", ["--space", "x"], "space 'x' is unknown"),
        ("tune_jobs/maml_rr.py", ["--backbone", "nonsense"], "backbone nonsense needs --gym DIR"),
        ("tune_jobs/per_setting.py", ["--backbone", "embeded"], "the nearest known name is embed"),
        ("tune_jobs/replay.py", ["--backbones", "nonsense"], "backbone nonsense needs --gym DIR"),
        ("tune_jobs/paper.py", ["--backbones", "nonsense"], "backbone nonsense needs --gym DIR"),
        ("tune_jobs/beat_mtl.py", ["--backbones", "embeded"], "the nearest known name is embedde"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_slow_is_imported(
    script: str, words: list[str], text: str
) -> None:
    code, modules, error = _run(script, *words)
    assert code == 2
    assert text in error
    assert not modules.intersection(SLOW)


def test_who_imports_a_search_has_no_statistics_and_the_collector_as_it_was() -> None:
    """The statistics would take half a second."""
    code = """
import gc, sys
gc.set_threshold(700, 10, 10)
import mpt.cli.main, mpt.cli.watch, mpt.search.run
assert "scipy.stats" not in sys.modules
import mpt.search.ray.tuning
assert mpt.cli.main.main(["--version"]) == 0
assert gc.get_threshold() == (700, 10, 10) and gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_how_it_was_called(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main([name, "--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert capsys.readouterr().out.startswith(f"usage: mpt {name} ")
