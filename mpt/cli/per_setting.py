"""The command line of a search in every setting: ``python tune_jobs/per_setting.py [flags]``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.arguments import names, whole
from mpt.cli.flags import (
    Parser,
    add_backbone,
    add_common,
    carry_out,
    command_of,
    execution_of,
    options_of,
    places,
    work_with,
)
from mpt.config import known_methods
from mpt.errors import UsageError

if TYPE_CHECKING:
    from mpt.search.job import SearchJob
    from mpt.study.specs import TrialSpec


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
    add("--partitions", type=names, metavar="NAME,…", default=(), help="default: all ten")
    add("--methods", type=names, metavar="NAME,…", default=(), help="default: all")
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
    from mpt.gym.catalogue import load_catalogue
    from mpt.replay.settings import studied
    from mpt.search.job import SearchJob
    from mpt.study.grids import grid_trials
    from mpt.study.presets import default_space, load_smoke_size, load_study
    from mpt.study.spaces import load_space
    from mpt.study.study import gym_folder, plan_study
    from mpt.study.validation import validation_of

    for method in flags.methods:
        if method not in known_methods():
            known = ", ".join(known_methods())
            raise UsageError(f"method {method!r} is unknown; known are {known}")
    name = flags.space or default_space(flags.backbone)
    spaces = [load_space(method, name) for method in flags.methods or studied()]
    size = load_smoke_size() if flags.smoke else None
    study = dataclasses.replace(
        load_study(flags.backbone, smoke=flags.smoke, precision=flags.precision),
        gym=flags.gym,
        train_seed=flags.train_seed,
    )
    catalogue = load_catalogue(gym_folder(flags.gym))
    partitions = flags.partitions or catalogue.partition_names
    trials: list[TrialSpec] = []
    notes: list[str] = []
    for partition in partitions if size is None else partitions[:2]:
        validation = validation_of(catalogue, partition)
        notes.append(str(validation))
        plan = plan_study(
            options_of(flags).apply(dataclasses.replace(study, partition=partition)),
            scored=validation.tasks,
            allow_missing=flags.allow_missing,
            smoke_sources=None if size is None else size.source_tasks,
        )
        trials += grid_trials(
            plan, spaces, samples=flags.num_samples, seed=flags.train_seed, size=size
        )
    job = SearchJob(
        trials=tuple(trials),
        **places(flags, "results/per_setting"),
        title=f'space "{name}" of every method, in every setting',
    )
    return job, notes
