"""What the reproducibility benchmark finds on records whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import reproducibility
from benchmarks.reproducibility import Grid, lines_of, measure
from mpt.config import StudyConfig, UpstreamConfig
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import StudyPlan


def _grid(means: list[float], between: float, seeds: int = 12) -> Grid:
    """Return points with these ARGs (%) and a normal spread between upstream seeds."""
    rng = np.random.default_rng(5)
    baseline = np.full((4, 5), 0.5)
    scores = {
        f"p{place}": {
            seed: baseline * (1 + rng.normal(mean, between) / 100 + rng.normal(0, 0.01, (4, 5)))
            for seed in range(seeds)
        }
        for place, mean in enumerate(means)
    }
    plan = StudyPlan(config=StudyConfig(), source=("s",), scored=("t",), partial=None)
    points = {}
    for place, name in enumerate(scores):  # two rungs of a trajectory each
        config = UpstreamConfig(inner_lr=1.0 + place // 2, outer_lr=0.3 if place % 4 < 2 else 0.1)
        trial = TrialSpec(plan=plan, upstream=UpstreamSpec(config=config, rungs=(10, 40)))
        points[name] = (trial, (10, 40)[place % 2])
    return Grid(scores, baseline, points, tuple(range(seeds)))


@pytest.fixture(autouse=True)
def few_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproducibility, "SPLITS", 12)


def test_points_that_differ_more_than_seeds_do_are_ranked_alike_and_covered() -> None:
    found = measure(_grid([0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44], 1.0))
    assert found["spearman"]["mean"] > 0.95
    assert found["winner in the other's tie set"] == 1.0
    assert found["coverage, one new run"] > 0.9
    assert abs(found["race: reported ARG minus truth"]["mean"]) < 1.0
    assert found["race: points per point of one seed"]["high"] <= 2.0
    assert 1.5 < found["race: row passes per row pass of one seed"]["high"] <= 2.0
    assert any("spearman" in line for line in lines_of(found))


def test_where_only_chance_ranks_the_choice_is_too_high_and_fresh_seeds_are_not() -> None:
    found = measure(_grid([10.0] * 10, 6.0))
    assert abs(found["spearman"]["mean"]) < 0.5
    assert found["race: selected ARG minus truth"]["mean"] > 2.0
    assert found["size of the tie set"]["mean"] > 8


def test_too_few_seeds_for_a_truth_are_refused() -> None:
    with pytest.raises(SystemExit, match=r"6 seeds are there .* need 7 or more; raise --seeds"):
        measure(_grid([0.0, 1.0], 1.0, seeds=6))
