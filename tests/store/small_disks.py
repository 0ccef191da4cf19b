"""Runs commands where a small disk is mounted, which they alone see and which ends with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import mpt

ROOT = Path(mpt.__file__).resolve().parents[1]


def run_script(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


def in_a_small_disk(folder: Path, script: str, kib: int = 600) -> str:
    """Run a shell script where a tmpfs is mounted at `folder`; return what it printed."""
    if shutil.which("unshare") is None:
        pytest.skip("this machine has no `unshare`")
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    mount = f"mount -t tmpfs -o size={kib}k tmpfs '{folder}'"
    probe = run_script([*words, mount])
    if probe.returncode != 0:
        pytest.skip(f"this user may not mount a small disk: {probe.stderr.strip()}")
    done = run_script([*words, f"{mount}; {script}"])
    assert done.returncode == 0, done.stderr
    return done.stdout
