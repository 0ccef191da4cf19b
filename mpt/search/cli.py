"""The command line of a search job: ``python tune_jobs/<method>_rr.py [flags]``."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from mpt.errors import MptError, UsageError
from mpt.search.job import Execution, SearchJob, courses_of
from mpt.search.presets import default_space, load_smoke_size, load_study
from mpt.search.run import check_gpus, plan_search, run_search
from mpt.search.spaces import Space, Trajectory, load_space
from mpt.search.study import plan_study

DEFAULT_SAMPLES = 16


def main(method: str, argv: Sequence[str] | None = None) -> int:
    """Run a search of a method's settings from command-line flags; return the exit code."""
    try:
        flags = _parser(method).parse_args(argv)
        job, execution = _job(method, flags), _execution(method, flags)
        if flags.dry_run:
            return plan_search(job, execution)
        return run_search(job, execution, fresh=flags.fresh)
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted before the search began", file=sys.stderr)
        return 75


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise one line instead of printing the usage."""
        raise UsageError(f"{message} (see --help)")


def _parser(method: str) -> argparse.ArgumentParser:
    parser = _Parser(
        description=f"Search the settings of {method.upper()} with Ray Tune. The same command "
        "again resumes; a finished search prints its ranking at once.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--backbone", default="embedded", help='"embedded", a Hub id or a local checkpoint')
    add("--gym", default="embedded", help='"embedded" or a directory of few-shot files')
    add("--partition", default="random_to_random", help="its source tasks are learned from")
    add("--space", help="table of the space file (default: embedded or paper, by backbone)")
    add("--searcher", choices=("grid", "random"), default="grid", help="how points are chosen")
    add("--num-samples", type=_whole(1), help="trajectories of a random search (default: 16)")
    add("--train-seed", type=_whole(0), default=42, help="root of all training randomness")
    add("--results", help="results directory (default: results/search, or results/smoke)")
    add("--address", default="local", help='"local", "auto" or the address of a Ray cluster')
    add(
        "--gpus-per-trial", type=_number, default=0.0, help="GPUs of a trial; 0.25: four share one"
    )
    add("--fresh", action="store_true", help="move the records so far aside and start anew")
    add("--dry-run", action="store_true", help="print points and estimated time; write nothing")
    add("--smoke", action="store_true", help="the whole path at a tiny size, within a minute")
    add("--allow-missing", action="store_true", help="go on without missing tasks; labels results")
    return parser


def _whole(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().lstrip("+").isdigit() or int(text) < low:
            raise argparse.ArgumentTypeError(f"is {text!r}, but must be a whole number ≥ {low}")
        return int(text)

    return parse


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a number")
    return value


def _job(method: str, flags: argparse.Namespace) -> SearchJob:
    space = load_space(method, flags.space or default_space(flags.backbone))
    trajectories = _trajectories(space, flags)
    config = dataclasses.replace(
        load_study(flags.backbone, smoke=flags.smoke),
        gym=flags.gym,
        partition=flags.partition,
        train_seed=flags.train_seed,
    )
    size = load_smoke_size() if flags.smoke else None
    title = f'space "{space.name}", {space.title}'
    if size is not None:
        trajectories, title = size.cut(trajectories), f"{title}, at smoke size"
    plan = plan_study(
        config,
        allow_missing=flags.allow_missing,
        smoke_sources=None if size is None else size.source_tasks,
    )
    if flags.results and "://" in flags.results:
        raise UsageError(f"--results is {flags.results!r}, but must be a directory so far")
    results = flags.results or ("results/smoke" if flags.smoke else "results/search")
    return SearchJob(
        courses=courses_of(plan, trajectories),
        results=Path(results).expanduser().absolute(),
        title=title,
    )


def _trajectories(space: Space, flags: argparse.Namespace) -> list[Trajectory]:
    if flags.searcher == "random":
        return space.sample(flags.num_samples or DEFAULT_SAMPLES, flags.train_seed)
    if flags.num_samples is not None:
        raise UsageError("--num-samples is for --searcher random; a grid has all its points")
    return space.grid()


def _execution(method: str, flags: argparse.Namespace) -> Execution:
    check_gpus(flags.gpus_per_trial)
    return Execution(
        address=flags.address,
        gpus_per_trial=flags.gpus_per_trial,
        resume=_command(method, flags, fresh=False),
        next_step=_next_step(method, flags),
    )


def _next_step(method: str, flags: argparse.Namespace) -> str:
    """Return the command after a finished search: real size, beyond the grid, or more draws."""
    if flags.smoke:
        return _command(method, flags, fresh=False, smoke=False, results=None)
    if flags.searcher == "random":
        more = 2 * (flags.num_samples or DEFAULT_SAMPLES)
        return _command(method, flags, fresh=False, num_samples=more)
    wide = "embedded_wide" if default_space(flags.backbone) == "embedded" else "wide"
    return _command(method, flags, fresh=False, space=wide, searcher="random")


def _command(method: str, flags: argparse.Namespace, **changes: object) -> str:
    """Return the command line that stands for these flags."""
    words = ["python", sys.argv[0]]
    for name, value in {**vars(flags), **changes}.items():
        if value == _parser(method).get_default(name):
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return shlex.join(words)
