"""Build few-shot files from raw rows: one task atomically, many tasks in parallel, resumably.

A task's directory appears under its final name only when it is whole: files and the record
``provenance.json`` are written beside it and renamed together.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mpt.errors import DataError, UsageError
from mpt.gym.catalogue import ALL_SHOTS, TaskInfo
from mpt.gym.crossfit.lines import Line, lines_of
from mpt.gym.crossfit.sampling import pools, sample, short_classes
from mpt.gym.crossfit.sources import Source
from mpt.gym.crossfit.tasks import TaskRow, load_rows
from mpt.gym.crossfit.template import Row
from mpt.gym.records import PROVENANCE, changed_files, note_failures, read_record, sha256
from mpt.gym.size import declare_size
from mpt.processes import is_alive
from mpt.provenance import now

BUILDER_VERSION = 1
"""Raised with every change that can change a byte of a built file."""


@dataclass(frozen=True)
class Plan:
    """What to build, the same for every task."""

    source: Source
    out: Path
    shots: int
    """As on the command line: 16 is the published size, `ALL_SHOTS` all rows."""
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What became of one task."""

    task: str
    status: str
    """ "built", "kept" (was there already) or "failed"."""
    note: str = ""
    """Why it failed; or what a reader of the built files should know."""


def build_task(task: TaskRow, plan: Plan) -> Report:
    """Build one task, or keep it where it is whole and came from the same source and row.

    Raises:
        DataError: the source or a row is bad, or the task's directory holds foreign files;
            nothing is written for the task.
    """
    folder = plan.out / task.name
    old = read_record(folder)
    if folder.exists() and old is None:
        raise DataError(
            f"task {task.name}: {folder} holds files that this command did not build; move them "
            "away or choose another --out"
        )
    asked = _asked(task, plan)
    seeds = plan.seeds
    if old is not None and {key: old.get(key) for key in asked} == asked:
        if set(seeds) <= set(old["seeds"]) and not changed_files(folder, old):
            return Report(task.name, "kept", _note(old))
        seeds = tuple(sorted({*seeds, *old["seeds"]}))
    files, record = _make(task, plan, seeds)
    record = {**asked, **record}
    _commit(folder, files, record)
    return Report(task.name, "built", _note(record))


def build_all(
    names: Sequence[str], plan: Plan, jobs: int, on_done: Callable[[Report], None]
) -> list[Report]:
    """Build tasks in `jobs` processes; a task that fails does not stop the others.

    Args:
        names: tasks.
        plan: see `Plan`.
        jobs: processes, at least 1; with 1, this one does the work.
        on_done: called in this process after each task.

    Returns:
        One report a task, in the order of `names`.
    """
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {plan.out} cannot be made: {error.strerror}") from error
    if not os.access(plan.out, os.W_OK | os.X_OK):
        raise UsageError(f"--out {plan.out} cannot be written; choose another")
    _sweep(plan.out)
    declare_size(plan.out, plan.shots)
    reports: dict[str, Report] = {}
    for report in _serial(names, plan) if jobs == 1 else _parallel(names, plan, jobs):
        reports[report.task] = report
        on_done(report)
    note_failures(
        plan.out, {r.task: r.note for r in reports.values() if r.status == "failed"}, names
    )
    return [reports[name] for name in names]


def _asked(task: TaskRow, plan: Plan) -> dict[str, Any]:
    """Return what decides every byte of the result, but for the seeds."""
    return {
        "schema": 1,
        "builder_version": BUILDER_VERSION,
        "task": task.name,
        "row": sha256(repr(task).encode()),
        "source_key": plan.source.key(task),
        "shots": "all" if plan.shots == ALL_SHOTS else plan.shots,
    }


