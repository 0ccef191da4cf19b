"""Every sentence of a report, its numbers worked out again from the recorded scores."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
from recorded_study import (
    OTHER,
    PT,
    SCORES,
    arg,
    finding_about,
    replay,
    search,
    whole_study,
    written,
)
from results_factory import SEEDS, Results, flat
from scipy import optimize, special, stats

from analysis.findings.identity import identity
from analysis.findings.records import Findings, findings_of
from analysis.results.names import gym_label
from analysis.results.reading import read_results
from analysis.tables.lookup import Lookup

METHODS = ("maml", "multitask")
PARTITIONS = ("cls_to_cls", "qa_to_qa")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    root = tmp_path_factory.mktemp("study")
    whole_study(root)
    return findings_of(read_results(root).main, "embedded")


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    root = tmp_path_factory.mktemp("replay")
    replay(root)
    return findings_of(read_results(root).main)


def _moderated(every: list[list[float]]) -> tuple[float, float]:
    """(variance, degrees of freedom) that variances of 1 degree of freedom each make likely.

    Smyth (2004): log s² − ψ(½) + log ½ has mean log s₀² + log(d₀ / 2) − ψ(d₀ / 2) and variance
    ψ′(½) + ψ′(d₀ / 2); of two variances the mean is taken.
    """
    variances = [statistics.variance(row) for row in every]
    if len(variances) == 2:
        return statistics.mean(variances), 2.0
    logs = [math.log(v) - special.digamma(0.5) + math.log(0.5) for v in variances]
    excess = statistics.variance(logs) - special.polygamma(1, 0.5)
    if excess <= 0:
        return math.exp(statistics.mean(logs)), 1e6
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, 1e6)
    shift = special.digamma(half) - math.log(half)
    return math.exp(statistics.mean(logs) + shift), 2 * half


def _over_seeds(rows: list[list[float]], every: list[list[float]]) -> tuple[float, float, float]:
    """Mean over settings of means over two upstream seeds, with the moderated t interval.

    Data seeds score alike here, so the upstream seeds are all there is to chance.
    """
    prior, df = _moderated(every)
    mean = statistics.mean(statistics.mean(row) for row in rows)
    own = [(df * prior + statistics.variance(row)) / (df + 1) for row in rows]
    parts = [variance / 2 / len(rows) ** 2 for variance in own]
    each = df + 1 if len(every) == 2 else min(df + 1, len(every))
    freedom = sum(parts) ** 2 / sum(part**2 / each for part in parts)
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(sum(parts))
    return mean, mean - half, mean + half


def _args(method: str, partition: str) -> list[float]:
    return [arg(SCORES[method, partition, s], PT[partition]) for s in (42, 1042)]


def test_a_learned_start_is_said_to_help_by_the_mean_over_settings(replayed: Findings) -> None:
    sentence = finding_about(replayed, "Does a learned start help").sentence
    above = []
    every = [_args(method, partition) for method in METHODS for partition in PARTITIONS]
    for label, method in (("MAML", "maml"), ("MTL", "multitask")):
        own = [_args(method, partition) for partition in PARTITIONS]
        mean, low, high = _over_seeds(own, every)
        assert f"{label} {written(mean, ' %', low, high)}" in sentence
        above.append(low > 0)
    assert above == [True, True]
    assert sentence.startswith("Of 2 learned starts, 2 lie above plain prompt tuning")
    assert sentence.endswith("(4 tasks, 2 data seeds, 2 upstream seeds).")


def test_where_it_helps_counts_pairs_and_names_the_ends(replayed: Findings) -> None:
    sentence = finding_about(replayed, "Where does it help").sentence
    rows = {(m, p): _args(m, p) for m in METHODS for p in PARTITIONS}
    ends = {at: _over_seeds([row], list(rows.values())) for at, row in rows.items()}
    above = sum(low > 0 for _, low, _ in ends.values())
    assert f"Of 4 (method, setting) pairs the interval lies above 0 in {above}, below in 0" in (
        sentence
    )
    best = max(ends, key=lambda at: ends[at][0])
    worst = min(ends, key=lambda at: ends[at][0])
    assert (best, worst) == (("maml", "qa_to_qa"), ("multitask", "qa_to_qa"))
    assert f"highest is MAML on QA→QA, embedded with {written(ends[best][0], ' %', *ends[best][1:])}" in sentence  # fmt: skip  # noqa: E501
    assert f"MTL on QA→QA, embedded with {written(ends[worst][0], ' %', *ends[worst][1:])}" in (
        sentence
    )


def test_it_is_said_in_how_many_settings_no_method_can_be_told_from_mtl(
    replayed: Findings,
) -> None:
    finding = finding_about(replayed, "better than multi-task")
    rows = [
        [one - other for one, other in zip(_args("maml", p), _args("multitask", p), strict=True)]
        for p in PARTITIONS
    ]
    won = 0
    for row in rows:
        _, low, high = _over_seeds([row], rows)
        won += low > 0 or high < 0
    mean, low, high = _over_seeds(rows, rows)
    assert f"No method can be told from MTL in {2 - won} of 2 settings" in finding.sentence
    assert f"MAML wins {won}, ties {2 - won} and loses 0" in finding.sentence
    assert f"(mean difference {written(mean, ' points', low, high)})" in finding.sentence
    assert finding.tables[0] == "duels"
    assert finding.told


@pytest.mark.parametrize(
    ("rival", "words"),
    [
        # data seeds score alike, so any other number is told from that of maml
        (0.6, "No method can be told from MTL in 1 of 1 setting; MAML wins 0, ties 1 and loses 0"),
        (0.7, "A method can be told from MTL in 1 of 1 setting; MAML wins 0, ties 0 and loses 1"),
        (0.5, "A method can be told from MTL in 1 of 1 setting; MAML wins 1, ties 0 and loses 0"),
    ],
)
def test_ties_and_losses_against_mtl_are_told_from_wins(
    rival: float, words: str, tmp_path: Path
) -> None:
    results = Results(tmp_path)
    for method, score in (("maml", 0.6), ("multitask", rival)):
        results.point(method, "cls_to_cls", flat({"a": score}), flat({"a": 0.5}))
    finding = finding_about(findings_of(read_results(tmp_path).main), "better than multi-task")
    assert finding.sentence.startswith(words)
    assert finding.told is (rival != 0.6)


@pytest.mark.parametrize(
    ("question", "scores", "words"),
    [
        ("target task change", {"a": 0.52, "b": 0.42}, "between 16 and 64 examples per class"),
        ("labels of the source", {"a": 0.65, "b": 0.50}, "between 16 and 32 examples per class"),
        ("more source tasks", {"a": 0.55, "b": 0.42}, "between 12 and 45 source tasks"),
    ],
)
def test_a_sweep_compares_its_ends_on_the_upstream_seeds_that_both_have(
    question: str, scores: dict[str, float], words: str, found: Findings
) -> None:
    finding = finding_about(found, question)
    swept, plain = (
        arg(one, PT["cls_to_cls"]) for one in (scores, SCORES["maml", "cls_to_cls", 42])
    )
    first, last = (swept, plain) if "more source tasks" in question else (plain, swept)
    assert words in finding.sentence
    change = last - first  # one upstream seed, data seeds alike: the interval is a point
    for value, unit in ((first, " %"), (last, " %"), (change, " points")):
        assert written(value, unit, value, value) in finding.sentence
    assert finding.sentence.startswith("The gain changes for 1 of 1 methods")
    assert "(2 tasks, 2 data seeds, 1 upstream seed)" in finding.sentence


def test_backbones_are_told_apart_by_what_each_says(found: Findings) -> None:
    sentence = finding_about(found, "other backbones").sentence
    assert "on embedded 1 of 1 learned starts lie above" in sentence
    assert f"on {OTHER} 0 of 1 learned starts lie above" in sentence
    for score in (0.6, 0.45):
        value = 100 * (score - 0.5) / 0.5
        assert written(value, " %", value, value) in sentence


def test_the_settings_of_several_searches_are_one_finding(tmp_path: Path) -> None:
    results = Results(tmp_path)
    search(results)
    search(results, "reptile")
    finding = finding_about(findings_of(read_results(tmp_path).main), "settings matter")
    assert finding.question == "Which settings matter in the searches on R→R?"
    assert ". MAML: outer lr matters most, outer lr " in finding.sentence
    assert "; Reptile: outer lr matters most, outer lr " in finding.sentence
    assert finding.sentence.count("(from 9 points)") == 2
    assert finding.told


def test_the_setting_that_makes_the_scores_is_said_to_matter_most(found: Findings) -> None:
    finding = finding_about(found, "Which settings matter")
    # The outer rate moves the score ten times as far as the inner one.
    assert finding.sentence.startswith("Outer lr matters most")
    assert "(from 9 points)" in finding.sentence
    assert "seed" not in finding.sentence


def test_costs_count_every_trajectory_and_every_run_once(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for steps in (50, 100):  # two rungs of one trajectory; 36 s each stand for all before
        fields = {"steps": steps, "trajectory": "t"}
        results.point("maml", "cls_to_cls", flat({"a": 0.6}), flat({"a": 0.5}), point=fields)
    sentence = finding_about(findings_of(read_results(tmp_path).main), "cost").sentence
    runs = (2 + 1) * len(SEEDS) * 2  # two rungs and the baseline, two learning rates
    seconds = 1.5 * runs
    assert f"36 s upstream (1 trajectory) and {seconds:.0f} s downstream ({runs} runs)" in sentence
    assert sentence.startswith(f"{36 + seconds:.0f} s of device time")
    assert f"an upstream step takes MAML {36 / 100:.3f} s" in sentence


def test_every_upstream_seed_is_paid_for(replayed: Findings) -> None:
    sentence = finding_about(replayed, "cost").sentence
    runs = (len(SCORES) * 2 + sum(len(PT[p]) for p in PARTITIONS)) * len(SEEDS) * 2
    assert f"{36 * len(SCORES) / 60:.0f} min upstream (8 trajectories)" in sentence
    assert f"({runs} runs)" in sentence


def _tuned(results: Results, init: str, devs: tuple[float, ...]) -> list[str]:
    curve = tuple((10 * n, dev, None) for n, dev in enumerate(devs, start=1))
    return [
        results.run(task, seed, 0.5, init=init, dev=max(devs), curve=curve)
        for task in ("a", "b")
        for seed in SEEDS
    ]


@pytest.mark.parametrize(
    ("devs", "told", "words"),
    [
        ((0.8, 0.8, 0.9), True, "MAML 10 [10, 10] of 4 runs"),
        ((0.1, 0.2, 0.3), False, "MAML never in half"),
    ],
)
def test_speed_is_the_first_step_at_a_share_of_prompt_tunings_best(
    devs: tuple[float, ...], told: bool, words: str, tmp_path: Path
) -> None:
    results = Results(tmp_path, lrs=(0.5,))
    sides: tuple[tuple[str, int, tuple[float, ...]], ...] = (
        ("prompt_tuning", 0, (0.2, 0.5, 0.8)), ("maml", 100, devs),
    )  # fmt: skip
    for method, steps, own in sides:
        runs = _tuned(results, method, own)
        fields = {"steps": steps, "trajectory": "" if steps == 0 else "t"}
        results.point(method, "cls_to_cls", {}, {}, runs=runs, point=fields, tasks=["a", "b"])
    finding = finding_about(findings_of(read_results(tmp_path).main), "How fast")
    # 95 % of 0.8 is 0.76, which prompt tuning passes with its third evaluation.
    assert "PT 30 [30, 30] of 4 runs" in finding.sentence
    assert words in finding.sentence
    assert finding.told is told


def test_what_was_not_run_is_one_line_and_no_finding(replayed: Findings, found: Findings) -> None:
    control = "the untrained start, which is the control of learned ones"
    curves = "learning curves (runs with two dev evaluations or more)"
    assert replayed.not_run == (
        f"Not run: {control}; target tasks with more or fewer labels (Table 3); source tasks with "
        "more labels (Figure 3); fewer source tasks (Table 4); other backbones (Table 5); a "
        f"search over hyperparameters; {curves}."
    )
    assert len(replayed.findings) == 4
    assert found.not_run == f"Not run: {control}; {curves}."


def test_the_study_is_named_in_words(found: Findings) -> None:
    first, second = found.studied
    assert "MAML and MTL against plain prompt tuning (PT) on embedded and pico-gpt" in first
    assert "Cls→Cls, QA→QA and NP→P" in first
    assert second.startswith("Data seeds 13, 21; upstream seeds 42, 1042")


def _left_out(root: Path, *studies: tuple[str, str, str | None]) -> str:
    """What is said of studies of (role, partition, what was left out)."""
    results = Results(root)
    for role, partition, partial in studies:
        scores = (flat({"a": 0.9}), flat({"a": 0.5}))
        results.point("maml", partition, *scores, role=role, partial=partial)
    return next(one for one in identity(read_results(root).main) if one.startswith("Partial"))


def test_what_studies_left_out_is_said_once_and_of_whom_in_words(tmp_path: Path) -> None:
    lacks, chosen = "14 of 114 source tasks missing", "8 of 20 target tasks chosen"
    sentence = _left_out(
        tmp_path,
        ("validation", "random_to_random", f"partial: {lacks}"),
        ("target", "random_to_random", f"partial: {chosen}; {lacks}"),
    )
    assert sentence == (
        f"Partial (§): {lacks}; {chosen} (replay). The gym has no files of missing tasks (python "
        "-m mpt.gym doctor names them). Chosen tasks are those that the study's file names. "
        "Numbers are of these tasks alone: compare them with each other."
    )


def test_partitions_that_left_other_tasks_out_are_named(tmp_path: Path) -> None:
    sentence = _left_out(
        tmp_path,
        ("target", "cls_to_cls", "partial: 1 of 9 source tasks missing"),
        ("target", "qa_to_qa", "partial: 2 of 9 source tasks missing"),
    )
    assert sentence.startswith(
        "Partial (§): 1 of 9 source tasks missing (on Cls→Cls); 2 of 9 source tasks missing (on "
        "QA→QA)."
    )


def test_a_folder_that_is_called_gym_is_not_named_twice(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.point("maml", "cls_to_cls", flat({"a": 0.9}), flat({"a": 0.5}), gym="/data/gym")
    section = read_results(tmp_path).main
    assert "on embedded and the gym: 1 point" in identity(section)[0]
    assert "gym gym" not in f"{identity(section)} {section.cells[0].place} {Lookup(section).about}"
    assert [gym_label(name) for name in ("embedded", "/data/my-gym/")] == [
        "gym embedded",
        "my-gym",
    ]


def test_nothing_is_found_in_a_smoke_run_but_its_cost(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for method, score in (("maml", 0.9), ("multitask", 0.5)):
        results.point(method, "cls_to_cls", flat({"a": score}), flat({"a": 0.5}), smoke=True)
    found = findings_of(read_results(tmp_path).main)
    assert [one.question for one in found.findings] == ["What did it cost?"]
    assert (found.not_run, found.matrix) == ("", None)
    assert any("numbers mean nothing" in sentence for sentence in found.studied)
