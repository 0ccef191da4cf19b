from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from toys import toy_task
from tuning_toys import families, limits, queue, script_dev_scores, start_prompt

from mpt.backbones import Backbone
from mpt.config import DownstreamConfig
from mpt.downstream.record import Record, TuningResult
from mpt.downstream.stopping import stop_reasons
from mpt.metrics.relative_gain import Candidate, select_by_dev

LRS = (0.5, 0.4, 0.3, 0.2)


def _record(*scores: float, diverged: bool = False) -> Record:
    """A run that was evaluated every 10 steps."""
    curve = [(10 * (n + 1), score, 0.0) for n, score in enumerate(scores)]
    return Record(prompt=torch.empty(0), diverged=diverged, curve=curve)


def _reasons(*family: Record, going: Sequence[bool] = (), **rules: Any) -> list[str | None]:
    config = DownstreamConfig(**rules)
    return stop_reasons(family, going or [True] * len(family), config)


@pytest.mark.parametrize(
    ("scores", "ends"),
    [
        ([0.5], False),
        ([0.5, 0.5], False),
        ([0.5, 0.5, 0.5], True),  # two evaluations in a row no better than the first
        ([0.5, 0.4, 0.6], False),
        ([0.5, 0.6, 0.4, 0.5], True),
        ([math.nan, 0.1, math.nan], False),
        ([math.nan, 0.1, 0.1, math.nan], True),
        ([math.nan, math.nan, math.nan], True),
    ],
)
def test_patience_counts_evaluations_without_a_better_score(
    scores: list[float], ends: bool
) -> None:
    (reason,) = _reasons(_record(*scores), patience=2)
    assert reason == (f"patience at step {10 * len(scores)}" if ends else None)


def test_no_rule_acts_unless_it_is_set() -> None:
    family = (_record(1.0, 0.0, 0.0, 0.0, 0.0), _record(0.1, 0.0, 0.0, 0.0, 0.0))
    assert _reasons(*family) == [None, None]


def test_a_run_far_behind_another_rate_of_its_family_ends() -> None:
    family = (_record(0.1, 0.2), _record(0.7, 0.3), _record(0.5, 0.6), _record(0.4, 0.4))
    found = _reasons(*family, catch_up=0.25, catch_up_after=2)
    # The best so far count: 0.2, 0.7, 0.6, 0.4; more than 0.25 behind 0.7 is below 0.45.
    assert found == ["catch_up at step 20", None, None, "catch_up at step 20"]
    assert _reasons(*family, catch_up=0.25, catch_up_after=3) == [None] * 4


def test_exactly_the_margin_behind_is_not_yet_too_far() -> None:
    assert _reasons(_record(0.25), _record(0.5), catch_up=0.25, catch_up_after=1) == [None, None]


def test_only_scores_at_equal_steps_are_compared() -> None:
    # The second run has ended with a later score that the first had not seen at its step.
    ahead = _record(0.3, 0.3, 0.9)
    assert _reasons(
        _record(0.2, 0.2), ahead, going=(True, False), catch_up=0.2, catch_up_after=1
    ) == [None, None]


def test_a_diverged_rate_is_compared_with_no_longer() -> None:
    family = (_record(0.9, diverged=True), _record(0.2))
    assert _reasons(*family, going=(False, True), catch_up=0.1, catch_up_after=1) == [None, None]


def test_a_rate_without_a_score_neither_ends_nor_ends_others() -> None:
    family = (_record(math.nan), _record(0.5))
    assert _reasons(*family, catch_up=0.1, catch_up_after=1) == [None, None]


def test_the_maximum_ends_its_run_and_all_later_rates_only() -> None:
    family = (_record(0.9), _record(1.0), _record(1.0), _record(0.3))
    later = "maximum of an earlier rate at step 10"
    assert _reasons(*family, catch_up=5.0) == [
        None,
        "maximum at step 10",
        "maximum at step 10",
        later,
    ]
    # The last prompt is taken, whatever its score: nothing is decided by a maximum.
    assert _reasons(*family, catch_up=5.0, select="last") == [None] * 4


def _finish(
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    scores: Sequence[Sequence[float]],
    tasks: Sequence[int] = (0,),
    runs: int = 16,
    **rules: Any,
) -> list[TuningResult]:
    """Results of one family of four rates per task, with these dev scores after every step."""
    steps = len(scores[0])
    config = DownstreamConfig(steps=steps, eval_every=1, batch_size=2, **rules)
    todo = families(backbone, [toy_task("toy", seed) for seed in tasks], LRS, prompts=1)
    tuning = queue(backbone, todo, config, limits(runs=runs))
    with monkeypatch.context() as scripted:
        script_dev_scores(scripted, tuning, scores)
        return [result for _, result in tuning.advance()]


