from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import peers
import pytest
from search_profile import PARTS, Stopwatch, main, profile
from search_toys import toy_study, write_toy_gym
from toys import OperationClock

from mpt.config import UpstreamConfig
from mpt.study.spaces import load_space
from mpt.study.specs import UpstreamSpec
from mpt.study.study import open_study, plan_study
from mpt.upstream.engine import UpstreamRun


def test_a_part_inside_another_is_counted_once() -> None:
    ticks = iter([0.0, 1.0, 3.0, 10.0])
    watch = Stopwatch(lambda: next(ticks))
    with watch.timed("training"), watch.timed("dev"):
        pass
    assert (watch.seconds["training"], watch.seconds["dev"]) == (8.0, 2.0)


def test_every_part_of_a_search_takes_time(toy_checkpoint: Path, tmp_path: Path) -> None:
    study = open_study(plan_study(toy_study(toy_checkpoint, write_toy_gym(tmp_path / "gym"))))
    config = UpstreamConfig(inner_lr=0.1, outer_lr=0.3)
    before, looks = UpstreamRun.advance, itertools.count()
    with OperationClock() as clock:
        # a look takes time too: files and the database do without torch
        watch = Stopwatch(lambda: clock() + 1e-6 * next(looks))
        trials = [UpstreamSpec(config=config, rungs=(1, 2))]
        seconds = profile(study, trials, tmp_path / "results", watch)
    assert tuple(seconds) == PARTS
    assert all(own > 0 for own in seconds.values()), seconds
    for part in ("upstream", "training", "dev", "test"):
        assert seconds[part] > max(seconds["files"], seconds["database"]), seconds
    assert UpstreamRun.advance is before


@pytest.mark.parametrize("flag", ["--tasks 0", "--rates 0"])
def test_counts_below_one_are_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(flag.split())
    assert "must be whole numbers ≥ 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", [main, peers.main])
def test_the_help_says_how_many_trajectories_the_grid_has(
    command: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        command(["--help"])
    trajectories = len(load_space("maml", "embedded").grid())
    shown = " ".join(capsys.readouterr().out.split())
    assert f"settings of the grid, of {trajectories}" in shown
