"""The command line of Tables 7 and 8: ``python tune_jobs/similarity.py [flags]``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpt.cli.flags import Parser, add_common, carry_out, execution_of, exit_code, names
from mpt.cli.replay import add_settings, next_step, request_of
from mpt.errors import UsageError

if TYPE_CHECKING:
    from mpt.replay.replay import Request
    from mpt.replay.similarity.pairs import Pairs


def main(argv: Sequence[str] | None = None) -> int:
    """Compare pairs and run the pilot from command-line flags; return the exit code."""
    return exit_code(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    flags = parser.parse_args(argv)
    _check(flags)
    request = request_of(
        flags,
        backbones=() if flags.backbone is None else (flags.backbone,),
        partitions=() if flags.partition is None else (flags.partition,),
    )
    execution = execution_of(parser, flags, next_step(parser, flags))
    pairs = None if flags.only == "pilot" else _pairs(request, flags)
    if flags.only == "pairs":
        print(json.dumps(pairs, indent=2) if flags.json else "\n".join(pair_lines(pairs or {})))
        return 0
    from mpt.replay.similarity.pilot import plan_pilot
    from mpt.replay.similarity.ranking import save_rankings

    pilot = plan_pilot(request, flags.targets, device=flags.device, reuse=not flags.fresh)
    if not flags.dry_run:
        save_rankings(request.results, pilot.rankings)
    notes = (*pair_lines(pairs or {}), *pilot.notes)
    return carry_out(pilot.job, execution, flags, notes=notes, table="cells")


def _parser() -> Parser:
    parser = Parser(
        "Compare tasks by the subspaces of their inputs: similarity of pairs (Table 7), and MAML "
        "on the source tasks of highest, random and lowest similarity to a target (Table 8). The "
        "same command again resumes; search_spaces/similarity.toml says what is compared."
    )
    add = parser.add_argument
    add("--backbone", help='"embedded", a Hub id or a local checkpoint (default: the recipe\'s)')
    add("--partition", help="whose source tasks are chosen from (default: similarity.toml's)")
    add("--targets", type=names, default=(), help="comma-separated (default: similarity.toml's)")
    add("--only", choices=("pairs", "pilot"), help="Table 7 or Table 8 alone")
    add("--prompts", action="store_true", help="Table 7 of prompts that --keep-prompts kept, too")
    add("--device", default="cpu", help="where the backbone reads the tasks that are compared")
    add_settings(parser)
    add_common(parser, "results/search")
    return parser


def _check(flags: argparse.Namespace) -> None:
    """Refuse flags that would have no effect."""
    if flags.only == "pilot" and flags.prompts:
        raise UsageError("--prompts is of Table 7; leave out --only pilot")
    if flags.only == "pairs" and (flags.targets or flags.partition):
        raise UsageError("--targets and --partition are of Table 8; leave out --only pairs")


def _pairs(request: Request, flags: argparse.Namespace) -> Pairs:
    from mpt.replay.similarity.compare import (  # torch takes seconds to import
        compute_pairs,
        measure_pairs,
    )

    if flags.dry_run:
        return measure_pairs(request, prompts=flags.prompts, device=flags.device)[0]
    return compute_pairs(request, prompts=flags.prompts, device=flags.device)


def pair_lines(pairs: Pairs) -> list[str]:
    """Return one line a pair and one a mean, by kind."""
    lines = []
    for kind, found in pairs.items():
        lines += [f"{kind}: {left} and {right} {value:.3f}" for left, right, value in found]
        mean = sum(value for *_, value in found) / len(found)
        lines.append(f"{kind}: mean {mean:.3f}")
    return lines
