"""The cheapest member of a tie set is one that as much is known of as of the leader."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mpt.search.comparison import Ranking


def _member(name: str, cost: float, arg: float, seeds: int) -> Any:
    return SimpleNamespace(cost=cost, summary=SimpleNamespace(name=name, arg=arg, seeds=seeds))


def test_what_a_race_left_after_one_seed_is_not_recommended() -> None:
    leader = _member("leader", 192, 16.0, 3)
    cheap, equal = _member("cheap", 48, 9.0, 3), _member("equal", 48, 8.0, 3)
    left = _member("left after one seed", 12, 1.9, 1)
    ranking: Any = SimpleNamespace(best=leader, ties=[leader, cheap, equal, left])
    found: Any = Ranking.cheapest.fget(ranking)  # type: ignore[attr-defined]
    assert found.summary.name == "cheap"
    alone: Any = SimpleNamespace(best=leader, ties=[leader, left])
    assert Ranking.cheapest.fget(alone) is leader  # type: ignore[attr-defined]
