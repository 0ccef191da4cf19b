"""Several downstream starts of a cell: whose runs they are, how they are computed and averaged."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from search_toys import SEEDS, VALIDATION, bits, with_rungs
from trial_toys import Bench, bench, through_a_folder

from mpt.config import DownstreamConfig
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.limits import PackLimits
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.keys import key_of
from mpt.prompts import prompt_digest
from mpt.search.dispatch import open_groups
from mpt.search.job import SearchJob
from mpt.search.leaderboard import Leaderboard
from mpt.search.remaining import remaining_work
from mpt.store.records import point_key
from mpt.study.record import study_record
from mpt.study.specs import (
    FineTuningConfig,
    PromptTuningConfig,
    TrialSpec,
    UpstreamSpec,
    ZeroShotConfig,
)
from mpt.study.study import OpenStudy
from mpt.trial import pack_limits
from mpt.trial import trial as trial_module
from mpt.trial.run_queue import RunQueue
from mpt.trial.runs import (
    baseline_packs,
    fine_tuning_packs,
    keys_of,
    learned_packs,
    owner_of,
    tuned_study,
    vocabulary_start,
    zero_shot_packs,
)
from mpt.trial.starts import VOCABULARY
from mpt.trial.starts.cost import choice_of_all
from mpt.trial.starts.losses import own_rows
from mpt.trial.trial import finish_point
from mpt.upstream.engine import UpstreamRun

NARROW = PackLimits(runs=3, tokens=256, pass_cost=16, source="a test")
"""Three runs go on side by side, so that others wait and enter."""
CELLS = len(VALIDATION) * len(SEEDS)
POINT = CELLS * 2
"""Runs of a point at one start: two learning rates."""
OWN = DownstreamConfig(lrs=(1e-2, 1e-3), batch_size=2, steps=3, eval_every=2, max_generated=3)


def changed(study: OpenStudy, **changes: Any) -> OpenStudy:
    """Return a study with other settings."""
    config = dataclasses.replace(study.config, **changes)
    return dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))


def only(study: OpenStudy, task: str) -> OpenStudy:
    """Return a study that scores one of the tasks."""
    plan = dataclasses.replace(study.plan, scored=(task,))
    return dataclasses.replace(study, plan=plan, scored={task: study.scored[task]})


@pytest.fixture
def two(study: OpenStudy) -> OpenStudy:
    return changed(study, starts=2)


def job_on(job: SearchJob, study: OpenStudy, *rungs: int) -> SearchJob:
    """Return the toy job, its trials on a study and with these rungs."""
    trials = tuple(dataclasses.replace(one, plan=study.plan) for one in job.trials)
    return with_rungs(dataclasses.replace(job, trials=trials), rungs or (2,))


@pytest.fixture
def both(job: SearchJob, two: OpenStudy) -> Iterator[Bench]:
    """A bench of the study with two starts."""
    with bench(job_on(job, two), two) as found:
        yield found


def run_all(found: Bench) -> None:
    """Run the first trial of a bench and its baseline."""
    found.run(0)
    found.run_baseline()


def point_of(found: Bench, method: str = "maml") -> Any:
    (point,) = (one for one in found.database.points() if one.method == method)
    return point


# --- whose runs they are -------------------------------------------------------------------------


def test_a_study_with_one_start_has_the_keys_that_it_had_before_there_were_starts(
    study: OpenStudy,
) -> None:
    """The identities are written out here: nothing about starts is in them."""
    assert study.config.starts == 1
    record = study_record(study)
    assert "starts" not in record.settings
    assert (record.starts, record.start_seeds) == (1, (42,))
    packs = [*baseline_packs(study), *fine_tuning_packs(study), *zero_shot_packs(study)]
    for run in (run for pack in packs for run in pack.runs):
        own = run.identity
        assert own.train_seed == study.config.train_seed == 42
        identity = {
            "backbone": study.backbone.digest,
            "task": run.task.name,
            "data": run.task.digest,
            "data_seed": run.task.seed,
            "shots": run.task.shots,
            "metric": run.task.metric,
            "init": own.init,
            "lr": float(run.lr),
            "recipe": dict(own.recipe),
            "train_seed": 42,
            "code": own.code,
            **({} if own.tuned == "prompt" else {"tuned": own.tuned}),
        }
        assert run.key == key_of("run", identity)
        assert "starts" not in str(identity)


def test_the_first_start_has_the_runs_of_one_and_the_next_those_of_its_own_train_seed(
    study: OpenStudy, two: OpenStudy
) -> None:
    prompt = vocabulary_start(study, study.scored[VALIDATION[0]][SEEDS[0]], 42)
    other = changed(study, train_seed=1042)
    for packs in (baseline_packs, lambda one: learned_packs(one, prompt), fine_tuning_packs):
        one, next_, every = (keys_of(packs(s)) for s in (study, other, two))
        assert every == [*one, *next_]
        assert len(set(every)) == 2 * POINT
    assert keys_of(zero_shot_packs(two)) == keys_of(zero_shot_packs(study))
    records = [study_record(one) for one in (study, two)]
    assert records[1].settings == {**records[0].settings, "starts": 2}
    assert (records[1].starts, records[1].start_seeds) == (2, (42, 1042))
    assert records[0].key != records[1].key
    assert records[0].protocol != records[1].protocol


def test_plain_tuning_and_a_learned_prompt_share_their_order_of_rows_at_every_start(
    both: Bench, two: OpenStudy
) -> None:
    """So a comparison with plain tuning stays paired: only the prompt differs."""
    run_all(both)
    own, (name, seed) = two.config, (VALIDATION[1], SEEDS[0])
    rung = both.trial(0)._learning.rung(2)
    runs = both.database.runs([*point_of(both).runs, *point_of(both, "prompt_tuning").runs])
    for start in (42, 1042):
        task = two.scored[name][seed]
        for prompt in (rung.prompt, vocabulary_start(two, task, start)):
            alone = tune(
                two.backbone,
                [TuningRun(task, lr, prompt) for lr in own.downstream.lrs],
                own.downstream,
                own.text,
                start,
            )
            packs = learned_packs(two, prompt)
            keys = [
                run.key
                for pack in packs
                for run in pack.runs
                if (run.task, run.identity.train_seed) == (task, start)
            ]
            for key, expected in zip(keys, alone, strict=True):
                assert [dev for _, dev, _ in runs[key].curve] == [d for _, d, _ in expected.curve]
                losses = [loss for _, _, loss in runs[key].curve]
                assert losses == pytest.approx([x for _, _, x in expected.curve], rel=1e-4)


# --- how they are computed -----------------------------------------------------------------------


def test_going_from_one_start_to_two_computes_the_new_runs_alone(
    study: OpenStudy,
    two: OpenStudy,
    job: SearchJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bench(job_on(job, two), two, results=tmp_path / "fresh") as fresh:
        run_all(fresh)
    with bench(job_on(job, study), study, two) as found:
        run_all(found)
        before = bits(job.results)
        found.store.brought.clear()
        more = dataclasses.replace(found.job.trials[0], plan=two.plan)
        work = remaining_work([more], lambda _: two, found.store, found.files)
        assert (work.runs, work.runs_there, work.shared, work.shared_there) == (
            *(2 * POINT, POINT),
            *(2 * POINT, POINT),
        )
        assert [trial.steps for trial in work.trials] == [0]
        with monkeypatch.context() as patch:
            patch.setattr(UpstreamRun, "advance", _never)
            list(found.trial_of(more).units())
            found.run_baseline(two)
        runs = found.database.runs(found.store.brought)
        assert len(found.store.brought) == len(runs) == 2 * POINT
        assert {run.identity.train_seed for run in runs.values()} == {1042}
    after = bits(job.results)
    assert {key: after[key] for key in before} == before
    assert {key: after[key] for key in bits(tmp_path / "fresh")} == bits(tmp_path / "fresh")


def _never(*_: object, **__: object) -> None:
    raise AssertionError("learned again")


def test_a_trial_with_two_starts_killed_after_any_unit_gives_the_same_numbers(
    job: SearchJob, uneven: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task is enough: its runs wait for each other and leave at different times."""
    monkeypatch.setattr(pack_limits, "pack_limits", lambda *_: NARROW)
    study = only(changed(uneven, starts=2), VALIDATION[0])
    job = job_on(job, study)
    with bench(job, study) as found:
        queues = [done.queue for done in found.trial(0).units()]
    expected, count = bits(job.results), len(queues)
    assert count > 8
    # three at a time; at both starts runs leave before others that ride beside them
    assert {(one.running, one.waiting) for one in queues if one} >= {
        (3, 5),
        (1, 4),
        (3, 1),
        (1, 0),
    }
    with bench(job, study, results=tmp_path / "killed") as found:
        killed = found.trial(0)
        for stop in range(1, count):
            if stop % 2:
                killed.unit()
            state = through_a_folder(killed.state())
            if stop % 2:
                killed.unit()  # the old process is not gone yet
            # what a kill at this moment leaves; the trial goes on to the next one
            place = shutil.copytree(tmp_path / "killed", tmp_path / str(stop))
            with bench(job, study, results=place) as again:
                after = again.trial(0)
                after.load_state(state)
                list(after.units())
            assert after.progress.problems == []
            assert bits(place) == expected


