"""What somebody has who installs the wheel, far from any checkout."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import environment
from killed import run_after_a_kill
from postgres_server import postgres_server

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("mpt", "analysis", "search_spaces", "pyproject.toml", "README.md", "LICENSE")
API = ROOT / "tests" / "api"


def _run(words: list[str], cwd: Path, inherited: dict[str, str]) -> str:
    done = subprocess.run(
        words, cwd=cwd, env=inherited, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        source, target = ROOT / part, folder / "source" / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist", "./source"]
    _run([*pip, *build], folder, dict(os.environ))
    (wheel,) = (folder / "dist").glob("*.whl")
    install = ["install", "--quiet", "--no-deps", "--target", "installed", str(wheel)]
    _run([*pip, *install], folder, dict(os.environ))
    return folder / "installed"


def test_a_wheel_installs_one_package_and_its_spaces(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith("dist-info")}
    assert names <= {"mpt", "bin"}
    assert (installed / "mpt" / "search_spaces" / "studies.toml").is_file()
    assert (installed / "mpt" / "analysis" / "report" / "report.py").is_file()
    for template in (ROOT / "analysis").glob("*/templates/*"):
        assert (installed / "mpt" / template.relative_to(ROOT)).is_file(), template


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """URL of a PostgreSQL server's database; the test is skipped where no server starts."""
    with postgres_server() as url:
        yield url


SCRIPT = """
import runpy, signal, sys
import torch
from mpt.cli.main import main

def state():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    return torch.get_num_threads(), [signal.getsignal(number) for number in numbers]

def mpt(*words):
    assert main(words) == 0, words

sys.argv = sys.argv[1:]
torch.set_num_threads(2)
before = state()
runpy.run_path(sys.argv[0], run_name="__main__")
assert state() == before, "a search or a replay has left the caller's process changed"
store = [f"--store={url}" for url in sys.argv[5:]]
mpt("report", "--results", "results", *store, "--out", "report")
mpt("search", "pushed", "--plugin", "my_second_method.py", "--smoke", "--dry-run")
"""
"""The ten lines as a part of a larger program, and commands in the same process.

Each process takes seconds to import what it needs.
"""


@pytest.mark.parametrize("database", ["server", pytest.param("file", marks=pytest.mark.slow)])
def test_it_searches_replays_and_reports_a_method_of_ones_own_in_an_empty_directory(
    database: str,
    installed: Path,
    toy_checkpoint: Path,
    toy_gym: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """After a kill; and the method stands in Table 2, and a plan finds its spaces.

    On a server's database, where one starts; the README's lines (`tests/docs`) and what
    `test_kills` kills are on a file, as all else.
    """
    store: list[str] = []
    if database == "server":
        with contextlib.suppress(pytest.skip.Exception):
            store = [request.getfixturevalue("postgresql_url")]
    inherited = environment(installed)
    where = "import mpt, mpt.analysis; print(mpt.__file__, mpt.analysis.__file__)"
    found = _run([sys.executable, "-c", where], tmp_path, inherited).split()
    assert all(path.startswith(str(installed)) for path in found), found
    method = shutil.copy(API / "own_method.py", tmp_path / "my_method.py")
    source = Path(method).read_text()
    assert len(source.splitlines()) <= 40
    (tmp_path / "my_second_method.py").write_text(source.replace("pulled", "pushed"))
    (tmp_path / "program.py").write_text(SCRIPT)
    lines = [str(API / "ten_lines.py"), str(method), str(toy_checkpoint), str(toy_gym), "results"]
    command = [sys.executable, "program.py", *lines, *store]
    out = run_after_a_kill(command, tmp_path, inherited)
    assert "points 4 runs 40" in out
    assert "'method': 'pulled', 'partition': 'random_to_random'" in out
    assert "2 trials" in out
    doctor = [sys.executable, "-m", "mpt", "doctor", "results"]
    doctor += [f"--store={url}" for url in store]
    assert "nothing is wrong" in _run(doctor, tmp_path, inherited)
    tables = [path.read_text() for path in (tmp_path / "report").rglob("table-2*.md")]
    assert any("pulled" in table for table in tables), tables
