"""Ray Tune: trainable, session, preflight, metrics.

A worker of Ray imports this first, and torch, transformers and Ray Tune next.
"""

import sys

from mpt.processes import collect_seldom


def _in_a_worker() -> bool:
    """Return whether this process is a worker of Ray, and nobody's program or notebook."""
    ray = sys.modules.get("ray")
    return ray is not None and ray._private.worker.global_worker.mode == ray.WORKER_MODE


if _in_a_worker():
    collect_seldom()
