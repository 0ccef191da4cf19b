"""The provenance record of a built task, ``<task>/provenance.json``, and checks against it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROVENANCE = "provenance.json"
UNAVAILABLE = "unavailable.json"
"""In a gym directory: task → why the last build of it failed."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the provenance record of a built task; None where there is none that can be read."""
    try:
        record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = {"files", "seeds", "shots", "source"}
    return record if isinstance(record, dict) and needed <= set(record) else None


def changed_files(folder: Path, record: dict[str, Any]) -> list[str]:
    """Return the files of a record that are gone or whose bytes are not the recorded ones."""
    return [
        name
        for name, digest in record["files"].items()
        if not (folder / name).is_file() or sha256((folder / name).read_bytes()) != digest
    ]


def failures(gym: Path) -> dict[str, str]:
    """Return task → why the last build of it into this gym failed."""
    try:
        notes = json.loads((gym / UNAVAILABLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def note_failures(gym: Path, failed: Mapping[str, str], tried: Iterable[str]) -> None:
    """Store why tasks failed; the earlier notes on the tasks that were tried are dropped."""
    notes = {name: note for name, note in failures(gym).items() if name not in set(tried)}
    notes = dict(sorted({**notes, **failed}.items()))
    path = gym / UNAVAILABLE
    if not notes:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(f".{UNAVAILABLE}.{os.getpid()}")
    fresh.write_text(json.dumps(notes, indent=1, ensure_ascii=False), encoding="utf-8")
    fresh.rename(path)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
