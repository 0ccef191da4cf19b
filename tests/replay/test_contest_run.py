"""A contest at smoke size, from the search to a table that an independent script recomputes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import compute

import mpt
from analysis.contest.report import write_contest
from analysis.contest.verdict import CONSISTENT
from mpt.cli.beat_mtl import main
from mpt.embedded.gym import ensure_embedded_gym
from mpt.replay import staged, whole_study_plan
from mpt.search.cost.plan import Rates, RunRate
from mpt.search.job import SearchJob
from mpt.store.database import open_results
from mpt.study.contest import definition
from mpt.study.contest.frozen import Entry, read_frozen
from tools.recompute_contest import recompute

RATES = Rates(steps={"any": 2.0}, runs={"any": RunRate(step_s=0.5, row_s=0.25)}, start_s=0.0)

Contest = Callable[..., int]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contest") / "results"


@pytest.fixture(scope="module")
def gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded gym with an eighth of the train rows: by them, and long, targets choose."""
    folder = tmp_path_factory.mktemp("gym")
    for path in ensure_embedded_gym().rglob("*.*"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        copy = folder / path.relative_to(ensure_embedded_gym())
        copy.parent.mkdir(exist_ok=True)
        fewer = lines[::8] if path.stem.endswith("train") else lines
        copy.write_text("".join(fewer), encoding="utf-8")
    return folder


@pytest.fixture
def contest(results: Path, gym: Path, monkeypatch: pytest.MonkeyPatch) -> Contest:
    """The job, computing in this process and with a speed that is given."""

    def computed(job: SearchJob, *_: Any, **__: Any) -> int:
        compute(job)
        return 0

    monkeypatch.setattr(staged, "run_search", computed)
    monkeypatch.setattr(whole_study_plan, "measured", lambda *_: (RATES, 2))

    def run(*flags: str) -> int:
        words = ["--smoke", "--results", str(results), "--gym", str(gym), *flags]
        return main(words, report=write_contest)

    return run


def test_the_plan_writes_nothing_and_tells_hours_of_every_part(
    contest: Contest, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert contest("--dry-run") == 0
    said = capsys.readouterr().out
    assert not results.exists()
    lines = {" ".join(line.split()[:-4]): line.split() for line in said.splitlines()}
    for part in ("search", "confirm", "embedded, 2 tuning steps", "random_to_random"):
        assert float(lines[part][-1]) >= 0
    parts = [lines[name] for name in ("random_to_random", "cls_to_cls")]
    assert sum(int(part[-4]) for part in parts) == int(lines["confirm"][-4]) == 16
    assert "path_chosen: 2 points of path, start chosen by the target" in said
    assert "path_raced: 2 points of path, start raced by the target for 1 step\n" in said
    assert "unequal" not in said


def test_a_part_of_the_confirmation_can_be_taken(
    contest: Contest, capsys: pytest.CaptureFixture[str]
) -> None:
    part = ("--partitions", "qa_to_qa", "--budgets", "2,3", "--upstream-seeds", "7")
    assert contest("--dry-run", *part, "--contestants", "multitask,path") == 0
    said = capsys.readouterr().out
    assert "embedded, 3 tuning steps" in said
    assert "cls_to_cls" not in said
    (confirm,) = (line for line in said.splitlines() if re.match(r"confirm +\d", line))
    assert confirm.split()[1] == "4"  # one partition, two budgets, one seed, two contestants


def test_there_is_no_confirmation_before_settings_are_frozen(
    contest: Contest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert contest("--stages", "confirm") == 2
    assert "--stages search,freeze" in capsys.readouterr().err
    assert contest("--stages", "freeze") == 2
    assert "points of the search are missing" in capsys.readouterr().err


@pytest.mark.timeout(1800)  # for hangs only
def test_from_the_search_to_a_table_that_is_recomputed(
    contest: Contest, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert contest() == 0
    capsys.readouterr()
    frozen = results / "frozen-smoke.toml"
    report = json.loads((results / "report" / "contest.json").read_text(encoding="utf-8"))
    again = recompute(results / "mpt.db", frozen)
    assert report["smoke"]
    assert report["frozen_kept"]
    assert report["missing"] == report["unequal_budgets"] == []
    assert {"path_chosen", "path_raced"} < {*report["pooled"]}
    said = (results / "report" / "contest.md").read_text(encoding="utf-8")
    assert re.search(
        r"Not among the row passes, a point on average, over all of its targets: the forward "
        r"passes by which targets choose, [1-9]\d* rows; races of starts, [1-9]\d* rows forward "
        r"and backward, [1-9]\d* evaluated and \d+ forward \(of ties\)\.",
        said,
    )
    assert "path_raced: start raced by the target for 1 step." in said.replace("\\", "")
    assert report["race_steps"] == {"path_raced": 1}
    with open_results(results, read_only=True) as database:
        recipes = [study.settings["downstream"] for study in database.studies()]
    raced = [one["race_steps"] for one in recipes if one.get("start") == "raced"]
    assert raced == [1, 1, 1]  # on the validation tasks, and on the targets of two partitions
    for line in report["verdict"]:
        assert line.startswith("Smoke run, the numbers mean nothing: ")
        assert CONSISTENT not in line
    assert len(report["arenas"]) == len(again["arenas"]) == 2
    for arena in report["arenas"]:
        place = arena["backbone"], arena["tuning_steps"], arena["partition"]
        row = again["arenas"][place]
        assert arena["best_mtl"] == again["best"][place]
        means = {name: float(np.mean(list(by_seed.values()))) for name, by_seed in row.items()}
        assert means == pytest.approx(arena["arg"], abs=1e-9)
    for name, body in report["pooled"].items():
        assert body["difference"] == pytest.approx(again["pooled"][name], abs=1e-9)
        assert len(body["by_seed"]) == 2
        low, high = body["simultaneous_interval"]
        assert low <= body["interval"][0] <= body["interval"][1] <= high
    for ending in ("md", "html", "svg", "png"):
        assert (results / "report" / f"contest.{ending}").stat().st_size > 0


def test_the_report_alone_can_be_of_a_part(
    contest: Contest, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the confirmation of the test before; the whole report stays as it is."""
    before = (results / "report" / "contest.json").read_bytes()
    part = ("--partitions", "cls_to_cls", "--contestants", "multitask,path")
    assert contest("--stages", "report", *part, "--report", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "1 of 2 partitions (cls_to_cls); 2 of 4 contestants (multitask, path)" in said
    report = json.loads((tmp_path / "contest.json").read_text(encoding="utf-8"))
    assert [arena["partition"] for arena in report["arenas"]] == ["cls_to_cls"]
    assert list(report["pooled"]) == ["path"]
    assert len(report["left_out"]) == 2
    assert (results / "report" / "contest.json").read_bytes() == before


def test_frozen_is_the_point_with_the_highest_mean_over_search_seeds(results: Path) -> None:
    """After the search of the test before, read from the database by themselves."""
    found = mpt.load_results(results)
    studies = found.studies()
    searched = studies[studies["role"] == "validation"]["study"]
    points = found.points()
    points = points[points["study"].isin(searched)]
    settings = ["study", "method", "steps", "soup"]
    assert (points.groupby(settings).size() == 2).all()  # both search seeds, and no other
    means = points.groupby(settings)["arg"].mean()
    best = means.groupby(["study", "method"]).max()
    entries = read_frozen(results / "frozen-smoke.toml").entries.values()
    frozen = sorted((entry.upstream.config.method, entry.arg) for entry in entries)
    expected = sorted((method, arg) for (_, method), arg in best.items())
    assert [name for name, _ in frozen] == [name for name, _ in expected]
    for (_, arg), (_, mean) in zip(frozen, expected, strict=True):
        assert arg == pytest.approx(mean, abs=1e-4)  # written with four decimals


@pytest.mark.timeout(1800)  # for hangs only
def test_the_same_again_goes_on_and_changed_settings_are_refused(
    contest: Contest, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the run of the test before."""
    assert contest() == 0
    said = capsys.readouterr().out
    assert "nothing is left to compute" in said
    assert "frozen-smoke.toml (as it was)" in said
    frozen = results / "frozen-smoke.toml"
    text = frozen.read_text(encoding="utf-8")
    frozen.write_text(text.replace("outer_lr = 0.1", "outer_lr = 0.2"), encoding="utf-8")
    assert contest("--stages", "confirm") == 2
    assert "changed after the first confirmatory point" in capsys.readouterr().err
    frozen.write_text(text, encoding="utf-8")
    assert contest("--stages", "confirm", "--upstream-seeds", "42") == 2
    assert "seed 42 is one that" in capsys.readouterr().err


# --- one point a contestant ---


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> definition.Contest:
    """The contest of a smoke run is a part of it, with the first point of three contestants."""
    whole = definition.load_contest("smoke")
    two = whole.with_only(("multitask", "path_raced"))
    default = dataclasses.replace(two[1], name="path_default", race_steps=None)
    part = dataclasses.replace(
        whole,
        partitions=("random_to_random",),
        upstream_seeds=(501,),
        contestants=tuple(
            dataclasses.replace(one, points=one.points[:1]) for one in (*two, default)
        ),
    )
    monkeypatch.setattr(definition, "load_contest", lambda *_: part)
    return part


def test_single_points_are_frozen_and_confirmed_without_a_search(
    contest: Contest,
    single: definition.Contest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*flags: str) -> int:
        return contest("--results", str(tmp_path / "own"), *flags)

    assert run("--stages", "freeze,confirm,report") == 0
    said = capsys.readouterr().out
    path = tmp_path / "own" / "frozen-smoke.toml"
    frozen = read_frozen(path)
    assert "search_arg" not in path.read_text(encoding="utf-8")
    assert frozen.search_seeds == ()
    points = {one.name: one.points[0] for one in single.contestants}
    assert {name: one.upstream for name, one in frozen.entries.items()} == points
    assert f"multitask: {points['multitask'].name}, 4 steps\n" in said  # and no ARG of a search
    page = (tmp_path / "own" / "report" / "contest.md").read_text(encoding="utf-8")
    assert "Every contestant had one point: no settings were chosen." in page
    assert run("--stages", "search,freeze") == 0  # what is searched later changes nothing
    assert "frozen-smoke.toml (as it was)" in capsys.readouterr().out
    path.unlink()
    assert run("--stages", "freeze") == 0
    with open_results(tmp_path / "own", read_only=True) as database:
        recipes = {
            one.key[:8]: one.settings["downstream"]
            for one in database.studies()
            if one.role == "validation"
        }
    points = mpt.load_results(tmp_path / "own").points()
    means = points[points["method"] == "path"].groupby("study")["arg"].mean()
    entries = read_frozen(path).entries
    for name in ("path_raced", "path_default"):  # each is of its own race
        own = [key for key, recipe in recipes.items() if _raced_as(recipe, entries[name])]
        assert [entries[name].arg] == pytest.approx([means[key] for key in own], abs=1e-4)


def _raced_as(recipe: Mapping[str, Any], entry: Entry) -> bool:
    """Return whether a study of two steps of tuning has a contestant's race."""
    mine = recipe.get("steps"), recipe.get("start"), recipe.get("race_steps")
    return mine == (2, "raced", entry.race_steps)


def test_a_search_whose_tuning_is_no_longer_than_a_race_is_refused(
    contest: Contest,
    single: definition.Contest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, raced, _ = single.contestants
    longer = dataclasses.replace(
        single,
        tuning_steps=(9,),
        contestants=(first, dataclasses.replace(raced, race_steps=2)),
    )
    monkeypatch.setattr(definition, "load_contest", lambda *_: longer)
    assert contest("--dry-run", "--stages", "search,freeze") == 2
    assert "than the 2 steps of tuning; every contestant has one" in capsys.readouterr().err
    assert contest("--dry-run", "--stages", "freeze,confirm") == 0
    two = [dataclasses.replace(one, points=one.points * 2) for one in longer.contestants]
    more = dataclasses.replace(longer, contestants=tuple(two))
    monkeypatch.setattr(definition, "load_contest", lambda *_: more)
    assert contest("--dry-run", "--stages", "search,freeze") == 2
    assert "choose settings with a smaller number" in capsys.readouterr().err
