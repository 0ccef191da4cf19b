"""SIGKILL at many points of a trial: inside transactions, file writes, upstream steps and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kill_points
from children import environment
from search_toys import bits

import mpt
from mpt.store.records import Point

ROOT = Path(mpt.__file__).resolve().parents[1]


def test_a_trial_killed_anywhere_ends_with_the_same_bits_and_no_stored_run_is_touched(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    paths = [ROOT, ROOT / "tests", ROOT / "tests" / "search"]
    done = subprocess.run(
        [sys.executable, kill_points.__file__, str(toy_checkpoint), str(toy_gym), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(*paths),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout.splitlines()[-1])
    assert sum(one["kills"] for one in rounds) >= 20
    expected = bits(tmp_path / "undisturbed")
    assert {value.method for value in expected.values() if isinstance(value, Point)} == {
        "prompt_tuning",
        "maml",
    }
    for one in rounds:
        assert bits(Path(one["results"])) == expected
        assert one["changed"] == []
