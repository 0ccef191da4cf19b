"""Runs as one Parquet file: a row a downstream run, for whoever wants them in a data frame."""

from __future__ import annotations

import json
from pathlib import Path

from mpt.errors import DataError, UsageError
from mpt.store.database import open_results
from mpt.study.choice import chosen

from .file import Exported, new_path


def export_parquet(
    results: Path, out: Path, *, store: str | None = None, study: str | None = None
) -> Exported:
    """Write every run of a database into a new Parquet file.

    The columns are those of `Database.table("runs")`; ``dev`` and ``test`` are fractions, null
    where the run diverged. ``curve`` is JSON: [step, dev score, training loss] an evaluation.

    Args:
        results: results directory, only read.
        out: a new file.
        store: URL of the database; None: the one in `results`.
        study: first eight digits or more of the only study or protocol whose runs are written;
            None: every run.

    Raises:
        UsageError: there is no such database or study, or `out` exists, cannot be written or ends
            in something else than .parquet.
        DataError: no run is recorded.
    """
    if out.suffix != ".parquet":
        raise UsageError(f"--out is {str(out)!r}, but must end in .parquet")
    with open_results(results, store, read_only=True) as database:
        frame = database.table("runs")
        if study is not None:
            own = {one.key for one in chosen(database.studies(), study)}
            points = [point for point in database.points() if point.study in own]
            frame = frame[frame["key"].isin({key for point in points for key in point.runs})]
    if frame.empty:
        raise DataError(f"{results}: holds no run; run a search into it first")
    # a list of lists of numbers and None is no column of Parquet
    frame = frame.assign(curve=[json.dumps(curve) for curve in frame["curve"]])
    with new_path(out) as path:
        frame.to_parquet(path, index=False)
    return Exported(path=out, count=len(frame), what="runs")
