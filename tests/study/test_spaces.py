from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from ray.tune.search import sample

from mpt.config import METHODS, OWN_METHODS, UpstreamConfig
from mpt.errors import DataError, MptError, UsageError
from mpt.search.job import SearchJob
from mpt.study.domains import Domain, to_optuna, to_ray
from mpt.study.grids import on_study, source_rows
from mpt.study.recipes import recipe
from mpt.study.spaces import SPACES, Space, control_space, load_space
from mpt.study.specs import UpstreamSpec

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


def _upstream(trial: UpstreamSpec) -> UpstreamConfig:
    assert isinstance(trial.config, UpstreamConfig)
    return trial.config


def test_the_paper_grid_is_the_papers() -> None:
    # §5.3, A.5: inner lr {2e-5,3e-5,5e-5} × outer lr {2e-1,3e-1,5e-1} × steps {2500,5000,10000}
    grid = load_space("maml", "paper").grid()
    configs = [_upstream(one) for one in grid]
    pairs = {(one.inner_lr, one.outer_lr) for one in configs}
    assert pairs == {(i, o) for i in (2e-5, 3e-5, 5e-5) for o in (0.2, 0.3, 0.5)}
    assert {one.rungs for one in grid} == {(2500, 5000, 10000)}
    assert sum(len(one.rungs) for one in grid) == 27
    assert {(one.batch_size, one.inner_steps, one.items_per_step) for one in configs} == {
        (2, 1, 1)
    }


def test_what_a_space_neither_searches_nor_fixes_is_the_recipes() -> None:
    for name in ("paper", "wide"):
        for method, own in recipe("paper").upstream.items():
            space = load_space(method, name).on_rows(7)
            found = dataclasses.asdict(_upstream(space.sample(1, 0)[0]))
            searched = {domain.name for domain in space.domains}
            for key, value in dataclasses.asdict(own).items():
                assert key in searched or found[key] == value, (name, method, key)


def test_the_papers_best_point_is_tried_first_and_the_rest_keeps_its_order() -> None:
    grid = [_upstream(one) for one in load_space("maml", "paper").grid()]
    assert (grid[0].inner_lr, grid[0].outer_lr) == (3e-5, 0.5)
    rest = [(one.inner_lr, one.outer_lr) for one in grid[1:]]
    assert rest == sorted(rest)
    assert len(rest) == 8


def _shipped(methods: tuple[str, ...]) -> list[Space]:
    return [
        load_space(method, name)
        for method in methods
        for name in tomllib.loads((SPACES / f"{method}.toml").read_text())
    ]


@pytest.mark.parametrize(
    "space", _shipped((*METHODS, *OWN_METHODS)), ids=lambda s: f"{s.method}-{s.name}"
)
def test_every_shipped_space_names_its_source_and_can_be_used(space: Space) -> None:
    assert space.source
    count = 3 if space.size is None else min(3, space.size)
    assert count > 1 or space.method == "untrained"  # it has nothing to search
    trajectories = space.on_rows(100).sample(count, seed=0)
    assert len({one.config for one in trajectories}) == count
    for one in trajectories:
        assert space.on_rows(100).trajectory(space.settings(one)) == one


@pytest.mark.parametrize("method", [*METHODS, "path", "prompt_tuning"])
def test_every_method_has_the_papers_grid_an_embedded_one_and_wide_ranges(method: str) -> None:
    spaces = {space.name: space for space in _shipped((method,))}
    assert {"paper", "embedded", "wide"} <= set(spaces)
    for name in ("paper", "embedded"):
        assert all(domain.values for domain in spaces[name].domains)
    tables = tomllib.loads((SPACES / f"{method}.toml").read_text())
    ranges = [row for row in tables["wide"]["search"].values() if "low" in row]
    assert ranges
    assert all(row["why"] for row in ranges)


