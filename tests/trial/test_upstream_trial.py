"""A trial that learns upstream, unit by unit: what it computes and stores."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from search_toys import SEEDS, VALIDATION, bits, with_rungs
from trial_toys import Bench, bench, through_a_folder

from mpt.config import UpstreamConfig
from mpt.errors import StorageError
from mpt.prompts import prompt_from_bytes
from mpt.search.job import SearchJob
from mpt.store.database import Database
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import OpenStudy
from mpt.trial.run_queue import RunQueue
from mpt.trial.score import BAD_SCORE
from mpt.upstream.engine import Diverged, UpstreamRun

POINT = len(VALIDATION) * len(SEEDS) * 2
"""Runs of a point: two learning rates."""


def never(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


def test_a_search_stores_every_point_and_the_baseline_once(
    one: Bench, whole: dict[str, Any]
) -> None:
    one.run(0, 1)
    one.run_baseline()
    assert len(one.database.points()) == 7
    # six points and one baseline that they share; nothing was computed twice
    assert one.stored == len(one.store.brought) == 7 * POINT
    points = [point for point in one.database.points() if point.method == "maml"]
    assert [(point.steps, len(point.runs)) for point in points] == 2 * [(2, 8), (4, 8), (6, 8)]
    assert len({point.key for point in points}) == 6
    scores = one.store.scores([point.key for point in points])
    assert [score.runs for score in scores.values()] == 6 * [POINT]
    assert bits(one.job.results) == whole


def test_neither_order_nor_chunks_nor_interleaving_changes_a_bit(
    one: Bench, other: Bench, whole: dict[str, Any]
) -> None:
    one.run_baseline()
    one.run(1, 0, chunk_s=1e9)
    assert bits(one.job.results) == whole
    # two workers: their units alternate
    works = [other.trial(index) for index in (0, 1)]
    for _ in itertools.zip_longest(*(work.units() for work in works)):
        pass
    other.run_baseline()
    assert bits(other.job.results) == whole
    assert len(other.store.brought) == 7 * POINT


def test_a_rung_is_the_end_of_the_shorter_run(
    job: SearchJob, study: OpenStudy, tmp_path: Path, whole: dict[str, Any]
) -> None:
    for rung in (2, 4):
        short = with_rungs(job, (rung,))
        with bench(short, study, results=tmp_path / str(rung)) as found:
            found.run(0, 1)
        part = bits(tmp_path / str(rung))
        assert len(part) == 2 + 2 * POINT
        assert part.items() <= whole.items()


def test_growing_the_rungs_computes_only_what_is_missing(
    job: SearchJob, study: OpenStudy, one: Bench, whole: dict[str, Any]
) -> None:
    with bench(with_rungs(job, (4,)), study) as small:
        small.run(0, 1)
        small.run_baseline()
        assert small.stored == 3 * POINT
    one.run(0, 1)  # a rung before and one behind
    assert len(one.store.brought) == 4 * POINT
    assert bits(job.results) == whole


def test_a_finished_trial_needs_no_unit_and_no_model_pass(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.run(0)
    one.run_baseline()
    monkeypatch.setattr(RunQueue, "advance", never)
    monkeypatch.setattr(UpstreamRun, "advance", never)
    again = one.trial(0)
    assert again.unit().done
    assert set(again.progress.scores) == {2, 4, 6}
    assert again.progress.landed == []


CHANGES: tuple[dict[str, Any], ...] = (
    {"inner_lr": 0.2},
    {"outer_lr": 0.2},
    {"inner_steps": 2},
    {"batch_size": 3},
    {"items_per_step": 1},
    {"dropout": 0.1},
)


def test_every_searched_setting_changes_the_result(one: Bench) -> None:
    base = UpstreamConfig(inner_lr=0.1, outer_lr=0.3)
    configs = [base, *(dataclasses.replace(base, **change) for change in CHANGES)]
    for config in configs:
        spec = TrialSpec(plan=one.job.plans[0], upstream=UpstreamSpec(config=config, rungs=(3,)))
        list(one.trial_of(spec, chunk_s=1e9).units())
    points = one.database.points()
    assert len({point.prompt for point in points}) == len(points) == len(configs)
    assert len({repr(point.settings) for point in points}) == len(configs)


def test_the_prompt_at_a_rung_is_a_file_that_the_point_names(one: Bench) -> None:
    one.run(0)
    for point in one.database.points():
        rung = one.store.rung(point.upstream, point.steps)
        assert rung is not None
        data = one.files.read(rung.uri, rung.digest)
        prompt, about = prompt_from_bytes(data, rung.uri)
        assert prompt.shape == (3, one.studies[0].backbone.d_model)
        assert about["steps"] == str(point.steps)
        assert rung.meta["digest"] == point.prompt
        assert point.cost.steps == point.steps
        assert point.cost.examples > 0


def test_tuned_prompts_are_kept_on_demand(one: Bench, other: Bench) -> None:
    one.run(0, keep_prompts=True)
    other.run(0)
    assert other.database.artifacts("prompt") == []
    kept = {artifact.owner: artifact for artifact in one.database.artifacts("prompt")}
    assert set(kept) == set(one.store.brought)
    rungs = [one.files.read(a.uri, a.digest) for a in one.database.artifacts("rung")]
    for key, artifact in kept.items():
        prompt, about = prompt_from_bytes(one.files.read(artifact.uri, artifact.digest), key)
        assert about["run"] == key
        assert all(not prompt.equal(prompt_from_bytes(data, "")[0]) for data in rungs)
        assert artifact.steps == one.database.runs([key])[key].best_step


def test_studies_with_the_same_sources_share_what_is_learned(
    one: Bench, other: Bench, study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two settings with the same sources: one trial learns once and scores in both."""
    config = dataclasses.replace(study.config, partition="another")
    plan = dataclasses.replace(study.plan, config=config, scored=VALIDATION[:1])
    scored = {VALIDATION[0]: study.scored[VALIDATION[0]]}
    twin = dataclasses.replace(study, plan=plan, scored=scored)
    upstream = dataclasses.replace(one.job.trials[0].upstream, rungs=(4,))
    later = dataclasses.replace(upstream, rungs=(4, 6))
    specs = [
        TrialSpec(plan=study.plan, upstream=upstream),
        TrialSpec(plan=twin.plan, upstream=later),
    ]
    with bench(other.job, study, twin) as alone:
        for spec in specs:
            list(alone.trial_of(spec).units())
    advanced: list[int] = []
    step = UpstreamRun.advance

    def counted(run: UpstreamRun, steps: int) -> None:
        advanced.append(steps)
        step(run, steps)

    monkeypatch.setattr(UpstreamRun, "advance", counted)
    with bench(one.job, study, twin) as shared:
        both = shared.trial_of(*specs)
        for stop in range(9):  # goes on from a checkpoint now and then
            both.unit()
            if stop % 4 == 3:
                state = through_a_folder(both.state())
                both = shared.trial_of(*specs)
                both.load_state(state)
        list(both.units())
        assert len(shared.store.brought) == POINT + POINT // 2  # the twin's runs at 4 are shared
    assert sum(advanced) == 6
    assert bits(one.job.results) == bits(other.job.results)
    assert len(bits(one.job.results)) == 3 + POINT + POINT // 2


