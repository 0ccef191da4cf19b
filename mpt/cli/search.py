"""The command line of a search job: ``python tune_jobs/<method>_rr.py [flags]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from mpt.api.jobs import DEFAULT_SAMPLES, search_job
from mpt.arguments import whole
from mpt.cli.flags import (
    Parser,
    add_backbone,
    add_common,
    carry_out,
    command_of,
    execution_of,
    exit_code,
    load_methods,
    places,
    study_of,
    work_with,
)
from mpt.cli.simulate import add_simulation, simulate_search
from mpt.config import CONTROL, known_methods
from mpt.errors import UsageError
from mpt.search.job import ALLOCATIONS, SCHEDULERS, SEARCHERS, SearchJob
from mpt.study.presets import default_space
from mpt.study.spaces import Space, control_space, load_space


def main(method: str, argv: Sequence[str] | None = None) -> int:
    """Run a search of a method's settings from command-line flags; return the exit code."""
    return work_with(partial(parser_of, method), partial(_work, method), argv)


def command(argv: Sequence[str]) -> int:
    """Run ``mpt search METHOD [flags]``; return the exit code."""
    return exit_code(lambda: _command(argv))


def _command(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        Parser.command = ("mpt", "search", "METHOD")
        parser_of("METHOD").print_help()
        return 0 if argv else 2
    method, rest = argv[0], list(argv[1:])
    load_methods(rest)
    if method not in known_methods():
        raise UsageError(
            f"method is {method!r}, but must be one of {', '.join(known_methods())}, or one that "
            "--plugin FILE registers (see mpt search --help)"
        )
    Parser.command = ("mpt", "search", method)
    return main(method, rest)


def _work(method: str, parser: Parser, flags: argparse.Namespace) -> int:
    if flags.simulate is not None:
        return simulate_search(flags, lambda number: _job(method, flags, number))
    job = _job(method, flags)
    space = load_space(method, flags.space or default_space(flags.backbone))
    step = _next_step(parser, flags, space.size)
    execution = execution_of(parser, flags, step, _control_step(space, parser, flags))
    return carry_out(job, execution, flags)


def parser_of(method: str) -> Parser:
    """Return the parser of a method's search."""
    parser = Parser(
        f"Search the settings of {method.upper()} with Ray Tune. The same command "
        "again resumes; a finished search prints its ranking at once."
    )
    add = parser.add_argument_group("search").add_argument
    add(
        "--partition",
        metavar="NAME",
        default="random_to_random",
        help="its source tasks are learned from",
    )
    add(
        "--space",
        metavar="NAME",
        help="table of the space file (default: embedded or paper, by backbone)",
    )
    add("--searcher", choices=SEARCHERS, default="grid", help="how points are chosen")
    add(
        "--num-samples",
        type=whole(1),
        metavar="N",
        help="trials of random or optuna (default: 16)",
    )
    add("--scheduler", choices=SCHEDULERS, default="none", help="asha: stop who falls behind")
    add(
        "--allocation",
        choices=ALLOCATIONS,
        default="race",
        help="who gets further upstream seeds: those that may be the best, or full: all",
    )
    add("--racing", action="store_true", help="stop who cannot reach the leader any more")
    add_backbone(parser)
    add_common(parser, "results/search")
    add_simulation(parser)
    return parser


def _job(method: str, flags: argparse.Namespace, number: int = 0) -> SearchJob:
    """Return what is asked for; with another number, the same search with another seed."""
    return search_job(
        study_of(flags, partition=flags.partition),
        load_space(method, flags.space or default_space(flags.backbone)),
        searcher=flags.searcher,
        num_samples=flags.num_samples,
        scheduler=flags.scheduler,
        racing=flags.racing,
        allocation=flags.allocation,
        seed=flags.train_seed + number,
        simulated=flags.simulate is not None,
        **places(flags, "results/search"),
    )


def _next_step(parser: Parser, flags: argparse.Namespace, size: int | None) -> str:
    """Return the command after a finished search: real size, more draws, or beyond the grid.

    Args:
        parser: of these flags.
        flags: what was asked for.
        size: trials of the space; None: no end of them.
    """
    if flags.smoke:
        return command_of(parser, flags, smoke=False, results=None)
    count = flags.num_samples or DEFAULT_SAMPLES
    if flags.searcher != "grid" and (size is None or count < size):
        more = 2 * count if size is None else min(2 * count, size)
        return command_of(parser, flags, num_samples=more)
    wide = "embedded_wide" if default_space(flags.backbone) == "embedded" else "wide"
    return command_of(parser, flags, space=wide, searcher="optuna", num_samples=None)


def _control_step(space: Space, parser: Parser, flags: argparse.Namespace) -> str:
    """Return the command that runs the control; empty of itself and at smoke size."""
    if space.method == CONTROL or flags.smoke:
        return ""
    program = ("mpt", "search", CONTROL)
    default = default_space(flags.backbone)
    like = control_space(space, default)
    searched = {"searcher": "grid", "num_samples": None, "scheduler": "none"}
    searched["space"] = None if like == default else like
    return command_of(parser, flags, program, allocation="full", racing=False, **searched)
