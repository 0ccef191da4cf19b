"""The command line of a contest against MTL: ``python tune_jobs/beat_mtl.py [flags]``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.arguments import absolute_path, seeds
from mpt.cli.flags import (
    Parser,
    add_common,
    check_backbones,
    check_gym,
    execution_of,
    work_with,
)
from mpt.cli.requests import add_names, add_report, manner_fields, request_fields
from mpt.errors import UsageError
from mpt.study.spaces import SPACES

if TYPE_CHECKING:
    from mpt.replay.contest.run import ContestReport
    from mpt.study.contest.definition import Contest
    from mpt.study.contest.part import ContestPart

RESULTS = "results/beat_mtl"
STAGES_TEXT = "search, freeze, confirm, report"


def main(argv: Sequence[str] | None = None, *, report: ContestReport) -> int:
    """Run a contest from command-line flags; return the exit code."""
    return work_with(parser_of, partial(_work, report), argv)


def _work(report: ContestReport, parser: Parser, flags: argparse.Namespace) -> int:
    check_backbones(flags.backbones, flags.gym)
    from mpt.replay.contest.run import ContestManner, ContestRun, stages_from
    from mpt.replay.contest.stages import ContestRequest, search_job
    from mpt.study.contest.part import WHOLE

    contest, stages = contest_of(flags), stages_from(flags.stages)
    request = ContestRequest(
        contest=contest,
        data_seeds=flags.data_seeds,
        keep_prompts=flags.keep_prompts,
        **request_fields(flags, RESULTS),
    )
    check_gym(search_job(request).plans)
    manner = ContestManner(
        stages=stages,
        frozen=frozen_of(flags, request.results, contest.name),
        part=part_of(flags) if stages == ("report",) else WHOLE,
        **manner_fields(flags, request.results),
    )
    execution = execution_of(parser, flags, str(manner.report))
    return ContestRun(request, execution, manner, report).run()


def contest_of(flags: argparse.Namespace) -> Contest:
    """Return the contest that the flags ask for.

    Raises:
        UsageError: something named is unknown, or seeds of search and confirmation overlap.
    """
    from mpt.study.contest.definition import load_contest

    if flags.smoke and flags.contest not in (None, "smoke"):
        raise UsageError(
            f"--contest is {flags.contest!r}, but a smoke run has a contest of its own; leave "
            "one of --smoke and --contest out"
        )
    contest = load_contest("smoke" if flags.smoke else flags.contest or "full")
    changes: dict[str, Any] = {"search_seeds": flags.search_seeds, **_parts(flags)}
    changes = {name: value for name, value in changes.items() if value}
    if flags.contestants:
        changes["contestants"] = contest.with_only(flags.contestants)
    return dataclasses.replace(contest, **changes)


def part_of(flags: argparse.Namespace) -> ContestPart:
    """Return what of the confirmation the flags name; none: all."""
    from mpt.study.contest.part import ContestPart

    values = {**_parts(flags), "contestants": flags.contestants}
    return ContestPart(**{name: tuple(value or ()) for name, value in values.items()})


def _parts(flags: argparse.Namespace) -> dict[str, Any]:
    """Return field of a contest → what its flag names."""
    own = {name: getattr(flags, name) for name in ("upstream_seeds", "partitions", "backbones")}
    return {**own, "tuning_steps": flags.budgets}


def frozen_of(flags: argparse.Namespace, results: Path, contest: str) -> Path:
    """Return the file of frozen settings: in a checkout a file of the repository."""
    if flags.frozen:
        return absolute_path(flags.frozen)
    docs = SPACES.parent / "docs"
    folder = docs / "beat_mtl" if docs.is_dir() and not flags.smoke else results
    return folder / f"frozen-{contest}.toml"


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "A contest against multitask learning: choose every method's settings on validation "
        "tasks at one budget, freeze them in a file, confirm them on target tasks and fresh "
        "upstream seeds, and report the differences to the best multitask learning. The same "
        "command again resumes. The report is of all that is there; with --stages report, names "
        "and numbers restrict it."
    )
    add = parser.add_argument_group("contest").add_argument
    add("--contest", metavar="NAME", help="table of beat_mtl.toml (default: full)")
    add_names(add, "--stages", f"some of {STAGES_TEXT} (default: all)")
    add_names(add, "--contestants", "default: all")
    add_names(add, "--backbones", "the first is searched (default: contest's)", "MODEL,…")
    add_names(add, "--partitions", "of the confirmation (default: contest's)")
    add("--budgets", type=seeds, metavar="N,…", help="steps of downstream tuning")
    add("--search-seeds", type=seeds, metavar="N,…", help="upstream seeds settings are chosen on")
    add("--upstream-seeds", type=seeds, metavar="N,…", help="fresh ones, of the confirmation")
    add("--data-seeds", type=seeds, metavar="N,…", help="few-shot samples (default: the study's)")
    add(
        "--frozen",
        metavar="FILE",
        help="frozen settings (default: docs/beat_mtl/frozen-NAME.toml)",
    )
    add_report(add)
    add_common(parser, RESULTS)
    return parser
