"""The command line of the whole study: ``python tune_jobs/paper.py [flags]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mpt.cli.flags import (
    OFFERED,
    Parser,
    add_common,
    add_options,
    check_backbones,
    execution_of,
    options_of,
    work_with,
)
from mpt.cli.requests import (
    add_names,
    add_report,
    manner_fields,
    next_step,
    report_of,
    request_fields,
)
from mpt.config import EMBEDDED_BACKBONES

if TYPE_CHECKING:
    from mpt.replay.whole_study_run import ReportWriter

RESULTS = "results/paper"


def main(argv: Sequence[str] | None = None, *, report: ReportWriter) -> int:
    """Run the whole study from command-line flags; return the exit code."""
    return work_with(parser_of, partial(_work, report), argv)


def _work(report_writer: ReportWriter, parser: Parser, flags: argparse.Namespace) -> int:
    fields = request_fields(flags, RESULTS)
    results = fields["results"]
    after = next_step(parser, flags, results, report_of(flags, results))
    execution = execution_of(parser, flags, after)
    check_backbones(flags.backbones, flags.gym)
    from mpt.replay.whole_study import WholeRequest  # torch and Ray take seconds to import
    from mpt.replay.whole_study_run import StudyManner, WholeStudy

    request = WholeRequest(
        **fields,
        backbones=flags.backbones,
        stages=flags.stages,
        methods=flags.methods,
        partitions=flags.partitions,
        precision=flags.precision,
        options=options_of(flags),
    )
    manner = StudyManner(keep_prompts=flags.keep_prompts, **manner_fields(flags, results))
    return WholeStudy(request, execution, manner, report_writer).run()


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "The whole study: search every method, replay the best settings on all partitions, "
        "sample sizes and backbones, and write the report. With the embedded models and gym it "
        "is the paper in miniature. The same command again resumes."
    )
    add = parser.add_argument_group("study").add_argument
    text = "the first is searched (default: the embedded T5, BART and GPT-2)"
    add_names(add, "--backbones", text, "MODEL,…", EMBEDDED_BACKBONES)
    add_names(add, "--methods", "default: all")
    add_names(add, "--partitions", "of the stage replay (default: all)")
    add_names(add, "--stages", "some stages only (default: all of --dry-run)")
    add_report(add)
    add("--precision", choices=OFFERED, help="number format in place of the recipe's")
    add_options(parser)
    add_common(parser, RESULTS)
    return parser