# --- faults ------------------------------------------------------------------------------------


def test_a_rung_file_that_is_gone_or_changed_is_named_and_made_again(
    one: Bench, job: SearchJob, study: OpenStudy, whole: dict[str, Any]
) -> None:
    with bench(with_rungs(job, (4,)), study) as small:
        small.run(0, 1)
        rungs = small.database.artifacts("rung")
    first, second = (Path(rung.uri) for rung in rungs)
    first.write_bytes(first.read_bytes()[:-7])
    second.unlink()
    # the same point is looked at by another study, whose runs are missing
    config = dataclasses.replace(study.config, train_seed=study.config.train_seed)
    twin = dataclasses.replace(
        study, plan=dataclasses.replace(study.plan, config=config, source_set="named")
    )
    with bench(job, twin) as found:
        for index, path in enumerate((first, second)):
            upstream = dataclasses.replace(job.trials[index].upstream, rungs=(4,))
            again = found.trial_of(TrialSpec(plan=twin.plan, upstream=upstream))
            list(again.units())
            (problem,) = again.progress.problems
            assert str(path) in problem
            assert problem.endswith("the rung is computed again")
            assert path.exists()
        assert found.store.brought == []  # the runs are those that are stored
    prompts = {point.upstream: point.prompt for point in one.database.points()}
    assert len(prompts) == 2
    assert set(prompts.values()) <= {getattr(value, "prompt", None) for value in whole.values()}