@pytest.mark.parametrize(
    ("method", "grid", "lengths"),
    [
        # The paper, §4.1 and appendix A
        ("fomaml", {"inner_lr": (2e-5, 3e-5, 5e-5), "outer_lr": (0.2, 0.3, 0.5)}, 3),
        (
            "reptile",
            {
                "inner_lr": (2e-5, 3e-5, 5e-5),
                "outer_lr": (0.2, 0.3, 0.5),
                "inner_steps": (2, 4, 6, 8, 10),
            },
            3,
        ),
        ("multitask", {"outer_lr": (0.2, 0.3, 0.5), "batch_size": (2, 4, 6, 8)}, 3),
        ("prompt_tuning", {"lr": (0.5, 0.4, 0.3, 0.2)}, 1),
    ],
)
def test_the_paper_grids_of_the_other_methods_are_the_papers(
    method: str, grid: dict[str, tuple[float, ...]], lengths: int
) -> None:
    space = load_space(method, "paper")
    assert {domain.name: domain.values for domain in space.domains} == grid
    assert len(space.rungs or space.epochs) == lengths
    if method in ("fomaml", "reptile"):
        assert space.rungs == (2500, 5000, 10000)


def test_multitask_epochs_become_steps_of_the_studys_rows() -> None:
    # recipe row 17: 20 epochs in batches of 4 over the classification sources' rows: 280060 steps
    space = load_space("multitask", "paper").on_rows(4 * 14003)
    grid = space.grid()
    assert sum(len(one.rungs) for one in grid) == 36
    first = grid[0]
    config = _upstream(first)
    assert (config.outer_lr, config.batch_size) == (0.5, 4)
    assert first.rungs == (70015, 140030, 280060)
    # an epoch in batches of 6 ends with a smaller one: 56012 / 6 = 9335.3
    (six,) = {one.rungs for one in grid if _upstream(one).batch_size == 6}
    assert six == (5 * 9336, 10 * 9336, 20 * 9336)


def test_epochs_without_rows_are_refused() -> None:
    with pytest.raises(UsageError, match=r"counts epochs: it needs the source tasks' rows"):
        load_space("multitask", "paper").grid()


def test_the_rows_of_a_study_are_its_source_tasks_train_and_dev_rows(job: SearchJob) -> None:
    # the toy gym: three source tasks, two data seeds, 8 train and 8 dev rows each
    plan = job.plans[0]
    assert source_rows(plan) == 3 * 2 * 16
    assert on_study(load_space("multitask", "paper"), plan).rows == 96
    maml = load_space("maml", "paper")
    assert on_study(maml, plan) is maml


@pytest.mark.parametrize(("name", "size"), [("paper", 9), ("embedded_names", 9), ("embedded", 6)])
def test_grids_are_whole_and_have_three_rungs(name: str, size: int) -> None:
    grid = load_space("maml", name).grid()
    assert len(grid) == len({one.config for one in grid}) == size
    assert all(len(one.rungs) == 3 for one in grid)


@pytest.mark.parametrize("name", ["embedded", "embedded_names", "smollm2"])
def test_the_control_starts_as_what_it_is_the_control_of(name: str) -> None:
    """Where the two start apart, their difference is not learning alone."""
    (control,) = load_space("untrained", name).grid()
    for method in ("maml", "fomaml", "reptile", "multitask", "path"):
        names = tomllib.loads((SPACES / f"{method}.toml").read_text())
        if name in names:
            starts = {_upstream(one).start for one in load_space(method, name).grid()}
            assert starts == {_upstream(control).start}, method


@pytest.mark.parametrize("method", ["multitask", "path"])
def test_the_size_of_a_soup_is_searched_like_any_setting(method: str) -> None:
    space = load_space(method, "embedded_soup")
    grid = space.grid()
    assert [space.settings(one)["soup"] for one in grid[:2]] == [4, 1]
    assert {_upstream(one).soup for one in grid} == {1, 2, 4}
    assert len({one.name for one in grid}) == 9
    drawn = {_upstream(one).soup for one in space.sample(9, 0)}
    assert all(type(count) is int for count in drawn)


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


EVERY_DOMAIN = [
    *(domain for space in _shipped((*METHODS, "prompt_tuning")) for domain in space.domains),
    Domain(name="inner_lr", low=0.25, high=4.0),
    Domain(name="inner_steps", low=2, high=5, scale="log"),
]


@pytest.mark.parametrize("domain", dict.fromkeys(EVERY_DOMAIN), ids=lambda d: d.name)
def test_a_domain_as_rays_holds_the_same_values_and_both_ends_of_it(domain: Domain) -> None:
    there = to_ray(domain)
    assert all(there.is_valid(value) for value in domain.extremes())
    state = np.random.RandomState(0)
    drawn = [there.sample(random_state=state) for _ in range(400)]
    assert all(domain.holds(value) for value in drawn)
    if domain.values:
        assert set(drawn) == set(domain.values)
        return
    low, high = domain.extremes()
    assert not there.is_valid(low * 0.99)
    assert domain.whole or not there.is_valid(high * 1.01)
    assert isinstance(there.get_sampler(), sample.LogUniform) == (domain.scale == "log")
    if domain.whole:
        assert {low, high} <= set(drawn), "an end of the range is never drawn"


