from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import search_cost
import torch
from search_cost import agreement, by_the_clock, compare, first_points, full_grid, makespan, table
from search_ours import WAITING, Crew, Ours, Shift, shares
from search_sides import PARTS, Plain, Timed
from search_toys import toy_study, write_toy_gym

from mpt.backbones import load_backbone
from mpt.config import UpstreamConfig
from mpt.study.specs import UpstreamSpec
from mpt.study.study import Study, open_study, plan_study

TRAJECTORY = UpstreamSpec(config=UpstreamConfig(inner_lr=0.1, outer_lr=0.3), rungs=(1, 3))
OTHER = UpstreamSpec(config=UpstreamConfig(inner_lr=1.0, outer_lr=0.3), rungs=(2,))

Opener = Callable[[], Study]


def open_toy(checkpoint: Path, gym: Path) -> Study:
    """In float64, where rounding flips no arg-max."""
    study = open_study(plan_study(toy_study(checkpoint, gym)))
    wide = load_backbone(str(checkpoint), dtype=torch.float64)
    return dataclasses.replace(study, backbone=wide)


@pytest.fixture(scope="module")
def opener(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Opener:
    gym = write_toy_gym(tmp_path_factory.mktemp("search-cost") / "gym")
    return functools.partial(open_toy, toy_checkpoint, gym)


@pytest.fixture(scope="module")
def sides(
    opener: Opener, toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plain, Ours]:
    results = tmp_path_factory.mktemp("results")
    return compare(opener(), [TRAJECTORY], results, toy_checkpoint, eval_batch=3)


def test_both_sides_give_the_same_runs_and_gains(sides: tuple[Plain, Ours]) -> None:
    plain, ours = sides
    found = agreement(plain, ours)
    # 2 points × (own runs and baselines) × 2 tasks × 2 data seeds × 2 learning rates
    assert found.runs == found.equal == 32
    assert len(set(plain.runs.values())) > 3  # they do not all score alike
    for slow, fast in found.args.values():
        assert slow == pytest.approx(fast, abs=1e-9)


def test_a_run_that_differs_is_counted(sides: tuple[Plain, Ours]) -> None:
    plain, ours = sides
    name, (dev, test) = next(iter(plain.runs.items()))
    plain.runs[name] = (dev, test + 0.125)
    try:
        found = agreement(plain, ours)
    finally:
        plain.runs[name] = (dev, test)
    assert found.equal == found.runs - 1
    assert found.largest == pytest.approx(0.125)


def test_every_part_of_both_sides_took_time(sides: tuple[Plain, Ours]) -> None:
    for side in sides:
        assert all(side.seconds[part] > 0 for part in PARTS), side.seconds
        assert side.total == pytest.approx(sum(side.seconds.values()))
    assert len(table(*sides).splitlines()) == len(PARTS) + 2


def test_the_whole_grid_is_reckoned_from_the_measured_rates(sides: tuple[Plain, Ours]) -> None:
    plain, ours = sides
    known = plain.seconds, ours.seconds
    try:
        for side in sides:  # 4 and 3 upstream steps, 2 points, baselines twice and once
            side.seconds = dict.fromkeys(PARTS, 2.0)
        text, ratio = full_grid(plain, ours, [TRAJECTORY], [TRAJECTORY] * 5)
    finally:
        plain.seconds, ours.seconds = known
    # plain: five times all of it; ours: the same but for the baselines, which stay one
    assert ratio == pytest.approx((5 * 8) / (5 * 6 + 2))
    assert "20 upstream steps" in text
    assert "15 upstream steps" in text


def test_several_workers_score_the_same_points_with_the_same_numbers(
    sides: tuple[Plain, Ours], opener: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, alone = sides
    crew = Crew(opener(), tmp_path, opener, workers=2)
    other = mock.create_autospec(Plain, instance=True)
    by_the_clock(other, crew, [TRAJECTORY, OTHER])
    assert [call.args for call in other.points.call_args_list] == [(TRAJECTORY,), (OTHER,)]
    assert capsys.readouterr().out.count("load average") == 2
    # 3 points × 16 runs, as above; what one worker has made, two make too, bit for bit.
    assert len(crew.runs) == 48
    assert {name: crew.runs[name] for name in alone.runs} == alone.runs
    assert {name: crew.args[name] for name in alone.args} == alone.args
    assert all(crew.seconds[part] > 0 for part in PARTS), crew.seconds
    assert crew.seconds[WAITING] > 0
    assert WAITING in table(plain, crew)


def test_a_part_inside_another_is_counted_once() -> None:
    ticks = iter([0.0, 1.0, 3.0, 10.0])
    side = Timed(lambda: next(ticks))
    with side.timed("training"), side.timed("evaluation"):
        pass
    assert (side.seconds["training"], side.seconds["evaluation"], side.total) == (8.0, 2.0, 10.0)


def test_a_crews_seconds_add_up_to_the_clock() -> None:
    first = Shift(10.0, 14.0, dict.fromkeys(PARTS, 1.0))
    second = Shift(10.5, 12.5, dict.fromkeys(PARTS, 0.5))
    found = shares([first, second], 2)
    # 4 s and 2 s of work by two workers within 4 s of the clock
    assert found == {**dict.fromkeys(PARTS, 0.75), WAITING: 1.0}
    # A trajectory alone leaves the second worker without work.
    assert shares([first], 2) == {**dict.fromkeys(PARTS, 0.5), WAITING: 2.0}


def test_workers_that_end_early_wait_for_the_last() -> None:
    # In order to whoever is free: 3 | 2, then 2 goes to the second, 1 to the first.
    assert makespan([3, 2, 2, 1], 2) == 4
    assert makespan([3, 2, 2, 1], 1) == 8
    assert makespan([1, 1, 4], 2) == 5
    assert makespan([5], 2) == 5


def test_two_workers_halve_the_grid_but_for_the_odd_trajectory(sides: tuple[Plain, Ours]) -> None:
    plain, ours = sides
    crew = Crew(ours._study, ours._results, lambda: ours._study, workers=2)
    known = plain.seconds
    try:
        plain.seconds, crew.seconds = dict.fromkeys(PARTS, 2.0), dict.fromkeys(PARTS, 1.0)
        text, ratio = full_grid(plain, crew, [TRAJECTORY], [TRAJECTORY] * 5)
    finally:
        plain.seconds = known
    # A worker's seconds are 2 a part again: 1 for its half of the baselines, then 3 of 5 × 6
    assert ratio == pytest.approx((5 * 8) / (1 + 3 * 6))
    assert "by 2 workers" in text


def test_points_are_taken_from_the_grid_in_order() -> None:
    grid = [TRAJECTORY, dataclasses.replace(TRAJECTORY, rungs=(2, 4, 6))]
    assert [one.rungs for one in first_points(grid, 4)] == [(1, 3), (2, 4)]
    assert [one.rungs for one in first_points(grid, 2)] == [(1, 3)]


@pytest.mark.parametrize("flags", ["--cores 0", "--cores 2 --threads 0", "--eval-batch 0"])
def test_counts_below_one_are_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        search_cost.main(flags.split())
    assert "must be whole numbers ≥ 1" in capsys.readouterr().err


def test_the_command_compares_the_embedded_search_at_quick_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    try:
        search_cost.main(["--quick", "--points", "2", "--json", str(tmp_path / "found.json")])
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "found.json").read_text())
    shown = capsys.readouterr().out
    for words in (*PARTS, "total", "same numbers: ", "the whole grid by these rates"):
        assert words in shown
    same = found["agreement"]
    assert same["runs"] == 40
    assert same["equal"] >= 36  # float32: an arg-max may flip, a tenth of the runs' cannot
    assert found["ratio"] > 0
    assert len(same["args"]) == 2
