"""A head without CPUs and Ray's autoscaler with pretended machines: does a first trial get room?

``python growing_cluster.py FOLDER PORT`` prints one JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HEAD = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
WORKER = {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3}


def cluster_file(address: str) -> dict[str, Any]:
    """A cluster file as `ray up` leaves it on the head, with machines that are processes."""
    kinds = ("setup", "head_setup", "worker_setup", "initialization")
    starts = ("head_start_ray", "worker_start_ray")
    return {
        **{f"{kind}_commands": [] for kind in (*kinds, *starts)},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "cluster_synced_files": [],
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "cluster_name": "mpt-growing",
        "max_workers": 2,
        "provider": {"type": "fake_multinode", "gcs_address": address},
        "available_node_types": {"ray.head.default": HEAD, "ray.worker.gpu": WORKER},
        "head_node_type": "ray.head.default",
    }


def main(folder: Path, port: str) -> None:
    import ray

    from mpt.errors import UsageError
    from mpt.search.ray.capacity import BOOTSTRAP, room_for_trials

    os.environ |= {"HOME": str(folder), "RAY_FAKE_CLUSTER": "1"}
    bootstrap = BOOTSTRAP.expanduser()
    address = f"127.0.0.1:{port}"
    bootstrap.write_text(json.dumps(cluster_file(address)))
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=0"]
    options = [f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    command = [*start, *options, f"--autoscaling-config={bootstrap}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    said: list[str] = []
    says: dict[str, Any] = {"said": said}
    for case, gpus in (("too much", 2.0), ("half a GPU", 0.5)):
        try:
            says[case] = room_for_trials(gpus, growing=True, say=said.append, patience_s=300)
        except UsageError as error:
            says[case] = str(error)
    says["nodes"] = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
    print(json.dumps(says))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
