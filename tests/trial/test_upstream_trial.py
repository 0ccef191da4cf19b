"""A trial that learns upstream, unit by unit, without Ray."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from search_toys import SEEDS, VALIDATION, bits, toy_job, with_rungs
from trial_toys import Bench, bench, through_a_folder

from mpt.config import DownstreamConfig, UpstreamConfig
from mpt.downstream.limits import PackLimits
from mpt.errors import StorageError
from mpt.prompts import prompt_from_bytes
from mpt.search.job import SearchJob
from mpt.store.database import Database
from mpt.store.records import Artifact, Run
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import Study, open_study
from mpt.trial import pack_limits, trial
from mpt.trial.run_queue import RunQueue
from mpt.trial.score import BAD_SCORE
from mpt.trial.trial import Trial
from mpt.upstream.engine import Diverged, UpstreamRun

POINT = len(VALIDATION) * len(SEEDS) * 2
"""Runs of a point: two learning rates."""

NARROW = PackLimits(runs=3, tokens=256, pass_cost=16, source="a test")
"""Three runs go on side by side, so that others wait and enter."""


@pytest.fixture
def one(job: SearchJob, study: Study) -> Iterator[Bench]:
    with bench(job, study) as found:
        yield found


@pytest.fixture
def other(job: SearchJob, study: Study, tmp_path: Path) -> Iterator[Bench]:
    """Another place for results of the same job."""
    with bench(job, study, results=tmp_path / "other") as found:
        yield found


@pytest.fixture(scope="module")
def whole(
    study: Study, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the toy job computes where nothing disturbs it."""
    job = toy_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("whole"))
    with bench(job, study) as found:
        found.run(0, 1)
        found.run_baseline()
    return bits(job.results)


def never(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


# --- what is computed --------------------------------------------------------------------------


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
    job: SearchJob, study: Study, tmp_path: Path, whole: dict[str, Any]
) -> None:
    for rung in (2, 4):
        short = with_rungs(job, (rung,))
        with bench(short, study, results=tmp_path / str(rung)) as found:
            found.run(0, 1)
        part = bits(tmp_path / str(rung))
        assert len(part) == 2 + 2 * POINT
        assert part.items() <= whole.items()


