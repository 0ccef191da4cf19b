"""`ray up` and `ray submit` of the real files, over ssh on loopback, with token authentication."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster_files import ROOT, Config, prepared, read
from loopback import MISSING, Machine
from ray_processes import free_port

from mpt.records import LeafStore, PointStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"this machine lacks {', '.join(MISSING)}"),
]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]


class Client:
    """Where `ray up` and `ray submit` are typed: another home, with a token of its own."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.home, self.file = folder / "client", folder / "cluster.yaml"
        self.home.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "HOME": str(self.home),
            "RAY_TMPDIR": str(self.home),
            "TMPDIR": str(self.home),  # what `ray` remembers of a cluster
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.ray("get-auth-token", "--generate")
        self.note = folder / "note"
        self.note.write_text("one")
        config = loopback_config(machine)
        config["file_mounts"]["~/note"] = str(self.note)
        prepared(config)
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))

    def ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RAY, *words],
            env=self.environment,
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )


def loopback_config(machine: Machine) -> Config:
    """cluster.local.yaml for this one machine: its login, and ports that nobody else has."""
    config = read("cluster.local.yaml")
    (start,) = config["head_start_ray_commands"]
    for port in ("6379", "8076"):
        assert port in start
        start = start.replace(port, str(free_port()))
    start += " --num-cpus=2 --include-dashboard=false"
    return {
        **config,
        "cluster_name": f"mpt-test-{os.getpid()}",
        "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": machine.login(),
        "head_start_ray_commands": [start],
    }


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    # not pytest's folder: paths of Ray's sockets may have 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="mpt-"))
    one = Machine(folder)
    one.start()
    yield one
    one.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(machine: Machine) -> Client:
    """A cluster that `ray up` made."""
    client = Client(machine.home.parent, machine)
    up = client.ray("up", "-y", "--no-config-cache", str(client.file))
    assert up.returncode == 0, up.stdout
    return client


def test_the_token_reaches_the_head_and_nobody_else_can_read_it(
    cluster: Client, machine: Machine
) -> None:
    there = machine.home / ".ray" / "auth_token"
    assert there.read_text() == (cluster.home / ".ray" / "auth_token").read_text()
    assert there.stat().st_mode & 0o077 == 0


def test_a_submitted_search_runs_and_leaves_its_records(cluster: Client, machine: Machine) -> None:
    results = machine.home / "results"
    words = ["--smoke", "--address", "auto", "--results", str(results)]
    done = cluster.ray("submit", str(cluster.file), "tune_jobs/maml_rr.py", "--", *words)
    assert done.returncode == 0, done.stdout
    assert "best" in done.stdout
    assert (machine.home / "maml_rr.py").exists()
    points = list(PointStore(results, read_only=True).all())
    assert points
    assert LeafStore(results, read_only=True).keys()


def test_ray_up_again_brings_the_files_and_leaves_the_running_cluster_alone(
    cluster: Client, machine: Machine
) -> None:
    def daemons() -> list[str]:
        words = ["pgrep", "-f", f"^[^ ]*gcs_server .*{machine.temporary}"]
        return subprocess.run(words, capture_output=True, text=True).stdout.split()

    before = daemons()
    assert len(before) == 1
    assert (machine.home / "note").read_text() == "one"
    cluster.note.write_text("two")
    up = cluster.ray("up", "-y", "--no-restart", "--no-config-cache", str(cluster.file))
    assert up.returncode == 0, up.stdout
    assert (machine.home / "note").read_text() == "two"
    assert daemons() == before


def test_without_the_token_the_cluster_answers_nobody(cluster: Client, machine: Machine) -> None:
    (machine.home / ".ray" / "auth_token").rename(machine.home / "token")
    try:
        words = ["--smoke", "--address", "auto"]
        done = cluster.ray("submit", str(cluster.file), "tune_jobs/maml_rr.py", "--", *words)
    finally:
        (machine.home / "token").rename(machine.home / ".ray" / "auth_token")
    assert done.returncode != 0
    assert "error: --address is 'auto', but no Ray answers there" in done.stdout
