"""A cluster of several nodes on this machine, in processes of its own: Ray's daemons, fake GPUs.

As a script, ``python raylets.py NODES CPUS HEAD`` starts a head and nodes with one GPU each, where
the head takes part in the work (HEAD 1) or has no CPUs (0), prints one JSON line (address and the
daemons' process ids), adds a node for every line ``add`` on its input, and ends everything when
the input ends.

The processes are known by a mark in their environment, and only marked ones are ever killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from children import python_path

import mpt

ROOT = Path(mpt.__file__).resolve().parents[1]

_HEALTH = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 5,
}
"""Ray's own settings let a dead node live for half a minute.

A killed one refuses at once; the time for an answer is that of one that lives on a busy machine.
"""

_STORE_BYTES = 80 * 2**20


class Nodes:
    """The cluster, as a test sees it.

    Args:
        nodes: those that can be killed, beside the head.
        cpus: of each.
        head: whether trials run on the head, too: every node is five processes more.
    """

    def __init__(self, nodes: int, cpus: int, *, head: bool = False) -> None:
        mark = uuid.uuid4().hex
        self._mark = f"MPT_TEST_MARK={mark}".encode()
        tests = ROOT / "tests"
        self.environment = {
            **os.environ,
            "PYTHONPATH": python_path(ROOT, tests, tests / "search"),
            "MPT_TEST_MARK": mark,
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(nodes), str(cpus), str(int(head))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            text=True,
            start_new_session=True,
        )
        started = self._answer()
        self.address: str = started["address"]
        self.raylets: list[int] = started["raylets"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster ended"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def add(self) -> None:
        """Start one more node."""
        assert self._process.stdin is not None
        self._process.stdin.write("add\n")
        self._process.stdin.flush()
        self.raylets.append(self._answer()["raylet"])

    def kill_node(self, raylet: int, *, at_once: bool) -> None:
        """Kill a node: its daemon alone, or `at_once` with its workers, as a power cut does."""
        self.raylets.remove(raylet)
        for pid in [raylet, *(self._children(raylet) if at_once else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def workers(self) -> list[int]:
        """Processes of trials."""
        return [pid for pid, name in self._marked() if name.startswith(b"ray::SearchTrial")]

    def _children(self, raylet: int) -> list[int]:
        found = []
        for pid, _ in self._marked():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == raylet:
                    found.append(pid)
        return found

    def _marked(self) -> Iterator[tuple[int, bytes]]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                mine = self._mark in (folder / "environ").read_bytes().split(b"\0")
                name = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mine:
                yield int(folder.name), name

    def stop(self) -> None:
        """End the cluster and all its processes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        deadline = time.monotonic() + 300
        while pids := [pid for pid, _ in self._marked()]:
            assert time.monotonic() < deadline, f"{pids} will not end"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _serve(nodes: int, cpus: int, head: int) -> None:
    from ray.cluster_utils import Cluster

    os.environ.pop("RAY_OVERRIDE_RESOURCES", None)  # nodes have as many cores as they are told
    node: dict[str, Any] = {"object_store_memory": _STORE_BYTES, "include_log_monitor": False}
    first = {"num_cpus": cpus * head, "num_gpus": head, "_system_config": _HEALTH}
    first |= {"include_dashboard": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={**first, **node})

    def add() -> int:
        added = cluster.add_node(num_cpus=cpus, num_gpus=1, **node)
        (raylet,) = added.all_processes["raylet"]
        return int(raylet.process.pid)

    raylets = [add() for _ in range(nodes)]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"raylet": add()}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
