"""What a person sees of a search: a header, one line a point, the ranking at the end.

With ``--json`` all of that goes to stderr, and one JSON document goes to stdout.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from mpt.search.cost.time_left import clock_text
from mpt.search.display.columns import Columns
from mpt.search.display.configurations import (
    HEADS,
    WIDE_HEADS,
    findings,
    rank_of,
    replicated,
    row_of,
    unstable_lines,
)
from mpt.search.display.header import (
    SMOKE,
    folder_text,
    listed_seeds,
    score_text,
    seeds_text,
    studies_text,
    subject_text,
)
from mpt.search.leaderboard import Leaderboard, PointStatus, ranked
from mpt.study.replaced import replaced_text
from mpt.trial.score import BAD_SCORE, PointScore
from mpt.words import counted

if TYPE_CHECKING:
    from mpt.search.comparison import Ranking
    from mpt.search.cost.plan import RemainingWork
    from mpt.search.job import SearchJob
    from mpt.store.records import Stop

PIPE_WIDTH = 100
"""Columns where the output is no terminal."""

WIDE = 104
"""Columns from which on a ranking shows paired differences too; they are in the JSON always."""

STATUS_S = 30.0
"""Seconds between two status lines where the output is no terminal."""

SCORE_COLUMNS = ("ARG %", "95 % interval", "test %", "runs")

ONE_SEED = "intervals are over data seeds alone; another upstream seed may lie outside"
"""What is said under intervals that know nothing of upstream seeds."""

_LABEL = re.compile(r" *\S+:? +")
"""What a line of facts begins with: a word and blanks, under which the rest is folded."""

STOPS_SHOWN = 20
"""Stops listed under a ranking; the rest is counted."""


def make_console(*, stderr: bool = False) -> Console:
    """Return the console all output goes to."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, soft_wrap=True)


