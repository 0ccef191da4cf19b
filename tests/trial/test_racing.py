"""The optimistic bound: what is stopped could not have won, whatever its missing runs are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from score_toys import Scores, point_of, row_of, run_of, study_of

from mpt.config import stepped_seeds
from mpt.metrics import relative_gain
from mpt.store.records import Run, ScoreRow, StudyRecord
from mpt.trial.racing import hopeless, leader_low, optimistic_bound
from mpt.trial.score import PlannedScore, PointScore, score_point, selected_scores

LRS = (0.5, 0.25)


class Table:
    """Runs with chosen scores, one table a downstream start; some of them are not stored yet."""

    def __init__(self, *scores: Scores, kind: str = "point") -> None:
        self.runs: dict[str, Run] = {}
        self.planned: list[PlannedScore] = []
        self.starts = stepped_seeds(42, len(scores))
        for start, own in zip(self.starts, scores, strict=True):
            for task, seeds in own.items():
                for seed, rates in enumerate(seeds):
                    for lr, value in zip(LRS, rates, strict=False):
                        run = run_of(task, seed, lr, value, kind, start)
                        self.runs[run.key] = run
                        self.planned.append(PlannedScore(run.key, task, seed, lr, start))

    @property
    def lrs(self) -> tuple[float, ...]:
        return tuple(dict.fromkeys(one.lr for one in self.planned))

    def without(self, *lost: tuple[str, int, float]) -> Mapping[str, Run]:
        """Return the runs but these (task, data seed, learning rate)."""
        gone = {one.key for one in self.planned if (one.task, one.data_seed, one.lr) in lost}
        return {key: run for key, run in self.runs.items() if key not in gone}

    def rows(self) -> list[ScoreRow]:
        return [row_of(run) for run in self.runs.values()]

    def selected(self) -> relative_gain.Scores:
        return selected_scores(self.rows(), self.lrs, self.starts)

    def score(self, baseline: relative_gain.Scores, study: StudyRecord) -> PointScore:
        """Return the score of the whole point."""
        return score_point(point_of(study), self.rows(), baseline, study)


def _flat(value: float, tasks: str = "ab", seeds: int = 5) -> Scores:
    return {task: [[value]] * seeds for task in tasks}


def test_the_bound_of_a_complete_point_without_noise_is_its_arg() -> None:
    # every seed scores 0.6 over a baseline of 0.5: ARG +20 %, and every resample gives the same
    point, baseline = Table(_flat(0.6)), Table(_flat(0.5)).selected()
    study = study_of(seeds=5)
    bound = optimistic_bound(point.planned, point.runs, baseline, study)
    assert bound == pytest.approx(20.0, abs=1e-9)
    assert hopeless(point.planned, point.runs, baseline, study, 19.0) is None
    assert hopeless(point.planned, point.runs, baseline, study, 20.5) == (
        "with 10 of 10 runs it ends at most at ARG +20.00, below the lower end of the leader's "
        "interval, +20.50"
    )


def test_a_missing_run_counts_as_the_highest_score() -> None:
    # task a: seed 0 is missing, the other scores 0.5. Two seeds drawn twice: with chance 1/4 both
    # draws are the missing one, so that the 97.5 % point is s = 1 and the gain 100 %; task b has
    # none missing and gains 0: their mean is 50 %.
    point, baseline = Table(_flat(0.5, seeds=2)), Table(_flat(0.5, seeds=2)).selected()
    bound = optimistic_bound(point.planned, point.without(("a", 0, 0.5)), baseline, study_of())
    assert bound == pytest.approx(50.0, abs=1e-9)


def test_a_seed_with_one_of_two_rates_missing_counts_as_missing() -> None:
    # the missing rate may be the better one on dev
    rates: Scores = {"a": [[0.5, 0.5], [0.5, 0.5]]}
    point, study = Table(rates), study_of("a", lrs=LRS)
    stored = point.without(("a", 0, 0.25))
    bound = optimistic_bound(point.planned, stored, point.selected(), study)
    assert bound == pytest.approx(100.0, abs=1e-9)


def test_a_missing_start_counts_as_the_highest_score_in_the_mean_over_starts() -> None:
    # every cell scores 0.5 at its first start; the second is missing: (0.5 + 1) / 2 over 0.5
    study = dataclasses.replace(study_of(seeds=5), settings={"starts": 2})
    point = Table(_flat(0.5), _flat(0.5))
    stored = {key: run for key, run in point.runs.items() if run.identity.train_seed == 42}
    baseline = Table(_flat(0.5), _flat(0.5)).selected()
    bound = optimistic_bound(point.planned, stored, baseline, study)
    assert bound == pytest.approx(50.0, abs=1e-9)
    assert optimistic_bound(point.planned, point.runs, baseline, study) == pytest.approx(0.0)


def test_nothing_is_decided_where_no_baseline_is_positive() -> None:
    point, baseline = Table(_flat(0.1)), Table(_flat(0.0)).selected()
    study = study_of(seeds=5)
    assert optimistic_bound(point.planned, point.runs, baseline, study) is None
    assert hopeless(point.planned, point.runs, baseline, study, 0.0) is None


def _random_scores(rng: np.random.Generator, tasks: int, seeds: int, rates: int) -> Scores:
    """Return scores around a level of each task; now and then a run diverges."""
    scores: Scores = {}
    for task in range(tasks):
        level = rng.uniform(0, 1)
        values = np.clip(level + rng.normal(0, 0.15, (seeds, rates)), 0, 1)
        rows = [[None if rng.random() < 0.02 else float(v) for v in row] for row in values]
        scores["abcd"[task]] = rows
    return scores


def test_what_is_stopped_would_not_have_ended_above_the_leaders_lower_bound() -> None:
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(80):
        tasks, seeds = int(rng.integers(1, 5)), int(rng.integers(2, 6))
        rates = int(rng.integers(1, 3))
        study = study_of("abcd"[:tasks], seeds, LRS[:rates])
        baseline = Table(_random_scores(rng, tasks, seeds, rates), kind="base").selected()
        point = Table(_random_scores(rng, tasks, seeds, rates))
        full = point.score(baseline, study)
        # a leader anywhere around where the point ends, or far above it
        low = full.score + float(rng.uniform(-10, 150))
        for share in (0.7, 0.3, 0.1):  # its runs come in
            stored = {key: run for key, run in point.runs.items() if rng.random() >= share}
            if hopeless(point.planned, stored, baseline, study, low) is not None:
                stopped += 1
                assert full.score < low
                assert full.gain is not None
                assert full.gain.high is None or full.score < -99 or full.gain.high < low
    assert stopped > 20, "the test proves nothing if nothing is stopped"


@pytest.mark.parametrize("starts", [1, 2])
def test_the_bound_only_falls_while_runs_come_in(starts: int) -> None:
    rng = np.random.default_rng(1)
    point = Table(*(_random_scores(rng, 3, 4, 2) for _ in range(starts)))
    baseline = Table({name: [[0.4, 0.4]] * 4 for name in "abc"}, kind="base").selected()
    study = study_of("abc", 4, LRS)
    stored: dict[str, Run] = {}
    bounds: list[float] = []
    for key in [None, *rng.permutation(list(point.runs))]:
        if key is not None:
            stored[str(key)] = point.runs[str(key)]
        bound = optimistic_bound(point.planned, stored, baseline, study)
        assert bound is not None
        bounds.append(bound)
    assert all(later <= earlier for earlier, later in itertools.pairwise(bounds))
    assert bounds[0] == pytest.approx(150.0, abs=1e-9)  # (1 − 0.4) / 0.4 on every task
    assert bounds[-1] < 150.0


def _scored(value: float, seeds: int = 5) -> PointScore:
    return Table(_flat(value, seeds=seeds)).score(
        Table(_flat(0.5, seeds=seeds)).selected(), study_of(seeds=seeds)
    )


def test_the_leader_is_the_point_with_the_highest_score() -> None:
    low, high = _scored(0.6), _scored(0.7)
    diverged = PointScore(gain=None, score=1e9, mean_test=None, runs=0, note="diverged")
    assert leader_low([diverged, low, high]) == pytest.approx(40.0, abs=1e-9)
    assert leader_low([low]) == pytest.approx(20.0, abs=1e-9)
    assert leader_low([diverged]) is None
    assert leader_low([]) is None


def test_with_one_data_seed_there_is_no_interval_and_no_leader() -> None:
    assert leader_low([_scored(0.6, seeds=1)]) is None
