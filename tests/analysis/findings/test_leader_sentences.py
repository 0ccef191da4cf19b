"""The leaders of searches in a report: which they are, and how good on other upstream seeds."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest
from recorded_study import SEARCHED, finding_about, search, seeded, written
from results_factory import NOW, Results, flat
from scipy import stats

from analysis.findings.records import Findings, findings_of
from analysis.results.reading import read_results
from analysis.results.summary import summary_of
from mpt.store.records import DRIVER

RACED = {0.1: {42: 0.60, 1042: 0.64}, 0.3: {42: 0.66, 1042: 0.68}, 0.5: {42: 0.5}}
"""Outer rate → upstream seed → score, of a race that has ended; the baseline is 0.5."""
FRESH = {2042: 0.61, 3042: 0.65}
"""What its winner scores on seeds that were run afterwards."""
NOTE = {"studies": (), "seeds": (), "fresh": 0, "updated": NOW}


def _arg(score: float) -> float:
    return 100 * (score - 0.5) / 0.5


def _searched(
    results: Results, rates: Mapping[float, Mapping[int, float]], method: str = "maml"
) -> Findings:
    """Store the points of a search: outer rate → upstream seed → score."""
    for rate, of in rates.items():
        for seed, score in of.items():
            fields = seeded(seed, f"{method} {rate}")
            fields["settings"] |= {"outer_lr": rate}
            scores = (flat({"v": score}), flat({"v": 0.5}))
            results.point(method, "random_to_random", *scores, point=fields, role="validation")
    return findings_of(read_results(results.root).main)


def _with_fresh(fresh: Mapping[int, float]) -> dict[float, dict[int, float]]:
    return {**RACED, 0.3: {**RACED[0.3], **fresh}}


def test_a_leader_is_reported_on_the_seeds_that_did_not_choose_it(tmp_path: Path) -> None:
    sentence = finding_about(_searched(Results(tmp_path), _with_fresh(FRESH)), "is best?").sentence
    own = [_arg(score) for score in FRESH.values()]
    chosen = statistics.mean(_arg(score) for score in RACED[0.3].values())
    # the spread is moderated by that of both configurations with two seeds, which are 2 degrees
    rows = [[_arg(score) for score in RACED[rate].values()] for rate in (0.1, 0.3)]
    prior = statistics.mean(map(statistics.variance, rows))
    variance = (2 * prior + statistics.variance(own)) / 3
    half = float(stats.t.ppf(0.975, 3)) * math.sqrt(variance / 2)
    mean = statistics.mean(own)
    found = re.search(r"ARG of \+(\S+) % \[(\S+), (\S+)\] on fresh", sentence)
    assert found is not None
    assert [float(one.replace("−", "-")) for one in found.groups()] == pytest.approx(
        [mean, mean - half, mean + half], abs=0.15
    )
    assert "on fresh upstream seeds 2042, 3042, and of " in sentence
    assert f"of +{chosen:.1f} % on the 2 upstream seeds of the choice (validation" in sentence
    assert "interval over upstream and data seeds; 2 data seeds, 1 task" in sentence
    assert (mean, chosen) == (pytest.approx(26), pytest.approx(34))


def test_fresh_seeds_have_no_part_in_the_choice(tmp_path: Path) -> None:
    """On all of its seeds the leader is below the other, on those of the choice above it."""
    sentence = finding_about(
        _searched(Results(tmp_path), _with_fresh({2042: 0.3, 3042: 0.3})), "is best?"
    ).sentence
    assert "the leader (outer lr 0.3) has an ARG of −40.0 % [" in sentence


def test_without_fresh_seeds_the_choice_is_cross_fitted(tmp_path: Path) -> None:
    rates = {0.1: {42: 0.70, 1042: 0.60, 2042: 0.60}, 0.3: {42: 0.50, 1042: 0.72, 2042: 0.71}}
    sentence = finding_about(_searched(Results(tmp_path), rates), "is best?").sentence
    held = []
    for seed in (42, 1042, 2042):
        means = {
            rate: statistics.mean(score for other, score in of.items() if other != seed)
            for rate, of in rates.items()
        }
        held.append(_arg(rates[max(means, key=lambda rate: means[rate])][seed]))
    chosen = statistics.mean(_arg(score) for score in rates[0.3].values())
    crossed = f"has an ARG of +{statistics.mean(held):.1f} % cross-fitted over upstream seeds"
    assert f"{crossed}, and of +{chosen:.1f} % [" in sentence
    assert "] on the 3 upstream seeds of the choice (validation tasks; interval over" in sentence
    assert statistics.mean(held) < chosen - 5


def test_a_driver_knows_that_a_seed_of_one_configuration_is_compared(tmp_path: Path) -> None:
    """Killed in the round of a seed, a search has it of the first configuration alone."""
    results = Results(tmp_path)
    rates = _with_fresh({2042: 0.61})
    assert (
        "on fresh upstream seed 2042," in finding_about(_searched(results, rates), "is").sentence
    )
    (study,) = results.database.studies()
    note = {**NOTE, "studies": [study.key], "seeds": [42, 1042, 2042], "fresh": 3}
    results.database.put_document(DRIVER, "one", note)
    sentence = finding_about(findings_of(read_results(tmp_path).main), "is best?").sentence
    assert "fresh" not in sentence
    assert "on the 3 upstream seeds of the choice: nothing shows what the choice" in sentence


def test_a_driver_knows_fresh_seeds_that_two_winners_have(tmp_path: Path) -> None:
    """A grid was edited, and another configuration has won since."""
    results = Results(tmp_path)
    _searched(results, {**_with_fresh(FRESH), 0.1: {**RACED[0.1], **FRESH}})
    (study,) = results.database.studies()
    for name, seeds, updated in (("old", [42], "2025"), ("new", [42, 1042], NOW)):
        note = {"studies": [study.key], "seeds": seeds, "fresh": 2, "updated": updated}
        results.database.put_document(DRIVER, name, note)
    sentence = finding_about(findings_of(read_results(tmp_path).main), "is best?").sentence
    assert "on fresh upstream seeds 2042, 3042, and of +34.0 % on the 2 upstream" in sentence


def test_the_leader_of_a_search_is_the_best_mean_over_upstream_seeds(tmp_path: Path) -> None:
    search(Results(tmp_path))
    finding = finding_about(findings_of(read_results(tmp_path).main), "is best?")
    means: dict[tuple[float, float], list[float]] = {}
    for (inner, outer, _), score in SEARCHED.items():
        means.setdefault((inner, outer), []).append(_arg(score))
    best = max(means, key=lambda at: statistics.mean(means[at]))
    assert "Of 9 points the leader" in finding.sentence
    assert f"(inner lr {best[0]:g}, outer lr {best[1]:g})" in finding.sentence
    # either seed chooses the same
    assert finding.sentence.count(f"of +{statistics.mean(means[best]):.1f} %") == 2


def test_a_leader_that_is_not_the_highest_mean_says_why_it_leads(tmp_path: Path) -> None:
    """The table ranks by the mean, so its first row is another point."""
    found = _searched(Results(tmp_path), {**RACED, 0.5: {42: 0.9}})
    sentence = finding_about(found, "is best?").sentence
    assert "(outer lr 0.3, the highest of those with most upstream seeds) has an ARG" in sentence
    assert "+34.0 % cross-fitted over upstream seeds, and of +34.0 % [" in sentence


def test_a_leader_of_one_upstream_seed_has_the_interval_of_its_table(tmp_path: Path) -> None:
    results = Results(tmp_path)
    baseline = {"v": {13: 0.5, 21: 0.5}}
    for rate, scores in ((0.1, (0.6, 0.8)), (0.3, (0.5, 0.4))):
        fields = seeded(42, f"search {rate}")
        fields["settings"] |= {"outer_lr": rate}
        row = {"v": dict(zip((13, 21), scores, strict=True))}
        results.point("maml", "random_to_random", row, baseline, point=fields, role="validation")
    section = read_results(tmp_path).main
    finding = finding_about(findings_of(section), "is best?")
    # Two data seeds: a draw has the mean of both, or of one of them twice; + 20, 40 or 60 %.
    assert (
        "+40.0 % [20.0, 60.0] on the one upstream seed of the choice: nothing shows what the "
        "choice has added (validation tasks; interval over data seeds alone; 2 data seeds, 1 task)"
    ) in finding.sentence
    assert finding.sentence.endswith("one upstream seed cannot tell the others from it.")
    assert not finding.told
    shown = [summary_of(cell) for cell in section.select(role="validation")]
    assert [one.interval for one in shown if one and (one.value or 0) > 0] == [
        pytest.approx((20.0, 60.0))
    ]


def _searches(root: Path, partitions: dict[str, str]) -> Findings:
    """Two points of a search a method, of one upstream seed, each on a partition."""
    results = Results(root)
    for at, (method, partition) in enumerate(partitions.items()):
        for inner, score in ((0.1, 0.6), (1.0, 0.75 + 0.1 * at)):
            fields = seeded(42, f"{method} {inner}")
            fields["settings"] |= {"inner_lr": inner}
            scores = (flat({"v": score}), flat({"v": 0.5}))
            results.point(method, partition, *scores, point=fields, role="validation")
    return findings_of(read_results(root).main)


def test_the_leaders_of_several_searches_are_one_finding(tmp_path: Path) -> None:
    found = _searches(tmp_path, dict.fromkeys(("maml", "reptile"), "random_to_random"))
    finding = finding_about(found, "best?")
    assert finding.question == "Which points of the searches on R→R are best?"
    leaders = " and ".join(
        f"{name} {written(value, ' %', value, value)} (inner lr 1)"
        for name, value in (("MAML", 50.0), ("Reptile", 70.0))
    )
    assert finding.sentence == (
        f"Of 4 points in 2 searches the leaders have an ARG of: {leaders} (on the one upstream "
        "seed of the choice: nothing shows what the choice has added; validation tasks; interval "
        "over data seeds alone; 2 data seeds, 1 task); one upstream seed cannot tell the others "
        "from them."
    )
    assert len(finding.tables) == 2
    assert not finding.told


def test_the_leaders_of_several_searches_each_have_both_numbers(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _searched(results, _with_fresh(FRESH))
    found = _searched(results, RACED, "reptile")
    sentence = finding_about(found, "best?").sentence
    mean = statistics.mean(_arg(score) for score in FRESH.values())
    assert f"MAML +{mean:.1f} % [" in sentence
    assert "] on fresh upstream seeds 2042, 3042 (+34.0 % on the 2 upstream seeds" in sentence
    assert "Reptile +34.0 % cross-fitted over upstream seeds (+34.0 % [" in sentence


def test_leaders_on_several_partitions_are_named_with_them(tmp_path: Path) -> None:
    found = _searches(tmp_path, {"maml": "random_to_random", "reptile": "qa_to_qa"})
    finding = finding_about(found, "best?")
    assert finding.question == "Which points of the searches are best?"
    assert "MAML on R→R +50.0 %" in finding.sentence
    assert "Reptile on QA→QA +70.0 %" in finding.sentence
