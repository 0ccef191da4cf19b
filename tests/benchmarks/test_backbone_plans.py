"""The table of docs/backbones.md is the planner's."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.backbone_plans import HEADS, row_of, table
from mpt.backbones.memory import PUBLISHED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"
SMALL = ("google/t5-base-lm-adapt", "Qwen/Qwen2.5-0.5B")


def _lines() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return text.partition("<!-- table -->\n")[2].partition("<!-- /table -->")[0].splitlines()


@pytest.mark.parametrize("name", SMALL)
def test_a_row_of_the_page_is_what_the_planner_says_today(name: str) -> None:
    assert f"| {' | '.join(row_of(name))} |" in _lines()


def test_the_page_has_a_row_and_a_command_of_every_backbone() -> None:
    head, _, *rows = _lines()
    assert head == f"| {' | '.join(HEADS)} |"
    assert [row.split("`")[1] for row in rows] == list(PUBLISHED)


@pytest.mark.slow
def test_the_whole_table_is_what_the_planner_says_today() -> None:
    assert _lines() == table()
