"""Runs a notebook as Jupyter does: ``python run_notebook.py NOTEBOOK OUT`` writes its outputs.

A process of its own, because the kernel's client leaves sockets to the garbage collector.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


class Here(AsyncKernelManager):
    """Starts this Python: no kernel has to be installed for it."""

    @property
    def kernel_spec(self) -> KernelSpec:
        words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=words, display_name="here", language="python")


if __name__ == "__main__":
    source, out = map(Path, sys.argv[1:])
    notebook = nbformat.read(source, as_version=4)
    where = {"metadata": {"path": str(out.parent)}}
    NotebookClient(notebook, km=Here(), timeout=None, resources=where).execute()
    nbformat.write(notebook, out)
