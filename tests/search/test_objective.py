from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mpt.records import LeafStore, make_leaf
from mpt.study.study import Study
from mpt.trial.leaf_work import compute_leaves
from mpt.trial.objective import (
    BAD_SCORE,
    Pack,
    baseline_packs,
    leaf_identity,
    leaf_table,
    packs_of,
    score_point,
    selected_scores,
)

Values = dict[tuple[str, int], list[tuple[float, float | None, float | None]]]
"""(task, data seed) → (learning rate, dev, test) of its leaves."""


def _table(store: LeafStore, kind: str, values: Values) -> dict[str, Any]:
    """Put leaves with these scores and return the table that names them."""
    table: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for (task, seed), runs in values.items():
        for lr, dev, test in runs:
            identity = {"kind": kind, "task": task, "seed": seed, "lr": lr}
            status = "diverged" if dev is None else "ok"
            leaf = make_leaf(identity, {"dev": dev, "test": test, "status": status}, {}, {})
            store.put_many([leaf])
            table.setdefault(task, {}).setdefault(str(seed), []).append((lr, leaf["key"]))
    return table


def _point(store: LeafStore, method: Values, baseline: Values, **changes: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "note": "",
        "identity": {"train_seed": 42},
        "leaves": _table(store, "method", method),
        "baseline": _table(store, "baseline", baseline),
        **changes,
    }


def _flat(
    test: float | None, dev: float | None = 0.5, tasks: tuple[str, ...] = ("a", "b")
) -> Values:
    return {(task, seed): [(0.5, dev, test)] for task in tasks for seed in (13, 21)}


@pytest.fixture
def store(tmp_path: Path) -> LeafStore:
    return LeafStore(tmp_path)


def test_a_point_scores_its_arg(store: LeafStore) -> None:
    score = score_point(_point(store, _flat(0.6), _flat(0.5)), store)
    assert score.score == pytest.approx(20.0, rel=1e-12)
    assert (score.leaves, score.of, score.note) == (4, 4, "")
    assert score.mean_test == pytest.approx(0.6, rel=1e-12)


def test_the_order_of_the_recipe_decides_ties_and_survives_the_disk(store: LeafStore) -> None:
    # As text "0.25" would come before "0.5": the order must not be JSON's.
    values: Values = {("a", 13): [(0.5, 0.8, 0.1), (0.25, 0.8, 0.9), (0.125, 0.7, 1.0)]}
    table = _table(store, "method", values)
    assert selected_scores(store, table) == {"a": {13: 0.1}}
    assert selected_scores(store, {"a": {"13": [list(x) for x in table["a"]["13"]]}}) == {  # type: ignore[misc]
        "a": {13: 0.1}
    }


def test_a_missing_leaf_leaves_its_data_seed_without_a_score(store: LeafStore) -> None:
    point = _point(store, _flat(0.6), _flat(0.5))
    key = point["leaves"]["a"]["21"][0][1]
    (store.folder / key[:2] / f"{key}.json").unlink()
    score = score_point(point, store)
    assert score.gain is not None
    assert score.gain.arg is None
    assert score.gain.reasons == ("a: method lacks data seed 21",)
    assert score.score == BAD_SCORE  # never compared with points that have all tasks
    assert (score.leaves, score.of) == (3, 4)


def test_one_missing_learning_rate_is_not_passed_over(store: LeafStore) -> None:
    point = _point(store, {("a", 13): [(0.5, 0.8, 0.3), (0.2, 0.9, 0.4)]}, _flat(0.5))
    key = point["leaves"]["a"]["13"][1][1]
    (store.folder / key[:2] / f"{key}.json").unlink()
    assert selected_scores(store, point["leaves"]) == {"a": {}}


def test_a_diverged_run_loses_to_any_other_and_all_diverged_is_a_failure(store: LeafStore) -> None:
    values: Values = {("a", 13): [(0.5, None, None), (0.2, 0.1, 0.4)]}
    assert selected_scores(store, _table(store, "method", values)) == {"a": {13: 0.4}}
    method: Values = {**_flat(0.6), ("a", 13): [(0.5, None, None)]}
    score = score_point(_point(store, method, _flat(0.5)), store)
    assert score.score == BAD_SCORE
    assert score.note == "* ARG over 1 of 2 tasks"


