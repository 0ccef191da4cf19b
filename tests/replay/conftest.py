"""The searches whose best points are replayed here are the toy searches of `tests/search`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))

from search_fixtures import toy_gym

__all__ = ["toy_gym"]
