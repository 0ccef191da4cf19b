"""What targets have spent on taking their starts stands beside the cost of runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mpt.search.display.document import _cost
from mpt.search.display.header import cost_text
from mpt.store.records import Cost

COST = {"trained rows": 480, "evaluated rows": 96, "seconds": 61.0}


class Board:
    """Two runs of three seconds."""

    def run_costs(self, _: object) -> dict[str, float]:
        return {"runs": 2.0, "seconds": 3.0}


def _entry(key: str, starts: dict[str, Any] | None) -> Any:
    provenance = {} if starts is None else {"starts": {"taken": {"a": {}}, **starts}}
    cost = Cost(steps=10, seconds=5.0)
    return SimpleNamespace(
        record=SimpleNamespace(key=key, upstream=f"of {key}", cost=cost, provenance=provenance)
    )


def test_the_line_of_costs_has_the_time_of_starts_once_a_point() -> None:
    board: Any = Board()
    plain = "20 upstream steps (10 s of computing), 2 downstream runs (3 s)"
    assert cost_text(board, [_entry("a", None), _entry("b", None)]) == plain
    entries = [_entry("a", COST), _entry("b", COST), _entry("b", COST)]
    assert cost_text(board, entries) == f"{plain}, starts taken by targets (2 min)"


def test_the_document_has_the_cost_of_starts_and_not_which_were_taken() -> None:
    assert _cost(_entry("a", COST).record, {})["starts"] == COST
    assert "starts" not in _cost(_entry("a", None).record, {})