def test_a_zero_baseline_leaves_its_task_out_for_all_points_alike(store: LeafStore) -> None:
    baseline: Values = {**_flat(0.5), ("b", 13): [(0.5, 0.1, 0.0)], ("b", 21): [(0.5, 0.1, 0.0)]}
    score = score_point(_point(store, _flat(0.6), baseline), store)
    assert score.gain is not None
    assert score.gain.arg is None  # not given silently
    assert score.score == pytest.approx(20.0, rel=1e-12)  # but good for ranking
    assert score.note == "* ARG over 1 of 2 tasks"


def test_no_positive_baseline_at_all_is_a_finite_bad_score(store: LeafStore) -> None:
    assert score_point(_point(store, _flat(0.6), _flat(0.0)), store).score == BAD_SCORE


def test_a_diverged_point_has_a_finite_bad_score_and_says_why(store: LeafStore) -> None:
    point = {"status": "diverged", "note": "diverged at step 3", "leaves": {}, "baseline": {}}
    score = score_point(point, store)
    assert (score.score, score.gain, score.note) == (BAD_SCORE, None, "diverged at step 3")


def test_a_score_is_the_same_after_every_reading(store: LeafStore) -> None:
    values: Values = {
        (task, seed): [(0.5, 0.5, 0.1 * seed / 13 + 0.01 * len(task))]
        for task in ("b", "aa")
        for seed in (13, 21)
    }
    point = _point(store, values, _flat(0.5, tasks=("b", "aa")))
    backward = {**point, "leaves": dict(reversed(point["leaves"].items()))}
    assert score_point(point, store) == score_point(backward, store)


# --- packs -----------------------------------------------------------------------------------


def test_a_pack_holds_every_data_seed_and_learning_rate_of_a_task(study: Study) -> None:
    packs = baseline_packs(study)
    assert [pack.task for pack in packs] == list(study.plan.scored)
    for pack in packs:
        runs = [(run.task.seed, run.lr) for run in pack.runs]
        assert runs == [(seed, lr) for seed in (13, 21) for lr in (0.5, 0.2)]
    table = leaf_table(packs)
    assert [lr for lr, _ in table["v-one"]["13"]] == [0.5, 0.2]


def test_the_baseline_starts_anew_at_every_data_seed_and_alike_at_every_rate(study: Study) -> None:
    (pack, _) = baseline_packs(study)
    one, one_again, two, _ = (run.prompt for run in pack.runs)
    assert one.equal(one_again)
    assert not one.equal(two)
    again = baseline_packs(study)[0].runs[0].prompt
    assert again.equal(one)  # drawn from the root seed, not from a global generator


def test_a_leafs_identity_holds_all_that_can_change_its_number(study: Study) -> None:
    task = study.scored["v-one"][13]
    identity = leaf_identity(study, task, "prompt", 0.5)
    assert identity["backbone"] == study.backbone.digest
    assert identity["data"] == task.digest
    assert (identity["task"], identity["data_seed"], identity["shots"]) == ("v-one", 13, 4)
    assert (identity["init"], identity["lr"], identity["train_seed"]) == ("prompt", 0.5, 42)
    assert identity["recipe"]["downstream"]["steps"] == study.config.downstream.steps
    assert "lrs" not in identity["recipe"]["downstream"]  # another list, the same leaf


def test_only_missing_leaves_are_computed_and_the_log_says_which(
    study: Study, tmp_path: Path
) -> None:
    store = LeafStore(tmp_path)
    packs = packs_of(study, lambda _: torch.zeros(3, study.backbone.d_model))
    half = Pack(packs[0].task, packs[0].runs[:2])
    assert compute_leaves(study, [half], store) == 2
    assert compute_leaves(study, packs[:1], store) == 2
    assert compute_leaves(study, packs[:1], store) == 0
    leaf = store.get(packs[0].runs[0].key)
    assert leaf is not None
    assert 0 <= leaf["result"]["test"] <= 1
    assert set(leaf["provenance"]) == {"commit", "versions", "machine", "time", "pack"}
