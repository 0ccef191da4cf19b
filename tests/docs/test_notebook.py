"""The notebook of the tutorial is run from its first cell to its last."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, ROOT

NOTEBOOK = DOCS / "tutorial.ipynb"
HANGS = 1800
"""Seconds after which it counts as hanging; it takes a minute on two quiet cores."""


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    """Everything that a cell printed or showed, as text."""
    texts = [text for out in cell["outputs"] for text in out.get("text", [])]
    shown = [text for out in cell["outputs"] for text in out.get("data", {}).get("text/plain", [])]
    return "".join(texts + shown)


def test_it_holds_no_outputs_that_a_reader_might_take_for_theirs() -> None:
    cells = code_cells(NOTEBOOK)
    assert len(cells) >= 4
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(HANGS)
def test_every_cell_runs_and_it_compares_its_method_with_maml(tmp_path: Path) -> None:
    if importlib.util.find_spec("nbclient") is None:
        pytest.skip("nbclient is not installed: pip install -e '.[dev]'")
    out = tmp_path / "run.ipynb"
    runner = Path(__file__).with_name("run_notebook.py")
    done = subprocess.run(
        [sys.executable, str(runner), str(NOTEBOOK), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANGS - 20,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cells = code_cells(out)
    assert "the prompt moves" in printed(cells[1])
    shown = [o for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert len(shown) == 1
    last = printed(cells[-1])
    assert "maml: outer_lr" in last
    assert "pulled: outer_lr" in last
    assert "over 4 pairs: too few to tell" in last