def test_runs_of_different_starts_do_not_ride_together(
    job: SearchJob, uneven: OpenStudy, tmp_path: Path
) -> None:
    """So the bits of a start do not depend on how many others there are."""
    two = changed(uneven, starts=2)
    packs = baseline_packs(two)
    half = len(packs) // 2
    for results, parts in (
        (tmp_path / "together", [packs]),
        (tmp_path / "apart", [packs[half:], packs[:half]]),
    ):
        with bench(job, two, results=results) as found:
            for part in parts:
                RunQueue(two, part, found.store, lambda _: NARROW).advance()
            assert sorted(found.store.brought) == sorted(keys_of(packs))
            assert finish_point(
                study_record(two).key, PromptTuningConfig(), "", packs, found.store
            )
    assert bits(tmp_path / "together") == bits(tmp_path / "apart")


def test_a_queue_tells_of_all_starts_and_ends_a_turn_where_one_does(
    both: Bench, two: OpenStudy
) -> None:
    queue = RunQueue(two, baseline_packs(two), both.store, lambda _: NARROW)
    queue.advance(0)
    now = queue.status
    assert now is not None
    assert now.finished + now.running + now.waiting == 2 * POINT
    while len(both.store.brought) < POINT:
        queue.advance(1000)
    assert len(both.store.brought) == POINT  # it had the time for more
    now = queue.status
    assert now is not None
    assert (now.finished, now.running + now.waiting) == (POINT, POINT)
    assert queue.share == POINT
    state = queue.state()
    assert state is not None
    later = [run.key for pack in baseline_packs(two)[len(VALIDATION) :] for run in pack.runs]
    assert state["keys"] == later
    queue.advance()
    assert queue.done
    assert queue.state() is None
    assert queue.share == len(both.store.brought) == 2 * POINT


