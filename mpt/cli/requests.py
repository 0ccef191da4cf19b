"""What the command lines of replays, of the whole study and of contests share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpt.arguments import absolute_path, names
from mpt.cli.flags import Parser, command_of, places


def add_names(
    add: Callable[..., Any], flag: str, text: str, metavar: str = "NAME,…", default: Any = ()
) -> None:
    """Add a flag that takes names with commas between."""
    add(flag, type=names, metavar=metavar, default=default, help=text)


def add_report(add: Callable[..., Any]) -> None:
    """Add the flag that says where the report goes."""
    text = "where the report goes (default: report/ in the results directory)"
    add("--report", metavar="DIR", help=text)


def request_fields(flags: argparse.Namespace, default: str) -> dict[str, Any]:
    """Return the fields of `mpt.replay.request.JobRequest`; arguments as of `places`."""
    fields = ("gym", "train_seed", "smoke", "allow_missing")
    return {**places(flags, default), **{name: getattr(flags, name) for name in fields}}


def report_of(flags: argparse.Namespace, results: Path) -> Path:
    """Return where the report of some results goes."""
    return absolute_path(flags.report) if flags.report else results / "report"


def manner_fields(flags: argparse.Namespace, results: Path) -> dict[str, Any]:
    """Return the fields of `mpt.replay.staged.Manner` of a job with these results."""
    from mpt.search.cost.planner import Planning

    return {
        "report": report_of(flags, results),
        "planning": Planning(price=flags.price, gpus=flags.plan_gpus),
        "dry_run": flags.dry_run,
        "fresh": flags.fresh,
        "as_json": flags.json,
    }


def next_step(
    parser: Parser, flags: argparse.Namespace, results: Path, out: Path | str = "report"
) -> str:
    """Return the command after a finished job: the same at real size, or the report."""
    if flags.smoke:
        return command_of(parser, flags, smoke=False, results=None)
    store = "" if flags.store is None else f"--store {flags.store} "
    tool = "mpt" if Parser.command else "python -m mpt"
    return f"{tool} report --results {results} {store}--out {out}"