def test_a_stopped_run_says_why_and_its_best_prompt_is_tested(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [
        [0.1, 0.6, 0.6, 0.6, 0.9],
        [0.1, 0.2, 0.3, 0.4, 0.5],
        [0.0] * 5,
        [0.1, 0.4] + [0.3] * 3,
    ]
    results = _finish(toy_backbone, monkeypatch, scores, patience=2)
    assert [result.stopped for result in results] == [
        "patience at step 4",
        None,
        "patience at step 3",
        "patience at step 4",
    ]
    assert [result.status for result in results] == ["ok"] * 4
    assert [(r.dev, r.best_step, r.test) for r in results] == [
        (0.6, 2, 0.25),
        (0.5, 5, 0.25),
        (0.0, 1, 0.25),
        (0.4, 2, 0.25),
    ]
    assert [result.cost["steps"] for result in results] == [4, 5, 3, 4]
    # A run that ends at its last step was not stopped.
    short = [[0.5] * 3] * 4
    assert {r.stopped for r in _finish(toy_backbone, monkeypatch, short, patience=2)} == {None}


def test_what_is_stopped_does_not_depend_on_the_packing(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    tasks = [13, 21, 42]
    scores = rng.choice([0.2, 0.4, 0.6, 0.8, 1.0], p=[0.3, 0.3, 0.2, 0.15, 0.05], size=(12, 6))
    rules: dict[str, Any] = {"patience": 3, "catch_up": 0.3, "catch_up_after": 2}
    found = []
    for order, runs in (((0, 1, 2), 4), ((2, 0, 1), 6), ((1, 2, 0), 9), ((2, 1, 0), 16)):
        shuffled = [scores[4 * n + m].tolist() for n in order for m in range(4)]
        results = _finish(
            toy_backbone, monkeypatch, shuffled, [tasks[n] for n in order], runs, **rules
        )
        ends = {order[n // 4] * 4 + n % 4: (r.stopped, r.dev) for n, r in enumerate(results)}
        found.append([ends[place] for place in range(12)])
    assert found[0] == found[1] == found[2] == found[3]
    kinds = {stopped.split(" at ")[0] for stopped, _ in found[0] if stopped}
    assert kinds >= {"catch_up", "maximum", "maximum of an earlier rate"}


def test_ending_at_the_maximum_never_changes_what_is_taken_from_a_family(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    tasks = list(range(12))
    scores = rng.choice([0.5, 0.75, 1.0], p=[0.5, 0.35, 0.15], size=(48, 5)).tolist()
    taken, steps = [], []
    off: dict[str, Any] = {}
    for rules in (off, {"catch_up": 2.0}):  # no score is 2 behind: only the maximum acts
        results = _finish(toy_backbone, monkeypatch, scores, tasks, **rules)
        steps.append(sum(result.cost["steps"] for result in results))
        taken.append([_taken(results[first : first + 4]) for first in range(0, len(results), 4)])
    assert taken[0] == taken[1]
    assert steps[1] < 0.8 * steps[0]


def _taken(family: Sequence[TuningResult]) -> tuple[float, float, int]:
    """Learning rate, dev score and step of the run that the study takes."""
    pairs = list(zip(LRS, family, strict=True))
    best = select_by_dev([Candidate(lr=lr, dev=r.dev, test=r.test) for lr, r in pairs])
    assert best is not None
    return best.lr, best.dev, dict(pairs)[best.lr].best_step


def test_a_family_enters_when_there_is_room_for_all_of_it(toy_backbone: Backbone) -> None:
    config = DownstreamConfig(steps=2, eval_every=2, batch_size=2, catch_up=0.5)
    runs = families(toy_backbone, [toy_task("toy", seed) for seed in (1, 2)], LRS[:2], prompts=2)
    # In queue order: rate 0.5 of both prompts, then rate 0.4 of both; families are interleaved.
    tuning = queue(toy_backbone, runs, config, limits(runs=3))
    entered = []
    while not tuning.done:
        entered.append(tuning._active)
        tuning.advance(0)
    assert entered == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_a_family_larger_than_the_pack_is_cut_into_families(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [[0.1, 0.1], [0.2, 0.2], [0.9, 0.9], [0.3, 0.3]]
    results = _finish(toy_backbone, monkeypatch, scores, runs=2, catch_up=0.3, catch_up_after=1)
    assert [r.stopped for r in results] == [None, None, None, "catch_up at step 1"]


def test_a_run_that_ended_before_its_family_holds_no_tensors(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DownstreamConfig(steps=3, eval_every=1, batch_size=2, catch_up=2.0)
    tuning = queue(toy_backbone, families(toy_backbone, [toy_task()], prompts=1), config)
    script_dev_scores(monkeypatch, tuning, [[0.5, 0.5, 0.5], [1.0]])
    assert [place for place, _ in tuning.advance(0)] == [1]
    records = tuning.state_dict()["records"]
    assert records["1"]["prompt"].numel() == 0
    assert records["1"]["curve"][0][:2] == (1, 1.0)  # still compared with
    assert records["0"]["prompt"].numel() > 0


def test_runs_from_other_prompts_are_not_of_the_family(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DownstreamConfig(steps=2, eval_every=1, batch_size=2, catch_up=0.1, catch_up_after=1)
    runs = families(toy_backbone, [toy_task()], (0.5,), prompts=2)
    assert not torch.equal(start_prompt(toy_backbone, 0), start_prompt(toy_backbone, 1))
    tuning = queue(toy_backbone, runs, config)
    script_dev_scores(monkeypatch, tuning, [[0.1, 0.1], [0.9, 0.9]])
    assert [result.stopped for _, result in tuning.advance()] == [None, None]