def test_the_baseline_of_a_task_is_one_trial_and_a_lost_one_is_stood_in_for(
    both: Bench, two: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "WAIT_S", 0.0)
    monkeypatch.setattr(trial_module, "PATIENCE_S", 0.0)
    board = Leaderboard(both.job, lambda _: two, both.database)
    groups = open_groups(board, lambda _: two, both.database)
    baselines = [group for group in groups if not group.indices]
    assert [group.specs[0].tasks for group in baselines] == [(task,) for task in VALIDATION]
    # a checkpoint of such a trial is looked for under the runs of both starts
    for group in baselines:
        (task,) = group.specs[0].tasks
        own = [pack for pack in baseline_packs(two) if pack.task == task]
        assert both.trial_of(group.specs[0]).owner == owner_of(own)
        assert len(keys_of(own)) == 2 * POINT / len(VALIDATION)
    both.run(0, wait=True)  # nobody runs them: it does so itself
    assert len(point_of(both, "prompt_tuning").runs) == 2 * POINT
    left = open_groups(board, lambda _: two, both.database)
    assert not [group for group in left if not group.indices]


def test_fine_tuning_has_as_many_starts_and_zero_shot_has_one(both: Bench, two: OpenStudy) -> None:
    both.run_baseline()
    tuned, bare = FineTuningConfig(downstream=OWN), ZeroShotConfig()
    specs = [TrialSpec(plan=two.plan, upstream=UpstreamSpec(config=one)) for one in (tuned, bare)]
    work = remaining_work(specs, lambda _: two, both.store, both.files)
    assert [trial.runs.runs for trial in work.trials] == [2 * POINT, CELLS]
    for spec in specs:
        list(both.trial_of(spec).units())
    weights = point_of(both, "fine_tuning")
    runs = both.database.runs(weights.runs).values()
    assert sorted(run.identity.train_seed for run in runs) == [42] * POINT + [1042] * POINT
    name, seed, lr = VALIDATION[0], SEEDS[1], OWN.lrs[0]
    own = tuned_study(two, tuned)
    expected = [
        fine_tune(
            own.backbone,
            [TuningRun(two.scored[name][seed], lr, no_prompt(own.backbone))],
            OWN,
            own.config.text,
            start,
        )[0]
        for start in (42, 1042)
    ]
    stored = {
        run.identity.train_seed: run
        for run in runs
        if (run.identity.task, run.identity.data_seed, run.identity.lr) == (name, seed, lr)
    }
    assert [stored[start].curve for start in (42, 1042)] == [tuple(x.curve) for x in expected]
    assert expected[0].curve != expected[1].curve  # the order of rows is another
    for point in (weights, point_of(both, "zero_shot")):
        score = both.store.scores([point.key])[point.key]
        assert score.gain is not None
        assert score.gain.defined == len(VALIDATION)


