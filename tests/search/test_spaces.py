from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mpt.config import METHODS
from mpt.errors import DataError, MptError, UsageError
from mpt.search.spaces import SPACES, Domain, load_space

GOOD = """
[toy]
title = "t"
source = "s"
[toy.search]
inner_lr = { values = [0.1, 0.2] }
outer_lr = { low = 1e-4, high = 1.0, scale = "log" }
steps = { values = [5, 10] }
[toy.fixed]
batch_size = 3
[toy.first]
inner_lr = 0.2
outer_lr = 0.5
"""


def _load(folder: Path, text: str, name: str = "toy") -> object:
    (folder / "maml.toml").write_text(text)
    return load_space("maml", name, folder)


def test_the_paper_grid_is_the_papers() -> None:
    # PROTOCOL §2: inner lr {2e-5,3e-5,5e-5} × outer lr {2e-1,3e-1,5e-1} × steps {2500,5000,10000}
    grid = load_space("maml", "paper").grid()
    pairs = {(one.config.inner_lr, one.config.outer_lr) for one in grid}
    assert pairs == {(i, o) for i in (2e-5, 3e-5, 5e-5) for o in (0.2, 0.3, 0.5)}
    assert {one.rungs for one in grid} == {(2500, 5000, 10000)}
    assert sum(len(one.rungs) for one in grid) == 27
    assert {
        (t.config.batch_size, t.config.inner_steps, t.config.items_per_step) for t in grid
    } == {(2, 1, 2)}


def test_the_papers_best_point_is_tried_first_and_the_rest_keeps_its_order() -> None:
    grid = load_space("maml", "paper").grid()
    assert (grid[0].config.inner_lr, grid[0].config.outer_lr) == (3e-5, 0.5)
    rest = [(one.config.inner_lr, one.config.outer_lr) for one in grid[1:]]
    assert rest == sorted(rest)
    assert len(rest) == 8


@pytest.mark.parametrize("method", METHODS)
def test_every_shipped_space_names_its_source_and_can_be_used(method: str) -> None:
    tables = tomllib.loads((SPACES / f"{method}.toml").read_text())
    for name in tables:
        space = load_space(method, name)
        assert space.source
        trajectories = space.sample(3, seed=0)
        assert len({one.config for one in trajectories}) == 3


@pytest.mark.parametrize("name", ["paper", "embedded"])
def test_grids_have_the_papers_shape(name: str) -> None:
    grid = load_space("maml", name).grid()
    assert len(grid) == len({one.config for one in grid}) == 9
    assert all(len(one.rungs) == 3 for one in grid)


def test_a_range_is_reached_at_both_ends_and_never_left() -> None:
    for domain in (
        Domain(name="inner_lr", low=1e-6, high=1e2, scale="log"),
        Domain(name="outer_lr", low=0.5, high=2.0),
    ):
        low, high = domain.extremes()
        assert domain.at(0.0) == low
        assert domain.at(1 - 1e-12) == pytest.approx(high, rel=1e-9)
        assert low < domain.at(0.5) < high
    # log scale: the middle is the geometric mean
    assert Domain(name="inner_lr", low=1e-6, high=1e2, scale="log").at(0.5) == pytest.approx(1e-2)
    assert Domain(name="outer_lr", low=0.5, high=2.0).at(0.5) == pytest.approx(1.25)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_whole_numbers_include_both_ends(scale: str) -> None:
    domain = Domain(name="inner_steps", low=2, high=5, scale=scale)
    drawn = {domain.at(share / 1000) for share in range(1000)}
    assert drawn == {2, 3, 4, 5}


def test_every_value_of_a_list_is_drawn() -> None:
    domain = Domain(name="outer_lr", values=(0.3, 0.1, 0.2))
    assert {domain.at(share / 30) for share in range(30)} == {0.1, 0.2, 0.3}


def test_a_larger_random_search_extends_a_smaller_one() -> None:
    space = load_space("maml", "wide")
    assert space.sample(8, seed=1)[:4] == space.sample(4, seed=1)
    assert space.sample(4, seed=1)[1:] != space.sample(4, seed=2)[1:]
    first = space.sample(1, seed=1)[0].config
    assert (first.inner_lr, first.outer_lr) == (3e-5, 0.5)


