"""What a notebook shows of a study, a space and a best point: short text, and a table."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import mpt
from mpt.config import UpstreamConfig
from mpt.store.database import open_results
from mpt.study.specs import UpstreamSpec


def _cells(shown: Any) -> list[str]:
    """Return the cells of the one table that a notebook shows, its head first."""
    html = shown._repr_html_()
    assert html.count("<table") == 1
    return re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", html)


def _best(**changes: Any) -> mpt.BestPoint:
    best = mpt.BestPoint(
        method="fomaml",
        settings={"outer_lr": 0.3},
        steps=50,
        arg=1.23456,
        low=-0.5,
        high=2.75,
        study="0123abcd",
        point="89abcdef" * 8,
        config=mpt.Study().config,
        upstream=UpstreamSpec(config=UpstreamConfig(method="fomaml"), rungs=(50,)),
        results=Path("results"),
    )
    return dataclasses.replace(best, **changes)


def test_a_best_point_is_one_short_line() -> None:
    assert repr(_best()) == (
        "BestPoint(fomaml: outer_lr 0.3, 50 steps: ARG +1.23 % [-0.50, +2.75]; one upstream seed; "
        "study 0123abcd, point 89abcdef)"
    )
    words = _best(settings={"average": "last", "dropout": 0.1}, arg=None)
    assert "average last, dropout 0.1, 50 steps: ARG undefined" in repr(words)


def test_a_best_point_is_a_table_of_its_settings_and_its_arg() -> None:
    head = ["method", "outer_lr", "steps", "arg", "low", "high", "how", "study"]
    row = ["fomaml", "0.3", "50", "1.23", "-0.5", "2.75", "one upstream seed", "0123abcd"]
    assert _cells(_best()) == head + row


def test_a_space_reads_as_it_is_written() -> None:
    space = mpt.Space(
        "maml",
        inner_lr=mpt.loguniform(1e-2, 10),
        dropout=mpt.uniform(0, 0.5),
        outer_lr=[0.03, 0.1],
        batch_size=2,
        steps=[2, 4],
    )
    assert repr(space) == (
        "Space('maml', inner_lr=loguniform(0.01, 10), dropout=uniform(0, 0.5), "
        "outer_lr=[0.03, 0.1], batch_size=2, steps=[2, 4])"
    )
    falling = mpt.Space("reptile", outer_lr=[0.1], steps=4, decay=True)
    assert repr(falling) == "Space('reptile', outer_lr=[0.1], steps=[4], decay=True)"


def test_a_space_is_a_table_of_settings_and_values() -> None:
    space = mpt.Space("maml", outer_lr=[0.03, 0.1], batch_size=2, steps=2)
    head = ["setting", "values", "method", "maml"]
    rows = ["outer_lr", "[0.03, 0.1]", "batch_size", "2", "steps", "[2]"]
    assert _cells(space) == head + rows


def test_a_shipped_space_is_short_too_and_says_where_it_counts_epochs() -> None:
    space = mpt.load_space("multitask", "paper")
    assert len(repr(space)) < 300
    assert f"epochs={list(space.epochs)}" in repr(space)
    assert "steps=" not in repr(space)


def test_a_study_is_a_table_of_what_tells_it_apart() -> None:
    study = mpt.Study(prompt_length=7, data_seeds=[13, 21])
    head, row = (cells := _cells(study))[:8], cells[8:]
    shown = dict(zip(head, row, strict=True))
    assert (shown["prompt_length"], shown["data_seeds"]) == ("7", "[13, 21]")
    assert shown["backbone"] == "embedded"
    assert all(f"{name}=" in repr(study) for name in head)


def test_results_say_where_they_are(tmp_path: Path) -> None:
    open_results(tmp_path, None).close()
    assert repr(mpt.load_results(tmp_path)) == f"Results({str(tmp_path)!r})"
