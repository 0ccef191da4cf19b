"""The command line of a replay: ``python tune_jobs/replay.py [flags]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.cli.flags import (
    OFFERED,
    Parser,
    add_common,
    add_options,
    carry_out,
    check_backbones,
    execution_of,
    options_of,
    work_with,
)
from mpt.cli.requests import add_names, next_step, request_fields
from mpt.errors import UsageError
from mpt.study.recipes import RECIPES

if TYPE_CHECKING:
    from mpt.replay.request import Request

RESULTS = "results/search"
SWEEPS = ("none", "target_shots", "source_shots", "sources")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a replay from command-line flags; return the exit code."""
    return work_with(parser_of, _work, argv)


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    check_backbones(flags.backbones, flags.gym)
    from mpt.api.jobs import replay_job

    request = request_of(
        flags,
        backbones=flags.backbones,
        partitions=flags.partitions,
        methods=flags.methods,
        sweep=None if flags.sweep == "none" else flags.sweep,
        adopt=flags.adopt,
    )
    replay = replay_job(request)
    execution = execution_of(parser, flags, next_step(parser, flags, request.results))
    return carry_out(replay.job, execution, flags, notes=replay.notes, table="cells")


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "Replay best settings on the target tasks: partitions × backbones × methods, compared "
        "with prompt tuning. The same command again resumes; a finished replay prints its cells "
        "at once."
    )
    add = parser.add_argument_group("replay").add_argument
    add_names(add, "--backbones", "default: the recipe's", "MODEL,…")
    add_names(add, "--partitions", "default: all ten")
    add_names(add, "--methods", "default: all")
    add("--sweep", choices=SWEEPS, default="none", help="also vary shots or number of sources")
    add(
        "--adopt",
        action="store_true",
        help="with --from: FoMAML and Reptile take MAML's rates and steps, as in the paper (§5.3)",
    )
    add_settings(parser)
    add_common(parser, RESULTS)
    return parser


def add_settings(parser: Parser) -> None:
    """Add the flags that say whose settings are replayed."""
    add = parser.add_argument_group("settings").add_argument
    add(
        "--from",
        metavar="DIR",
        help="results directory (or URL of a database) whose best points are replayed",
    )
    add("--study", metavar="ID", help="with --from: the searched study, if it holds several")
    add("--searched-on", metavar="MODEL", help="its best points serve backbones without some")
    add(
        "--best",
        choices=("default", "published"),
        default="default",
        help="without --from: the model's own settings if replay.toml has some, or the paper's",
    )
    add("--recipe", choices=RECIPES, help="default: paper; the embedded backbone has its own")
    add("--precision", choices=OFFERED, help="number format in place of the recipe's")
    add_options(parser)


def request_of(flags: argparse.Namespace, **what: Any) -> Request:
    """Return the request that the flags of `add_settings` and `add_common` make.

    Args:
        flags: the command line.
        **what: the fields of `Request` that say what is replayed.

    Raises:
        UsageError: flags contradict each other.
    """
    searched = getattr(flags, "from")  # a word of Python's own
    if searched is not None and flags.best == "published":
        raise UsageError("--from and --best published contradict each other; give one of them")
    adopt = what.get("adopt") or None
    for name, value in (
        ("--searched-on", flags.searched_on),
        ("--study", flags.study),
        ("--adopt", adopt),
    ):
        if value is not None and searched is None:
            raise UsageError(f"{name} is for --from; give both")
    options = options_of(flags)
    if options.fresh_replicates is not None:
        raise UsageError(
            "--fresh-replicates is for a search, which chooses; a replay on seeds that settings "
            "were not chosen on names them: --upstream-seeds"
        )
    from mpt.replay.request import Request

    return Request(
        **request_fields(flags, RESULTS),
        recipe=flags.recipe,
        precision=flags.precision,
        searched=_address(searched),
        study=flags.study,
        searched_on=flags.searched_on,
        published=flags.best == "published",
        options=options,
        **what,
    )


def _address(searched: str | None) -> str | Path | None:
    """Return a directory as a path; a database's URL as it is."""
    directory = searched is not None and "://" not in searched
    return Path(searched).expanduser() if searched is not None and directory else searched
