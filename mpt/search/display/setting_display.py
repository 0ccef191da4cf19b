"""The closing tables of jobs with many settings: ranked within each, or one line a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpt.search.comparison import cells_of
from mpt.search.display.columns import Columns
from mpt.search.display.configurations import HEADS, interval_text
from mpt.search.display.display import ONE_SEED, SCORE_COLUMNS, Display
from mpt.search.display.header import SMOKE
from mpt.search.leaderboard import PointStatus, ranked

if TYPE_CHECKING:
    from mpt.search.comparison import Cell, Ranking
    from mpt.search.job import SearchJob


class SettingDisplay(Display):
    """Ranks the points of every setting and method among themselves, then lists the best."""

    def ranking(self, entries: Sequence[PointStatus], rankings: Sequence[Ranking] = ()) -> None:
        """Print one ranking a setting and method, and at the end the best point of each."""
        groups: dict[tuple[str, ...], list[PointStatus]] = {}
        for entry in entries:
            groups.setdefault(_group(entry), []).append(entry)
        best = []
        for (method, partition, backbone), group in groups.items():
            self.say()
            self.say(f"{method.upper()} on {partition}, backbone {backbone}")
            order = ranked(group)
            if order:
                own = [one for one in rankings if _group(one.best.first) == _group(order[0])]
                super().ranking(group, own)
                best.append(order[0])
            else:
                self.say("no point so far")
        if not self._smoke:
            self._list("best point of every setting and method", best)

    def _list(self, title: str, entries: Sequence[PointStatus]) -> None:
        """Print one line an entry, in their order."""
        self.say()
        self.say(title)
        table = self._table(*self._columns.names, "steps", *SCORE_COLUMNS)
        for entry in entries:
            table.add_row(*self._row(entry))
        self._print(table)


class CellDisplay(SettingDisplay):
    """Lists the cells of a replay; there is nothing to rank, and settings were said before."""

    def __init__(self, job: SearchJob, **options: Any) -> None:
        super().__init__(job, **options)
        self._columns = Columns(job, settings=False)

    def ranking(self, entries: Sequence[PointStatus], rankings: Sequence[Ranking] = ()) -> None:
        """Print one line a cell, in the job's order: its mean over upstream seeds."""
        scored_entries = [entry for entry in entries if entry.score is not None]
        cells = cells_of(entries, rankings)
        scored = [cell for cell in cells if cell.scored]
        title = f"{len(scored)} of {len(cells)} cells"
        if any(len(cell.entries) > 1 for cell in cells):
            self._averaged(title, scored, rankings)
        else:
            self._list(title, scored_entries)
            self.one_seed(scored_entries)
        self._reasons(scored_entries)
        for label in self._job.partial:
            self.say(label)
        if self._smoke:
            self.warn(SMOKE)

    def _averaged(self, title: str, cells: Sequence[Cell], rankings: Sequence[Ranking]) -> None:
        """Print one line a cell of several upstream seeds, and what the intervals are of."""
        columns = Columns(self._job, settings=False, replicates=False)
        self.say()
        self.say(title)
        table = self._table(*columns.names, "steps", *HEADS, "test %", "runs")
        table.padding = (0, 1, 0, 0)  # narrow enough for most terminals
        for cell in cells:
            words = [*columns.of(cell.first.trial), str(cell.first.steps), *_cell_words(cell)]
            table.add_row(*words)
        self._print(table)
        levels = dict.fromkeys(level for one in rankings for level in one.comparison.levels)
        if "upstream seeds" in levels:
            self.say(
                f"ARG is the mean over upstream seeds; intervals are over {' and '.join(levels)}"
            )
        else:
            self.say(ONE_SEED)


def _cell_words(cell: Cell) -> list[str]:
    """Return a cell's words; a method that learns nothing upstream has no seeds."""
    scored, of, score = len(cell.scored), len(cell.entries), cell.first.score
    seeds = f"{scored}" if scored == of else f"{scored}/{of}"
    arg = "undefined" if cell.arg is None else f"{cell.arg:+.2f}"
    if cell.summary is None and (score is None or score.gain is None):
        arg = "–"
    return [
        "–" if cell.first.trial.learned is None else seeds,
        arg,
        interval_text(cell.interval),
        interval_text(None if cell.summary is None else cell.summary.new_run),
        "–" if cell.mean_test is None else f"{100 * cell.mean_test:.1f}",
        str(cell.runs),
    ]


def _group(entry: PointStatus) -> tuple[str, ...]:
    plan = entry.trial.plan
    return entry.trial.upstream.config.method, plan.config.partition, plan.config.backbone
