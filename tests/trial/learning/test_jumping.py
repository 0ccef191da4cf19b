"""A loss that jumps: what a rung keeps of it, and what its points say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from trial_toys import Bench

from mpt.config import UpstreamConfig
from mpt.search.comparison import events_of
from mpt.search.leaderboard import PointStatus
from mpt.store.records import Point
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.trial.store import TrialStore
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.jumps import Jump

JUMP = Jump(step=3, loss=6.0, before=1.5, deviations=20.0)
SMALLER = Jump(step=2, loss=3.0, before=1.5, deviations=10.0)


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trajectory's loss jumps at step 2, and further at step 3."""

    def jump(run: UpstreamRun) -> Jump | None:
        return (None, None, SMALLER, JUMP)[min(run.step_count, 3)]

    monkeypatch.setattr(UpstreamRun, "jump", property(jump))


def _points(one: Bench, config: UpstreamConfig, rungs: Sequence[int] = (1, 2, 4)) -> list[Point]:
    spec = TrialSpec(
        plan=one.job.plans[0], upstream=UpstreamSpec(config=config, rungs=tuple(rungs))
    )
    list(one.trial_of(spec, chunk_s=0.0).units())
    return sorted(one.database.points(), key=lambda point: point.steps)


@pytest.mark.usefixtures("jumping")
def test_a_point_has_the_largest_jump_up_to_its_rung(one: Bench) -> None:
    first, second, third = _points(one, UpstreamConfig(inner_lr=0.1, outer_lr=0.3))
    assert (first.jump, first.note) == (None, "")
    assert (second.jump, second.note) == (SMALLER, SMALLER.text)
    assert (third.jump, third.note) == (JUMP, JUMP.text)


@pytest.mark.usefixtures("jumping")
def test_a_rung_that_is_taken_over_brings_its_jump(
    one: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = UpstreamConfig(inner_lr=0.1, outer_lr=0.3)
    _points(one, config, (4,))
    (point,) = one.database.points()
    rung = one.store.rung(point.upstream, 4)
    assert rung is not None
    assert rung.meta["jump"] == dataclasses.asdict(JUMP)
    # what a jump is must not be in a key: the point is that of a trajectory without one
    monkeypatch.setattr(UpstreamRun, "jump", None)
    monkeypatch.setattr(type(one.store), "points", lambda *_: {})
    kept = []

    def add_point(_: TrialStore, made: Point) -> bool:
        kept.append(made)
        return True

    monkeypatch.setattr(type(one.store), "add_point", add_point)
    _points(one, config, (4,))
    assert [(made.key, made.jump) for made in kept] == [(point.key, JUMP)]


@pytest.mark.usefixtures("jumping")
def test_a_soup_has_the_largest_jump_of_its_members(one: Bench) -> None:
    (point,) = _points(one, UpstreamConfig(inner_lr=0.1, outer_lr=0.3, soup=2), (4,))
    assert point.jump == JUMP


def test_a_ranking_is_told_of_jumps_and_divergence_by_upstream_seed(one: Bench) -> None:
    (plain,) = _points(one, UpstreamConfig(inner_lr=0.1, outer_lr=0.3), (1,))
    trial = one.job.trials[0]

    def status(**changes: object) -> PointStatus:
        record = dataclasses.replace(plain, **changes)  # type: ignore[arg-type]
        return PointStatus(index=0, trial=trial, steps=1, record=record, score=None)

    points = {
        42: status(),
        1042: status(provenance={"jump": dataclasses.asdict(JUMP)}),
        2042: status(status="diverged", note="upstream learning diverged at step 7: loss is nan"),
    }
    assert events_of(points) == (
        f"seed 1042: {JUMP.text}",
        "seed 2042: upstream learning diverged at step 7: loss is nan",
    )
