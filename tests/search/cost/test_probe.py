"""The probe against what a search then takes, in operations and in seconds of computing."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from search_toys import toy_job
from toys import OperationClock
from trial_toys import Bench, bench

from mpt.config import DownstreamConfig, UpstreamConfig
from mpt.keys import canonical
from mpt.search.cost import probe as probe_module
from mpt.search.cost.plan import Rates, RemainingWork, work_seconds
from mpt.search.cost.probe import Clock, probe_trials, trials_to_probe
from mpt.search.job import SearchJob
from mpt.search.remaining import remaining_work
from mpt.study.specs import FineTuningConfig, TrialSpec, UpstreamSpec, ZeroShotConfig
from mpt.study.study import OpenStudy, open_study
from mpt.trial.runs import tuned_study
from mpt.upstream.jumps import HELD, WINDOW

DOWN = DownstreamConfig(lrs=(0.5, 0.2), batch_size=4, steps=12, eval_every=4, max_generated=3)


@pytest.fixture(scope="module")
def longer(
    toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: pytest.TempPathFactory
) -> SearchJob:
    """A toy search with enough to do for its time to be told."""
    results = tmp_path_factory.mktemp("probe") / "results"
    return toy_job(
        toy_checkpoint, toy_gym, results, rungs=(20, 40), inner_lrs=(0.1,), downstream=DOWN
    )


@pytest.fixture(scope="module")
def opened(longer: SearchJob) -> OpenStudy:
    return open_study(longer.plans[0])


def _tuned(job: SearchJob, lrs: tuple[float, ...]) -> TrialSpec:
    config = FineTuningConfig(downstream=dataclasses.replace(DOWN, lrs=lrs))
    return TrialSpec(plan=job.plans[0], upstream=UpstreamSpec(config=config))


def _left(found: Bench, study: OpenStudy) -> RemainingWork:
    return remaining_work(found.job.trials, lambda _: study, found.store, found.files)


def _spent(found: Bench, clock: Clock) -> float:
    """Do all of the work; return its seconds of computing."""
    began = clock()
    found.run_baseline()
    found.run(*range(len(found.job.trials)))
    return clock() - began


def _estimated(found: Bench, study: OpenStudy, clock: Clock) -> tuple[float, Rates]:
    work = _left(found, study)
    trials = trials_to_probe(found.job.trials, work)
    rates = probe_trials(trials, lambda _: study, clock=clock)
    each, shared = work_seconds(work, rates)
    return sum(each) + shared, rates


def _tuning(job: SearchJob, tuned: str) -> SearchJob:
    """Return the job with trials that tune this."""
    if tuned == "weights":
        return dataclasses.replace(job, trials=(_tuned(job, (1e-3, 1e-4)),))
    if tuned == "nothing":
        bare = UpstreamSpec(config=ZeroShotConfig())
        return dataclasses.replace(job, trials=(TrialSpec(plan=job.plans[0], upstream=bare),))
    return job


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the probe told of a search, and what this then took, in operations."""

    job: SearchJob
    estimated: float
    rates: Rates
    written: tuple[int, int, bool]
    """After the probe: runs and points, and whether there were files of prompts."""
    spent: float


@pytest.fixture(scope="module")
def told_of(
    longer: SearchJob, opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Told]:
    """Return a function that probes and runs the search that tunes this, once."""

    @functools.cache
    def told(tuned: str) -> Told:
        results = tmp_path_factory.mktemp(tuned) / "results"
        job = _tuning(dataclasses.replace(longer, results=results), tuned)
        with (
            pytest.MonkeyPatch.context() as patch,
            bench(job, opened) as found,
            OperationClock() as clock,
        ):
            patch.setattr(probe_module, "PROBE_S", 0.3)
            estimated, rates = _estimated(found, opened, clock)
            written = found.stored, len(found.database.points()), (results / "rungs").exists()
            spent = _spent(found, clock)
        return Told(job=job, estimated=estimated, rates=rates, written=written, spent=spent)

    return told


kinds_of_tuning = pytest.mark.parametrize("tuned", ["prompt", "weights", "nothing"])


@kinds_of_tuning
def test_the_estimate_is_near_what_a_search_takes(
    told_of: Callable[[str], Told], tuned: str
) -> None:
    """In operations, so that it holds on a machine that is busy or slow.

    Seen: 0.95 with a prompt, 0.96 with weights; without training 0.55 of what toy runs take. The
    embedded search is held to 20 % by hand, in seconds.
    """
    told = told_of(tuned)
    least = 0.4 if tuned == "nothing" else 0.8
    seen = f"{told.estimated:.2f} s estimated, {told.spent:.2f} s spent"
    assert least < told.estimated / told.spent < 1.2, seen
    assert all(rate.row_s > 0 for rate in told.rates.runs.values())
    assert {kind for kind, rate in told.rates.runs.items() if rate.step_s == 0} == {
        kind for kind in told.rates.runs if kind.startswith("zero-shot")
    }