def test_a_target_chooses_once_at_every_start(both: Bench, two: OpenStudy, job: SearchJob) -> None:
    down = dataclasses.replace(two.config.downstream, start="chosen")
    chosen = changed(two, downstream=down)
    with bench(job_on(job, chosen), chosen) as found:
        spec = found.job.trials[0]
        work = remaining_work([spec], lambda _: chosen, found.store, found.files)
        own = sum(
            len(own_rows(chosen, task))
            for samples in chosen.scored.values()
            for task in samples.values()
        )
        # the learned prompt, and a plain start at each of two starts
        assert choice_of_all(chosen, 1) == (0, 3 * own)
        assert work.trials[0].runs.rows >= 3 * own
        found.run(0)
        point = point_of(found)
        assert point.provenance["starts"]["forward rows"] == 3 * own
        taken = point.provenance["starts"]["taken"]
        names = {f"{seed}{more}" for seed in SEEDS for more in ("", "/1042")}
        assert {frozenset(choices) for choices in taken.values()} == {frozenset(names)}
        runs = found.database.runs(point.runs).values()
        for task in (one for samples in chosen.scored.values() for one in samples.values()):
            for start, more in ((42, ""), (1042, "/1042")):
                plain = prompt_digest(vocabulary_start(chosen, task, start))
                inits = {
                    run.identity.init
                    for run in runs
                    if run.identity.task == task.name
                    and (run.identity.data_seed, run.identity.train_seed) == (task.seed, start)
                }
                is_plain = taken[task.name][f"{task.seed}{more}"] == VOCABULARY
                assert (inits == {plain}) == is_plain
        again = remaining_work([spec], lambda _: chosen, found.store, found.files)
        assert (again.trials[0].runs.runs, again.points_there) == (0, 1)


# --- how they are averaged -----------------------------------------------------------------------


def test_the_score_of_a_cell_is_the_mean_over_starts_of_the_runs_that_dev_chose(
    both: Bench, job: SearchJob, two: OpenStudy
) -> None:
    """Against SQL and a few lines that share nothing with the program."""
    run_all(both)
    point, base = point_of(both), point_of(both, "prompt_tuning")
    score = both.store.scores([point.key])[point.key]
    assert score.gain is not None
    tables = []
    with closing(sqlite3.connect(job.results / "mpt.db")) as connection:
        for one in (point, base):
            rows = connection.execute(
                "SELECT task, data_seed, train_seed, lr, dev, test FROM run WHERE id IN (SELECT "
                "run_id FROM point_run JOIN point ON point.id = point_id WHERE point.key = ?)",
                (one.key,),
            ).fetchall()
            assert len(rows) == 2 * POINT
            cells: dict[tuple[str, int], list[float]] = {}
            for task, seed, start in sorted({row[:3] for row in rows}):
                tried = [row[3:] for row in rows if row[:3] == (task, seed, start)]
                # rates are 0.5 and then 0.2: the larger one wins a tie
                _, _, test = max(tried, key=lambda row: (row[1], row[0]))
                cells.setdefault((task, seed), []).append(test)
            assert {len(tests) for tests in cells.values()} == {2}
            tables.append({cell: sum(tests) / 2 for cell, tests in cells.items()})
    ours, plain = tables
    assert score.selected is not None
    for (task, seed), mean in ours.items():
        assert score.selected[task][seed] == pytest.approx(mean, rel=1e-12)
    gains = [
        sum(ours[t, s] for s in SEEDS) / sum(plain[t, s] for s in SEEDS) - 1 for t in VALIDATION
    ]
    assert score.gain.arg == pytest.approx(100 * sum(gains) / len(gains), rel=1e-9)


def test_a_point_of_two_starts_is_not_whole_without_the_second(
    both: Bench, two: OpenStudy
) -> None:
    packs = baseline_packs(two)
    for queue in (RunQueue(two, packs[: len(VALIDATION)], both.store, lambda _: NARROW),):
        queue.advance()
    key = study_record(two).key
    assert not finish_point(key, PromptTuningConfig(), "", packs, both.store)
    assert point_key(key, "", 0) not in both.store.points([point_key(key, "", 0)])
