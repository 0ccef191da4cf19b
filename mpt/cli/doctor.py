"""``mpt doctor RESULTS``: is what a database says still true?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mpt.cli.flags import Parser, add_database, work_with
from mpt.words import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Check a database from command-line flags; return 0, or 3 if something is wrong."""
    return work_with(parser_of, _work, argv)


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "Check the digests and references of a database of results, and the files beside it. "
        "Every fault is one line; exit code 3 if there is one."
    )
    add_database(parser)
    parser.add_argument("--storage", metavar="URI", help="where checkpoints and prompts are")
    parser.add_argument("--no-files", action="store_true", help="do not read the files")
    return parser


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    from mpt.store.artifacts import Artifacts
    from mpt.store.database import open_results
    from mpt.store.doctor import check

    files = Artifacts(flags.storage or str(flags.results))
    with open_results(flags.results, flags.store, read_only=True) as database:
        faults = check(database, storage=not flags.no_files, artifacts=files)
        points, studies = len(database.points()), len(database.studies())
    for fault in faults:
        print(fault)
    if not faults:
        holds = f"{counted(studies, 'study', 'studies')}, {counted(points, 'point')}"
        print(f"{flags.results}: {holds}: nothing is wrong")
    return 3 if faults else 0
