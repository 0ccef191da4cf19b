"""``mpt studies RESULTS``: which studies a database holds, and how far each is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpt.cli.flags import Parser, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """List the studies of a database; return the exit code."""
    return exit_code(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "List the studies of a database. Nothing is compared across studies; the first eight "
        "digits of an id are what --study takes."
    )
    parser.add_argument("results", help="results directory")
    parser.add_argument("--store", metavar="URL", help="database, if it is not in there")
    flags = parser.parse_args(argv)
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from mpt.store.database import open_results
    from mpt.store.records import BASELINE

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("study", "what", "partition", "backbone", "seed", "points", "note"):
        table.add_column(column, overflow="fold")
    results = Path(flags.results).expanduser().absolute()
    with open_results(results, flags.store, read_only=True) as database:
        for study in database.studies():
            points = [p for p in database.points(study.key) if p.method != BASELINE]
            what = "search" if study.role == "validation" else "replay"
            note = "smoke: means nothing" if study.smoke else study.partial or ""
            table.add_row(
                study.id,
                what,
                study.partition,
                study.backbone.rstrip("/").rpartition("/")[2],
                str(study.train_seed),
                str(len(points)),
                note,
            )
    Console(highlight=False, markup=False).print(table)
    return 0
