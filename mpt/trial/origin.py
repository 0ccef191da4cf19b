"""Where and when a number was made, as records have it."""

from __future__ import annotations

from typing import Any

from mpt.provenance import now, provenance

__all__ = ["now", "origin_of"]


def origin_of(**more: Any) -> dict[str, Any]:
    """Return commit, package versions and machine, and what else is given; without the time."""
    where = {**provenance(), **more}
    where.pop("time", None)
    return where