def _make(
    task: TaskRow, plan: Plan, seeds: tuple[int, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the content of the task's files and the rest of its record."""
    origin, rows = plan.source.open(task)
    counts: dict[str, int] = {}

    def counted(split: str) -> Iterator[tuple[int, Row]]:
        counts[split] = 0
        for number, row in rows(split):
            counts[split] += 1
            yield number, row

    pool = pools(task, {name: lines_of(task, name, counted(name)) for name in task.splits.names})
    info = TaskInfo(task.name, task.family, task.metric, task.shots).at_shots(plan.shots)
    short = short_classes(task, pool.train, info.shots)
    files: dict[str, bytes] = {}
    test = _encoded(pool.test)
    for seed in seeds:
        drawn = sample(task, pool.train, info.shots, seed)
        for part, content in (
            ("train", _encoded(drawn.train)),
            ("dev", _encoded(drawn.dev)),
            ("test", test),
        ):
            files[info.file_name(seed, part)] = content
    return files, {
        "source": origin.source,
        "revision": origin.revision,
        "licence": origin.licence,
        "seeds": list(seeds),
        "raw_rows": counts,
        "lines": {"train pool": len(pool.train), "test": len(pool.test)},
        "short_classes": short,
        "broken_lines": sum(_broken(line) for line in (*pool.train, *pool.test)),
        **_about(task, {name: sha256(content) for name, content in files.items()}),
    }


def _about(task: TaskRow, digests: dict[str, str]) -> dict[str, Any]:
    """Return the part of a record that the source does not decide."""
    return {
        "deviations": list(task.deviations),
        "hub_note": task.hub_note,
        "files": digests,
        "digest": sha256("".join(f"{d} {name}\n" for name, d in digests.items()).encode()),
        "built": now(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "datasets")},
        },
    }


def _encoded(lines: Iterable[Line]) -> bytes:
    return "".join(f"{source}\t{output}\n" for source, output in lines).encode("utf-8")


def _broken(line: Line) -> bool:
    """Whether a reader sees another line than was meant: the format has no escapes."""
    source, output = line
    return "\t" in source or "\n" in source or "\n" in output


def _note(record: dict[str, Any]) -> str:
    notes = []
    short = {label: count for label, count in record["short_classes"].items() if count}
    if short:
        some = list(short.items())[:5]
        shown = ", ".join(f"{label or 'the task'} {count}" for label, count in some)
        notes.append(f"too few rows for {record['shots']} shots, halved or all taken: {shown}")
    absent = [label for label, count in record["short_classes"].items() if not count]
    if absent:
        notes.append(f"no rows of class {', '.join(absent[:5])}")
    if record["broken_lines"]:
        notes.append(f"{record['broken_lines']} lines hold a tab or newline inside their text")
    return "; ".join(notes)


def _commit(folder: Path, files: dict[str, bytes], record: dict[str, Any]) -> None:
    """Write everything under a temporary name, then swap it in by renaming."""
    fresh = _beside(folder, "building")
    try:
        fresh.mkdir()
        for name, content in files.items():
            _write(fresh / name, content)
        _write(fresh / PROVENANCE, json.dumps(record, indent=1, ensure_ascii=False).encode())
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if folder.exists():
        stale = _beside(folder, "replaced")
        folder.rename(stale)
        fresh.rename(folder)
        shutil.rmtree(stale)
    else:
        fresh.rename(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _beside(folder: Path, why: str) -> Path:
    return folder.with_name(f".{why}~{folder.name}~{socket.gethostname()}~{os.getpid()}")


def _sweep(out: Path) -> None:
    """Undo what killed runs of this host left; a task between its renames is restored."""
    for path in sorted(out.glob(".*~*~*~*")):
        why, name, host, pid = path.name.split("~")
        if host != socket.gethostname() or is_alive(int(pid)):
            continue
        if why == ".replaced" and not (out / name).exists():
            path.rename(out / name)
        else:
            shutil.rmtree(path)


def _attempt(name: str, plan: Plan) -> Report:
    try:
        return build_task(load_rows()[name], plan)
    except DataError as error:
        return Report(name, "failed", str(error))
    except OSError as error:
        return Report(name, "failed", f"task {name}: {error}")


def _serial(names: Sequence[str], plan: Plan) -> Iterator[Report]:
    for name in names:
        yield _attempt(name, plan)


def _parallel(names: Sequence[str], plan: Plan, jobs: int) -> Iterator[Report]:
    # spawn: the progress bar's thread must not be forked
    # a Ctrl-C reaches every process: the workers finish the task in hand, this one stops the rest
    quiet = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, quiet) as pool:
        futures: dict[Future[Report], str] = {
            pool.submit(_attempt, name, plan): name for name in names
        }
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    yield future.result()
                else:
                    yield Report(futures[future], "failed", _died(futures[future], error))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _died(name: str, error: BaseException) -> str:
    return (
        f"task {name}: its process ended early ({type(error).__name__}); out of memory? "
        "Run the command again with --jobs 1: finished tasks are kept"
    )
