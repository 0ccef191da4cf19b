"""A cluster of raylets on one machine, some of them unfit, and what preflight says of it.

``python preflight_cluster.py FOLDER PORT [MOUNT]`` prints one JSON object. MOUNT: there is also a
node that has another directory at the path of the storage (this takes root).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1"]


def start_node(address: str, *words: str, before: str = "", **environment: str) -> None:
    """Start a raylet that joins the cluster; `before` is a shell command of its own view."""
    command = [*RAY, f"--address={address}", *words]
    if before:
        command = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *command]
    environment = {**os.environ, **environment}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def copy_source(folder: Path) -> Path:
    """Copy the package into a folder and return that."""
    import mpt

    package = Path(mpt.__file__).parent
    shutil.copytree(package, folder / "mpt", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def other_source(folder: Path) -> Path:
    """Copy the package and change one line of it."""
    with (copy_source(folder) / "mpt" / "errors.py").open("a") as file:
        file.write("# another version\n")
    return folder


def verdict(files: Path | None, gpus: float = 0.0, answer_s: float = 300.0) -> str | None:
    from mpt.errors import UsageError
    from mpt.search.ray.preflight import check_cluster

    try:
        check_cluster(None if files is None else str(files), gpus=gpus, answer_s=answer_s)
    except UsageError as error:
        return str(error)
    return None


def new_node(known: list[str]) -> str:
    """Return the node that has joined; add it to the known ones."""
    import ray

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for node in ray.nodes():
            if node["Alive"] and node["NodeID"] not in known:
                known.append(node["NodeID"])
                return known[-1]
        time.sleep(0.1)
    raise AssertionError(ray.nodes())


def raylet_of(node: str) -> int:
    """Return the process of a node's raylet."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"raylet") and any(node.encode() in word for word in words):
            return int(folder.name)
    raise AssertionError(f"no raylet of node {node}")


def main(folder: Path, port: str, *options: str) -> None:
    import ray

    files, known = folder / "files", list[str]()
    says: dict[str, Any] = {}
    files.mkdir()
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    subprocess.run([*RAY, *head], check=True, stdout=subprocess.DEVNULL)
    address = f"127.0.0.1:{port}"
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    new_node(known)
    start_node(address)
    says["plain"] = new_node(known)
    says["two like nodes"] = verdict(files)
    start_node(address, "--num-gpus=1", PYTHONPATH=str(other_source(folder / "other")))
    says["other"] = new_node(known)
    if "MOUNT" in options:
        start_node(address, before=f"mount -t tmpfs none {files}")
        says["elsewhere"] = new_node(known)
    says["unfit nodes"] = verdict(files, gpus=0.5)
    os.kill(raylet_of(says["plain"]), signal.SIGSTOP)
    says["a silent node"] = verdict(None, answer_s=15.0)
    says["left"] = [path.name for path in files.rglob("*") if path.is_file()]
    print(json.dumps(says))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
