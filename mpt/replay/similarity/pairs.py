"""Similarities of Table 7 on disk: ``similarity.json`` beside the records, written by a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mpt.errors import DataError
from mpt.storage import Disk, seal, unseal

FILE = "similarity.json"
KINDS = ("similar", "dissimilar")
"""Pairs of tasks, compared on their inputs."""
PROMPT_KINDS = ("similar, prompts", "dissimilar, prompts")
"""The same pairs, compared on tuned prompts; they may be absent."""

Pairs = Mapping[str, Sequence[tuple[str, str, float]]]
"""Kind → (task, task, similarity), see `mpt.replay.similarity.measure.compare_pairs`."""


def save_pairs(results: Path, pairs: Pairs, about: str = "") -> None:
    """Write the similarities into a results directory, whole or not at all.

    Args:
        results: the directory.
        pairs: the similarities.
        about: what they were computed on, one line for readers.
    """
    kinds = (*KINDS, *(kind for kind in PROMPT_KINDS if kind in pairs))
    body = {kind: [list(pair) for pair in pairs.get(kind, ())] for kind in kinds}
    disk = Disk(results)
    disk.prepare()
    disk.write(results / FILE, seal({**body, "about": about}))


def load_pairs(results: Path) -> Pairs | None:
    """Return the similarities of a results directory, or None if they were not computed.

    Raises:
        DataError: the file is torn, changed, or holds something else.
    """
    path = results / FILE
    if not path.exists():
        return None
    body = unseal(path)
    try:
        return {
            kind: tuple((str(left), str(right), float(value)) for left, right, value in body[kind])
            for kind in (*KINDS, *(kind for kind in PROMPT_KINDS if kind in body))
        }
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{path}: must hold pairs [task, task, similarity] under {' and '.join(KINDS)}"
        ) from None


def about_pairs(results: Path) -> str:
    """Return what the similarities of a results directory were computed on; "" if that is unknown.

    Raises:
        DataError: the file is torn or changed.
    """
    path = results / FILE
    return str(unseal(path).get("about", "")) if path.exists() else ""
