"""The command line of Tables 7 and 8: ``python tune_jobs/similarity.py [flags]``."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.cli.flags import (
    Parser,
    add_common,
    carry_out,
    check_gym,
    execution_of,
    work_with,
)
from mpt.cli.replay import RESULTS, add_settings, request_of
from mpt.cli.requests import add_names, next_step
from mpt.errors import UsageError
from mpt.replay.similarity.pairs import pair_lines
from mpt.replay.similarity.ranking import RANK_BY
from mpt.search.ray.session import one_ray

if TYPE_CHECKING:
    from mpt.replay.similarity.pairs import Pairs


def main(argv: Sequence[str] | None = None) -> int:
    """Compare pairs and run the pilot from command-line flags; return the exit code."""
    return work_with(parser_of, _work, argv)


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    _check(flags)
    with one_ray():  # a worker that has tuned prompts goes on with trials
        return _compare(parser, flags)


def _compare(parser: Parser, flags: argparse.Namespace) -> int:
    request = request_of(
        flags,
        backbones=() if flags.backbone is None else (flags.backbone,),
        partitions=() if flags.partition is None else (flags.partition,),
    )
    execution = execution_of(parser, flags, next_step(parser, flags, request.results))
    from mpt.replay.similarity.compare import keep_pairs, measure_pairs  # torch takes seconds

    pairs: Pairs = {}
    about = ""
    if flags.only != "pilot":
        pairs, about = measure_pairs(request, prompts=flags.prompts, device=flags.device)
    if flags.only == "pairs":
        if not flags.dry_run:
            keep_pairs(request, pairs, about)
        lines = [about, *pair_lines(pairs)]
        print(json.dumps(pairs, indent=2) if flags.json else "\n".join(lines))
        return 0
    from mpt.replay.similarity.pilot import plan_pilot
    from mpt.replay.similarity.prompts import prompt_tuner
    from mpt.replay.similarity.ranking import save_rankings
    from mpt.search.display.display import make_console
    from mpt.search.run import set_results_aside

    say = make_console(stderr=flags.json).print
    tuner = None if flags.dry_run else prompt_tuner(request, execution, say)
    plan = functools.partial(
        plan_pilot, request, flags.targets, device=flags.device, by=flags.rank_by
    )
    notes = (*([about] if pairs else []), *pair_lines(pairs))
    if flags.fresh:  # before anything new is written, and after everything is checked
        pilot = plan(reuse=False)
        check_gym(pilot.job.plans)
        aside: list[str] = []
        if not flags.dry_run:
            set_results_aside(pilot.job, aside.append)
            flags.fresh = False
        notes = (*aside, *notes)
    pilot = plan(reuse=not flags.fresh, tuner=tuner)
    notes = (*notes, *pilot.notes)
    if not flags.dry_run:
        if pairs:
            keep_pairs(request, pairs, about)
        save_rankings(request.results, request.store, pilot.rankings)
    return carry_out(pilot.job, execution, flags, notes=notes, table="cells")


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "Compare tasks by subspaces: similarity of pairs by their inputs (Table 7), and MAML on "
        "the source tasks of highest, random and lowest similarity to a target, by prompts that "
        "are tuned on each (Table 8). The "
        "same command again resumes; search_spaces/similarity.toml says what is compared."
    )
    add = parser.add_argument_group("similarity").add_argument
    add(
        "--backbone",
        metavar="MODEL",
        help='"embedded", a Hub id or a local checkpoint (default: the recipe\'s)',
    )
    add(
        "--partition",
        metavar="NAME",
        help="whose source tasks are chosen from (default: similarity.toml's)",
    )
    add_names(add, "--targets", "tasks whose sources are chosen (default: similarity.toml's)")
    add("--rank-by", choices=RANK_BY, default=RANK_BY[0], help="tuned prompts, or their inputs")
    add("--only", choices=("pairs", "pilot"), help="Table 7 or Table 8 alone")
    add("--prompts", action="store_true", help="Table 7 of prompts that --keep-prompts kept, too")
    add(
        "--device",
        metavar="NAME",
        default="cpu",
        help="where the backbone reads the tasks that are compared, like cuda:0",
    )
    add_settings(parser)
    add_common(parser, RESULTS)
    return parser


def _check(flags: argparse.Namespace) -> None:
    """Refuse flags that would have no effect."""
    if flags.only == "pilot" and flags.prompts:
        raise UsageError("--prompts is of Table 7; leave out --only pilot")
    if flags.only == "pairs" and (flags.targets or flags.partition or flags.rank_by != RANK_BY[0]):
        raise UsageError(
            "--targets, --partition and --rank-by are of Table 8; leave out --only pairs"
        )
