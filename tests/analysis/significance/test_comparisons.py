"""Families of comparisons: error rates on tables with known effects, a table done by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from synthetic_tables import SEEDS, Synthetic

from analysis.significance.comparisons import (
    JUDGE,
    VIEWS,
    MethodComparison,
    Significance,
    compare,
    find_significance,
)
from analysis.significance.settings import Setting
from analysis.significance.tables import verdict

NULL = {"maml": 0.0, "fomaml": 0.0, "reptile": 0.0, "multitask": 0.0, "fine_tuning": 0.0}
TABLES = 150


def _table(made: Synthetic, effects: dict[str, float], tasks: int = 12) -> Significance:
    names = ("qa_to_qa", "cls_to_noncls", "cls_to_cls")
    return find_significance([made.setting(effects, name, tasks) for name in names], 0)


def _one(found: Significance, method: str, reference: str = "prompt_tuning") -> MethodComparison:
    one = found.table.of(found.settings[0], method, reference)
    assert one is not None
    return one


def test_on_tables_without_effects_5_percent_differ_before_correction_and_few_tables_after() -> (
    None
):
    made = Synthetic(11)
    raw, wrong = [], 0
    for _ in range(TABLES):
        found = _table(made, NULL)
        raw += [one.views[JUDGE].p <= 0.05 for one in found.table.comparisons]
        wrong += any(one.sign() for one in found.table.comparisons)
    assert found.table.size == 27  # 3 settings × (5 against prompt tuning + 4 against MTL)
    assert len(raw) == 27 * TABLES
    assert 0.03 < np.mean(raw) < 0.065
    # a table has a false verdict with chance ≤ 5 %; 150 tables: 7.5 are expected, 15 are 2.8 σ
    assert wrong <= 15


def test_seed_noise_alone_is_called_different_about_these_tasks_in_5_percent() -> None:
    made = Synthetic(12)
    ps = []
    for _ in range(300):
        setting = made.setting(NULL, spread=0.0)
        ps += [compare(setting, name, "prompt_tuning", 0).views["these_tasks"].p for name in NULL]
    assert 0.03 < np.mean(np.array(ps) <= 0.05) < 0.07


def test_a_large_effect_is_found_in_most_tables_of_twelve_tasks() -> None:
    made = Synthetic(13)
    effects = {**NULL, "maml": 0.4}
    found = [_table(made, effects) for _ in range(20)]
    hits = [_one(table, "maml").sign() == 1 for table in found]
    beats = [_one(table, "maml", "multitask").sign() == 1 for table in found]
    assert np.mean(hits) > 0.9
    assert np.mean(beats) > 0.8


def test_four_tasks_are_never_called_different_however_large_the_effect() -> None:
    found = _table(Synthetic(14), {**NULL, "maml": 2.0}, tasks=4)
    one = _one(found, "maml")
    assert one.better == 4
    assert (one.views[JUDGE].p, one.sign()) == (0.125, 0)
    assert one.views[JUDGE].low is None
    assert one.sign("these_tasks") == 1


def _by_hand() -> Setting:
    # six tasks of baseline 0.5, two data seeds; means: MAML +10 … +60 %, MTL +20 % on all tasks
    gains = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    base = np.full((6, 2), 0.5)
    wobble = np.array([[-0.01, 0.01]])
    return Setting(
        partition="toy",
        backbone="toy-model",
        tasks=tuple("abcdef"),
        seeds=(13, 21),
        scores={
            "prompt_tuning": base,
            "maml": np.array([[0.5 * (1 + gain)] * 2 for gain in gains]) + wobble,
            "multitask": np.full((6, 2), 0.6),
        },
        printed={},
    )


def test_only_a_difference_that_every_view_finds_is_said_to_hold_in_all() -> None:
    found = _table(Synthetic(19), {**NULL, "maml": 0.6, "fomaml": 0.12})
    words = set()
    for one in found.table.comparisons:
        signs = {one.sign(view) for view in VIEWS}
        assert verdict(one).endswith("(all)") == (signs in ({1}, {-1}))
        words.add(verdict(one))
    assert {"higher (all)", "tie", "tie (higher)"} <= words


def test_a_small_table_done_by_hand() -> None:
    found = find_significance([_by_hand()], 0)
    arg, over_mtl = _one(found, "maml"), _one(found, "maml", "multitask")
    mtl = _one(found, "multitask")
    assert arg.differences == pytest.approx((10, 20, 30, 40, 50, 60))
    assert over_mtl.differences == pytest.approx((-10, 0, 10, 20, 30, 40))
    assert (arg.value, over_mtl.value, mtl.value) == pytest.approx((35, 15, 20))
    assert (arg.better, over_mtl.better) == (6, 4)
    # all six of one sign: 1 of 32 pairs of patterns. −10 +0 +10 +20 +30 +40 = 90 is reached by
    # flips of sets with a sum ≤ 0: {}, {−10}, {−10, 10}, each with the 0 or without it
    assert arg.views[JUDGE].p == mtl.views[JUDGE].p == 1 / 32
    assert over_mtl.views[JUDGE].p == 6 / 32
    # three comparisons: the two small p ×3, the large one ×1
    ps = [one.corrected[JUDGE] for one in (arg, over_mtl, mtl)]
    assert ps == pytest.approx([3 / 32, 6 / 32, 3 / 32])
    assert [one.sign() for one in (arg, over_mtl, mtl)] == [0, 0, 0]
    # about these tasks: a seed's residual is ±2 %, its mean has variance 4 a task, 4 / 6 for all
    these = arg.views["these_tasks"]
    half = 2.4469118511449692 * math.sqrt(4 / 6)  # t of 6 degrees of freedom
    assert (these.low, these.high) == (pytest.approx(35 - half), pytest.approx(35 + half))


def test_log_ratios_and_t_are_views_of_their_own_and_the_log_needs_positive_scores() -> None:
    setting = _by_hand()
    one = compare(setting, "maml", "prompt_tuning", 0)
    assert list(one.views) == list(VIEWS)
    logs = [100 * math.log(1 + gain / 10) for gain in range(1, 7)]
    assert one.views["other_tasks_log"].value == pytest.approx(np.mean(logs))
    assert one.views["other_tasks_t"].value == pytest.approx(35)
    negative = {**setting.scores, "maml": -setting.scores["maml"]}
    other = compare(dataclasses.replace(setting, scores=negative), "maml", "prompt_tuning", 0)
    assert "other_tasks_log" not in other.views
    assert other.value == pytest.approx(-235)


def test_the_same_seed_gives_the_same_result_also_where_patterns_are_drawn() -> None:
    for tasks in (12, 24):
        setting = Synthetic(15).setting({"maml": 0.0, "multitask": 0.0}, tasks=tasks)
        first, again, other = (find_significance([setting], root) for root in (0, 0, 1))
        assert first == again
        same = first.table.comparisons[0].views == other.table.comparisons[0].views
        assert same == (tasks == 12)


def test_comparisons_of_the_same_scores_are_one_in_the_family_and_share_their_p() -> None:
    made = Synthetic(16)
    first, second = (made.setting(NULL, name) for name in ("cls_to_noncls", "both_to_noncls"))
    shared = {name: first.scores[name] for name in ("prompt_tuning", "fine_tuning")}
    second = dataclasses.replace(second, scores={**second.scores, **shared})
    found = find_significance([first, second], 0)
    assert len(found.table.comparisons) == 18
    assert found.table.size == 17
    both = [found.table.of(setting, "fine_tuning", "prompt_tuning") for setting in found.settings]
    assert both[0] is not None
    assert both[1] is not None
    assert both[0].corrected == both[1].corrected


def test_wins_ties_and_losses_are_the_verdicts_counted_over_settings() -> None:
    effects = {"maml": 0.5, "reptile": -0.5, "multitask": 0.0}
    found = _table(Synthetic(17), effects)
    for method in found.methods:
        for other in found.methods:
            if method != other:
                wins, ties, losses = found.record(method, other)
                assert wins + ties + losses == 3
                assert found.record(other, method) == (losses, ties, wins)
    assert found.record("maml", "reptile") == (3, 0, 0)
    signs = [found.table.of(s, "maml", "prompt_tuning") for s in found.settings]
    wins = sum(one is not None and one.sign() == 1 for one in signs)
    assert found.record("maml", "prompt_tuning")[0] == wins
    assert found.methods == ["maml", "reptile", "multitask", "prompt_tuning"]


def test_without_mtl_methods_are_compared_with_prompt_tuning_alone() -> None:
    found = find_significance([Synthetic(18).setting({"maml": 0.1, "mine": 0.2})], 0)
    assert [(one.method, one.reference) for one in found.table.comparisons] == [
        ("maml", "prompt_tuning"),
        ("mine", "prompt_tuning"),
    ]
    assert found.pairs.size == 1
    assert found.settings[0].seeds == SEEDS
