"""Sides take turns, each in a process of its own, in another order every round."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sides.process_tree import Taken, run_watched


def rotated(sides: Sequence[str], by: int) -> list[str]:
    """Return the sides in the order of a round."""
    by %= len(sides)
    return [*sides[by:], *sides[:by]]


def run_side(script: str, side: str, folder: Path, *options: str) -> Taken:
    """Run a side of a benchmark to its end in a fresh process; return what it took.

    Args:
        script: the benchmark, which is told `--side` and `--folder`.
        side: name of the side.
        folder: what there is to do, and where the output and the results go.
        options: what else the benchmark is told.

    Raises:
        SystemExit: it failed; the text has the end of what it said.
    """
    command = [sys.executable, str(Path(script).resolve()), "--side", side]
    one = run_watched([*command, "--folder", str(folder), *options], folder / "log.txt")
    if one.code:
        tail = (folder / "log.txt").read_text()[-2000:]
        raise SystemExit(f"side {side} ended with code {one.code}:\n{tail}")
    return one
