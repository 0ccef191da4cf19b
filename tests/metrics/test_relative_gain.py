from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from mpt.metrics.relative_gain import (
    Candidate,
    Gain,
    average_relative_gain,
    relative_gain,
    select_by_dev,
)

SEEDS = (13, 21, 42, 87, 100)
PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "scores"

# Table 2 (ARG in %), the cells that its recorded scores reproduce (README there).
TABLE_2 = {
    "nonpara_to_para": {
        "maml": 11.14, "fomaml": -0.68, "reptile": 20.44, "mtl": -5.19, "ft": 1.56,
    },
    "cls_to_noncls": {"maml": 0.32, "fomaml": 6.42, "reptile": -1.54, "mtl": 8.51, "ft": -40.38},
    "both_to_noncls": {"maml": 7.54, "fomaml": 9.81, "reptile": -3.38, "mtl": 13.47},
    "noncls_to_noncls": {"maml": 6.71, "fomaml": 3.88, "reptile": 0.78, "mtl": 19.67},
    "qa_to_qa": {"maml": -16.59, "fomaml": 16.63, "reptile": 0.77, "mtl": 25.65, "ft": -47.37},
    "nonqa_to_qa": {"fomaml": 9.83, "reptile": -0.09, "mtl": 17.23, "ft": -47.37},
}  # fmt: skip
CELLS = [(part, method, arg) for part, row in TABLE_2.items() for method, arg in row.items()]


def _gain(
    method: dict[str, dict[int, float]],
    baseline: dict[str, dict[int, float]],
    *,
    seeds: tuple[int, ...] = SEEDS,
    root: int = 0,
    resamples: int = 2000,
) -> Gain:
    rng = np.random.default_rng(root)
    return average_relative_gain(
        method, baseline, sorted(baseline), seeds, rng=rng, resamples=resamples
    )


def _flat(value: float) -> dict[int, float]:
    return dict.fromkeys(SEEDS, value)


def _random(root: int, tasks: int = 4) -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(root)
    return {f"t{n}": {seed: float(rng.uniform(0.2, 0.9)) for seed in SEEDS} for n in range(tasks)}


def test_the_learning_rate_with_the_best_dev_score_is_taken() -> None:
    runs = [Candidate(lr=lr, dev=dev, test=lr) for lr, dev in ((0.5, 0.3), (0.4, 0.9), (0.3, 0.8))]
    best = select_by_dev(runs)
    assert best is not None
    assert best.lr == 0.4


def test_equal_dev_scores_keep_the_earlier_learning_rate() -> None:
    runs = [Candidate(lr=lr, dev=0.5, test=test) for lr, test in ((0.5, 0.1), (0.4, 0.9))]
    best = select_by_dev(runs)
    assert best is not None
    assert best.lr == 0.5


def test_a_diverged_run_is_passed_over_even_when_it_comes_first() -> None:
    nan = math.nan
    runs = [Candidate(lr=0.5, dev=nan, test=nan), Candidate(lr=0.4, dev=0.1, test=0.2)]
    best = select_by_dev(runs)
    assert best is not None
    assert best.lr == 0.4
    assert select_by_dev(runs[:1]) is None


@pytest.mark.parametrize("baseline", [0.0, -0.2, math.nan])
def test_a_relative_gain_needs_a_positive_baseline(baseline: float) -> None:
    with pytest.raises(ValueError, match="needs one > 0"):
        relative_gain(0.5, baseline)


def test_arg_is_the_plain_mean_of_the_tasks_gains_in_percent() -> None:
    # RG: (0.6 - 0.5) / 0.5 = +20 %, (0.2 - 0.4) / 0.4 = -50 %; mean -15 %
    gain = _gain({"a": _flat(0.6), "b": _flat(0.2)}, {"a": _flat(0.5), "b": _flat(0.4)})
    assert gain.arg == pytest.approx(-15.0, rel=1e-12)
    # equal scores at every data seed: every resample gives the same ARG
    assert gain.low == pytest.approx(-15.0, rel=1e-12)
    assert gain.high == pytest.approx(-15.0, rel=1e-12)
    assert (gain.defined, gain.of, gain.reasons) == (2, 2, ())


def test_the_mean_is_taken_over_seeds_before_the_ratio() -> None:
    # mean 0.3 against mean 0.2 is +50 %; the mean of the seeds' own ratios would be +125 %
    method = {"a": {13: 0.3, 21: 0.3}}
    baseline = {"a": {13: 0.1, 21: 0.3}}
    gain = _gain(method, baseline, seeds=(13, 21))
    assert gain.arg == pytest.approx(50.0, rel=1e-12)


