from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from mpt.records import Record, leaf_key
from mpt.trial.objective import LeafTable, score_point
from mpt.trial.racing import hopeless, leader_low, optimistic_bound, rivals

Scores = dict[str, list[list[float | None]]]
"""task → for each data seed the test score of each learning rate; None: the run diverged."""


class Memory:
    """Leaves in memory, some of them hidden."""

    def __init__(self) -> None:
        self.leaves: dict[str, Record] = {}
        self.hidden: set[str] = set()

    def get(self, key: str) -> Record | None:
        return None if key in self.hidden else self.leaves.get(key)

    def table(self, kind: str, scores: Scores) -> LeafTable:
        """Put leaves with these scores (dev the same as test) and return their table."""
        table: LeafTable = {}
        for task, seeds in scores.items():
            table[task] = {}
            for seed, rates in enumerate(seeds):
                table[task][str(seed)] = []
                for place, value in enumerate(rates):
                    lr = 0.5 / (place + 1)
                    identity = {"kind": kind, "task": task, "seed": seed, "lr": lr}
                    identity["train_seed"] = 42
                    result = {"dev": value, "test": value}
                    key = leaf_key(identity)
                    self.leaves[key] = {"identity": identity, "result": result}
                    table[task][str(seed)].append((lr, key))
        return table

    def hide(self, table: LeafTable, task: str, seed: int, place: int = 0) -> None:
        self.hidden.add(table[task][str(seed)][place][1])


def _flat(value: float, tasks: str = "ab", seeds: int = 5) -> Scores:
    return {task: [[value]] * seeds for task in tasks}


def _record(table: LeafTable, base: LeafTable, **changes: Any) -> dict[str, Any]:
    identity = {"train_seed": 42, "trajectory": "t", "steps": 1}
    point = {"status": "ok", "note": "", "identity": identity}
    return {**point, "leaves": table, "baseline": base, **changes}


@pytest.fixture
def store() -> Memory:
    return Memory()


def test_the_bound_of_a_complete_point_without_noise_is_its_arg(store: Memory) -> None:
    # every seed scores 0.6 over a baseline of 0.5: ARG +20 %, and every resample gives the same
    point, baseline = store.table("point", _flat(0.6)), store.table("base", _flat(0.5))
    assert optimistic_bound(point, baseline, store) == pytest.approx(20.0, abs=1e-9)
    assert hopeless(point, baseline, store, 19.0) is None
    assert hopeless(point, baseline, store, 20.5) == (
        "with 10 of 10 leaves it ends at most at ARG +20.00, below the lower end of the leader's "
        "interval, +20.50"
    )


def test_a_missing_leaf_counts_as_the_highest_score(store: Memory) -> None:
    # task a: seed 0 is missing, the other scores 0.5. Two seeds drawn twice: with chance 1/4 both
    # draws are the missing one, so that the 97.5 % point is s = 1 and the gain 100 %; task b has
    # none missing and gains 0: their mean is 50 %.
    point, baseline = (store.table(kind, _flat(0.5, seeds=2)) for kind in ("point", "base"))
    store.hide(point, "a", 0)
    assert optimistic_bound(point, baseline, store) == pytest.approx(50.0, abs=1e-9)


def test_a_seed_with_one_of_two_rates_missing_counts_as_missing(store: Memory) -> None:
    # the missing rate may be the better one on dev
    rates: Scores = {"a": [[0.5, 0.5], [0.5, 0.5]]}
    point, baseline = store.table("point", rates), store.table("base", rates)
    store.hide(point, "a", 0, place=1)
    assert optimistic_bound(point, baseline, store) == pytest.approx(100.0, abs=1e-9)


def test_nothing_is_decided_without_a_leader_or_without_the_whole_baseline(store: Memory) -> None:
    point, baseline = store.table("point", _flat(0.1)), store.table("base", _flat(0.5))
    assert hopeless(point, baseline, store, 0.0) is not None
    assert hopeless(point, baseline, store, None) is None
    store.hide(baseline, "b", 3)
    assert hopeless(point, baseline, store, 0.0) is None


def test_nothing_is_decided_where_no_baseline_is_positive(store: Memory) -> None:
    point, baseline = store.table("point", _flat(0.1)), store.table("base", _flat(0.0))
    assert optimistic_bound(point, baseline, store) is None
    assert hopeless(point, baseline, store, 0.0) is None


