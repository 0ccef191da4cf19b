"""The searches that run on a cluster here are the toy searches of `tests/search`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))
