"""The benchmarks are scripts: their folder is where they find each other, and tests find them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Beside them the toy search, which the tests of mpt.search use too.
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "search")]
