"""``mpt doctor RESULTS``: is what a database says still true?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpt.cli.flags import Parser, exit_code
from mpt.words import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Check a database from command-line flags; return 0, or 3 if something is wrong."""
    return exit_code(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "Check the digests and references of a database of results, and the files beside it. "
        "Every fault is one line; exit code 3 if there is one."
    )
    parser.add_argument("results", help="results directory")
    parser.add_argument("--store", metavar="URL", help="database, if it is not in there")
    parser.add_argument("--storage", metavar="URI", help="where checkpoints and prompts are")
    parser.add_argument("--no-files", action="store_true", help="do not read the files")
    flags = parser.parse_args(argv)
    from mpt.store.artifacts import Artifacts
    from mpt.store.database import open_results
    from mpt.store.doctor import check

    results = Path(flags.results).expanduser().absolute()
    files = Artifacts(flags.storage or str(results))
    with open_results(results, flags.store, read_only=True) as database:
        faults = check(database, storage=not flags.no_files, artifacts=files)
        points, studies = len(database.points()), len(database.studies())
    for fault in faults:
        print(fault)
    if not faults:
        there = f"{counted(studies, 'study', 'studies')}, {counted(points, 'point')}"
        print(f"{results}: {there}: nothing is wrong")
    return 3 if faults else 0