def test_random_draws_from_a_grid_are_distinct_and_can_exhaust_it() -> None:
    space = load_space("maml", "paper")
    assert {one.config for one in space.sample(9, 0)} == {one.config for one in space.grid()}
    with pytest.raises(UsageError, match="--num-samples is 10, but space 'paper' holds 9"):
        space.sample(10, 0)


def test_no_grid_can_be_made_of_a_range() -> None:
    with pytest.raises(UsageError, match=r"inner_lr, outer_lr.*--searcher random"):
        load_space("maml", "wide").grid()


def test_an_unknown_space_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'nope' is unknown; maml.toml holds paper, embedded"):
        load_space("maml", "nope")


def test_the_good_example_of_this_file_is_good(tmp_path: Path) -> None:
    space = _load(tmp_path, GOOD)
    assert space.sample(1, 0)[0].config.batch_size == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "t"', 'titel = "t"', r"\[toy\] has the unknown key 'titel'"),
        ("inner_lr = { v", "inner_rl = { v", r"\[toy.search\] has the unknown key 'inner_rl'"),
        ("batch_size", "bach_size", r"\[toy.fixed\] has the unknown key 'bach_size'"),
        ("batch_size = 3", "inner_lr = 3", r"\[toy.fixed\] has the unknown key 'inner_lr'"),
        ('scale = "log"', 'scala = "log"', r"\[toy.search.outer_lr\] has the unknown key 'scala'"),
        ('scale = "log"', 'scale = "ln"', r"outer_lr\] scale is 'ln', but must be"),
        ("[0.1, 0.2]", '[0.1, "0.2"]', r"inner_lr\] values is .*'0.2'.*different numbers"),
        ("[0.1, 0.2]", "[0.1, nan]", r"inner_lr\] values is"),
        ("[0.1, 0.2]", "[0.1, 0.1]", r"inner_lr\] values is .*different numbers"),
        ("[0.1, 0.2]", "[]", r"inner_lr\] values is"),
        ("[0.1, 0.2]", "[0.1, -0.2]", r"inner_lr\].*inner_lr is -0.2, but must be .* > 0"),
        ("low = 1e-4", "low = 0", r"outer_lr\] low is 0, but must be > 0 on a log scale"),
        ("low = 1e-4", "low = 2.0", r"outer_lr\] low is 2.0, high is 1.0; must be .*low < high"),
        ("low = 1e-4", "low = true", r"outer_lr\] low is True"),
        ("low = 1e-4, high = 1.0,", "values = [1], low = 1,", r"either values or low and high"),
        ("batch_size = 3", "batch_size = 0", r"fixed\].*batch_size is 0, but must be .* ≥ 1"),
        ("batch_size = 3", "batch_size = 'x'", r"fixed\].*batch_size is 'x', but must be"),
        ("[5, 10]", "[10, 5]", r"steps\] must hold values, whole numbers ≥ 1, ascending"),
        ("[5, 10]", "[2.5, 5]", r"steps\] must hold values, whole numbers"),
        ("[5, 10]", "[0, 5]", r"steps\] must hold values, whole numbers"),
        ("steps = { values = [5, 10] }", "", r"\[toy.search\] lacks 'steps'"),
        ("inner_lr = 0.2", "inner_lr = 0.3", r"first\] inner_lr is 0.3, which is not in"),
        ("outer_lr = 0.5", "outer_lr = 1.5", r"first\] outer_lr is 1.5, which is not in"),
        ("outer_lr = 0.5", "", r"first\] must hold exactly inner_lr, outer_lr"),
        ('source = "s"', "", r"\[toy\] lacks 'source'"),
        ("[toy]", "[toy", r"not a TOML file in UTF-8: .*line 2"),
    ],
)
def test_a_broken_space_is_refused_by_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(MptError, match=message) as caught:
        _load(tmp_path, GOOD.replace(old, new, 1))
    assert str(tmp_path / "maml.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_foreign_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_space("maml", "toy", tmp_path)
    (tmp_path / "maml.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a TOML file in UTF-8"):
        load_space("maml", "toy", tmp_path)
