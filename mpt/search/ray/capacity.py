"""Room for trials on a cluster: on the nodes that are there, and on those the autoscaler may add.

A request that no node can ever hold would make Ray wait for ever. So it is refused, unless the
cluster can grow; then a node is asked for and waited for, for a limited time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mpt.errors import UsageError
from mpt.search.cost.gpu_share import trials_on_gpus

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on the head, where a submitted job runs: the cluster file, as JSON."""

PATIENCE_S = 1800.0
"""Seconds for a first node: a machine has to start and install everything."""

_NEEDED = ("CPU", "GPU")

Resources = Mapping[str, float]


def trials_on(node: Resources, gpus: float) -> int:
    """Return how many trials of one CPU and `gpus` GPUs fit on a node."""
    fit = int(node.get("CPU", 0))
    return fit if gpus <= 0 else min(fit, trials_on_gpus(node.get("GPU", 0), gpus))


def trials_after_growth(gpus: float, bootstrap: Path | None = None) -> int:
    """Return how many trials fit on the workers that the autoscaler may start; 0 without one."""
    try:
        config = json.loads((bootstrap or BOOTSTRAP).expanduser().read_text())
        workers = {
            name: node
            for name, node in config["available_node_types"].items()
            if name != config["head_node_type"]
        }
        most = int(config["max_workers"])
        fits = [
            fit
            for node in workers.values()
            for fit in [trials_on(node.get("resources", {}), gpus)] * int(node["max_workers"])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
    return sum(sorted(fits, reverse=True)[:most])


def room_for_trials(
    gpus: float,
    *,
    growing: bool,
    say: Callable[[str], None],
    patience_s: float = PATIENCE_S,
) -> int:
    """Return how many trials can run at once; where none can yet, wait for a first node.

    Raises:
        UsageError: no node can ever hold a trial, or none came in time.
    """
    later = trials_after_growth(gpus) if growing else 0
    nodes = _nodes()
    if not _room(nodes, gpus) and not later:
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in _NEEDED}
        raise UsageError(
            f"a trial needs 1 CPU and --gpus-per-trial {gpus:g} on one node, but the largest of "
            f"{len(nodes)} nodes has {most['CPU']:g} CPUs and {most['GPU']:g} GPUs"
        )
    if not _room(nodes, gpus):
        say(f"waiting for a first node with room for a trial, at most {patience_s / 60:g} minutes")
        _wait(gpus, patience_s)
    return max(later, _room(_nodes(), gpus))


def _wait(gpus: float, patience_s: float) -> None:
    """Ask the autoscaler for a node that holds a trial, and wait for it."""
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + patience_s
    request_resources(bundles=[{"CPU": 1, **({"GPU": math.ceil(gpus)} if gpus > 0 else {})}])
    try:
        while not _room(_nodes(), gpus):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"no node with room for a trial (1 CPU, --gpus-per-trial {gpus:g}) came "
                    f"within {patience_s:.0f} s; `ray exec CLUSTER.yaml 'ray status'` says what "
                    "the autoscaler lacks (quota, spot capacity, a wrong image)"
                )
            time.sleep(1.0)
    finally:
        request_resources(bundles=[])  # from here on the trials themselves ask


def _room(nodes: Sequence[Resources], gpus: float) -> int:
    return sum(trials_on(node, gpus) for node in nodes)


def _nodes() -> list[Resources]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
