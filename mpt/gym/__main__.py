"""``python -m mpt.gym build|verify|doctor``: make, check and examine a few-shot gym."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mpt.arguments import OneLineParser, unfinished
from mpt.config import DATA_SEEDS
from mpt.errors import DataError, Interrupted, MptError, UsageError
from mpt.gym.catalogue import ALL_SHOTS, Catalogue, load_catalogue
from mpt.gym.crossfit.build import Plan, Report, build_all
from mpt.gym.crossfit.completion import completion_lines
from mpt.gym.crossfit.doctor import Diagnosis, examine
from mpt.gym.crossfit.sources import Hub, Mirror, Source
from mpt.gym.crossfit.tasks import load_rows
from mpt.gym.crossfit.verify import compare, published_sums
from mpt.processes import usable_processors
from mpt.words import counted

SIZES = {"16": 16, "32": 32, "64": 64, "128": 128, "all": ALL_SHOTS}
SHOWN_PAIRS = 20


def main(argv: Sequence[str] | None = None, *, program: str = "python -m mpt.gym") -> int:
    """Run one command; return its exit code (0 done, 1 differences, 2 usage, 3 data, 75 stop)."""
    try:
        arguments = parser_of(program).parse_args(argv)
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print(f"interrupted: {unfinished(program.split())}", file=sys.stderr)
        return Interrupted.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return DataError.exit_code
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def parser_of(program: str) -> argparse.ArgumentParser:
    """Return the parser of all commands; `program` is how it was called."""
    parser = OneLineParser(
        prog=program, description="Make, check and examine a gym of few-shot files."
    )
    commands = parser.add_subparsers(
        required=True, title="commands", metavar="build|verify|doctor"
    )
    build = commands.add_parser(
        "build",
        help="build few-shot files from raw rows; resumes",
        description="Build few-shot files from raw rows. The same command again builds what is "
        "missing.",
    )
    add = build.add_argument_group("from and to").add_argument
    add(
        "--source",
        required=True,
        metavar="WHERE",
        help='"hub", or the directory of a mirror: DIR/<task>/<split>.jsonl',
    )
    add("--out", required=True, type=Path, metavar="DIR", help="gym directory to build into")
    add = build.add_argument_group("what is built").add_argument
    add("--tasks", metavar="NAME,…", help="default: all of the source")
    add(
        "--shots",
        choices=tuple(SIZES),
        default="16",
        help="examples a class for train and for dev each; 16 is the published sampling: "
        "16 a class, or 32 where the task is not sampled per class (default: %(default)s)",
    )
    add(
        "--seeds",
        default=",".join(map(str, DATA_SEEDS)),
        metavar="N,…",
        help="data seeds (default: %(default)s)",
    )
    build.add_argument_group("where it runs").add_argument(
        "--jobs",
        type=int,
        metavar="N",
        default=usable_processors(),
        help="processes (default: %(default)s)",
    )
    build.set_defaults(run=_build)
    verify = commands.add_parser(
        "verify",
        help="compare with the published MD5 sums",
        description="Compare the files of a gym with the published MD5 sums; exit code 1 if one "
        "is different.",
    )
    verify.add_argument("gym", type=Path, metavar="DIR", help="gym directory")
    verify.set_defaults(run=_verify)
    doctor = commands.add_parser(
        "doctor",
        help="tasks, partitions and shared text of a gym",
        description="Say which tasks a gym has, which partitions are whole, and which tasks "
        "share text.",
    )
    doctor.add_argument("gym", type=Path, metavar="DIR", help="gym directory")
    doctor.set_defaults(run=_doctor)
    return parser


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _build(arguments: argparse.Namespace) -> int:
    if arguments.jobs < 1:
        raise UsageError(f"--jobs is {arguments.jobs}, but must be at least 1")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out} is not a directory")
    source = _source(arguments.source)
    names, wrong = _names(arguments.tasks, source)
    plan = Plan(source, arguments.out, SIZES[arguments.shots], _seeds(arguments.seeds))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _progress() as progress:
        bar = progress.add_task("building", total=len(names))

        def done(report: Report) -> None:
            progress.update(bar, advance=1, description=report.task)
            if report.note:
                word = "not built" if report.status == "failed" else report.task
                progress.console.print(
                    f"{word}: {report.note}", highlight=False, markup=False, soft_wrap=True
                )

        reports = build_all(names, plan, min(arguments.jobs, max(len(names), 1)), done)
    for report in wrong:
        print(f"not built: {report.note}", file=sys.stderr)
    reports += wrong
    count = {word: sum(r.status == word for r in reports) for word in ("built", "kept", "failed")}
    print(
        f"{counted(count['built'], 'task')} built, {count['kept']} were there already, "
        f"{count['failed']} failed → {arguments.out}"
    )
    return DataError.exit_code if count["failed"] else 0


def _source(text: str) -> Source:
    if text == "hub":
        return Hub()
    if not Path(text).is_dir():
        raise UsageError(f'--source {text!r} must be "hub" or a directory of raw rows')
    return Mirror(Path(text))


def _names(text: str | None, source: Source) -> tuple[list[str], list[Report]]:
    """Return the tasks to build, and a report for each name in a mirror that is not a task."""
    catalogue = load_catalogue(None)
    if text is not None:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            catalogue.task(name)
            if names.count(name) > 1:
                raise DataError(f"--tasks names {name!r} twice; name each task once")
        return names, []
    if not isinstance(source, Mirror):
        return list(catalogue.tasks), []
    known, wrong = [], []
    for name in source.names():
        try:
            known.append(catalogue.task(name).name)
        except UsageError as error:
            wrong.append(
                Report(name, "failed", f"mirror directory {source.folder / name}: {error}")
            )
    if not known and not wrong:
        raise DataError(f"mirror {source.folder} has no task directories")
    return known, wrong


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= s < 2**32 for s in seeds):
        raise UsageError(
            f"--seeds is {text!r}, but must be different whole numbers from 0 to 4294967295, "
            "commas between"
        )
    return seeds


def _verify(arguments: argparse.Namespace) -> int:
    gym = _gym(arguments.gym)
    results = [compare(gym, name) for name in sorted(published_sums())]
    for result in results:
        row = load_rows()[result.task]
        why = " (the order of its references cannot be repeated)" if row.hash_ordered else ""
        for name in result.different:
            print(f"differs: {name}{why}")
    same, different, absent = (
        sum(len(getattr(result, key)) for result in results)
        for key in ("same", "different", "absent")
    )
    print(
        f"{same} of {same + different + absent} published files are there and the same, "
        f"{different} differ, {absent} are absent"
    )
    if not same and not different:
        raise DataError(f"{gym}: no file with a published name; nothing was compared")
    return 1 if different else 0


def _doctor(arguments: argparse.Namespace) -> int:
    gym = _gym(arguments.gym)
    with _progress() as progress:
        bar = progress.add_task("reading", total=len(load_catalogue(gym).tasks))
        diagnosis = examine(gym, lambda name: progress.update(bar, advance=1, description=name))
    _print_tasks(diagnosis)
    _print_partitions(diagnosis, load_catalogue(gym))
    _print_pairs(diagnosis)
    broken = [state.task for state in diagnosis.tasks if state.broken]
    if broken:
        raise DataError(
            f"{gym}: {counted(len(broken), 'task has', 'tasks have')} broken files: "
            f"{', '.join(broken)}; build again what is broken"
        )
    return 0


def _gym(path: Path) -> Path:
    if not path.is_dir():
        raise UsageError(f"DIR {str(path)!r} is not a directory")
    return path


def _print_tasks(diagnosis: Diagnosis) -> None:
    width = max(len(state.task) for state in diagnosis.tasks)
    for state in diagnosis.tasks:
        print(f"{state.status:<11}  {state.task:<{width}}  {state.reason}")
    for status in ("built", "differs", "unavailable"):
        print(f"{sum(state.status == status for state in diagnosis.tasks):>5} {status}")


def _print_partitions(diagnosis: Diagnosis, catalogue: Catalogue) -> None:
    missing = {state.task for state in diagnosis.tasks if state.status == "unavailable"}
    print("\npartition           complete   target inputs   near-duplicates of a source's")
    print("                                               train or dev   any file")
    for part in diagnosis.partitions:
        shares = (
            f"{100 * near / part.inputs:.2f} %" if part.inputs else "–"
            for near in (part.near_learn, part.near_anywhere)
        )
        learn, anywhere = shares
        word = "yes" if part.complete else "no"
        print(f"{part.name:<20}{word:<11}{part.inputs:>13}{learn:>15}{anywhere:>11}")
        for line in completion_lines(catalogue, catalogue.partition(part.name), missing):
            print(f"    {line}")


def _print_pairs(diagnosis: Diagnosis) -> None:
    print("\nsource → target pairs with most near-duplicates (share of the target's inputs)")
    for pair in diagnosis.pairs[:SHOWN_PAIRS]:
        print(
            f"{100 * pair.share_learn:>7.2f} % of train or dev, "
            f"{100 * pair.share_anywhere:>6.2f} % of any file: {pair.source} → {pair.target}"
        )
    rest = len(diagnosis.pairs) - SHOWN_PAIRS
    if rest > 0:
        most = 100 * diagnosis.pairs[SHOWN_PAIRS].share_anywhere
        print(f"{rest} more pairs, at most {most:.2f} % each")


if __name__ == "__main__":
    sys.exit(main())
