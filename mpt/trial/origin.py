"""Where and when a number was made, as records have it."""

from __future__ import annotations

import datetime
from typing import Any

from mpt.provenance import provenance


def origin_of(**more: Any) -> dict[str, Any]:
    """Return commit, package versions and machine, and what else is given; without the time."""
    where = {**provenance(), **more}
    where.pop("time", None)
    return where


def now() -> str:
    """Return the UTC time."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
