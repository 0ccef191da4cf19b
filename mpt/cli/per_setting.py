"""The command line of a search in every setting: ``python tune_jobs/per_setting.py [flags]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.arguments import whole
from mpt.cli.flags import (
    Parser,
    add_backbone,
    add_common,
    carry_out,
    command_of,
    execution_of,
    places,
    study_of,
    work_with,
)
from mpt.cli.requests import add_names
from mpt.config import known_methods
from mpt.errors import UsageError

if TYPE_CHECKING:
    from mpt.search.job import SearchJob


def main(argv: Sequence[str] | None = None) -> int:
    """Search every method in every setting from command-line flags; return the exit code."""
    return work_with(parser_of, _work, argv)


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    job, notes = per_setting_job(flags)
    if flags.smoke:
        after = command_of(parser, flags, smoke=False, results=None)
    else:
        tool = "mpt replay" if Parser.command else "python tune_jobs/replay.py"
        after = f"{tool} --from {job.store or job.results}"
    execution = execution_of(parser, flags, after)
    return carry_out(job, execution, flags, notes=notes, table="settings")


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "Search the settings of every method in every partition. The validation tasks of a "
        "partition are neither its sources nor its targets; they are listed first. The same "
        "command again resumes."
    )
    add = parser.add_argument_group("search").add_argument
    add_names(add, "--partitions", "default: all ten")
    add_names(add, "--methods", "default: all")
    add(
        "--space",
        metavar="NAME",
        help="table of the space files (default: embedded or paper, by backbone)",
    )
    add(
        "--num-samples",
        type=whole(1),
        metavar="N",
        help="random trajectories instead of the whole grid",
    )
    add_backbone(parser)
    add_common(parser, "results/per_setting")
    return parser


def per_setting_job(flags: argparse.Namespace) -> tuple[SearchJob, list[str]]:
    """Return the job that the flags ask for, and the validation tasks of its settings as text.

    Raises:
        UsageError: a method, partition or space is unknown.
        DataError: few-shot files are missing.
    """
    from mpt.api.jobs import settings_job
    from mpt.replay.settings import studied
    from mpt.study.presets import default_space
    from mpt.study.spaces import load_space

    for method in flags.methods:
        if method not in known_methods():
            known = ", ".join(known_methods())
            raise UsageError(f"method {method!r} is unknown; known are {known}")
    name = flags.space or default_space(flags.backbone)
    return settings_job(
        study_of(flags),
        [load_space(method, name) for method in flags.methods or studied()],
        partitions=flags.partitions,
        num_samples=flags.num_samples,
        **places(flags, "results/per_setting"),
    )