@pytest.mark.slow
@kinds_of_tuning
def test_the_estimate_is_near_the_seconds_that_a_search_takes(
    longer: SearchJob,
    opened: OpenStudy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tuned: str,
) -> None:
    """The same in seconds of computing: milliseconds are measured, which a pause can spoil."""
    monkeypatch.setattr(probe_module, "PROBE_S", 1.0)
    job = _tuning(dataclasses.replace(longer, results=tmp_path), tuned)
    with bench(job, opened) as found:
        estimated, _ = _estimated(found, opened, time.process_time)
        spent = _spent(found, time.process_time)
    assert 0.5 < estimated / spent < 2.0, f"{estimated:.2f} s estimated, {spent:.2f} s spent"


def test_every_kind_of_work_is_probed_once(
    longer: SearchJob, opened: OpenStudy, tmp_path: Path
) -> None:
    def trial(**changes: Any) -> TrialSpec:
        config = dataclasses.replace(UpstreamConfig(outer_lr=0.3), **changes)
        return TrialSpec(plan=longer.plans[0], upstream=UpstreamSpec(config=config, rungs=(2,)))

    trials = (
        trial(),
        trial(inner_lr=0.5),  # a learning rate does not change the time of a step
        trial(method="reptile", inner_steps=3),
        trial(method="reptile", inner_steps=4),
        trial(batch_size=5),
        _tuned(longer, (1e-3,)),
    )
    job = dataclasses.replace(longer, trials=trials, results=tmp_path)
    with bench(job, opened) as found:
        work = _left(found, opened)
    assert trials_to_probe(trials, work) == [trials[n] for n in (0, 2, 3, 4, 5)]
    probed: list[bool] = []

    def counted(*args: object, known: Rates | None, **kwargs: object) -> Rates:
        probed.append(known is None)
        return Rates(steps={}, runs={}, start_s=0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_module, "probe", counted)
        probe_trials(trials[:3], lambda _: opened)
    assert probed == [True, False, False]


def test_a_horizon_shorter_than_the_probe_does_not_end_it(opened: OpenStudy) -> None:
    config = UpstreamConfig(outer_lr=0.3, decay_horizon=1)
    trial = TrialSpec(plan=opened.plan, upstream=UpstreamSpec(config=config, rungs=(1,)))
    rates = probe_trials([trial], lambda _: opened)
    assert min(rates.steps.values()) > 0


def test_a_finished_kind_is_not_probed(
    longer: SearchJob, opened: OpenStudy, tmp_path: Path
) -> None:
    with bench(longer, opened, results=tmp_path) as found:
        work = _left(found, opened)
    nothing = dataclasses.replace(work.trials[0].runs, runs=0, steps=0, rows=0)
    done = dataclasses.replace(work.trials[0], steps=0, runs=nothing)
    two = [longer.trials[0], dataclasses.replace(longer.trials[0], tasks=("v-one",))]
    left = dataclasses.replace(work, trials=(done, work.trials[0]))
    assert trials_to_probe(two, left) == [two[1]]
    over = dataclasses.replace(work, trials=(done, done))
    assert trials_to_probe(two, over) == [two[0]]  # something has to be measured


def test_the_probe_writes_nothing_and_tells_sizes_of_what_a_search_leaves(
    told_of: Callable[[str], Told], opened: OpenStudy
) -> None:
    told = told_of("prompt")
    rates = told.rates
    assert told.written == (0, 0, False)
    with bench(told.job, opened) as found:
        rungs = [path.stat().st_size for path in told.job.results.glob("rungs/*/*")]
        states = _state_bytes(found)
        keys = [key for point in found.database.points() for key in point.runs]
        curves = [len(canonical(run.curve)) for run in found.database.runs(keys).values()]
    prompts = rates.sizes.rung - probe_module._POINT_BYTES
    # the file of a prompt has a head of some hundred bytes
    assert prompts <= max(rungs) <= prompts + 1000
    # a state holds up to this many losses, of 25 characters at most; the probe took more steps
    losses = 25 * (WINDOW + HELD)
    assert 0.85 * states <= rates.sizes.checkpoint <= 1.15 * states + losses
    rows = rates.sizes.run - probe_module._ROW_BYTES
    assert rows == pytest.approx(sum(curves) / len(curves), rel=0.15)
    assert rates.sizes.queue > 0


def _state_bytes(found: Bench) -> int:
    """Return the bytes of a trial's state on the way to its first rung."""
    from mpt.store.state import pack_state

    with bench(found.job, *found.studies, results=found.job.results / "again") as again:
        trial = again.trial(0)
        trial.unit()
        return len(pack_state(trial.state()["upstream"]))


@pytest.mark.parametrize("pause", range(8, 16))
def test_one_pause_of_the_machine_is_not_the_speed_of_fine_tuning(
    longer: SearchJob, opened: OpenStudy, pause: int
) -> None:
    """A second passes between two looks at the clock, and a hundred once: the first run of the
    probe, which warms up, looks eight times, and so does the second."""
    looks = itertools.count()

    def paused() -> float:
        look = next(looks)
        return look + 100.0 * (look > pause)

    config = _tuned(longer, (1e-3,)).upstream.config
    assert isinstance(config, FineTuningConfig)
    rate = probe_module._fine_tuning(tuned_study(opened, config), paused)
    assert rate.step_s == 1
    assert rate.row_s <= 1
    assert next(looks) == 16
