"""`ray up` and `ray submit` of the real files, over ssh on loopback, with token authentication.

The head and this test share no directory as far as the search knows: checkpoints go to an S3
server, the database stays on the head and is fetched from there.
"""

from __future__ import annotations

import os
import re
import shlex
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
from s3_server import BUCKET, KEY, SECRET, s3_server

from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.store.records import Artifact, Point

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
        credentials = self.home / ".aws" / "credentials"
        credentials.parent.mkdir()
        credentials.write_text(
            f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        )
        credentials.chmod(0o600)
        self.note = folder / "note"
        self.note.write_text("one")
        config = loopback_config(machine)
        config["file_mounts"]["~/note"] = str(self.note)
        config["file_mounts"]["~/.aws/credentials"] = "~/.aws/credentials"
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

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Submit a search; what the head's shell would take apart is quoted for it."""
        quoted = [shlex.quote(word) for word in words]
        return self.ray("submit", str(self.file), "tune_jobs/maml_rr.py", "--", *quoted)


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


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of a folder in a bucket."""
    with s3_server() as query:
        yield f"s3://{BUCKET}/mpt?{query}"


def _kept(results: Path) -> tuple[list[Point], list[Artifact]]:
    """Return what a database holds, of which no run may be missing."""
    with open_results(results, read_only=True) as database:
        points = database.points()
        for point in points:
            assert set(database.runs(point.runs)) == set(point.runs)
        return points, database.artifacts()


def _plain(text: str) -> str:
    """Return a terminal's text without colours, which stand between a heading and its spaces."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_submitted_search_leaves_its_database_on_the_head_and_its_files_in_the_bucket(
    cluster: Client,
    machine: Machine,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("--smoke", "--address", "auto", "--storage", bucket)
    done = cluster.submit(*words)
    assert done.returncode == 0, done.stdout
    assert " rank " in _plain(done.stdout)
    assert (machine.home / "maml_rr.py").exists()
    results = machine.home / "results" / "smoke"
    assert {path.name for path in results.iterdir()} <= {"mpt.db", "tensorboard", "driver.lock"}

    fetched = tmp_path / "results"
    down = cluster.ray("rsync-down", str(cluster.file), "~/results/", f"{fetched}/")
    assert down.returncode == 0, down.stdout
    points, artifacts = _kept(fetched / "smoke")
    assert {point.method for point in points} == {"maml", "prompt_tuning"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert artifacts
    for artifact in artifacts:
        assert artifact.uri.startswith(f"s3://{BUCKET}/mpt/")
        assert KEY not in artifact.uri
        assert Artifacts(bucket).exists(artifact.uri)

    again = cluster.submit(*words)
    assert again.returncode == 0, again.stdout
    assert " rank " in _plain(again.stdout)
    assert _kept(results) == (points, artifacts)


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
        # a finished search would answer from its database, without a cluster
        done = cluster.submit("--smoke", "--address", "auto", "--results", "other")
    finally:
        (machine.home / "token").rename(machine.home / ".ray" / "auth_token")
    assert done.returncode != 0
    assert "error: --address is 'auto', but no Ray answers there" in done.stdout
