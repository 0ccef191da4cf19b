from __future__ import annotations

import numpy as np
from sides.start_signs import Signs, judged, mixed, of_start, table, taken, weight_for

TASKS, DATA_SEEDS = 6, 4


def _signs(seed: int, told_by: str) -> Signs:
    """Three starts a target whose test score is told by one sign; the other signs are noise."""
    rng = np.random.default_rng(seed)

    def start(test: float) -> dict[str, float]:
        noise = rng.uniform(size=3)
        signs = {"loss": noise[0], "dev": noise[1], "raced loss": noise[2], "test": test}
        signs[told_by] = test if told_by == "dev" else 1 - test
        return signs

    def starts() -> dict[str, dict[str, float]]:
        names = ("learned", "member 1", "vocabulary")
        return {name: start(0.2 + 0.6 * rng.uniform()) for name in names}

    return {f"task {t}": {str(s): starts() for s in range(DATA_SEEDS)} for t in range(TASKS)}


def test_a_rule_takes_the_start_that_its_sign_names() -> None:
    signs = _signs(0, "dev")
    best = np.array(
        [[max(x["test"] for x in own.values()) for own in one.values()] for one in signs.values()]
    )
    np.testing.assert_array_equal(taken(signs, lambda _: mixed(0.0)), best)
    assert (taken(signs, lambda _: mixed(float("inf"))) < best).any()
    assert (of_start(signs, "learned") <= best).all()


def test_equal_dev_scores_are_told_apart_by_the_loss_after_the_race() -> None:
    same = {"loss": 0.0, "dev": 0.5}
    signs: Signs = {
        "task": {
            "13": {
                "learned": {**same, "raced loss": 2.0, "test": 0.1},
                "vocabulary": {**same, "raced loss": 1.0, "test": 0.9},
            }
        }
    }
    assert taken(signs, lambda _: mixed(0.0)).tolist() == [[0.9]]


def test_the_weight_is_chosen_on_other_tasks_and_follows_the_sign_that_tells() -> None:
    told_by_loss = {seed: _signs(seed, "raced loss") for seed in range(3)}
    told_by_dev = {seed: _signs(seed, "dev") for seed in range(3)}
    assert weight_for("task 0", told_by_loss) > 1
    assert weight_for("task 0", told_by_dev) < 0.3
    # what the task itself says is not read
    spoilt = {
        seed: {**one, "task 0": _signs(seed, "loss")["task 0"]}
        for seed, one in told_by_dev.items()
    }
    assert weight_for("task 0", spoilt) == weight_for("task 0", told_by_dev)


def test_rules_are_judged_on_seeds_that_chose_no_weight() -> None:
    signs = {seed: _signs(seed, "raced loss") for seed in range(8)}
    figures = judged(signs, [0, 1, 2], [3, 4, 5, 6, 7])
    rules = figures["rules"]
    assert figures["leader"] in ("mix", "loss after the race")
    assert rules["loss after the race"]["arg"] > rules["raced"]["arg"]
    assert figures["bound"] >= max(one["arg"] for one in rules.values()) - 1e-9
    assert len(rules["mix"]["by_seed"]) == 5
    assert "best by test (bound)" in table(figures)