@pytest.mark.parametrize("domain", dict.fromkeys(EVERY_DOMAIN), ids=lambda d: d.name)
def test_a_domain_as_optunas_holds_the_same_values(domain: Domain) -> None:
    there = to_optuna(domain)
    for value in domain.extremes():
        assert there._contains(there.to_internal_repr(value))
    if not domain.values:
        low, high = domain.extremes()
        assert (there.low, there.high) == (low, high)  # type: ignore[attr-defined]
        assert there.log == (domain.scale == "log")  # type: ignore[attr-defined]
        below, above = (low - 1, high + 1) if domain.whole else (low * 0.99, high * 1.01)
        assert not there._contains(below)
        assert not there._contains(above)


def test_a_space_knows_how_many_trajectories_it_holds() -> None:
    space = load_space("reptile", "wide")
    assert space.size is None
    assert not list(space.every_point())
    steps = next(domain for domain in space.domains if domain.name == "inner_steps")
    assert list(steps.members()) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert dataclasses.replace(space, domains=(steps,)).size == 9
    grid = load_space("reptile", "paper")
    assert grid.size == 45 == len(list(grid.every_point()))


def test_every_value_of_a_list_is_drawn() -> None:
    domain = Domain(name="outer_lr", values=(0.3, 0.1, 0.2))
    assert {domain.at(share / 30) for share in range(30)} == {0.1, 0.2, 0.3}


def test_a_larger_random_search_extends_a_smaller_one() -> None:
    space = load_space("maml", "wide")
    assert space.sample(8, seed=1)[:4] == space.sample(4, seed=1)
    assert space.sample(4, seed=1)[1:] != space.sample(4, seed=2)[1:]
    first = _upstream(space.sample(1, seed=1)[0])
    assert (first.inner_lr, first.outer_lr) == (3e-5, 0.5)


def test_random_draws_from_a_grid_are_distinct_and_can_exhaust_it() -> None:
    space = load_space("maml", "paper")
    assert {one.config for one in space.sample(9, 0)} == {one.config for one in space.grid()}
    with pytest.raises(UsageError, match="--num-samples is 10, but space 'paper' holds 9"):
        space.sample(10, 0)


def test_no_grid_can_be_made_of_a_range() -> None:
    with pytest.raises(UsageError, match=r"inner_lr, outer_lr.*--searcher random or optuna"):
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
        (
            'title = "t"',
            'title = "t"\nrecipe = "papers"',
            r"\[toy\] recipe is 'papers', but must be",
        ),
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
        ("outer_lr = 0.5", "outer_lr = 'x'", r"first\] outer_lr is 'x', which is not in"),
        ("steps = { values = [5", "epochs = { values = [5", r"unknown key 'epochs'"),
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


def test_steps_and_epochs_exclude_each_other(tmp_path: Path) -> None:
    text = (SPACES / "multitask.toml").read_text()
    old = "epochs = { values = [5, 10, 20] }\n"
    assert old in text
    for new, message in (
        (f"{old}steps = {{ values = [5] }}\n", "must hold either steps or epochs"),
        (old.replace("5, 10", "10, 5"), r"search.epochs\] must hold values, .*ascending"),
    ):
        (tmp_path / "multitask.toml").write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message):
            load_space("multitask", "paper", tmp_path)


def test_a_missing_file_and_foreign_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_space("maml", "toy", tmp_path)
    (tmp_path / "maml.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a TOML file in UTF-8"):
        load_space("maml", "toy", tmp_path)


@pytest.mark.parametrize(
    ("name", "default", "control"),
    [
        ("embedded", "embedded", "embedded"),
        ("embedded_low", "embedded", "embedded_names"),
        ("wide", "embedded", "paper"),
        ("smollm2", "smollm2", "smollm2"),
        ("wide", "paper", "paper"),
    ],
)
def test_the_control_of_a_space_is_the_one_that_starts_like_it(
    name: str, default: str, control: str
) -> None:
    assert control_space(load_space("maml", name), default) == control
