"""The benchmarks are scripts: their folder is where they find each other, and tests find them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Beside them the toy search, which the tests of mpt.search use too.
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "search")]


@pytest.fixture(scope="session")
def setting() -> Any:
    """A `packing_cells.Setting` of cells that take milliseconds."""
    from packing_cells import Setting

    return Setting(
        backbone="toy",
        device="cpu",
        dtype="float32",
        input_length=20,
        shortest=0.2,
        target_length=3,
        prompt=4,
        batch=2,
        run_steps=4,
        pass_tokens=None,
    )
