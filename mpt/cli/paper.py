"""The command line of the whole study: ``python tune_jobs/paper.py [flags]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.arguments import names
from mpt.cli.flags import (
    OFFERED,
    Parser,
    add_common,
    add_options,
    check_backbones,
    command_of,
    execution_of,
    options_of,
    places,
    work_with,
)
from mpt.config import EMBEDDED_BACKBONES

if TYPE_CHECKING:
    from mpt.replay.whole_study_run import ReportWriter

RESULTS = "results/paper"


def main(argv: Sequence[str] | None = None, *, report: ReportWriter) -> int:
    """Run the whole study from command-line flags; return the exit code.

    Args:
        argv: arguments without the program's name; None for those of the process.
        report: writes the report at the end.
    """
    return work_with(parser_of, partial(_work, report), argv)


def _work(report_writer: ReportWriter, parser: Parser, flags: argparse.Namespace) -> int:
    locations = places(flags, RESULTS)
    results = locations["results"]
    report = Path(flags.report).expanduser().absolute() if flags.report else results / "report"
    tool = "mpt" if Parser.command else "python -m mpt"
    store = "" if flags.store is None else f"--store {flags.store} "
    after = f"{tool} report --results {results} {store}--out {report}"
    if flags.smoke:
        after = command_of(parser, flags, smoke=False, results=None)
    execution = execution_of(parser, flags, after)
    check_backbones(flags.backbones, flags.gym)
    from mpt.replay.whole_study import WholeRequest  # torch and Ray take seconds to import
    from mpt.replay.whole_study_run import Manner, WholeStudy
    from mpt.search.cost.planner import Planning

    request = WholeRequest(
        **locations,
        gym=flags.gym,
        backbones=flags.backbones,
        stages=flags.stages,
        methods=flags.methods,
        partitions=flags.partitions,
        precision=flags.precision,
        options=options_of(flags),
        train_seed=flags.train_seed,
        smoke=flags.smoke,
        allow_missing=flags.allow_missing,
    )
    manner = Manner(
        report=report,
        planning=Planning(price=flags.price, gpus=flags.plan_gpus),
        dry_run=flags.dry_run,
        fresh=flags.fresh,
        keep_prompts=flags.keep_prompts,
        as_json=flags.json,
    )
    return WholeStudy(request, execution, manner, report_writer).run()


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "The whole study: search every method, replay the best settings on all partitions, "
        "sample sizes and backbones, and write the report. With the embedded models and gym it "
        "is the paper in miniature. The same command again resumes."
    )
    add = parser.add_argument_group("study").add_argument
    add(
        "--backbones",
        type=names,
        metavar="MODEL,…",
        default=EMBEDDED_BACKBONES,
        help="the first is searched (default: the embedded T5, BART and GPT-2)",
    )
    add("--methods", type=names, metavar="NAME,…", default=(), help="default: all")
    add(
        "--partitions",
        type=names,
        metavar="NAME,…",
        default=(),
        help="of the stage replay (default: all)",
    )
    add(
        "--stages",
        type=names,
        metavar="NAME,…",
        default=(),
        help="some stages only (default: all of --dry-run)",
    )
    add(
        "--report",
        metavar="DIR",
        help="where the report goes (default: report/ in the results directory)",
    )
    add("--precision", choices=OFFERED, help="number format in place of the recipe's")
    add_options(parser)
    add_common(parser, RESULTS)
    return parser
