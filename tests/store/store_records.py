"""Records for the tests of the database."""

from __future__ import annotations

from typing import Any

from mpt.store.records import Artifact, Cost, Point, Run, RunIdentity, StudyRecord

RECIPE = {"downstream": {"steps": 5}, "prompt": {"length": 2}}


def run(number: int = 0, *, test: float | None = 1 / 3, **changes: Any) -> Run:
    identity = RunIdentity(
        backbone="b" * 64,
        task=changes.pop("task", "toy"),
        data="d" * 64,
        data_seed=changes.pop("data_seed", 13),
        shots=16,
        metric="ACC",
        init="i" * 64,
        lr=(number + 1) / 7,  # a float without a short decimal form
        recipe=changes.pop("recipe", RECIPE),
        train_seed=42,
        **changes.pop("identity", {}),
    )
    whole = {
        "dev": 0.1 + 0.2,
        "best_step": 4,
        "curve": ((2, 0.25, 1.25), (4, 0.1 + 0.2, None)),
        "status": "ok",
        "cost": Cost(steps=5, examples=20, tokens=400, seconds=1.5),
        "provenance": {"commit": "c0ffee", "machine": {"node": "here"}},
        "created": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    return Run(identity=identity, test=test, **whole)


def diverged(number: int = 0) -> Run:
    return run(
        number, test=None, dev=None, best_step=0, curve=((2, None, None),), status="diverged"
    )


def study(**changes: Any) -> StudyRecord:
    whole: dict[str, Any] = {
        "backbone": "toy",
        "backbone_digest": "b" * 64,
        "gym": "some/where/my gym",
        "partition": "random",
        "role": "validation",
        "source_shots": "all",
        "target_shots": 16,
        "source": (("one", 13, "s" * 64),),
        "scored": (("toy", 13, "d" * 64), ("toy", 21, "e" * 64)),
        "data_seeds": (13, 21),
        "settings": {"downstream": {"steps": 5}},
        "lrs": (0.5, 0.4),
    }
    return StudyRecord(**{**whole, **changes})


def point(runs: tuple[str, ...] = (), **changes: Any) -> Point:
    whole: dict[str, Any] = {
        "study": study().key,
        "method": "maml",
        "settings": {"inner_lr": 0.1, "order": 2, "nested": {"list": [1, 2.5]}},
        "steps": 50,
        "upstream": "u" * 64,
        "prompt": "p" * 64,
        "note": "a note, with ü",
        "cost": Cost(steps=50, examples=200, tokens=4000, seconds=15.5),
        "provenance": {"commit": "c0ffee"},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Point(runs=tuple(sorted(runs)), **{**whole, **changes})


def artifact(**changes: Any) -> Artifact:
    whole: dict[str, Any] = {"kind": "rung", "owner": "o" * 64, "steps": 5, "uri": "rungs/5"}
    return Artifact(**{**whole, "digest": "a" * 64, "meta": {"tokens": 7.5}, **changes})