def test_a_method_equal_to_the_baseline_gains_exactly_nothing_in_every_resample() -> None:
    # holds only if method and baseline are resampled with the same draw
    scores = _random(1)
    gain = _gain(scores, scores)
    assert (gain.arg, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_a_method_twice_as_good_gains_100_percent_in_every_resample() -> None:
    baseline = _random(2)
    method = {task: {s: 2 * v for s, v in row.items()} for task, row in baseline.items()}
    gain = _gain(method, baseline)
    for value in (gain.arg, gain.low, gain.high):
        assert value == pytest.approx(100.0, rel=1e-12)  # float64 sums of five terms


def test_the_interval_equals_a_plain_loop_over_the_same_draws() -> None:
    method, baseline = _random(3), _random(4)
    gain = _gain(method, baseline, root=7, resamples=200)
    draws = np.random.default_rng(7).integers(5, size=(200, 4, 5))
    args = []
    for draw in draws:
        gains = []
        for task, picks in zip(sorted(baseline), draw, strict=True):
            s = sum(method[task][SEEDS[pick]] for pick in picks) / 5
            s_pt = sum(baseline[task][SEEDS[pick]] for pick in picks) / 5
            gains.append((s - s_pt) / s_pt)
        args.append(100 * sum(gains) / len(gains))
    low, high = np.percentile(args, [2.5, 97.5])
    assert gain.low == pytest.approx(low, rel=1e-9)
    assert gain.high == pytest.approx(high, rel=1e-9)


def test_the_interval_agrees_with_scipys_paired_bootstrap_of_one_task() -> None:
    from scipy import stats

    method, baseline = _random(5, tasks=1), _random(6, tasks=1)
    gain = _gain(method, baseline, resamples=20_000)
    rows = [[scores["t0"][seed] for seed in SEEDS] for scores in (method, baseline)]

    def arg(s: np.ndarray, s_pt: np.ndarray, axis: int) -> np.ndarray:
        return 100 * (s.mean(axis=axis) / s_pt.mean(axis=axis) - 1)

    independent = stats.bootstrap(
        rows,
        arg,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    # Two Monte Carlo estimates of a percentile: 2 % of the interval's width is over 4 standard
    # errors at 20 000 resamples.
    assert gain.low is not None
    assert gain.high is not None
    width = gain.high - gain.low
    assert gain.low == pytest.approx(independent.low, abs=0.02 * width)
    assert gain.high == pytest.approx(independent.high, abs=0.02 * width)


def test_the_same_generator_repeats_the_interval_and_another_one_moves_it() -> None:
    method, baseline = _random(3), _random(4)
    assert _gain(method, baseline, root=1) == _gain(method, baseline, root=1)
    assert _gain(method, baseline, root=1).low != _gain(method, baseline, root=2).low


def test_a_zero_baseline_makes_the_arg_undefined_and_names_the_task() -> None:
    method = {"a": _flat(0.6), "b": _flat(0.3)}
    baseline = {"a": _flat(0.5), "b": _flat(0.0)}
    gain = _gain(method, baseline)
    # No number is given silently; the one over the other tasks has to be asked for.
    assert gain.arg is None
    assert (gain.defined, gain.of) == (1, 2)
    assert gain.arg_of_defined == pytest.approx(20.0, rel=1e-12)
    assert len(gain.reasons) == 1
    assert gain.reasons[0].startswith("b: the baseline scores 0")


def test_a_missing_seed_is_missing_and_never_zero() -> None:
    method = {"a": _flat(0.6), "b": _flat(0.3)}
    baseline = {"a": _flat(0.5), "b": _flat(0.2)}
    del method["b"][42]
    gain = _gain(method, baseline)
    assert gain.arg is None
    assert gain.tasks[1].score is None
    assert gain.reasons == ("b: method lacks data seed 42",)
    # NaN says the same as absence
    assert _gain({**method, "b": {**_flat(0.3), 42: math.nan}}, baseline) == gain


def test_nothing_defined_gives_no_number_at_all() -> None:
    gain = _gain({"a": _flat(0.5)}, {"a": _flat(0.0)})
    assert (gain.arg, gain.arg_of_defined, gain.low, gain.high) == (None, None, None, None)


def test_resamples_with_a_zero_baseline_are_counted_and_too_many_forbid_an_interval() -> None:
    # P(all five draws hit the four zeros) = 0.8^5 = 33 %
    method = {"a": _flat(0.5)}
    gain = _gain(method, {"a": {**_flat(0.0), 13: 0.5}})
    assert gain.arg == pytest.approx(400.0, rel=1e-12)
    assert gain.low is None
    assert gain.undefined_resamples == pytest.approx(2000 * 0.8**5, rel=0.2)
    # P = 0.2^5 = 0.03 %: left out and counted, the interval stands
    gain = _gain(method, {"a": {**_flat(0.5), 13: 0.0}}, resamples=20_000)
    assert gain.low is not None
    assert 0 < gain.undefined_resamples < 100


def test_one_data_seed_gives_an_arg_without_an_interval() -> None:
    gain = _gain({"a": {13: 0.6}}, {"a": {13: 0.5}}, seeds=(13,))
    assert gain.arg == pytest.approx(20.0, rel=1e-12)
    assert (gain.low, gain.high) == (None, None)


@pytest.mark.parametrize(
    ("tasks", "seeds", "resamples"), [([], [1], 9), (["a", "a"], [1], 9), (["a"], [1, 1], 9)]
)
def test_repeated_or_absent_tasks_and_seeds_are_refused(
    tasks: list[str], seeds: list[int], resamples: int
) -> None:
    scores = {"a": {1: 0.5}}
    with pytest.raises(ValueError, match="must be distinct, at least one"):
        average_relative_gain(
            scores, scores, tasks, seeds, rng=np.random.default_rng(0), resamples=resamples
        )


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no recorded scores at {PUBLISHED}")
@pytest.mark.parametrize(("partition", "method", "arg"), CELLS)
def test_the_papers_table_2_follows_from_its_recorded_scores(
    partition: str, method: str, arg: float
) -> None:
    scores: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    with (PUBLISHED / f"{partition}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["test"]:
                scores[row["method"]][row["task"]][int(row["seed"])] = float(row["test"])
    gain = average_relative_gain(
        scores[method], scores["pt"], sorted(scores["pt"]), SEEDS, rng=np.random.default_rng(0)
    )
    # Printed with two decimals.
    assert gain.arg == pytest.approx(arg, abs=0.005 + 1e-9)
