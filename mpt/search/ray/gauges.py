"""What a trial tells Prometheus while it runs; the dashboard's charts read it from there.

Ray serves the gauges of all workers of a node, under names that begin with ``ray_mpt_``, on the
node's metrics port. Each has one tag, the trial's name: every value of a tag is a series that is
kept for ever, so steps and times must not be tags.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping
from typing import Any

GAUGES: Mapping[str, str] = {
    "mpt_arg": "Average relative gain over prompt tuning at the last rung, percent",
    "mpt_runs_done": "Downstream runs of this rung that have finished",
    "mpt_runs_running": "Downstream runs that are being trained side by side",
    "mpt_runs_waiting": "Downstream runs that wait for room beside the running ones",
    "mpt_steps_per_second": "Optimiser steps per second, summed over the runs",
    "mpt_tokens_per_second": "Real tokens trained on per second, prompts included",
    "mpt_gpu_bytes": "GPU memory that the trial's process holds for tensors, bytes",
}
"""Gauge → what it says."""


class Gauges:
    """The gauges of one trial; silent where there is no Ray, and never in a trial's way."""

    def __init__(self, trial: str) -> None:
        self._tags = {"trial": trial}
        self._gauges: dict[str, Any] = {}

    def report(self, **values: float | None) -> None:
        """Set the gauges that have a value; None and NaN leave a gauge as it is.

        Args:
            **values: name of a gauge, without ``mpt_`` → its value.
        """
        ray = sys.modules.get("ray")
        if ray is None:
            return
        # A chart is worth less than the search: whatever is wrong with the metrics, it goes on.
        with contextlib.suppress(Exception):
            if ray.is_initialized():
                for name, value in {**values, "gpu_bytes": _gpu_bytes()}.items():
                    if value is not None and math.isfinite(value):
                        self._gauge(f"mpt_{name}").set(float(value), tags=self._tags)

    def _gauge(self, name: str) -> Any:
        if name not in self._gauges:
            from ray.util.metrics import Gauge

            self._gauges[name] = Gauge(name, description=GAUGES[name], tag_keys=("trial",))
        return self._gauges[name]


def _gpu_bytes() -> float | None:
    """Return what torch's allocator holds on the GPU; None without one (not run on a GPU yet)."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.memory_reserved())
