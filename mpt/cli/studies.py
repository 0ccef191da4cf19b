"""``mpt studies RESULTS``: which studies a database holds, and how far each is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mpt.cli.flags import Parser, add_database, work_with


def main(argv: Sequence[str] | None = None) -> int:
    """List the studies of a database; return the exit code."""
    return work_with(parser_of, _work, argv)


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "List the studies of a database. Nothing is compared across studies; the first eight "
        "digits of an id are what --study takes."
    )
    add_database(parser)
    return parser


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from mpt.store.database import open_results
    from mpt.store.records import BASELINE

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("study", "what", "partition", "backbone", "seed", "points"):
        table.add_column(column, overflow="fold", no_wrap=column == "partition")
    notes: dict[str, list[str]] = {}
    with open_results(flags.results, flags.store, read_only=True) as database:
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
            )
            if note:
                notes.setdefault(note, []).append(study.id)
    console = Console(highlight=False, markup=False)
    console.print(table)
    # below: beside six columns a note would be a word wide
    for note, studies in notes.items():
        console.print(f"{', '.join(studies)}: {note}")
    return 0