def print_document(body: Mapping[str, Any]) -> None:
    """Print a JSON document on stdout."""
    text = json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Display:
    """Prints; holds nothing but the console and which settings differ between trials.

    With `as_json` the result goes to `sink`, else to stdout, as one JSON document, and all else to
    stderr where no console is given.
    """

    def __init__(
        self,
        job: SearchJob,
        console: Console | None = None,
        *,
        as_json: bool = False,
        sink: Callable[[Mapping[str, Any]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job, self._as_json, self._clock = job, as_json, clock
        self._sink = sink or print_document
        self._console = console or make_console(stderr=as_json)
        self._columns = Columns(job)
        self._said: set[str] = set()
        self._live: Live | None = None
        self._status_at = clock()

    @property
    def _no_best(self) -> bool:
        """Whether lines of points leave the best one out: by one seed of several, none is."""
        return self._smoke or "seed" in self._columns.names

    @property
    def _smoke(self) -> bool:
        """Whether the numbers mean nothing: then none is called the best."""
        return any(plan.smoke for plan in self._job.plans)

    def say(self, text: str = "") -> None:
        """Print one line."""
        self._console.print(text)

    def fact(self, text: str) -> None:
        """Print one line that nobody copies; on a terminal it is folded under its own label."""
        if self._console.is_terminal and len(text) > self._console.width:
            label = _LABEL.match(text)
            indent = " " * (label.end() if label else 0)
            text = textwrap.fill(
                text,
                self._console.width,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        self.say(text)

    def warn(self, text: str) -> None:
        """Print one line that must not be missed: red on a terminal."""
        self._console.print(Text(text, style="bold red"))

    def problem(self, text: str) -> None:
        """Print a problem once."""
        if text not in self._said:
            self._said.add(text)
            self.fact(f"note: {text}")

    def document(self, body: Callable[[], Mapping[str, Any]]) -> None:
        """Hand the result to the sink, where that is asked for; else it is not even made."""
        if self._as_json:
            self._sink(body())

    def opening(self) -> None:
        """Say what is searched, over what, and where results go: all that no model is needed for.

        It comes before weights are read, so that nobody waits in front of an empty screen.
        """
        job, first = self._job, self._job.trials[0]
        config, (trials, points) = first.plan.config, job.total
        own = {trial.upstream.rungs for trial in job.trials}
        reached = {rung for one in own for rung in one}
        rungs = ", ".join(map(str, sorted(reached - {0} or reached)))  # 0: learns nothing
        shared = len(own) == 1 and "," in rungs
        self.say(subject_text(job))
        steps = f"steps {rungs}{' are rungs of one run' if shared else ''}"
        self.fact(f"  points   {points} from {counted(trials, 'trial')} ({steps})")
        self.fact(f"  space    {job.title}")
        self.fact(f"  score    {score_text(job)}")
        replay = first.plan.role == "target"
        seeds = listed_seeds(job) if replay else seeds_text(config)
        if "," in seeds:
            self.fact(f"  seeds    {seeds}")
        self.say(f"  results  {folder_text(job.results)}")
        for label in job.partial:
            self.fact(f"  {label}")
        if config.replaced:
            self.fact(f"  tasks    {replaced_text(config.replaced)}: a study of its own")
        if first.plan.smoke:
            self.warn(f"  {SMOKE}")

    def header(self, work: RemainingWork, board: Leaderboard | None = None) -> None:
        """Say how much of the work is there, and in which studies."""
        self.fact(
            f"  runs     {counted(work.all_runs, 'downstream run')} ({work.runs} + {work.shared} "
            f"shared baseline), {work.all_there} stored"
        )
        if board is not None:
            self.fact(f"  study    {studies_text(list(board.studies.values()))}")

    def points_table(self, entries: Sequence[PointStatus]) -> None:
        """List every point of the plan (`--dry-run`); none is known of a searcher of one's own."""
        if not entries:
            return
        table = self._table("", *self._columns.names, "steps", "stored")
        for number, entry in enumerate(entries, start=1):
            stored = "yes" if entry.score is not None else "stopped" if entry.stopped else "no"
            table.add_row(str(number), *self._columns.of(entry.trial), str(entry.steps), stored)
        self._print(table)

    def lines_head(self) -> None:
        """Print the head of the lines that `landed` prints: 80 columns with two rates."""
        best = "" if self._no_best else f"{'best':>7}"
        self.say()
        self.say(
            f"{'done':>7}{self._columns.line(self._columns.names)}{'steps':>7}{'ARG %':>9}  "
            f"{'95 % interval':<16}{best}{'time left':>10}"
        )

    def landed(self, entry: PointStatus, done: int, best: float | None, left_s: float) -> None:
        """Print one finished point."""
        assert entry.score is not None
        high = "–" if best is None or best <= BAD_SCORE else _signed(best)
        scored = f" {_arg(entry.score):>8}  {_interval(entry.score)}"
        shown = "" if self._no_best else f" {high:>6}"
        self.say(
            f"{f'{done}/{self._job.total[1]}':>7}"
            f"{self._columns.line(self._columns.of(entry.trial))}{entry.steps:>7}"
            f"{scored:<27}{shown}{clock_text(left_s):>10}"
        )

    def stopped(self, stop: Stop) -> None:
        """Print that a trial is stopped, and why."""
        self.say(f"stopped  {stop.trial}: {stop.text.removeprefix('stopped ')}")

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Keep the status line at the bottom of the terminal inside the block."""
        if not self._console.is_terminal:
            yield
            return
        options: dict[str, Any] = {"auto_refresh": False, "transient": True}
        options |= {"redirect_stdout": False, "redirect_stderr": False}
        with Live(Text(), console=self._console, **options) as self._live:
            try:
                yield
            finally:
                self._live = None

    def status(self, text: str) -> None:
        """Show what is going on: in place on a terminal, else a line every `STATUS_S` seconds."""
        if self._live is not None:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif text and not self._console.is_terminal:
            now = self._clock()
            if now - self._status_at >= STATUS_S:
                self._status_at = now
                self.say(text)

    def replicating(self, trials: int, seeds: Sequence[int], job: SearchJob) -> None:
        """Say that trials are run again with other upstream seeds."""
        self._job, self._columns = job, Columns(job)
        fresh = set(seeds) <= set(job.plans[0].config.fresh_seeds)
        why = "to report the best one on" if fresh else "for those that may be the best"
        self.say()
        self.fact(
            f"upstream seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: "
            f"{counted(trials, 'trial')}, {why}"
        )

    def configurations(self, ranking: Ranking) -> None:
        """Print the configurations of one method in one study, and what they show."""
        columns = Columns(self._job, replicates=False)
        wide = self._console.width >= WIDE or not self._console.is_terminal
        wide = wide and not self._smoke
        heads = (*HEADS, *WIDE_HEADS) if wide else HEADS
        table = self._table("rank", *columns.names, "steps", *heads)
        table.padding = (0, 1, 0, 0)  # 80 columns hold two rates and both intervals
        for rank, one in enumerate(ranking.configurations, start=1):
            cells = [*columns.of(one.first.trial), str(one.first.steps), *row_of(one, wide=wide)]
            table.add_row(rank_of(rank, one), *cells)
        self._print(table)
        if self._smoke:
            self.warn(SMOKE)
            return

        for line in findings(ranking, columns.name):
            self.fact(line)

    def ranking(self, entries: Sequence[PointStatus], rankings: Sequence[Ranking] = ()) -> None:
        """Print all points, best first, then the best and the worst, and what was stopped.

        Where the study has several upstream seeds, the `rankings` by configuration are shown.
        """
        order = ranked(list(entries))
        if replicated(rankings):
            for one in rankings:
                self.configurations(one)
            self._reasons(order)
            self._gaps(entries)
            return
        table = self._table("rank", *self._columns.names, "steps", *SCORE_COLUMNS)
        for rank, entry in enumerate(order, start=1):
            table.add_row(str(rank), *self._row(entry))
        self._print(table)
        self.one_seed(order)
        columns = Columns(self._job, replicates=False)
        for one in rankings:
            for line in unstable_lines(one, columns.name):
                self.fact(line)
        self._reasons(order)
        self._gaps(entries)
        if self._smoke:
            self.warn(SMOKE)
            return
        if not order or order[0].score is None or order[0].score.score <= BAD_SCORE:
            self.say("no point has an ARG: there is no best one")
            return
        for title, entry in (("best", order[0]), ("worst", order[-1])):
            assert entry.score is not None
            self.fact(
                f"{title:<8} {self._columns.name(entry)}: "
                f"ARG {_arg(entry.score)} {_interval(entry.score)}"
            )

    def one_seed(self, entries: Sequence[PointStatus]) -> None:
        """Say what intervals leave out where every configuration has one upstream seed."""
        scores = [entry.score for entry in entries if entry.trial.learned is not None]
        if any(score is not None and score.interval is not None for score in scores):
            self.say(ONE_SEED)

    def _reasons(self, order: Sequence[PointStatus]) -> None:
        """Say what the table's words and marks stand for, each once."""
        notes = dict.fromkeys(entry.score.note for entry in order if entry.score is not None)
        for note in filter(None, notes):
            self.fact(f"note: {note}")
        gains = [entry.score.gain for entry in order if entry.score is not None]
        lines = dict.fromkeys(line for gain in gains if gain is not None for line in gain.reasons)
        for line in lines:
            self.fact(f"note: no relative gain on {line}")

    def _gaps(self, entries: Sequence[PointStatus]) -> None:
        """List the trials that were stopped, count the missing points, say what studies lack."""
        stopped = [entry for entry in entries if entry.stopped is not None]
        stops = list(dict.fromkeys(entry.stopped for entry in stopped if entry.stopped))
        for stop in stops[:STOPS_SHOWN]:
            self.stopped(stop)
        if len(stops) > STOPS_SHOWN:
            self.say(f"stopped  … and {len(stops) - STOPS_SHOWN} more")
        if stopped:
            self.fact(
                f"{counted(len(stopped), 'point')} of {counted(len(stops), 'stopped trial')} "
                f"{'was' if len(stopped) == 1 else 'were'} not computed; "
                "without --scheduler and --racing the same command computes them"
            )
        for label in filter(None, dict.fromkeys(entry.trial.plan.partial for entry in entries)):
            self.fact(label)

    def _print(self, table: Table) -> None:
        """Print a table as wide as it is; rich would cut its words to the width of the console."""
        wide = self._console.options.update(width=10_000)
        width = Measurement.get(self._console, wide, table).maximum
        whole = self._console.options.update(width=max(width, self._console.width))
        self._console.print(Segments(self._console.render(table, whole)), end="")

    def _table(self, *columns: str) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, justify="right")
        return table

    def _row(self, entry: PointStatus) -> list[str]:
        """Return a scored point's settings, its steps, and its words below `SCORE_COLUMNS`."""
        score = entry.score
        assert score is not None
        return [
            *self._columns.of(entry.trial),
            str(entry.steps),
            _arg(score),
            _interval(score),
            "–" if score.mean_test is None else f"{100 * score.mean_test:.1f}",
            str(score.runs),
        ]


def _arg(score: PointScore) -> str:
    """Return the ARG, with n of N where tasks are left out."""
    if score.gain is None:
        return "diverged"
    if score.arg is None:
        return "undefined"
    return _signed(score.arg) + ("" if score.gain.arg is not None else "*")


def _interval(score: PointScore) -> str:
    if score.interval is None:
        return "–"
    low, high = score.interval
    return f"[{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    return f"{value:+.2f}"
