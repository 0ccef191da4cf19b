"""One gym, one sample size: a gym of more shots says so in its ``gym.toml``."""

from __future__ import annotations

import os
from pathlib import Path

from mpt.errors import UsageError
from mpt.gym.catalogue import Catalogue, load_catalogue
from mpt.gym.records import PROVENANCE, read_record

PUBLISHED_SHOTS = 16
"""What ``--shots`` calls the published size: 16 a class, 32 where not sampled per class."""


def declare_size(out: Path, shots: int) -> None:
    """Make the catalogue of a gym directory fit the sample size that is built into it.

    The published size needs no ``gym.toml``; another one gets a ``gym.toml`` that repeats the
    published catalogue at that size.

    Args:
        out: gym directory, exists.
        shots: as on the command line; `mpt.gym.catalogue.ALL_SHOTS` for all rows.

    Raises:
        UsageError: the directory holds tasks of another size, or a catalogue of its own.
    """
    size = shots or "all"
    for path in sorted(out.glob(f"*/{PROVENANCE}")):
        record = read_record(path.parent)
        if record is not None and record["shots"] != size:
            raise UsageError(
                f"--shots {size}: {out} holds {path.parent.name} at {record['shots']} shots, and "
                "a gym has one size; choose another --out"
            )
    path = out / "gym.toml"
    text = None if shots == PUBLISHED_SHOTS else catalogue_text(load_catalogue(None), shots)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UsageError(f"{path} is the catalogue of another gym; choose another --out")
    if text is not None and not path.exists():
        fresh = path.with_name(f".gym.toml.{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.rename(path)


def catalogue_text(catalogue: Catalogue, shots: int) -> str:
    """Return the text of a ``gym.toml`` that holds `catalogue` with its tasks at `shots`."""
    lines = [f"validation_tasks = {_listed(catalogue.validation_tasks)}", "", "[source_subsets]"]
    lines += [f"{name} = {_listed(tasks)}" for name, tasks in catalogue.source_subsets.items()]
    for info in catalogue.tasks.values():
        size = info.at_shots(shots).shots
        lines += [
            "",
            f"[tasks.{info.name}]",
            f'family = "{info.family}"',
            f'metric = "{info.metric}"',
            f"shots = {size}" if size else 'shots = "all"',
        ]
    for part in catalogue.partitions.values():
        lines += [
            "",
            f"[partitions.{part.name}]",
            f"source = {_listed(part.source)}",
            f"target = {_listed(part.target)}",
        ]
    return "\n".join(lines) + "\n"


def _listed(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