def test_growing_the_rungs_computes_only_what_is_missing(
    job: SearchJob, study: Study, one: Bench, whole: dict[str, Any]
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


@pytest.mark.parametrize(
    "change",
    [
        {"inner_lr": 0.2},
        {"outer_lr": 0.2},
        {"inner_steps": 2},
        {"batch_size": 3},
        {"items_per_step": 1},
        {"dropout": 0.1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_searched_setting_changes_the_result(one: Bench, change: dict[str, Any]) -> None:
    base = UpstreamConfig(inner_lr=0.1, outer_lr=0.3)
    for config in (base, dataclasses.replace(base, **change)):
        spec = TrialSpec(plan=one.job.plans[0], upstream=UpstreamSpec(config=config, rungs=(3,)))
        list(one.trial_of(spec, chunk_s=1e9).units())
    first, second = one.database.points()
    assert first.prompt != second.prompt
    assert first.settings != second.settings


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
    one: Bench, other: Bench, study: Study, monkeypatch: pytest.MonkeyPatch
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


# --- resuming ----------------------------------------------------------------------------------


def test_a_trial_goes_on_from_the_state_of_every_unit_with_the_same_bits(
    job: SearchJob, study: Study, tmp_path: Path
) -> None:
    """Also where the process lived on for some units after its last checkpoint."""
    job = with_rungs(job, (2, 4))
    with bench(job, study) as undisturbed:
        count = sum(1 for _ in undisturbed.trial(0).units())
    assert count >= 8
    expected = bits(job.results)
    for stop in range(count):
        place = tmp_path / str(stop)
        with bench(job, study, results=place) as found:
            killed = found.trial(0)
            for _ in range(stop):
                killed.unit()
            state = through_a_folder(killed.state())
            for _ in range(min(stop % 3, count - stop)):
                killed.unit()
            stored = found.database.runs(found.store.brought)
            after = found.trial(0)
            after.load_state(state)
            assert sum(1 for _ in after.units()) <= count - stop + 1
            assert found.database.runs(list(stored)) == stored
        assert bits(place) == expected


def test_a_kill_in_the_first_unit_of_a_queue_of_runs_changes_no_bit(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units are long here, and runs leave and enter at different times.

    Runs are stored before the unit ends: the next process must not leave them out.
    """
    downstream = DownstreamConfig(
        lrs=(0.5, 0.2), batch_size=2, steps=12, eval_every=2, patience=2, max_generated=3
    )
    job = toy_job(toy_checkpoint, toy_gym, tmp_path / "one", rungs=(2, 4), downstream=downstream)
    study = open_study(job.plans[0])
    with bench(job, study) as one, bench(job, study, results=tmp_path / "other") as other:
        _kill_after_some_commits(one, other, monkeypatch)
    assert bits(tmp_path / "one") == bits(tmp_path / "other")


def _kill_after_some_commits(one: Bench, other: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_limits, "pack_limits", lambda *_: NARROW)
    other.run(0, chunk_s=1e9)
    real, left = Database.add_runs, [0]

    def dying(database: Database, runs: list[Run]) -> list[str]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(database, runs)

    monkeypatch.setattr(Database, "add_runs", dying)
    kills, state = 0, one.trial(0).state()
    for commits in itertools.chain([1, 2, 1, 2, 1], itertools.repeat(10**9)):
        left[0] = commits
        work = one.trial(0, chunk_s=1e9)
        work.load_state(state)
        try:
            while not work.unit().done:
                state = through_a_folder(work.state())
        except KeyboardInterrupt:
            kills += 1
            continue
        break
    assert kills == 5


def test_a_state_beyond_a_new_rung_is_of_no_use_and_the_trial_learns_anew(
    one: Bench, job: SearchJob, study: Study, whole: dict[str, Any]
) -> None:
    with bench(with_rungs(job, (6,)), study) as late:
        trial_ = late.trial(0)
        list(trial_.units())
        state = through_a_folder(trial_.state())
    again = one.trial(0)
    again.load_state(state)
    list(again.units())
    assert again.progress.problems == []
    found = bits(job.results)
    assert {point.steps for point in one.database.points()} == {2, 4, 6}
    assert found.items() <= whole.items()


def test_a_longer_search_goes_on_from_the_last_state(
    one: Bench, job: SearchJob, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(with_rungs(job, (2, 4)), study) as short:
        trial_ = short.trial(0)
        list(trial_.units())
        state = through_a_folder(trial_.state())
    advanced: list[int] = []
    step = UpstreamRun.advance

    def counted(run: UpstreamRun, steps: int) -> None:
        advanced.append(steps)
        step(run, steps)

    monkeypatch.setattr(UpstreamRun, "advance", counted)
    longer = one.trial(0)
    longer.load_state(state)
    list(longer.units())
    assert sum(advanced) == 2
    assert [point.steps for point in one.database.points()] == [2, 4, 6]


def _torn(state: dict[str, Any]) -> dict[str, Any]:
    upstream = dict(state["upstream"])
    del upstream["tensors"]["prompt"]
    return {**state, "upstream": upstream}


def _of_another_trial(state: dict[str, Any]) -> dict[str, Any]:
    meta = {**state["upstream"]["meta"], "key": "f" * 64}
    return {**state, "upstream": {**state["upstream"], "meta": meta}}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_torn, "checkpoint is incomplete"), (_of_another_trial, "checkpoint is of trajectory ffff")],
)
def test_a_state_that_cannot_be_used_is_named_and_the_result_is_the_same(
    one: Bench,
    whole: dict[str, Any],
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
    says: str,
) -> None:
    killed = one.trial(0)
    while killed.unit().steps < 1:
        continue
    again = one.trial(0)
    again.load_state(spoil(through_a_folder(killed.state())))
    list(again.units())
    (problem,) = again.progress.problems
    assert says in problem
    one.run(1)
    one.run_baseline()
    assert bits(one.job.results) == whole


def test_a_queue_state_with_a_gap_is_named_and_its_runs_start_anew(
    one: Bench, whole: dict[str, Any]
) -> None:
    killed = one.trial(0)
    while killed.unit().queue is None:
        continue
    state = through_a_folder(killed.state())
    del state["queue"]["queue"]["records"]
    again = one.trial(0)
    again.load_state(state)
    list(again.units())
    (problem,) = again.progress.problems
    assert "records" in problem
    assert problem.endswith("its runs start anew")
    assert bits(one.job.results).items() <= whole.items()


# --- faults ------------------------------------------------------------------------------------


def test_a_rung_file_that_is_gone_or_changed_is_named_and_made_again(
    one: Bench, job: SearchJob, study: Study, whole: dict[str, Any]
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


def test_a_rung_that_is_not_the_prompt_that_the_database_means_is_not_used(
    one: Bench, job: SearchJob, study: Study
) -> None:
    with bench(with_rungs(job, (2,)), study) as small:
        small.run(0, 1)
        first, second = small.database.artifacts("rung")
        small.database.add_artifact(
            dataclasses.replace(first, uri=second.uri, digest=second.digest)
        )
    again = one.trial(0)
    again.unit()
    assert again.progress.problems == []  # the point at 2 is stored: nobody needs its prompt
    twin = dataclasses.replace(study, plan=dataclasses.replace(study.plan, source_set="named"))
    with bench(job, twin) as found:
        spec = TrialSpec(plan=twin.plan, upstream=with_rungs(job, (2,)).trials[0].upstream)
        again = found.trial_of(spec)
        list(again.units())
        (problem,) = again.progress.problems
        assert "is not the prompt that the database means" in problem
        points = [point.prompt for point in found.database.points()]
        assert points[0] == points[2] != points[1]


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
    score = one.store.score(point.key)
    assert score is not None
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


# --- waiting for the baseline ------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting takes no time."""
    monkeypatch.setattr(trial, "WAIT_S", 0.0)


def _until_waiting(work: Trial) -> None:
    while not work.unit().waiting:
        assert not work.progress.done


@pytest.mark.usefixtures("hasty")
def test_a_trial_that_others_decide_about_waits_for_the_baseline_at_each_rung(
    one: Bench, whole: dict[str, Any]
) -> None:
    waiting = one.trial(0, wait=True)
    _until_waiting(waiting)
    assert waiting.progress.steps == 2
    assert waiting.progress.scores == {}
    for _ in range(3):
        assert waiting.unit().waiting
    assert [point.steps for point in one.database.points()] == [2]
    one.run_baseline()
    report = waiting.unit()
    assert set(report.scores) == {2}
    assert not report.done
    list(waiting.units())
    assert set(waiting.progress.scores) == {2, 4, 6}
    one.run(1, wait=True)
    assert bits(one.job.results) == whole


@pytest.mark.usefixtures("hasty")
def test_a_trial_that_nobody_decides_about_does_not_wait(one: Bench) -> None:
    work = one.trial(0)
    assert not [progress for progress in work.units() if progress.waiting]
    assert work.progress.scores == {}


@pytest.mark.usefixtures("hasty")
def test_a_waiting_trial_stands_in_for_a_lost_one_with_the_same_bits(
    one: Bench, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost trial has left a checkpoint, and runs that it stored afterwards."""
    from mpt.study.specs import baseline_trials

    monkeypatch.setattr(pack_limits, "pack_limits", lambda *_: NARROW)
    lost = one.trial_of(baseline_trials(one.job.plans[0])[0])
    lost.unit()
    _keep_checkpoint(one, lost)
    for _ in range(2):  # two intervals: three of its four runs are stored
        lost.unit()
    assert len(one.store.brought) == 3
    monkeypatch.setattr(trial, "PATIENCE_S", 0.0)
    work = one.trial(0, wait=True)
    list(work.units())
    assert work.progress.problems == []
    assert set(work.progress.scores) == {2, 4, 6}
    found = bits(one.job.results)
    monkeypatch.setattr(trial, "PATIENCE_S", 1e9)
    with bench(one.job, *one.studies, results=one.job.results / "undisturbed") as quiet:
        quiet.run_baseline()
        quiet.run(0)
        assert found == bits(quiet.job.results)


def _keep_checkpoint(found: Bench, work: Trial) -> None:
    """Do what Tune and the driver do after a unit."""
    from mpt.store.state import write_folder_state

    name = "checkpoints/lost/checkpoint_000000"
    write_folder_state(found.job.results / name, work.state())
    found.store.add_artifact(Artifact(kind="checkpoint", owner=work.owner, steps=0, uri=name))


@pytest.mark.usefixtures("hasty")
def test_a_waiting_trial_is_patient_as_long_as_the_baseline_gives_signs(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpt.study.specs import baseline_trials

    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(trial, "PATIENCE_S", 10.0)
    work = one.trial(0, wait=True)
    _until_waiting(work)
    brought = len(one.store.brought)
    slow = one.trial_of(baseline_trials(one.job.plans[0])[0])
    for _ in range(3):  # a checkpoint of the other trial, or a run, every nine seconds
        slow.unit()
        _keep_checkpoint(one, slow)
        one.store.add_artifact(
            Artifact(kind="checkpoint", owner=slow.owner, steps=0, uri=f"checkpoint-{now[0]}")
        )
        now[0] += 9.0
        assert work.unit().waiting
    assert len(one.store.brought) == brought + 4  # those of the slow trial
    now[0] += 9.0
    assert work.unit().waiting
    assert len(one.store.brought) == brought + 4
    now[0] += 9.0
    work.unit()
    assert len(one.store.brought) == brought + 8
