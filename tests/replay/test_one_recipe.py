"""A search of the paper's grid and a replay of the published settings are one recipe.

What the paper says (§5.3, A.5) is written down here once more, by hand, and looked for in what the
program records of points and runs.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpt.config import (
    DATA_SEEDS,
    METHODS,
    DownstreamConfig,
    PromptConfig,
    TextConfig,
    UpstreamConfig,
)
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request
from mpt.replay.source import study_of
from mpt.search.job import SearchJob
from mpt.store.records import StudyRecord
from mpt.study.grids import grid_trials, on_study
from mpt.study.presets import load_study
from mpt.study.recipes import TUNING_LRS, recipe
from mpt.study.record import study_record
from mpt.study.spaces import load_space
from mpt.study.specs import FineTuningConfig, TrialSpec, settings_of
from mpt.study.study import StudyPlan, open_study, plan_study
from mpt.trial.runs import baseline_packs, fine_tuning_packs, tuned_study, upstream_key

NAMES = ("s-one", "s-two", "v-one", "t-one")
ROWS = 6
"""Of train, and of dev."""
POINTS: dict[str, dict[str, Any]] = {
    "maml": {"inner_lr": 3e-5, "outer_lr": 0.5, "inner_steps": 1, "batch_size": 2},
    "fomaml": {"inner_lr": 3e-5, "outer_lr": 0.5, "inner_steps": 1, "batch_size": 4},
    "reptile": {"inner_lr": 3e-5, "outer_lr": 0.5, "inner_steps": 10, "batch_size": 4},
    "multitask": {"outer_lr": 0.5, "batch_size": 4},
}
"""The published points; 5000 steps, and multitask learning 20 epochs."""
STEPS = dict.fromkeys(("maml", "fomaml", "reptile"), 5000)
# two tasks × five data seeds × (train and dev), in batches of 4, twenty times
STEPS["multitask"] = 20 * -(-2 * 5 * 2 * ROWS // 4)


@pytest.fixture(scope="module")
def gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gym")
    table = ['validation_tasks = ["v-one"]']
    for name in NAMES:
        table += [f"[tasks.{name}]", 'family = "classification"', 'metric = "ACC"', "shots = 3"]
        (folder / name).mkdir()
        for seed, part in itertools.product(DATA_SEEDS, ("train", "dev", "test")):
            rng = np.random.default_rng([seed, *f"{name}{part}".encode()])
            rows = [
                f"{''.join(rng.choice(list('abc'), 5))}.\t{'xy'[row % 2]}" for row in range(ROWS)
            ]
            (folder / name / f"{name}_3_{seed}_{part}.tsv").write_text("\n".join(rows) + "\n")
    table += ["[partitions.random_to_random]", 'source = ["s-one", "s-two"]', 'target = ["t-one"]']
    (folder / "gym.toml").write_text("\n".join(table) + "\n")
    return folder


@pytest.fixture(scope="module")
def searched(gym: Path, toy_checkpoint: Path) -> tuple[TrialSpec, ...]:
    """Every trajectory of the search of a real language model."""
    study = dataclasses.replace(load_study(str(toy_checkpoint)), gym=str(gym))
    spaces = [load_space(method, "paper") for method in METHODS]
    return tuple(grid_trials(plan_study(study), spaces))


@pytest.fixture(scope="module")
def replay(gym: Path, toy_checkpoint: Path) -> SearchJob:
    """The published settings."""
    request = Request(results=gym / "results", gym=str(gym), backbones=(str(toy_checkpoint),))
    return plan_replay(request).job


def _searched(trials: tuple[TrialSpec, ...], method: str) -> TrialSpec:
    """Return the published point among the searched ones."""
    (found,) = (
        trial
        for trial in trials
        if trial.method == method
        and isinstance(trial.upstream.config, UpstreamConfig)
        and all(getattr(trial.upstream.config, k) == v for k, v in POINTS[method].items())
    )
    return found


def _replayed(job: SearchJob, method: str) -> TrialSpec:
    (found,) = (trial for trial in job.trials if trial.method == method)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_the_searched_published_point_is_the_replayed_one(
    method: str, searched: tuple[TrialSpec, ...], replay: SearchJob
) -> None:
    """Their trajectories have one key, so that a replay finds what a search has learned."""
    search, again = _searched(searched, method), _replayed(replay, method)
    keys = {upstream_key(open_study(t.plan), t.upstream.config) for t in (search, again)}
    assert len(keys) == 1
    assert again.upstream.rungs == (STEPS[method],)
    assert STEPS[method] in search.upstream.rungs
    assert settings_of(search.upstream.config) == settings_of(again.upstream.config)


def _plans(trials: tuple[TrialSpec, ...], job: SearchJob) -> tuple[StudyPlan, StudyPlan]:
    return trials[0].plan, job.trials[0].plan


def test_search_and_replay_are_of_one_protocol(
    searched: tuple[TrialSpec, ...], replay: SearchJob
) -> None:
    search, again = (study_record(open_study(plan)) for plan in _plans(searched, replay))
    assert search.protocol == again.protocol
    assert (search.role, again.role) == ("validation", "target")
    # and so is all that records leave out because it is a default
    first, second = (plan.config for plan in _plans(searched, replay))
    assert first.downstream == second.downstream
    assert (first.text, first.upstream_text) == (second.text, second.upstream_text)
    assert first.prompt == second.prompt


def test_the_preset_of_a_search_is_the_recipe(toy_checkpoint: Path) -> None:
    """studies.toml and prompt_tuning.toml say nothing else, but for how a search scores labels."""
    ours = load_study(str(toy_checkpoint))
    wanted = study_of(recipe("paper"), str(toy_checkpoint), METHODS, None)
    assert ours.classification == "gold"  # a stray word is no class; replays score as published
    ours = dataclasses.replace(ours, classification=wanted.classification)
    assert dataclasses.replace(ours, upstream_lengths=ours.upstream_text) == wanted


PARTS = ("prompt", "text", "upstream_text", "downstream")


def _whole(kind: type, differs: dict[str, Any]) -> dict[str, Any]:
    """Return all settings of a record that holds what differs from the defaults."""
    return {**dataclasses.asdict(kind()), **differs}


@pytest.mark.parametrize("which", ["search", "replay"])
def test_every_published_number_is_in_what_is_recorded(
    which: str, searched: tuple[TrialSpec, ...], replay: SearchJob
) -> None:
    plan = _plans(searched, replay)[which == "replay"]
    study = open_study(plan)
    record = study_record(study)
    _check_study(record)
    for method, wanted in POINTS.items():
        trial = _searched(searched, method) if which == "search" else _replayed(replay, method)
        settings = settings_of(trial.upstream.config)
        assert {key: settings[key] for key in wanted} == wanted
        assert settings["items_per_step"] == 1
    runs = [run.identity for pack in baseline_packs(study) for run in pack.runs]
    assert {run.lr for run in runs} == {0.5, 0.4, 0.3, 0.2}
    assert {run.data_seed for run in runs} == {13, 21, 42, 87, 100}
    for run in runs:
        down = _whole(DownstreamConfig, dict(run.recipe["downstream"]))
        assert (down["batch_size"], down["steps"], down["eval_every"]) == (8, 3000, 50)
        assert (down["select"], down["max_test"], down["max_generated"]) == ("best", None, 128)
        assert _whole(PromptConfig, dict(run.recipe["prompt"]))["length"] == 100


def _check_study(record: StudyRecord) -> None:
    assert record.lrs == (0.5, 0.4, 0.3, 0.2)  # in the order that decides ties
    assert record.data_seeds == (13, 21, 42, 87, 100)
    settings = {name: dict(part) for name, part in record.settings.items() if name in PARTS}
    prompt = _whole(PromptConfig, settings["prompt"])
    assert (prompt["length"], prompt["position"]) == (100, "prepend")
    text = _whole(TextConfig, settings["upstream_text"])
    assert (text["max_input"], text["max_target"]) == (512, 64)
    assert _whole(DownstreamConfig, settings["downstream"])["max_test"] is None


def test_the_searched_grid_is_the_published_one(searched: tuple[TrialSpec, ...]) -> None:
    """27 points of MAML and FoMAML, five times as many of Reptile, 36 of multitask learning."""
    points = {m: sum(len(t.upstream.rungs) for t in searched if t.method == m) for m in METHODS}
    assert points == {"maml": 27, "fomaml": 27, "reptile": 135, "multitask": 36}
    for method in ("maml", "fomaml", "reptile"):
        space = load_space(method, "paper")
        values = {domain.name: domain.values for domain in space.domains}
        assert values["inner_lr"] == (2e-5, 3e-5, 5e-5)
        assert values["outer_lr"] == (0.2, 0.3, 0.5)
        assert space.rungs == (2500, 5000, 10000)
    union = on_study(load_space("multitask", "paper"), searched[0].plan)
    assert (union.epochs, union.rows) == ((5, 10, 20), 2 * 5 * 2 * ROWS)


def test_fine_tuning_has_its_published_rates_and_steps(replay: SearchJob) -> None:
    trial = _replayed(replay, "fine_tuning")
    config = trial.upstream.config
    assert isinstance(config, FineTuningConfig)
    own = tuned_study(open_study(trial.plan), config)
    runs = [run.identity for pack in fine_tuning_packs(own) for run in pack.runs]
    assert {run.lr for run in runs} == {5e-4, 3e-4, 2e-4, 1e-4} == set(TUNING_LRS)
    for run in runs:
        down = _whole(DownstreamConfig, dict(run.recipe["downstream"]))
        assert (down["batch_size"], down["steps"]) == (8, 3000)
