from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import search_cost
import torch
from search_cost import agreement, compare, first_points, full_grid, table
from search_sides import PARTS, Ours, Plain
from search_toys import toy_study, write_toy_gym

from mpt.backbones import load_backbone
from mpt.config import UpstreamConfig
from mpt.search.spaces import Trajectory
from mpt.search.study import open_study, plan_study

TRAJECTORY = Trajectory(config=UpstreamConfig(inner_lr=0.1, outer_lr=0.3), rungs=(1, 3))


@pytest.fixture(scope="module")
def sides(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plain, Ours]:
    folder = tmp_path_factory.mktemp("search-cost")
    gym = write_toy_gym(folder / "gym")
    study = open_study(plan_study(toy_study(toy_checkpoint, gym)))
    # In float64, where rounding flips no arg-max.
    wide = dataclasses.replace(
        study, backbone=load_backbone(str(toy_checkpoint), dtype=torch.float64)
    )
    return compare(wide, [TRAJECTORY], folder / "results", toy_checkpoint, eval_batch=3)


def test_both_sides_give_the_same_leaves_and_gains(sides: tuple[Plain, Ours]) -> None:
    plain, ours = sides
    found = agreement(plain, ours)
    # 2 points × (own runs and baselines) × 2 tasks × 2 data seeds × 2 learning rates
    assert found.leaves == found.equal == 32
    assert len(set(plain.leaves.values())) > 3  # they do not all score alike
    for slow, fast in found.args.values():
        assert slow == pytest.approx(fast, abs=1e-9)


def test_a_leaf_that_differs_is_counted(sides: tuple[Plain, Ours]) -> None:
    plain, ours = sides
    name, (dev, test) = next(iter(plain.leaves.items()))
    plain.leaves[name] = (dev, test + 0.125)
    try:
        found = agreement(plain, ours)
    finally:
        plain.leaves[name] = (dev, test)
    assert found.equal == found.leaves - 1
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


def test_points_are_taken_from_the_grid_in_order() -> None:
    grid = [TRAJECTORY, dataclasses.replace(TRAJECTORY, rungs=(2, 4, 6))]
    assert [one.rungs for one in first_points(grid, 4)] == [(1, 3), (2, 4)]
    assert [one.rungs for one in first_points(grid, 2)] == [(1, 3)]


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
    assert same["leaves"] == 40
    assert same["equal"] >= 36  # float32: an arg-max may flip, a tenth of the leaves' cannot
    assert found["ratio"] > 0
    assert len(same["args"]) == 2
