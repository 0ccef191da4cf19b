"""What exports share: something new that is there whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mpt.errors import UsageError

UNKNOWN = "unknown"
"""The Hub's word for a licence that nobody has chosen."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote."""

    path: Path
    count: int
    what: str
    problems: tuple[str, ...] = ()
    """Broken files that were passed over, one line each."""


@contextlib.contextmanager
def new_path(out: Path) -> Iterator[Path]:
    """Give a path to write to; it is moved to `out` at the end, or nothing is there at all.

    Raises:
        UsageError: `out` exists already or cannot be written.
    """
    refuse_existing(out)
    temporary = out.with_name(f".{uuid.uuid4().hex}.{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        refuse_existing(out)
        temporary.rename(out)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"--out {out} cannot be written ({reason}); give another") from None
    finally:
        for remnant in out.parent.glob(f"{glob.escape(temporary.name)}*"):
            shutil.rmtree(remnant) if remnant.is_dir() else remnant.unlink()


def new_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new directory; it is there whole or not at all.

    Args:
        out: the directory.
        files: name → content.

    Raises:
        UsageError: `out` exists, is called like a file of weights, or cannot be written.
    """
    refuse_existing(out)
    if out.suffix == ".safetensors":
        raise UsageError(
            f"--out is {str(out)!r}, but must be a directory; what is written are several files"
        )
    with new_path(out) as folder:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)


def refuse_existing(out: Path) -> None:
    """Raise `UsageError` if there is something at a path that is to be written."""
    if out.exists():
        raise UsageError(f"--out {out} exists already; give another, nothing is overwritten")
