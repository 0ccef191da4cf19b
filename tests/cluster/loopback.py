"""A machine to log in to: an sshd of our own on 127.0.0.1, with an empty home directory.

Whoever logs in has that home, none of this process's environment, and a Ray that keeps its
files below the home. Python packages come from the running environment: the virtual environment
in the home sees them, so that the cluster file's own commands find torch installed already and
nothing is downloaded.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from ray_processes import end_processes, free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING = [tool for tool in ("ssh", "rsync") if shutil.which(tool) is None]
"""Programs the test needs and this machine lacks."""
if SSHD is None:
    MISSING.append("sshd")


class Machine:
    """The machine; `folder` must have a short path (Ray puts sockets below it)."""

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary = folder / "home", folder / "t"
        self.key, self.proxy = folder / "key", folder / "proxy"
        self._settings, self._log = folder / "sshd.conf", folder / "sshd.log"
        self._port = free_port()
        for path in (self.home, self.temporary):
            path.mkdir(mode=0o700)
        self._make_home()
        self._make_keys(folder)

    def _make_home(self) -> None:
        environment = self.home / "mpt-env"
        words = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
        subprocess.run(words, check=True)
        packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
        outer = sysconfig.get_path("purelib")
        Path(packages, "outer.pth").write_text(f"{outer}\n")
        ray = environment / "bin" / "ray"
        ray.write_text(
            f"#!{environment}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n"
        )
        ray.chmod(0o755)
        # sshd starts a session in the account's home directory; here it is another one.
        (self.home / ".bash_profile").write_text("cd ~\n")
        (self.home / ".bashrc").write_text("")

    def _make_keys(self, folder: Path) -> None:
        for name in ("key", "host_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(words, check=True)
        # The cluster files know no port; so the client gets to ours through a command of its own.
        self.proxy.write_text(
            f"#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{self._port}\ncat <&3 &\ncat >&3\nkill $!\n"
        )
        self.proxy.chmod(0o755)
        # Without an index nothing can be downloaded; without isolation no build tool need be.
        session = {
            "HOME": self.home,
            "RAY_TMPDIR": self.temporary,
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_CONFIG_FILE": os.devnull,
        }
        self._settings.write_text(
            f"Port {self._port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\n"
            f"AuthorizedKeysFile {folder / 'key.pub'}\nPidFile none\nUsePAM no\nStrictModes no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            f"SetEnv {' '.join(f'{name}={value}' for name, value in session.items())}\n"
        )

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd of root wants it
        assert SSHD is not None
        with self._log.open("w") as log:
            self._sshd = subprocess.Popen([SSHD, "-D", "-e", "-f", self._settings], stderr=log)
        deadline = time.monotonic() + 300
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                assert self._sshd.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.1)

    def login(self) -> dict[str, str]:
        """The `auth` table of a cluster file."""
        return {
            "ssh_user": getpass.getuser(),
            "ssh_private_key": str(self.key),
            "ssh_proxy_command": str(self.proxy),
        }

    def stop(self) -> None:
        """End the sshd and every process whose home this is: sessions, Ray, jobs."""
        self._sshd.terminate()
        self._sshd.wait()
        end_processes("HOME", str(self.home))
