"""The notebook of the tutorial is run from its first cell to its last."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, ROOT

NOTEBOOK = DOCS / "tutorial.ipynb"


def cells() -> list[Any]:
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[dev]'")
    return list(nbformat.read(NOTEBOOK, as_version=4).cells)


def printed(cell: Any) -> str:
    """Everything that a cell printed or showed, as text."""
    texts = [out.get("text", "") for out in cell.outputs]
    texts += [out.get("data", {}).get("text/plain", "") for out in cell.outputs]
    return "".join(texts)


def test_it_holds_no_outputs_that_a_reader_might_take_for_theirs() -> None:
    code = [cell for cell in cells() if cell.cell_type == "code"]
    assert len(code) >= 4
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_cell_runs_and_it_compares_its_method_with_maml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[dev]'")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Here(AsyncKernelManager):
        """Starts this Python: no kernel has to be installed for it."""

        @property
        def kernel_spec(self) -> KernelSpec:
            words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=words, display_name="here", language="python")

    client = nbclient.NotebookClient(
        notebook,
        km=Here(),
        timeout=1700,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "the prompt moves" in printed(code[1])
    shown = [out for cell in code for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(shown) == 1
    assert "maml: outer_lr" in printed(code[-1])
    assert "pulled: outer_lr" in printed(code[-1])
    assert "over 4 pairs: too few to tell" in printed(code[-1])
