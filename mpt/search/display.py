"""What a person sees of a search: a header, one line a point, the ranking at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mpt.search.objective import BAD_SCORE, PointScore
from mpt.search.spaces import Trajectory
from mpt.search.standing import Entry, ranked
from mpt.search.time_left import clock_text

if TYPE_CHECKING:
    from mpt.plan import Load
    from mpt.search.job import SearchJob

PIPE_WIDTH = 100
"""Columns where the output is no terminal."""

_SEARCHED = ("inner_lr", "outer_lr", "inner_steps", "batch_size", "items_per_step")


def make_console() -> Console:
    """Return the console all output goes to."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, soft_wrap=True)


class Display:
    """Prints; holds nothing but the console and which settings differ between trajectories."""

    def __init__(self, job: SearchJob, console: Console | None = None) -> None:
        self._job = job
        self._console = console or make_console()
        self._names = _varied([course.trajectory for course in job.courses])
        self._said: set[str] = set()

    def say(self, text: str = "") -> None:
        """Print one line."""
        self._console.print(text)

    def problem(self, text: str) -> None:
        """Print a problem once."""
        if text not in self._said:
            self._said.add(text)
            self.say(f"note: {text}")

    def header(self, load: Load) -> None:
        """Say what is searched, over what, and how much of it is there."""
        job, first = self._job, self._job.courses[0]
        config, method = first.plan.config, first.trajectory.config.method.upper()
        rungs = ", ".join(map(str, first.trajectory.rungs))
        self.say(f"{method} search · {config.partition} · backbone {config.backbone}")
        self.say(
            f"  points   {load.points} from {len(job.courses)} trajectories "
            f"(steps {rungs} are rungs of one run)"
        )
        self.say(f"  space    {job.title}")
        self.say(
            f"  score    ARG (%) over prompt tuning on {len(first.plan.scored)} {first.plan.role} "
            f"tasks × {len(config.data_seeds)} data seeds"
        )
        self.say(
            f"  leaves   {load.all_leaves} downstream runs ({load.leaves} + {load.shared} shared "
            f"baseline), {load.all_there} on disk"
        )
        self.say(f"  results  {job.results}")
        for label in job.partial:
            self.say(f"  {label}")

    def points_table(self, entries: Sequence[Entry]) -> None:
        """List every point of the plan (`--dry-run`)."""
        table = self._table("", *self._names, "steps", "on disk")
        for number, entry in enumerate(entries, start=1):
            there = "yes" if entry.score is not None else "no"
            table.add_row(str(number), *self._settings(entry), str(entry.steps), there)
        self._console.print(table)

    def lines_head(self) -> None:
        """Print the head of the lines that `landed` prints."""
        names = "".join(f"{name:>14}" for name in self._names)
        self.say()
        self.say(
            f"{'done':>7}{names}{'steps':>8}{'ARG %':>10}  {'95 % interval':<20}"
            f"{'best':>8}{'time left':>11}"
        )

    def landed(self, entry: Entry, done: int, best: float | None, left: float) -> None:
        """Print one finished point."""
        assert entry.score is not None
        values = "".join(f"{value:>14}" for value in self._settings(entry))
        self.say(
            f"{f'{done}/{len(self._job.points)}':>7}{values}{entry.steps:>8}"
            f"{_arg(entry.score):>10}  {_interval(entry.score):<20}"
            f"{'–' if best is None or best <= BAD_SCORE else _signed(best):>8}"
            f"{clock_text(left):>11}"
        )

    def ranking(self, entries: Sequence[Entry]) -> None:
        """Print all points, best first, then the best and the worst."""
        order = ranked(list(entries))
        table = self._table(
            "rank", *self._names, "steps", "ARG %", "95 % interval", "test %", "leaves"
        )
        for rank, entry in enumerate(order, start=1):
            score = entry.score
            assert score is not None
            table.add_row(
                str(rank),
                *self._settings(entry),
                str(entry.steps),
                _arg(score),
                _interval(score),
                "–" if score.mean_test is None else f"{100 * score.mean_test:.1f}",
                f"{score.leaves} of {score.of}",
            )
        self._console.print(table)
        self._reasons(order)
        for label in self._job.partial:
            self.say(label)
        if order[0].score is None or order[0].score.score <= BAD_SCORE:
            self.say("no point has an ARG: there is no best one")
            return
        for title, entry in (("best", order[0]), ("worst", order[-1])):
            assert entry.score is not None
            settings = ", ".join(
                f"{name} {value}"
                for name, value in zip(self._names, self._settings(entry), strict=True)
            )
            self.say(
                f"{title:<8} {settings}, steps {entry.steps}: "
                f"ARG {_arg(entry.score)} {_interval(entry.score)}"
            )

    def _reasons(self, order: Sequence[Entry]) -> None:
        """Say what the table's words and marks stand for, each once."""
        notes = dict.fromkeys(entry.score.note for entry in order if entry.score is not None)
        for note in filter(None, notes):
            self.say(f"note: {note}")
        gains = [entry.score.gain for entry in order if entry.score is not None]
        lines = dict.fromkeys(line for gain in gains if gain is not None for line in gain.reasons)
        for line in lines:
            self.say(f"note: no relative gain on {line}")

    def _settings(self, entry: Entry) -> list[str]:
        return [f"{getattr(entry.course.trajectory.config, name):g}" for name in self._names]

    def _table(self, *columns: str) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, justify="right")
        return table


def _varied(trajectories: Sequence[Trajectory]) -> list[str]:
    """Return the settings that differ between trajectories (always both learning rates)."""
    names = []
    for name in _SEARCHED:
        values = {getattr(trajectory.config, name) for trajectory in trajectories}
        if len(values) > 1 or name in ("inner_lr", "outer_lr"):
            names.append(name)
    return names


def _arg(score: PointScore) -> str:
    """Return the ARG, with n of N where tasks are left out."""
    if score.gain is None:
        return "diverged"
    arg = score.gain.arg_of_defined
    if arg is None:
        return "undefined"
    return _signed(arg) + ("" if score.gain.arg is not None else "*")


def _interval(score: PointScore) -> str:
    if score.gain is None or score.gain.low is None or score.gain.high is None:
        return "–"
    return f"[{_signed(score.gain.low)}, {_signed(score.gain.high)}]"


def _signed(value: float) -> str:
    return f"{value:+.2f}"