@pytest.mark.parametrize(("trial_of_file", "rung_of_file"), [(0, 4), (1, 2)])
def test_a_rung_that_is_not_the_prompt_that_the_database_means_is_not_used(
    one: Bench, job: SearchJob, study: OpenStudy, trial_of_file: int, rung_of_file: int
) -> None:
    """Its file is that of another rung, or of another trial."""
    one.run(0, 1)
    keys = [one.trial(index).key for index in (0, 1)]
    right, wrong = one.store.rung(keys[0], 2), one.store.rung(keys[trial_of_file], rung_of_file)
    assert right is not None
    assert wrong is not None
    one.store.add_artifact(dataclasses.replace(right, uri=wrong.uri, digest=wrong.digest))
    again = one.trial(0)
    list(again.units())
    assert again.progress.problems == []  # the point at 2 is stored: nobody needs its prompt
    twin = dataclasses.replace(study, plan=dataclasses.replace(study.plan, source_set="named"))
    with bench(job, twin) as found:
        spec = TrialSpec(plan=twin.plan, upstream=with_rungs(job, (2,)).trials[0].upstream)
        again = found.trial_of(spec)
        list(again.units())
        (problem,) = again.progress.problems
        assert "is not the prompt that the database means" in problem
        prompts = [
            p.prompt for p in found.database.points() if (p.upstream, p.steps) == (keys[0], 2)
        ]
        assert len(prompts) == 2
        assert prompts[0] == prompts[1]


def test_divergence_gives_every_later_rung_a_finite_bad_score(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = UpstreamRun.advance

    def diverging(self: UpstreamRun, n_steps: int) -> None:
        if self.step_count + n_steps > 3:
            raise Diverged(self.step_count + 1, "query loss of s-one is nan")
        real(self, n_steps)

    one.run_baseline()
    monkeypatch.setattr(UpstreamRun, "advance", diverging)
    trial_ = one.trial(0)
    landed = [key for progress in trial_.units() for key in progress.landed]
    assert len(landed) == 3
    scores = {steps: score.score for steps, score in trial_.progress.scores.items()}
    assert scores[4] == scores[6] == BAD_SCORE
    assert scores[2] > BAD_SCORE
    # it is a result: the next session does not try again
    monkeypatch.setattr(UpstreamRun, "advance", never)
    assert one.trial(0).unit().done
    points = [point for point in one.database.points() if point.method == "maml"]
    assert [point.status for point in points] == ["ok", "diverged", "diverged"]
    assert [(point.prompt, point.runs) for point in points[1:]] == 2 * [(None, ())]
    assert points[1].note == "upstream learning diverged at step 4: query loss of s-one is nan"
    assert points[2].cost.steps == 3


def test_a_truly_diverging_trial_is_recorded(one: Bench) -> None:
    config = UpstreamConfig(inner_lr=1e38, outer_lr=1e30)
    spec = TrialSpec(plan=one.job.plans[0], upstream=UpstreamSpec(config=config, rungs=(3,)))
    one.run_baseline()
    list(one.trial_of(spec).units())
    point = one.database.points()[-1]
    assert point.status == "diverged"
    score = one.store.scores([point.key])[point.key]
    assert score.score == BAD_SCORE


def test_storage_that_fails_ends_the_unit_and_costs_time_but_no_bit(
    one: Bench, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second write fails; whoever comes next goes on from the last checkpoint."""
    count, failed = itertools.count(), 0

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if next(count) % 2 == 0:
                raise StorageError("injected")
            return real(*args, **options)

        return wrapped

    for name in ("add_runs", "add_point", "add_artifact"):
        monkeypatch.setattr(Database, name, failing(getattr(Database, name)))
    state, done = one.trial(0).state(), False
    while not done:
        work = one.trial(0)
        work.load_state(state)
        try:
            done = work.unit().done
        except StorageError:
            failed += 1
            continue
        state = through_a_folder(work.state())
    assert failed >= 9  # three rungs, three queues, three points
    monkeypatch.undo()
    one.run(1)
    one.run_baseline()
    assert bits(one.job.results) == whole
