"""Results in Python: tables of points and runs, read from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.arguments import absolute_path

if TYPE_CHECKING:
    import pandas as pd

    from mpt.config import StudyConfig
    from mpt.metrics.replicates import Summary
    from mpt.search.comparison import Cell
    from mpt.store.database import Database
    from mpt.store.records import Point, StudyRecord
    from mpt.study.study import StudyPlan
    from mpt.trial.score import PointScore


@dataclass(frozen=True, kw_only=True)
class BestPoint:
    """A setting that can be replayed."""

    method: str
    settings: dict[str, Any]
    """Settings of the method that were searched, or all of them."""
    steps: int
    """Upstream steps."""
    arg: float | None
    """ARG in %."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end."""
    how: str = "one upstream seed"
    """What upstream seeds ARG and interval are of."""
    study: str
    """Id of the study it was found in."""
    point: str
    """Key of the point."""
    config: StudyConfig
    """Settings of that study."""
    upstream: Any
    """`UpstreamSpec` with the one rung."""
    results: Path
    """Where it was found."""
    store: str | None = None
    """Database, if it is not in there."""

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {_text(value)}" for name, value in self.settings.items())
        arg = "ARG undefined" if self.arg is None else f"ARG {self.arg:+.2f} %"
        ends = "" if self.low is None else f" [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.method}: {settings}, {self.steps} steps: {arg}{ends}"

    def __repr__(self) -> str:
        return f"BestPoint({self}; {self.how}; study {self.study}, point {self.point[:8]})"

    def _repr_html_(self) -> str:
        import pandas as pd

        from mpt.store.frames import html_of

        shown = ("steps", "arg", "low", "high", "how", "study")
        row = {"method": self.method, **self.settings}
        return html_of(pd.DataFrame([row | {name: getattr(self, name) for name in shown}]))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


class Results:
    """Everything that a database of results holds.

    Args:
        results: results directory.
        store: URL of the database, if it is not ``mpt.db`` in there.
        expected: whether there has to be one now.

    Raises:
        UsageError: there is none.
    """

    def __init__(
        self, results: str | Path, store: str | None = None, *, expected: bool = True
    ) -> None:
        self.results, self.store = absolute_path(results), store
        if expected:
            self._open().close()

    def _open(self) -> Any:
        from mpt.store.database import open_results

        return open_results(self.results, self.store, read_only=True)

    def studies(self) -> pd.DataFrame:
        """Return one row a study: what is compared with what."""
        import pandas as pd

        with self._open() as database:
            rows = [_study_row(study) for study in database.studies()]
        return pd.DataFrame(rows)

    def points(self, study: str | None = None) -> pd.DataFrame:
        """Return one row a point, ranked within each study and method.

        Args:
            study: first eight digits or more of the key of a study or protocol; None: all studies.

        Raises:
            UsageError: there is no such study; those that there are are listed.
        """
        import pandas as pd

        from mpt.store.records import BASELINE
        from mpt.trial.store import TrialStore

        rows = []
        with self._open() as database:
            for record in _chosen(database, study):
                points = [p for p in database.points(record.key) if p.method != BASELINE]
                scores = TrialStore(database).scores([point.key for point in points])
                rows += [point_row(p, scores.get(p.key), record.id) for p in points]
        frame = pd.DataFrame(rows)
        if frame.empty:
            return frame
        order = ["study", "method", "score"]
        return frame.sort_values(order, ascending=[True, True, False], ignore_index=True)

    def runs(self, study: str | None = None) -> pd.DataFrame:
        """Return one row a downstream run of a point: settings of the point beside its scores.

        ``upstream_seed`` is that of the prompt it started from (none where nothing is learned),
        ``train_seed`` that of the run itself.

        Args:
            study: as in `points`.
        """
        import pandas as pd

        rows = []
        with self._open() as database:
            for record in _chosen(database, study):
                points = {point.key: point for point in database.points(record.key)}
                for row in database.score_rows(list(points)):
                    point = points[row.point]
                    own = {"study": record.id, "method": point.method, "steps": point.steps}
                    own["upstream_seed"] = _upstream_seed(point, record)
                    rest = row._asdict()
                    rest["tuning_steps"] = rest.pop("steps")
                    rows.append({**own, **_settings(point), **rest})
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        from mpt.store.frames import html_of

        return html_of(self.studies())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.results)!r})"


