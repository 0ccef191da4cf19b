"""The prompt φ at a rung of a trajectory, on disk with what it cost to get there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.errors import DataError
from mpt.storage import open_file, set_aside
from mpt.storage_errors import storage_error

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.upstream.engine import UpstreamRun

_COSTS = ("steps", "examples", "tokens", "seconds")


@dataclass(frozen=True)
class Rung:
    """φ after `steps` upstream steps."""

    steps: int
    prompt: Tensor
    digest: str
    """`prompt_digest` of the prompt."""
    cost: dict[str, float]
    """Steps, examples, tokens and seconds from step 0 on."""


def folder_of(results: Path, trajectory: str) -> Path:
    """Return the folder of a trajectory's files."""
    return results / "trajectories" / trajectory


def _path(results: Path, trajectory: str, steps: int) -> Path:
    return folder_of(results, trajectory) / f"rung-{steps}.safetensors"


def save_rung(results: Path, run: UpstreamRun) -> None:
    """Write the present prompt of a run as a rung; a folder in its place is set aside.

    Raises:
        StorageError: the storage is full, gone or closed.
    """
    from mpt.prompts import prompt_digest, save_prompt

    metadata = {
        "trajectory": run.key,
        "digest": prompt_digest(run.prompt),
        **{name: repr(value) for name, value in dataclasses.asdict(run.cost).items()},
    }
    path = _path(results, run.key, run.step_count)
    if path.is_dir() and not path.is_symlink():
        set_aside(path)
    save_prompt(path, run.prompt, metadata)


def load_rung(results: Path, trajectory: str, steps: int) -> Rung | None:
    """Return a rung, or None if it is not on disk.

    Raises:
        DataError: the file is torn, changed, or of another trajectory.
        StorageError: the file cannot be read; it may be a good one.
    """
    from mpt.prompts import load_prompt, prompt_digest

    path = _path(results, trajectory, steps)
    try:
        with open_file(path):  # nothing that would be waited for
            pass
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error) from error
    prompt, metadata = load_prompt(path)
    if metadata.get("trajectory") != trajectory or metadata.get("steps") != str(steps):
        raise DataError(f"{path}: belongs to another trajectory or rung")
    if metadata.get("digest") != prompt_digest(prompt):
        raise DataError(f"{path}: its digest does not fit its content")
    try:
        cost = {name: float(metadata[name]) for name in _COSTS}
    except (KeyError, ValueError):
        raise DataError(f"{path}: lacks what it cost") from None
    return Rung(steps, prompt, metadata["digest"], cost)
