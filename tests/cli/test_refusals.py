"""What a command line refuses at once: flags without effect, and what could not be meant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mpt
from mpt.cli.main import COMMANDS, main, usage

ROOT = Path(mpt.__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--price", "3"], "--price says something only with --dry-run; give both or neither"),
        (["--plan-gpus", "8"], "--plan-gpus says something only with --dry-run"),
        (["--simulate-seeds", "4"], "--simulate-seeds says something only with --simulate"),
        (["--gpus-per-trial", "2"], "--gpus-per-trial is 2, but must be in [0, 1]"),
        (["--precision", "float16"], "--precision: invalid choice: 'float16'"),
        (["--upstream-precision", "float16"], "--upstream-precision: invalid choice: 'float16'"),
        (
            ["--searcher", "random", "--num-samples", "99999999999"],
            "--num-samples is 99999999999, but must be ≤ 1000000",
        ),
        (
            ["--backbone", "google/t5-large-lm-adapt", "--dry-run"],
            "backbone google/t5-large-lm-adapt needs --gym DIR",
        ),
        (
            ["--backbone", "embeded", "--dry-run"],
            "backbone embeded is unknown; the nearest known name is embedded (",
        ),
        (["--prompt-length", "0"], "is '0', but must be a whole number ≥ 1"),
        (["--tuning-lrs", "0.1,0.1"], "lrs is (0.1, 0.1), but must be distinct"),
    ],
)
def test_a_flag_that_would_not_act_is_refused_in_one_line(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "maml", *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_every_command_says_what_it_does_and_an_unknown_one_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert all(name in usage() for name in COMMANDS)
    assert max(map(len, usage().splitlines())) <= 80
    assert main(["serach"]) == 2
    assert "command is 'serach', but must be one of search" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.rstrip().rpartition("\n")[2].startswith("mpt ")


def test_flags_stand_in_groups_and_complete_in_a_shell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["search", "maml", "--help"])
    text = capsys.readouterr().out
    groups = ["search:", "model and study:", "data and methods:", "results:", "where it runs:"]
    places = [text.index(f"\n{group}") for group in groups]
    assert places == sorted(places)
    assert main(["completion", "bash"]) == 0
    assert "--scheduler" in capsys.readouterr().out


def test_a_signal_in_the_first_moments_ends_with_75(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mpt", "search", "maml", "--smoke", "--results", "r"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # the interpreter needs a moment until anything of ours runs
    deadline = time.monotonic() + 500
    while b"flags" not in Path(f"/proc/{process.pid}/maps").read_bytes():
        if b"torch" in Path(f"/proc/{process.pid}/maps").read_bytes():
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 75, out
