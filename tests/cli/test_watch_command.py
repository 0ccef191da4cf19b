"""`mpt watch`: one view, one an interval, or a part of the terminal that is redrawn."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from children import environment
from stored import Stored

import mpt
from mpt.cli import watch
from mpt.cli.main import main
from mpt.config import UpstreamConfig
from mpt.store.lock import driver_lock

ROOT = str(Path(mpt.__file__).parents[1])
PATIENCE_S = 500.0
"""For a machine that is busy and slow; it only catches hangs."""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    stored = Stored(tmp_path)
    study = stored.study()
    for place in range(30):
        config = UpstreamConfig(inner_lr=0.1 * (place + 1), outer_lr=0.3)
        stored.point(study, config, 25, float(place))
    return tmp_path


def test_a_finished_search_is_shown_once(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (results / "mpt.db").read_bytes()
    for words in ([], ["--once"], ["--store", str(results / "mpt.db")]):
        assert main(["watch", str(results), *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "MAML search · random_to_random · backbone embedded"
        assert sum(line.split()[:1] == ["30"] for line in lines) == 1, "the last rank"
        assert lines[-1] == "no driver works on these results"
    assert (results / "mpt.db").read_bytes() == before


def test_in_a_pipe_there_is_one_view_an_interval_until_the_driver_is_gone(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    lock = driver_lock(results)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            lock.__exit__(None, None, None)

    monkeypatch.setattr(watch.time, "sleep", sleep)
    lock.__enter__()
    assert main(["watch", str(results), "--every", "7"]) == 0
    out = capsys.readouterr().out
    assert out.count("MAML search") == 3
    assert out.count("no driver works on these results") == 1
    assert waits == [7.0, 7.0]


def test_a_search_that_has_no_database_yet_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.time, "sleep", lambda _: Stored(tmp_path).study())
    with driver_lock(tmp_path):
        assert main(["watch", str(tmp_path), "--once"]) == 2
        assert "there are no results" in capsys.readouterr().err
    lock = driver_lock(tmp_path)
    lock.__enter__()

    def sleep(_: float) -> None:
        Stored(tmp_path).study()
        lock.__exit__(None, None, None)

    monkeypatch.setattr(watch.time, "sleep", sleep)
    assert main(["watch", str(tmp_path)]) == 0
    assert "no point so far" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "0"], "--every is 0, but must be > 0, seconds between two views"),
        (["--once", "--every", "3"], "--once shows one view"),
        (["--study", "feedfeed"], "--study is 'feedfeed', but must be the first 8 digits"),
    ],
)
def test_what_says_nothing_is_refused_in_one_line(
    results: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(results), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def _on_terminal(results: Path, rows: int, act: Callable[[int], object]) -> tuple[int, str]:
    """Run the command on a terminal of 80 columns; return its exit code and what it drew."""
    parent, child = pty.openpty()
    inherited = environment(ROOT, COLUMNS="80", LINES=str(rows))
    command = [sys.executable, "-m", "mpt", "watch", str(results), "--every", "1"]
    process = subprocess.Popen(
        command,
        stdin=child,
        stdout=child,
        stderr=child,
        env=inherited,
        close_fds=True,
        # tests that run in the background have it ignored, and what they start too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(child)
    drawn, acted, end = b"", False, time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if select.select([parent], [], [], 0.2)[0]:
            try:
                drawn += os.read(parent, 65536)
            except OSError:  # it has ended
                break
        if not acted and drawn.count(b"MAML search") >= 2:
            acted = True
            act(process.pid)
    code = process.wait(timeout=PATIENCE_S)
    os.close(parent)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())


def test_on_a_terminal_a_view_is_redrawn_and_fits_and_the_last_one_stays_whole(
    results: Path,
) -> None:
    lock = driver_lock(results)
    lock.__enter__()
    code, drawn = _on_terminal(results, 24, lambda _: lock.__exit__(None, None, None))
    assert code == 0
    first = drawn[: drawn.index("more lines")].splitlines()
    assert len(first) <= 24
    assert max(map(len, first)) <= 80
    assert "no driver works on these results" in drawn
    assert len(re.findall(r"^ +30 ", drawn, re.MULTILINE)) == 1, "the last rank, of the last view"


def test_ctrl_c_ends_the_watching_and_says_that_the_search_goes_on(results: Path) -> None:
    with driver_lock(results):
        code, drawn = _on_terminal(results, 24, lambda pid: os.kill(pid, signal.SIGINT))
    assert code == 0
    assert "watched no longer; what was watched goes on" in drawn
    assert "Traceback" not in drawn