def _random_scores(rng: np.random.Generator, tasks: int, seeds: int, rates: int) -> Scores:
    """Return scores around a level of each task; now and then a run diverges."""
    scores: Scores = {}
    for task in range(tasks):
        level = rng.uniform(0, 1)
        values = np.clip(level + rng.normal(0, 0.15, (seeds, rates)), 0, 1)
        rows = [[None if rng.random() < 0.02 else float(v) for v in row] for row in values]
        scores[f"t{task}"] = rows
    return scores


def test_what_is_stopped_would_not_have_ended_above_the_leaders_lower_bound(
    store: Memory,
) -> None:
    rng = np.random.default_rng(0)
    stopped = 0
    for case in range(80):
        store.leaves.clear()
        shape = int(rng.integers(1, 5)), int(rng.integers(2, 6)), int(rng.integers(1, 3))
        baseline = store.table(f"base{case}", _random_scores(rng, *shape))
        point = store.table(f"point{case}", _random_scores(rng, *shape))
        keys = [key for seeds in point.values() for lrs in seeds.values() for _, key in lrs]
        store.hidden = set()
        full = score_point(_record(point, baseline), store)
        # a leader anywhere around where the point ends, or far above it
        low = full.score + float(rng.uniform(-10, 150))
        for share in (0.7, 0.3, 0.1):  # its leaves come in
            store.hidden = {key for key in keys if rng.random() < share}
            if hopeless(point, baseline, store, low) is not None:
                stopped += 1
                assert full.score < low
                assert full.gain is not None
                assert full.gain.high is None or full.score < -99 or full.gain.high < low
    assert stopped > 20, "the test proves nothing if nothing is stopped"


def test_the_bound_only_falls_while_leaves_come_in(store: Memory) -> None:
    rng = np.random.default_rng(1)
    point = store.table("point", _random_scores(rng, 3, 4, 2))
    baseline = store.table("base", {name: [[0.4, 0.4]] * 4 for name in ("t0", "t1", "t2")})
    keys = [key for seeds in point.values() for lrs in seeds.values() for _, key in lrs]
    store.hidden = set(keys)
    bounds = []
    for key in rng.permutation(keys):
        bounds.append(optimistic_bound(point, baseline, store))
        store.hidden.remove(str(key))
    assert all(later <= earlier for earlier, later in itertools.pairwise(bounds))  # type: ignore[operator]
    assert bounds[0] == pytest.approx(150.0, abs=1e-9)  # (1 − 0.4) / 0.4 on every task


def test_the_leader_is_the_complete_point_with_the_highest_score(store: Memory) -> None:
    baseline = store.table("base", _flat(0.5))

    def point(kind: str, value: float, **changes: Any) -> dict[str, Any]:
        return _record(store.table(kind, _flat(value)), baseline, **changes)

    low, high, torn = point("low", 0.6), point("high", 0.7), point("torn", 0.9)
    store.hide(torn["leaves"], "a", 2)
    diverged = point("diverged", 0.9, status="diverged", leaves={}, baseline={})
    assert leader_low([diverged, low, high, torn], store) == pytest.approx(40.0, abs=1e-9)
    assert leader_low([low], store) == pytest.approx(20.0, abs=1e-9)
    assert leader_low([diverged, torn], store) is None
    assert leader_low([], store) is None


def test_with_one_data_seed_there_is_no_interval_and_no_leader(store: Memory) -> None:
    point = _record(*(store.table(kind, _flat(0.6, seeds=1)) for kind in ("point", "base")))
    assert leader_low([point], store) is None


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"identity.trajectory": "other"}, True),
        ({"identity.steps": 50}, True),
        ({"config": "other"}, True),
        ({"identity.train_seed": 43}, False),
        ({"identity.backbone": "other"}, False),
        ({"identity.downstream": {"steps": 10}}, False),
        ({"method": "reptile"}, False),
        ({"partition": "cls_to_cls"}, False),
        ({"source_shots": 32}, False),
    ],
)
def test_points_compete_where_only_settings_and_steps_differ(
    change: dict[str, Any], same: bool
) -> None:
    ours: dict[str, Any] = {
        "identity": {"trajectory": "t", "steps": 25, "backbone": "b", "train_seed": 42},
        "method": "maml",
        "partition": "random_to_random",
        "config": "c",
    }
    other = {**ours, "identity": dict(ours["identity"])}
    for name, value in change.items():
        part, _, field = name.rpartition(".")
        (other[part] if part else other)[field] = value
    assert bool(rivals([other], ours)) is same
