"""Starts that race: tuned for a few steps side by side, the best on dev is taken."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import SEEDS, VALIDATION, bits
from start_toys import (
    SOUP,
    TARGETS,
    choosing,
    chosen_record,
    done,
    spec_of,
    starts_at,
    starts_of,
    targets_of,
)
from torch import Tensor
from trial_toys import Bench, bench, through_a_folder

from mpt.config import DownstreamConfig
from mpt.downstream.prompt_tuning import TuningResult, TuningRun, tune
from mpt.gym.fewshot import FewShotTask
from mpt.prompts import prompt_digest
from mpt.search.job import SearchJob
from mpt.search.remaining import remaining_work
from mpt.study.record import run_recipe, study_record
from mpt.study.specs import FineTuningConfig
from mpt.study.study import OpenStudy
from mpt.trial.runs import baseline_packs, keys_of, upstream_key, vocabulary_start
from mpt.trial.starts import LEARNED, VOCABULARY, Choosing
from mpt.trial.starts import choice as choice_module
from mpt.trial.starts.choice import StartChoice, words
from mpt.trial.starts.cost import choice_of_all
from mpt.trial.starts.race import Race
from mpt.upstream.soup import members_of

RATES = 2
AT_HAND = 4  # the soup, its two members, the start of plain tuning


@pytest.fixture(scope="module")
def raced(study: OpenStudy) -> OpenStudy:
    """A study that is tuned for 4 steps, evaluated after each second, and raced for 3."""
    return choosing(study, "raced", race_steps=3)


@pytest.fixture(scope="module")
def learned(study: OpenStudy) -> dict[str, Tensor]:
    return starts_at(study, 2)


def at_hand(study: OpenStudy, learned: dict[str, Tensor], task: FewShotTask) -> dict[str, Tensor]:
    return {**learned, VOCABULARY: vocabulary_start(study, task, study.config.train_seed)}


def plain_runs(
    study: OpenStudy, starts: dict[str, Tensor], task: FewShotTask
) -> list[TuningResult]:
    """Return what plain runs of the recipe give, start by start and rate by rate."""
    own = study.config
    down = dataclasses.replace(own.downstream, start="learned", race_steps=None)
    runs = [TuningRun(task, lr, prompt) for prompt in starts.values() for lr in down.lrs]
    return tune(study.backbone, runs, down, own.text, own.train_seed)


def through(race: Race) -> Race:
    while not race.advance(0.0):
        continue
    return race


def own_loss(study: OpenStudy, task: FewShotTask, prompt: Tensor) -> float:
    """Return the loss on train and dev rows, one row after the other."""
    backbone, total, count = study.backbone, 0.0, 0
    for row in backbone.encode_rows(task.name, [*task.train, *task.dev], study.config.text):
        loss, tokens = backbone.row_losses(prompt[None], backbone.collate([row], [0]))
        total, count = total + float(loss), count + int(tokens)
    return total / count


def test_a_race_is_the_plain_runs_cut_bit_for_bit(
    study: OpenStudy, learned: dict[str, Tensor], one: Bench
) -> None:
    task = study.scored[VALIDATION[0]][SEEDS[0]]
    for steps in (2, 4):
        raced = choosing(study, "raced", race_steps=steps)
        starts = at_hand(raced, learned, task)
        cut = dataclasses.replace(raced.config.downstream, steps=steps)
        config = dataclasses.replace(raced.config, downstream=cut)
        short = dataclasses.replace(raced, plan=dataclasses.replace(raced.plan, config=config))
        race = through(Race(raced, task, 42, starts, one.store))
        assert sorted(race.results) == list(range(AT_HAND * RATES))
        whole, ended = plain_runs(raced, starts, task), plain_runs(short, starts, task)
        for place, found in race.results.items():
            assert found.curve == whole[place].curve[: steps // 2] == ended[place].curve
            assert torch.equal(found.prompt, ended[place].prompt)
            assert (found.dev, math.isnan(found.test)) == (ended[place].dev, True)


def test_the_start_with_the_best_dev_score_is_tuned_and_of_equal_ones_that_with_the_lower_loss(
    raced: OpenStudy, learned: dict[str, Tensor], job: SearchJob
) -> None:
    with bench(job, raced) as found:
        point = done(found, spec_of(raced, 2))
        runs = list(found.database.runs(point.runs).values())
        record = found.store.start_choice(point.key)
    assert record is not None
    alone = 0
    for task in targets_of(raced):
        starts = at_hand(raced, learned, task)
        down = dataclasses.replace(raced.config.downstream, steps=3)
        short = dataclasses.replace(raced.config, downstream=down)
        cut = dataclasses.replace(raced, plan=dataclasses.replace(raced.plan, config=short))
        best: dict[str, TuningResult] = {}
        for name, prompt in starts.items():  # every start by itself, and not in one pack
            of_rates = plain_runs(cut, {name: prompt}, task)
            best[name] = max(of_rates, key=lambda run: run.dev)  # the first of equal ones
        top = max(run.dev for run in best.values())
        tied = [name for name in starts if best[name].dev == top]
        losses = {name: own_loss(raced, task, best[name].prompt) for name in tied}
        expected = min(tied, key=lambda name: losses[name])
        own = record["taken"][task.name][str(task.seed)]
        assert own["dev"] == {name: run.dev for name, run in best.items()}
        assert own["losses"] == pytest.approx(losses if len(tied) > 1 else {}, rel=1e-4)
        assert own["start"] == expected
        assert own["prompt"] == prompt_digest(starts[expected])
        assert point.provenance["starts"]["taken"][task.name][str(task.seed)] == expected
        assert starts_of(runs, task) == {prompt_digest(starts[expected])}
        alone += len(tied) == 1
    assert 0 < alone < TARGETS  # both a clear winner and ties were there
    assert point.note == words(record)


def test_the_cost_of_a_race_is_in_the_point_and_in_the_plan(
    raced: OpenStudy, job: SearchJob
) -> None:
    spec = spec_of(raced, 2)
    with bench(job, raced) as found:
        planned = remaining_work([spec], lambda _: raced, found.store, found.files).trials[0].runs
        point = done(found, spec)
        record = found.store.start_choice(point.key)
        left = remaining_work([spec], lambda _: raced, found.store, found.files).trials[0].runs
        own = [run.cost for run in found.database.runs(point.runs).values()]
    assert record is not None
    told = point.provenance["starts"]
    runs = TARGETS * AT_HAND * RATES
    assert told["trained rows"] == runs * 3 * 2  # 3 steps of 2 rows
    assert told["evaluated rows"] == runs * 2 * 8  # after the second step and the last
    tied = [len(one["losses"]) for of in record["taken"].values() for one in of.values()]
    assert told["forward rows"] == sum(tied) * 16  # 8 train and 8 dev rows
    assert told["trained tokens"] > 2 * told["trained rows"]
    assert told["seconds"] > 0
    # the tuning of what was taken begins anew: its own cost is that of any run
    assert {(cost.steps, cost.examples) for cost in own} == {(4, 8)}
    assert choice_of_all(raced, 3) == (runs * 3, told["evaluated rows"])
    whole = TARGETS * RATES
    assert (planned.runs, planned.steps) == (whole, runs * 3 + whole * 4)
    assert planned.rows == told["evaluated rows"] + whole * (2 * 8 + 8)
    assert (left.runs, left.steps, left.rows) == (0, 0, 0)


@pytest.mark.parametrize("how", ["raced", "chosen"])
def test_a_trial_says_how_many_targets_have_chosen_and_what_of_the_plan_that_was(
    how: str, study: OpenStudy, raced: OpenStudy, job: SearchJob
) -> None:
    own = raced if how == "raced" else choosing(study)
    spec = spec_of(own, 2)
    with bench(job, own) as found:
        planned = remaining_work([spec], lambda _: own, found.store, found.files).trials[0].runs
        trial = found.trial_of(spec, chunk_s=0.0)
        said: list[tuple[Choosing | None, float, float]] = []
        while not trial.progress.done:
            one = trial.unit()
            said.append((one.choosing, one.choice_steps, one.choice_rows))
    told = [one for one, *_ in said if one is not None]
    assert {(one.how, one.of) for one in told} == {(how, TARGETS)}
    made = [one.made for one in told]
    assert made == sorted(made)
    assert set(made) | {0} == set(range(TARGETS + 1))
    assert (made.count(0) > 0) == (how == "raced")  # units end within a race
    assert planned.choosing == choice_of_all(own, 3)
    assert said[-1] == (None, *map(pytest.approx, planned.choosing))
    rows = [at for one, _, at in said if one is not None]
    if how == "raced":  # within the first race, too
        assert rows[: made.count(0)] == sorted(set(rows[: made.count(0)]))
        assert 0 < rows[0] < planned.choosing.rows / TARGETS
    else:
        assert rows == pytest.approx([n / TARGETS * planned.choosing.rows for n in made])


def test_a_choice_that_is_stored_is_not_said_to_be_made_again(
    raced: OpenStudy, job: SearchJob
) -> None:
    spec = spec_of(raced, 2)
    with bench(job, raced) as found:
        first = found.trial_of(spec)
        while first.unit().choosing != Choosing(how="raced", made=TARGETS, of=TARGETS):
            continue
        again = found.trial_of(spec)
        while not again.progress.done:
            assert again.unit().choosing is None
        assert (again.progress.choice_steps, again.progress.choice_rows) == (0, 0)


def test_a_plan_expects_other_starts_of_a_race_than_of_a_choice_by_loss(
    study: OpenStudy, raced: OpenStudy, job: SearchJob
) -> None:
    studies = {one.plan: one for one in (choosing(study), raced)}
    specs = [spec_of(one, 2) for one in studies.values()]
    with bench(job, *studies.values()) as found:
        work = remaining_work(specs, studies.__getitem__, found.store, found.files)
    assert [trial.runs.runs for trial in work.trials] == [TARGETS * RATES] * 2


def test_a_race_is_no_part_of_any_run_and_another_study(
    study: OpenStudy, raced: OpenStudy
) -> None:
    chosen, other = choosing(study), choosing(study, "raced")
    for one in (chosen, raced, other):
        assert run_recipe(one.config) == run_recipe(study.config)
        assert keys_of(baseline_packs(one)) == keys_of(baseline_packs(study))
        tuned = FineTuningConfig(downstream=one.config.downstream)
        plain = FineTuningConfig(downstream=study.config.downstream)
        assert upstream_key(one, tuned) == upstream_key(study, plain)
    keys = {study_record(one).key for one in (study, chosen, raced, other)}
    assert len(keys) == 4
    assert "race_steps" not in str(study_record(chosen).settings)


def test_runs_of_a_raced_start_are_those_of_the_study_that_learned_it(
    study: OpenStudy, raced: OpenStudy, job: SearchJob
) -> None:
    with bench(job, study, raced) as found:
        found.run_baseline(study)
        for config in (SOUP, *members_of(SOUP, 42)):
            done(found, spec_of(study, 2, config=config))
        found.store.brought.clear()
        point = done(found, spec_of(raced, 2))
        assert found.store.brought == []
        assert len(point.runs) == RATES * TARGETS


def test_a_start_that_diverges_is_not_taken(
    raced: OpenStudy, learned: dict[str, Tensor], one: Bench
) -> None:
    task = raced.scored[VALIDATION[0]][SEEDS[0]]
    broken = torch.full_like(learned[LEARNED], math.nan)
    name, found, cost = through(
        Race(raced, task, 42, {"a": broken, "b": learned[LEARNED]}, one.store)
    ).outcome()
    assert (name, found["dev"]["a"], found["losses"]) == ("b", None, {})
    assert cost["evaluated rows"] == RATES * 2 * 8  # of the one that went on
    name, found, cost = through(
        Race(raced, task, 42, {"a": broken, "b": broken + 1}, one.store)
    ).outcome()
    assert (name, found["dev"], cost["rows"]) == ("a", {"a": None, "b": None}, 0)


def test_equal_starts_keep_their_order(
    raced: OpenStudy, learned: dict[str, Tensor], one: Bench
) -> None:
    task = raced.scored[VALIDATION[1]][SEEDS[1]]
    same = {"first": learned[LEARNED], "second": learned[LEARNED].clone()}
    name, found, _ = through(Race(raced, task, 42, same, one.store)).outcome()
    assert name == "first"
    assert set(found["losses"]) == {"first", "second"}


def test_a_race_is_held_at_every_downstream_start_with_its_own_order_of_rows(
    raced: OpenStudy, learned: dict[str, Tensor], job: SearchJob
) -> None:
    config = dataclasses.replace(raced.config, starts=2)
    two = dataclasses.replace(raced, plan=dataclasses.replace(raced.plan, config=config))
    with bench(job, two) as found:
        record = chosen_record(two, found, "point")
    task = two.scored[VALIDATION[0]][SEEDS[0]]
    assert set(record["taken"][task.name]) == {
        f"{seed}{more}" for seed in SEEDS for more in ("", "/1042")
    }
    assert record["trained rows"] == 2 * TARGETS * AT_HAND * RATES * 3 * 2
    assert choice_of_all(two, 3) == (record["trained rows"] // 2, record["evaluated rows"])
    starts = {**learned, VOCABULARY: vocabulary_start(two, task, 1042)}
    race = through(Race(two, task, 1042, starts, found.store))
    expected = dict.fromkeys(starts, 0.0)
    down = dataclasses.replace(two.config.downstream, steps=3)
    for name, prompt in starts.items():
        runs = [TuningRun(task, lr, prompt) for lr in down.lrs]
        expected[name] = max(r.dev for r in tune(two.backbone, runs, down, two.config.text, 1042))
    assert record["taken"][task.name][f"{task.seed}/1042"]["dev"] == expected
    assert race.outcome()[1]["dev"] == expected


# --- killed and resumed --------------------------------------------------------------------------


def test_a_choice_goes_on_inside_a_race_from_what_a_checkpoint_holds(
    raced: OpenStudy, learned: dict[str, Tensor], job: SearchJob
) -> None:
    def without_clock(record: Any) -> Any:
        return {name: value for name, value in record.items() if name != "seconds"}

    with bench(job, raced) as found:
        expected = without_clock(chosen_record(raced, found, "whole"))
        for units in range(1, 2 * TARGETS):  # a race is two evaluations long
            killed = StartChoice(raced, learned, found.store, f"point {units}")
            for _ in range(units):
                assert not killed.advance(0.0)
            state = killed.state()
            assert state is not None
            after = StartChoice(raced, learned, found.store, f"point {units}")
            after.load_state(through_a_folder(state))
            left = 1
            while not after.advance(0.0):
                left += 1
            assert left == 2 * TARGETS - units
            assert without_clock(after.record) == expected
            assert after.state() is None


def test_a_state_of_another_point_or_a_broken_one_is_passed_over_and_said(
    raced: OpenStudy, learned: dict[str, Tensor], one: Bench
) -> None:
    expected = chosen_record(raced, one, "whole")["taken"]
    first = StartChoice(raced, learned, one.store, "first")
    for _ in range(3):
        first.advance(0.0)
    state = first.state()
    assert state is not None
    race = state["race"]
    for point, broken, text in (
        ("a", state, ""),
        ("b", {"point": "b"}, "it starts anew"),
        ("c", {**state, "point": "c", "race": {"queue": {}}}, "the race starts anew"),
        ("d", {**state, "point": "d", "race": {**race, "queue": {}}}, "the race starts anew"),
    ):
        said: list[str] = []
        choice = StartChoice(raced, learned, one.store, point, said.append)
        choice.load_state(broken)
        assert len(said) == bool(text)
        assert all(text in line for line in said)
        while not choice.advance(0.0):
            continue
        assert choice.record is not None
        assert choice.record["taken"] == expected


def test_a_trial_killed_while_starts_race_ends_with_the_same_bits(
    raced: OpenStudy, job: SearchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(raced, 2)
    with bench(job, raced) as found:
        count = sum(1 for _ in found.trial_of(spec).units())
    expected, halfway = bits(job.results), 0
    held: list[Race] = []

    def counted(*given: Any) -> Race:
        held.append(Race(*given))
        return held[-1]

    for stop in range(5, count, 4):
        place = tmp_path / str(stop)
        with bench(job, raced, results=place) as found:
            killed = found.trial_of(spec)
            for _ in range(stop):
                killed.unit()
            made = found.database.documents("start choice")
            state = through_a_folder(killed.state())
            taken = state.get("choice", {}).get("taken", {})
            held.clear()
            after = found.trial_of(spec)
            after.load_state(state)
            with monkeypatch.context() as patch:
                patch.setattr(choice_module, "Race", counted)
                list(after.units())
            assert after.progress.problems == []
            assert len(held) == (0 if made else TARGETS - sum(map(len, taken.values())))
            halfway += 0 < len(held) < TARGETS
        assert bits(place) == expected
    assert halfway > 0


# --- how long a race is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "race_steps", "rows", "expected"),
    [
        (3, None, 32, 2),  # a third, but two at least
        (3000, None, 32, 1000),
        (50, None, 32, 16),
        (1, None, 32, 1),  # never more than the run
        (3, 2, 32, 2),
        (3, 9, 32, 3),
        (3000, 5, 32, 5),
        (3000, None, 8, 3),  # the run has 10 epochs of one batch
        (3000, 40, 8, 10),
    ],
)
def test_a_race_takes_a_third_of_the_run_or_the_steps_that_are_set(
    steps: int, race_steps: int | None, rows: int, expected: int
) -> None:
    epochs = 10 if rows == 8 else None
    down = DownstreamConfig(
        steps=steps, start="raced", race_steps=race_steps, max_epochs=epochs, batch_size=8
    )
    race = down.race_on(rows)
    assert race.steps_on(rows) == expected
    assert dataclasses.replace(race, steps=steps) == down
