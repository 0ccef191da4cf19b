"""Contests: what the shipped ones hold, what is refused, row passes, and frozen settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from stored import Stored
from toys import toy_task

from mpt.backbones import Backbone
from mpt.config import PromptConfig, TextConfig, UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.store.database import open_results
from mpt.store.records import Cost, Point
from mpt.study.contest.definition import REFERENCE, load_contest
from mpt.study.contest.frozen import Entry, Frozen, freeze, keep, read_frozen
from mpt.study.contest.passes import planned_passes, spent_passes, unequal
from mpt.study.spaces import SPACES
from mpt.study.specs import UpstreamSpec, settings_of
from mpt.upstream.engine import UpstreamRun

SHIPPED = ("full", "reduced", "starts", "short_races", "smoke")
FROZEN = SPACES.parent / "docs" / "beat_mtl"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_contest_has_as_many_points_each_and_one_budget(name: str) -> None:
    contest = load_contest(name)
    for one in contest.contestants:
        assert len(set(one.points)) == len(one.points) == len(contest.contestants[0].points)
        passes = {point.name: planned_passes(point) for point in one.points}
        assert unequal(passes, contest.row_passes) == []


def test_short_races_have_the_soups_of_starts_and_seeds_that_no_contest_has_had() -> None:
    contest, soups = load_contest("short_races"), load_contest("starts").with_only(_SOUPS)
    points = {one.method: one.points for one in soups}
    assert all(one.points == points[one.method] for one in contest.contestants)
    races = {one.name: one.race_steps for one in contest.contestants if one.start == "raced"}
    assert races == {"multitask_raced": 2, "path_raced": 2}
    assert {one.start for one in contest.contestants if one.method == "path"} == {
        "raced",
        "chosen",
    }
    others = [load_contest(name) for name in SHIPPED if name != "short_races"]
    used = {seed for one in others for seed in (*one.search_seeds, *one.upstream_seeds)}
    assert not used & set(contest.upstream_seeds)


_SOUPS = ("multitask", "path")


@pytest.mark.parametrize("name", ["full", "reduced"])
def test_a_shipped_contest_confirms_on_eight_fresh_seeds(name: str) -> None:
    contest = load_contest(name)
    assert len(contest.upstream_seeds) >= 8
    assert not set(contest.upstream_seeds) & set(contest.search_seeds)
    starts = {(one.method, one.start) for one in contest.contestants}
    chosen = ("learned", "chosen", "raced") if name == "full" else ("learned", "chosen")
    assert {(m, s) for m in (REFERENCE, "path") for s in chosen} <= starts


def test_the_contest_of_starts_has_the_soups_that_were_frozen_in_the_reduced_one() -> None:
    frozen = read_frozen(SPACES.parent / "docs" / "beat_mtl" / "frozen-reduced.toml").entries
    contest = load_contest("starts")
    for one in contest.contestants:
        assert one.points == (frozen[f"{one.method}_chosen"].upstream,)
        assert one.name == one.method + ("" if one.start == "learned" else f"_{one.start}")
    assert [one.start for one in contest.contestants] == 2 * ["learned", "chosen", "raced"]
    other = load_contest("reduced")
    used = {*other.search_seeds, *other.upstream_seeds}
    assert not used & set(contest.upstream_seeds)


def test_decay_ends_at_the_last_step_and_later_axes_go_over_earlier_ones() -> None:
    points = load_contest("full").with_only(("path",))[0].points
    for point in points:
        assert isinstance(point.config, UpstreamConfig)
        assert point.config.decay_horizon in (None, point.rungs[0])
        assert (point.config.average == "last") == (point.config.decay_horizon is not None)
        assert point.config.items_per_step == (1 if point.config.soup == 4 else 2)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("axes = [[{ steps = 4, decay = true }, {", "axes = [[{", "must be as many for each"),
        ("steps = 4", "steps = 0", "steps is 0, but must be a whole number ≥ 1"),
        ("outer_lr", "outer_rate", "unknown key 'outer_rate'"),
        ("outer_lr", "tuned", "unknown key 'tuned'; known are inner_lr"),
        ('start = "chosen"', 'start = "best"', "start is 'best', but must be one of learned"),
        ("race_steps = 1", "race_steps = 0", "race_steps is 0, but must be a whole number ≥ 1"),
        ("race_steps = 1", "race_steps = true", "race_steps is True, but must be a whole"),
        ("race_steps = 1", "race_steps = 2", "path_raced is 2, but must be smaller than the 2 st"),
        (
            'start = "chosen"',
            'start = "chosen"\nrace_steps = 1',
            r'path_chosen\] race_steps is 1, but must be left out where start is "chosen"',
        ),
        ('like = "path"', 'like = "none"', "like is 'none', but must name a contestant"),
        ("upstream_seeds = [501, 502]", "upstream_seeds = [42]", "seed 42 is one that settings"),
        ("row_passes = 32\n", "", "lacks 'row_passes'"),
        ('method = "multitask"', 'method = "reptile"', "multitask among them"),
    ],
)
def test_a_contest_that_would_not_be_fair_is_refused(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    text = (SPACES / "beat_mtl.toml").read_text(encoding="utf-8")
    smoke = text[text.index("[smoke]") :]
    assert old in smoke
    (tmp_path / "beat_mtl.toml").write_text(smoke.replace(old, new, 1), encoding="utf-8")
    with pytest.raises((UsageError, DataError), match=said):
        load_contest("smoke", tmp_path)


def test_a_budget_that_is_no_longer_than_a_race_is_refused() -> None:
    contest = load_contest("short_races")
    assert dataclasses.replace(contest, tuning_steps=(3,)).tuning_steps == (3,)
    with pytest.raises(UsageError, match=r"2 steps of tuning; .*leave this budget out of --budg"):
        dataclasses.replace(contest, tuning_steps=(10, 2))


def test_a_race_is_as_long_as_that_of_the_contestant_it_is_like(tmp_path: Path) -> None:
    text = (SPACES / "beat_mtl.toml").read_text(encoding="utf-8")
    own = text[text.index("[short_races]") : text.index("# Every stage")]
    more = '[short_races.contestant.again]\nlike = "path_raced"\nstart = "raced"\n'
    longer = more.replace("again", "longer") + "race_steps = 5\n"
    (tmp_path / "beat_mtl.toml").write_text(own + more + longer, encoding="utf-8")
    found = {one.name: one for one in load_contest("short_races", tmp_path).contestants}
    steps = {name: one.race_steps for name, one in found.items()}
    assert (steps["again"], steps["longer"], steps["path_chosen"]) == (2, 5, None)
    assert found["longer"].told == "start raced by the target for 5 steps"


def test_an_unknown_contest_or_contestant_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"contest 'none' is unknown; .* full, reduced"):
        load_contest("none")
    with pytest.raises(UsageError, match="contestant 'x' is unknown; known are multitask, path"):
        load_contest("smoke").with_only(("x",))


# --- row passes ---


@pytest.mark.parametrize("method", ["multitask", "path", "fomaml", "reptile", "maml"])
def test_planned_passes_are_what_the_record_of_a_run_says(
    toy_backbone: Backbone, method: str
) -> None:
    config = UpstreamConfig(method=method, inner_lr=0.1, inner_steps=2, items_per_step=3)
    tasks = [toy_task("toy-one", 13), toy_task("toy-two", 13)]
    run = UpstreamRun(toy_backbone, tasks, config, PromptConfig(length=3), TextConfig(), 42)
    run.advance(4)
    point = Point(
        study="s",
        method=method,
        settings=settings_of(config),
        steps=4,
        upstream="u",
        prompt=None,
        runs=(),
        cost=Cost(**dataclasses.asdict(run.cost)),
    )
    spec = UpstreamSpec(config=config, rungs=(4,))
    assert spent_passes(point) == planned_passes(spec)
    # by hand, rows of 2: support, query, and twice the support for Hessian-vector products
    batches = {"multitask": 1, "path": 3, "fomaml": 3, "reptile": 2, "maml": 3 + 2 * 2}
    assert planned_passes(spec) == pytest.approx(4 * 3 * 2 * batches[method])
    soup = UpstreamSpec(config=dataclasses.replace(config, soup=5), rungs=(4,))
    assert planned_passes(soup) == 5 * planned_passes(spec)


def test_budgets_within_two_per_cent_are_equal_and_others_are_named() -> None:
    assert unequal({"a": 1600, "b": 1569, "c": 1632}, 1600) == []
    (line,) = unequal({"a": 1600, "b": 1536}, 1600)
    assert line == "b has 1536 row passes, -4.0 % of the matched 1600"


# --- frozen settings ---


@pytest.fixture
def frozen() -> Frozen:
    config = UpstreamConfig(method="path", inner_lr=3e-5, soup=2, average="polynomial")
    entry = Entry(
        start="chosen", upstream=UpstreamSpec(config=config, rungs=(5,)), arg=1.25, tried=4
    )
    return Frozen(
        contest="c", row_passes=32.0, backbone="embedded", search_seeds=(42,), entries={"p": entry}
    )


def test_frozen_settings_are_read_as_they_were_written(frozen: Frozen, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "frozen.toml"
    assert freeze(frozen, path)
    assert read_frozen(path) == frozen
    assert not freeze(frozen, path)


@pytest.mark.parametrize("path", sorted(FROZEN.glob("frozen-*.toml")), ids=lambda path: path.stem)
def test_what_was_frozen_is_written_as_it_stands(path: Path) -> None:
    assert read_frozen(path).text() == path.read_text(encoding="utf-8")


def test_the_steps_of_a_race_are_frozen_and_must_belong_to_one(
    frozen: Frozen, tmp_path: Path
) -> None:
    path, entry = tmp_path / "frozen.toml", frozen.entries["p"]
    raced = dataclasses.replace(entry, start="raced", race_steps=3)
    freeze(dataclasses.replace(frozen, entries={"p": raced, "q": entry}), path)
    assert read_frozen(path).entries == {"p": raced, "q": entry}
    text = path.read_text(encoding="utf-8")
    assert text.count("race_steps") == 1
    path.write_text(text.replace('"raced"', '"learned"'), encoding="utf-8")
    with pytest.raises(DataError, match=r'race_steps is 3, but must be left out .*"learned"'):
        read_frozen(path)


def test_of_single_points_a_file_stays_with_or_without_the_figures_of_a_search(
    frozen: Frozen, tmp_path: Path
) -> None:
    entry = dataclasses.replace(frozen.entries["p"], tried=1)
    searched = dataclasses.replace(frozen, entries={"p": entry})
    alone = searched.without_search()
    assert "search_arg" not in alone.text()
    for first, second in ((searched, alone), (alone, searched)):
        path = tmp_path / f"{len(first.search_seeds)}.toml"
        assert freeze(first, path)
        assert not freeze(second, path)
        assert read_frozen(path) == first
        other = dataclasses.replace(entry, start="learned")
        with pytest.raises(UsageError, match="holds other settings"):
            freeze(dataclasses.replace(second, entries={"p": other}), path)
    freeze(frozen, path := tmp_path / "chosen.toml")
    with pytest.raises(UsageError, match="holds other settings"):
        freeze(frozen.without_search(), path)


def test_other_settings_do_not_go_over_frozen_ones(frozen: Frozen, tmp_path: Path) -> None:
    path = tmp_path / "frozen.toml"
    freeze(frozen, path)
    with pytest.raises(UsageError, match=r"holds other settings.*remove it, or name another"):
        freeze(dataclasses.replace(frozen, row_passes=64.0), path)
    assert read_frozen(path) == frozen


def test_without_frozen_settings_there_is_no_confirmation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not there.*--stages search,freeze"):
        read_frozen(tmp_path / "frozen.toml")


@pytest.mark.parametrize("text", ["contest = 1", 'search_seeds = 3\ncontestant = "x"', "x = 1"])
def test_a_file_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "frozen.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"frozen\.toml"):
        read_frozen(path)


def test_a_change_is_refused_once_a_confirmatory_point_is_stored(
    frozen: Frozen, tmp_path: Path
) -> None:
    path, stored = tmp_path / "frozen.toml", Stored(tmp_path / "results")

    def kept(**changes: Any) -> None:
        path.write_text(dataclasses.replace(frozen, **changes).text(), encoding="utf-8")
        with open_results(stored.results) as database:
            keep(database, path)

    study = stored.study(role="target")  # plain prompt tuning alone is no confirmatory point
    kept()
    kept(row_passes=64.0)
    stored.point(study, UpstreamConfig(), 5, 10.0)
    kept(row_passes=64.0)
    with pytest.raises(UsageError, match="changed after the first confirmatory point"):
        kept()
