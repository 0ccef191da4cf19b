"""A whole job, where a test wants one, is that of the toy search of `tests/search`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))

from search_fixtures import job, study, toy_gym

__all__ = ["job", "study", "toy_gym"]
