"""What goes through the model at once: fixed on a CPU, measured once per kind of GPU and kept.

The bits of a leaf depend on how runs are packed (never more than rounding), so a measured limit is
written down: whoever goes on with a search packs as those before did.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.errors import DataError
from mpt.storage import Disk, digest, exclusive, seal, unseal

if TYPE_CHECKING:
    from mpt.downstream.limits import PackLimits
    from mpt.gym.fewshot import FewShotTask
    from mpt.study.study import Study


def pack_limits(study: Study, tasks: Sequence[FewShotTask], disk: Disk) -> PackLimits:
    """Return the limits for runs on these tasks: from disk, or measured now."""
    from mpt.downstream.limits import default_limits, measure_limits

    backbone, config = study.backbone, study.config
    if backbone.device.type == "cpu":
        return default_limits(backbone.device)
    path = _path(study, disk)
    with exclusive(
        path.with_suffix(".lock"), None
    ):  # trials that share a GPU would disturb the probe
        found = _read(path)
        if found is not None:
            return found
        rows = [
            row
            for task in {(task.name, task.seed): task for task in tasks}.values()
            for row in backbone.encode_rows(task.name, task.train, config.text)
        ]
        limits = measure_limits(backbone, rows, config.prompt.length, config.downstream.batch_size)
        _write(path, limits, disk)
        return limits


def remember_limits(study: Study, limits: PackLimits, disk: Disk) -> None:
    """Keep limits that have shrunk because memory ran out."""
    if study.backbone.device.type == "cpu":
        return
    path = _path(study, disk)
    with exclusive(path.with_suffix(".lock")):
        known = _read(path)
        if known is None or (limits.tokens, limits.evaluation) < (known.tokens, known.evaluation):
            _write(path, limits, disk)


def _path(study: Study, disk: Disk) -> Path:
    import torch

    backbone, config = study.backbone, study.config
    key = digest(
        {
            "device": torch.cuda.get_device_name(backbone.device),
            "backbone": backbone.digest,
            "prompt": dataclasses.asdict(config.prompt),
            "text": dataclasses.asdict(config.text),
            "batch_size": config.downstream.batch_size,
        }
    )
    return disk.root / "packs" / f"limits-{key[:16]}.json"


def _read(path: Path) -> PackLimits | None:
    """Return limits from disk; None if there are none, or none that is whole."""
    from mpt.downstream.limits import PackLimits

    with contextlib.suppress(FileNotFoundError, DataError, json.JSONDecodeError):
        return PackLimits.from_dict(unseal(path))
    return None


def _write(path: Path, limits: PackLimits, disk: Disk) -> None:
    disk.write(path, seal(limits.to_dict()))