def _chosen(database: Database, study: str | None) -> list[StudyRecord]:
    from mpt.study.choice import chosen

    return chosen(database.studies(), study, "study")


def point_row(point: Point, score: PointScore | None, study: str) -> dict[str, Any]:
    """Return a point as a row of a table."""
    interval = None if score is None else score.interval
    low, high = interval or (None, None)
    return {
        "study": study,
        "method": point.method,
        **_settings(point),
        "steps": point.steps,
        "arg": None if score is None else score.arg,
        "low": low,
        "high": high,
        "score": None if score is None else score.score,
        "mean_test": None if score is None else score.mean_test,
        "runs": len(point.runs),
        "status": point.status,
        "note": point.note if score is None else score.note or point.note,
        "point": point.key,
    }


def _settings(point: Point) -> dict[str, Any]:
    """Return the settings of a point that are numbers or names, a registered method's own too."""
    plain = {
        name: value
        for name, value in point.settings.items()
        if isinstance(value, (int, float, str)) and name != "method"
    }
    return plain | dict(point.settings.get("extra") or ())


def _upstream_seed(point: Point, record: StudyRecord) -> int | None:
    """Return the seed that a point was learned with; None where nothing is learned."""
    if not point.steps:
        return None
    own = point.settings.get("seed")
    return record.train_seed if own is None else int(own)


def _study_row(study: StudyRecord) -> dict[str, Any]:
    return {
        "study": study.id,
        "role": study.role,
        "partition": study.partition,
        "backbone": study.backbone,
        "gym": study.gym,
        "sources": study.source_set,
        "data_seeds": list(study.data_seeds),
        "train_seed": study.train_seed,
        "starts": study.starts,
        "precision": study.precision,
        "smoke": study.smoke,
        "partial": study.partial,
        "code": study.code,
    }


def cell_row(cell: Cell, studies: Mapping[StudyPlan, StudyRecord]) -> dict[str, Any]:
    """Return a cell of a replay as a row of a table; see `ReplayResult.table`."""
    trial, score = cell.first.trial, cell.first.score
    gain = None if score is None else score.gain
    low, high = cell.interval or (None, None)
    new_run = None if cell.summary is None else cell.summary.new_run
    new_run_low, new_run_high = new_run or (None, None)
    return {
        "method": trial.method,
        "partition": trial.plan.config.partition,
        "steps": cell.first.steps,
        "seeds": len(cell.seeds),
        "arg": cell.arg,
        "low": low,
        "high": high,
        "new_run_low": new_run_low,
        "new_run_high": new_run_high,
        "tasks": None if gain is None else f"{gain.defined} of {gain.of}",
        "mean_test": cell.mean_test,
        "study": studies[trial.plan].id,
    }


def summary_row(summary: Summary) -> dict[str, Any]:
    """Return a configuration over its upstream seeds as columns of a table."""
    expected, new_run = summary.expected or (None, None), summary.new_run or (None, None)
    return {
        "seeds": summary.seeds,
        "arg": summary.arg,
        "expected_low": expected[0],
        "expected_high": expected[1],
        "new_run_low": new_run[0],
        "new_run_high": new_run[1],
        "spread": summary.spread,
        "tied": summary.tied,
        "p_best": summary.p_best,
        "unstable": summary.unstable,
        "reasons": "; ".join(summary.reasons),
    }


def load_results(results: str | Path, store: str | None = None) -> Results:
    """Open the results of searches and replays; see `Results`."""
    return Results(results, store)
