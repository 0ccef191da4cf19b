"""Jobs planned or run, and shown: what the command line shares with callers in Python."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mpt.api.study import Study
from mpt.errors import MptError, UsageError
from mpt.search.job import Execution, SearchJob
from mpt.study.options import StudyOptions

if TYPE_CHECKING:
    from rich.console import Console

    from mpt.search.cost.planner import Planning
    from mpt.search.display.display import Display

F = TypeVar("F", bound=Callable[..., Any])

PLANNED = ("price", "plan_gpus", "throughput")
"""Keywords of a dry run, and flags of one."""

_FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


def display_of(job: SearchJob, table: str, **how: Any) -> Display:
    """Return what shows a job.

    Args:
        job: what is shown.
        table: what is shown at the end: "points", ranked; "settings", points ranked within every
            setting and method; or "cells", one line each in the job's order.
        **how: arguments of `Display`.
    """
    from mpt.search.display.display import Display
    from mpt.search.display.setting_display import CellDisplay, SettingDisplay

    displays = {"points": Display, "settings": SettingDisplay, "cells": CellDisplay}
    return displays[table](job, **how)


def plan_job(job: SearchJob, execution: Execution, show: Display, planning: Planning) -> int:
    """Show what is left of a job and what it costs; write nothing; return the exit code.

    Raises:
        UsageError: a throughput is stated, and not of how many GPUs.
        DataError: a few-shot file is malformed.
    """
    from mpt.search.cost.planner import stated_lines
    from mpt.search.display.document import plan_document
    from mpt.search.job import DONE
    from mpt.search.look import plan_search

    if planning.throughput is None:
        return plan_search(job, execution, show, planning)
    lines = stated_lines(job, execution.gpus_per_trial, planning)
    for line in lines:
        show.say(line)
    show.document(lambda: plan_document(job, (), lines))
    return DONE


def in_keywords(function: F) -> F:
    """Make a function of the public interface name keywords where errors name flags.

    What is below serves the command line too, and says ``--num-samples`` of `num_samples`. Flags
    that are no keyword (of another program, say) stay.
    """
    fields = (*StudyOptions.__dataclass_fields__, *Execution.__dataclass_fields__, *PLANNED)
    own = (*inspect.signature(function).parameters, *inspect.signature(Study).parameters)
    known = {*fields, *own}

    def keyword(flag: re.Match[str]) -> str:
        name = flag[1].replace("-", "_")
        return name if name in known else flag[0]

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except MptError as error:
            error.args = (_FLAG.sub(keyword, str(error)),)
            raise

    return call  # type: ignore[return-value]


def carry_out(
    job: SearchJob,
    where: Mapping[str, Any],
    *,
    table: str,
    notes: Sequence[str] = (),
    fresh: bool = False,
    quiet: bool = False,
    dry_run: bool = False,
) -> tuple[int, Mapping[str, Any] | None]:
    """Run or plan a job for a caller in Python, whose process stays as it was.

    `where` has fields of `Execution`, in a dry run `PLANNED` too; `table` is as of `display_of`,
    and `notes` are said first.

    Returns:
        Exit code, and the plan of a dry run as `plan_document` has it.

    Raises:
        UsageError: a keyword is unknown, or Ray cannot run a trial.
        DataError: backbone, few-shot files or database are broken.
        MptError: no trial succeeded.
    """
    from rich.console import Console

    from mpt.search.display.display import make_console
    from mpt.search.job import FAILED
    from mpt.search.look import peek
    from mpt.search.run import run_search

    planning = _planning(where, dry_run)
    execution = _execution({name: where[name] for name in where if name not in PLANNED})
    plans: list[Mapping[str, Any]] = []
    console = Console(file=io.StringIO(), width=10_000) if quiet else make_console()
    show = display_of(job, table, console=console, as_json=dry_run, sink=plans.append)
    for note in notes:
        show.say(note)
    with callers_process():
        if planning is not None:
            return plan_job(job, execution, show, planning), plans[0]
        code = run_search(job, execution, fresh=fresh, display=show)
        if code == FAILED:
            with peek(job) as look:
                if not any(entry.record for entry in look.entries):
                    raise MptError(_failed(console))
    return code, None


def _planning(where: Mapping[str, Any], dry_run: bool) -> Planning | None:
    from mpt.search.cost.planner import Planning
    from mpt.search.cost.stated import parse_throughput

    price, gpus, throughput = (where.get(name) for name in PLANNED)
    if dry_run:
        speed = None if throughput is None else parse_throughput(str(throughput))
        return Planning(price=price, gpus=gpus, throughput=speed)
    for name in where:
        if name in PLANNED:
            raise UsageError(f"{name} says something only with dry_run; give both or neither")
    return None


def _execution(where: Mapping[str, Any]) -> Execution:
    from mpt.upstream.registry import registered

    for name in where:
        if name not in Execution.__dataclass_fields__:
            known = ", ".join(Execution.__dataclass_fields__)
            raise UsageError(f"argument {name!r} is unknown; of where it runs there are {known}")
    own = {
        "resume": "the same call",
        "next_step": "result.best, result.points()",
        "signals": False,
        "methods": registered(),
    }
    return Execution(**{**own, **where})


def _failed(console: Console) -> str:
    """Return why no trial succeeded, as far as it was kept from being printed."""
    kept = console.file.getvalue() if isinstance(console.file, io.StringIO) else ""
    reasons = [line for line in kept.splitlines() if line.startswith("failed: ")]
    why = "; ".join(reasons) or "the lines above that begin with failed say why"
    return f"no trial succeeded: {why}; mend it, and the same call goes on"


@contextlib.contextmanager
def callers_process() -> Iterator[None]:
    """Leave the caller's signal handlers and number of threads as they are."""
    import torch

    threads = torch.get_num_threads()
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) if main else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
