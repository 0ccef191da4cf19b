"""What goes through the model at once: fixed on a CPU, measured once per kind of GPU and kept.

The bits of a run depend on how runs are packed (never more than rounding), so a measured limit is
stored: whoever goes on with a search packs as those before did.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from mpt.errors import DataError
from mpt.keys import digest

if TYPE_CHECKING:
    from mpt.downstream.limits import PackLimits
    from mpt.downstream.record import TuningRun
    from mpt.study.study import OpenStudy
    from mpt.trial.runs import PlannedRun
    from mpt.trial.store import TrialStore


def pack_limits(
    study: OpenStudy, runs: Sequence[PlannedRun | TuningRun], store: TrialStore
) -> PackLimits:
    """Return the limits for these runs: the stored ones, or measured now."""
    from mpt.downstream.limits import default_limits, measure_limits

    backbone, config = study.backbone, study.config
    if backbone.device.type == "cpu":
        return default_limits(backbone.device)
    name = _name(study)
    # trials of this machine that share a GPU would disturb the probe
    with FileLock(Path(tempfile.gettempdir(), f"mpt-probe-{name[:16]}.lock")):
        known = _known(name, store)
        if known is not None:
            return known
        tasks = {(run.task.name, run.task.seed): run.task for run in runs}
        rows = [
            row
            for task in tasks.values()
            for row in backbone.encode_rows(task.name, task.train, config.text)
        ]
        limits = measure_limits(backbone, rows, config.prompt.length, config.downstream.batch_size)
        store.keep_pack_limits(name, limits.to_dict())
        return limits


def remember_limits(study: OpenStudy, limits: PackLimits, store: TrialStore) -> None:
    """Keep limits that have shrunk because memory ran out."""
    if study.backbone.device.type == "cpu":
        return
    known = _known(_name(study), store)
    if known is None or (limits.tokens, limits.evaluation) < (known.tokens, known.evaluation):
        store.keep_pack_limits(_name(study), limits.to_dict())


def _name(study: OpenStudy) -> str:
    import torch

    backbone, config = study.backbone, study.config
    return digest(
        {
            "device": torch.cuda.get_device_name(backbone.device),
            "backbone": backbone.digest,
            "prompt": dataclasses.asdict(config.prompt),
            "text": dataclasses.asdict(config.text),
            "batch_size": config.downstream.batch_size,
        }
    )


def _known(name: str, store: TrialStore) -> PackLimits | None:
    """Return stored limits; None if there are none, or none that this program understands."""
    from mpt.downstream.limits import PackLimits

    record = store.pack_limits(name)
    if record is None:
        return None
    try:
        return PackLimits.from_dict(dict(record))
    except DataError:
        return None
