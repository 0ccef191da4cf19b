"""Prompts as files beside the database: written once, found by their digest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError
from mpt.store.records import Artifact, Cost
from mpt.trial.origin import now
from mpt.upstream.jumps import Jump, from_record

if TYPE_CHECKING:
    from torch import Tensor

    from mpt.store.artifacts import Artifacts
    from mpt.trial.store import TrialStore


@dataclass(frozen=True)
class Rung:
    """φ after `steps` upstream steps."""

    steps: int
    prompt: Tensor
    digest: str
    """`prompt_digest` of the prompt."""
    cost: Cost
    """From step 0 on."""
    jump: Jump | None = None
    """Largest jump of the loss since step 0; None if there was none."""


def keep_file(
    store: TrialStore,
    artifacts: Artifacts,
    kind: str,
    owner: str,
    steps: int,
    name: str,
    data: bytes,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write a file below the root of the artifacts, and store where it is (see `Artifact`)."""
    uri, sha = artifacts.write(name, data)
    store.add_artifact(
        Artifact(
            kind=kind,
            owner=owner,
            steps=steps,
            uri=uri,
            digest=sha,
            meta=meta or {},
            created=now(),
        )
    )


def newest_state(store: TrialStore, artifacts: Artifacts, owner: str) -> dict[str, Any] | None:
    """Return the state in the newest checkpoint of a trial; None if there is no checkpoint.

    Raises:
        DataError: the checkpoint is absent, torn or foreign.
        StorageError: the storage cannot be reached.
    """
    from mpt.store.state import read_folder_state

    newest = store.checkpoint(owner)
    if newest is None:
        return None
    with tempfile.TemporaryDirectory(prefix="mpt-checkpoint-") as folder:
        artifacts.fetch_folder(newest.uri, Path(folder))
        try:
            return read_folder_state(Path(folder))
        except DataError as error:  # the copy will be gone when somebody reads this
            raise DataError(str(error).replace(folder, newest.uri)) from None


def load_rung(
    store: TrialStore, artifacts: Artifacts, upstream: str, steps: int, device: Any
) -> Rung | None:
    """Return the prompt at a rung, or None if it is not stored.

    Raises:
        DataError: its file is absent, torn or changed.
        StorageError: the storage cannot be reached.
    """
    from mpt.prompts import prompt_digest, prompt_from_bytes

    record = store.rung(upstream, steps)
    if record is None:
        return None
    data = artifacts.read(record.uri, record.digest)
    prompt, metadata = prompt_from_bytes(data, record.uri)
    if metadata.get("upstream") != upstream or record.meta.get("digest") != prompt_digest(prompt):
        raise DataError(f"{record.uri}: is not the prompt that the database means")
    cost = Cost(**{name: record.meta[name] for name in ("steps", "examples", "tokens", "seconds")})
    jump = from_record(record.meta.get("jump"))
    return Rung(steps, prompt.to(device), str(record.meta["digest"]), cost, jump)
