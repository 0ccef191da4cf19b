"""The environment of Python processes that tests start."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = str(Path(__file__).resolve().parent)


def python_path(*folders: str | Path) -> str:
    """Return a `PYTHONPATH` of these folders and of the `sitecustomize` here."""
    return os.pathsep.join(dict.fromkeys([*map(str, folders), _HERE]))


def environment(*folders: str | Path, **changes: str) -> dict[str, str]:
    """Return this process's environment for a child that imports from these folders."""
    return {**os.environ, "PYTHONPATH": python_path(*folders), **changes}
