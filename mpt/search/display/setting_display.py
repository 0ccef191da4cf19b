"""The closing tables of jobs with many settings: ranked within each, or one line a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpt.search.display.columns import Columns
from mpt.search.display.display import SCORE_COLUMNS, Display, score_words
from mpt.search.leaderboard import PointStatus, ranked

if TYPE_CHECKING:
    from mpt.search.comparison import Ranking
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
        self._list("best point of every setting and method", best)

    def _labels(self, entries: Sequence[PointStatus]) -> Sequence[str]:
        """Return what the studies of these points left out, each once."""
        labels = (entry.trial.plan.partial for entry in entries)
        return [label for label in dict.fromkeys(labels) if label]

    def _list(self, title: str, entries: Sequence[PointStatus]) -> None:
        """Print one line an entry, in their order."""
        self.say()
        self.say(title)
        table = self._table(*self._columns.names, "steps", *SCORE_COLUMNS)
        for entry in entries:
            assert entry.score is not None
            row = [*self._columns.of(entry.trial), str(entry.steps), *score_words(entry.score)]
            table.add_row(*row)
        self._print(table)


class CellDisplay(SettingDisplay):
    """Lists the cells of a replay; there is nothing to rank, and settings were said before."""

    def __init__(self, job: SearchJob, **options: Any) -> None:
        super().__init__(job, **options)
        self._columns = Columns(job, settings=False)

    def ranking(self, entries: Sequence[PointStatus], rankings: Sequence[Ranking] = ()) -> None:
        """Print one line a cell, in the job's order."""
        there = [entry for entry in entries if entry.score is not None]
        self._list(f"{len(there)} of {len(entries)} cells", there)
        self.one_seed(there)
        self._reasons(there)
        for label in self._job.partial:
            self.say(label)


def _group(entry: PointStatus) -> tuple[str, ...]:
    plan = entry.trial.plan
    return entry.trial.upstream.config.method, plan.config.partition, plan.config.backbone
