"""What the command lines of all jobs share: parser, number formats, flags, errors as one line."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from mpt.api.jobs import places as job_places
from mpt.arguments import OneLineParser, absolute_path, number, rates, seeds, unfinished, whole
from mpt.config import EMBEDDED_BACKBONES, PRECISIONS, near_backbone, registered_methods
from mpt.errors import MptError, UsageError
from mpt.processes import collect_seldom
from mpt.search.cost.stated import parse_throughput
from mpt.search.job import Execution, SearchJob
from mpt.study.options import StudyOptions
from mpt.study.replaced import parse_replacements

if TYPE_CHECKING:
    from mpt.api.study import Study
    from mpt.study.study import StudyPlan
    from mpt.upstream.registry import Method


_NEEDS = {
    "price": "dry_run",
    "plan_gpus": "dry_run",
    "throughput": "plan_gpus",
    "simulate_seeds": "simulate",
    "simulate_workers": "simulate",
}
"""Flag → the flag without which it has no effect."""

OFFERED = tuple(name for name in PRECISIONS if name != "float16")
"""Number formats that a model is loaded in; float16 is refused."""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds a flag's default to its text, where there is one and the text does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = "default:" in (action.help or "")
        if told or action.default in (None, (), False):
            return action.help
        return super()._get_help_string(action)


class Parser(OneLineParser):
    """The parser of a command or job.

    Flags that would have no effect are refused.
    """

    command: ClassVar[tuple[str, ...]] = ()
    """Words that stand for the program in commands that are shown; none: ``python SCRIPT``."""

    def __init__(self, description: str) -> None:
        super().__init__(
            prog=" ".join(self.command) or None,
            description=description,
            formatter_class=_Formatter,
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; where there is a flag for plugins, register methods first: they are values."""
        if any(action.dest == "plugin" for action in self._actions):
            load_methods(args)
        flags = super().parse_args(args, namespace)
        self._refuse_idle(flags)
        return flags

    def _refuse_idle(self, flags: argparse.Namespace) -> None:
        """Refuse flags that would have no effect."""
        for name, needed in _NEEDS.items():
            given = getattr(flags, name, None) not in (None, self.get_default(name))
            if given and getattr(flags, needed, None) in (None, False):
                idle, other = (f"--{word.replace('_', '-')}" for word in (name, needed))
                raise UsageError(f"{idle} says something only with {other}; give both or neither")


def add_backbone(parser: Parser) -> None:
    """Add the flags of jobs on one backbone: which one, and what of its study changes."""
    add = parser.add_argument_group("model and study").add_argument
    add(
        "--backbone",
        metavar="MODEL",
        default="embedded",
        help='"embedded", "embedded-bart", "embedded-gpt2", "smollm2", a Hub id (ID@REVISION: a '
        "branch, tag or commit) or a local checkpoint",
    )
    add("--preset", metavar="NAME", help="table of studies.toml (default: the backbone's)")
    add(
        "--precision",
        choices=OFFERED,
        help="number format of weights and activations (default: the study's)",
    )
    add_options(parser)


OPTIONS: Mapping[str, tuple[str, str]] = {
    "upstream_precision": ("format", "number format upstream of methods with an inner loop"),
    "prompt_length": ("whole", "virtual tokens of the prompt"),
    "tuning_steps": ("whole", "steps of a downstream run"),
    "tuning_lrs": ("rates", "downstream learning rates"),
    "tuning_start": ("name", '"learned", or by the target\'s own rows "chosen" or "raced"'),
    "race_steps": ("whole", "steps of a race of starts (default: a third of the run, at least 2)"),
    "tuning_batch": ("whole", "examples of a downstream step"),
    "eval_every": ("whole", "downstream steps between two dev evaluations"),
    "max_input": ("whole", "tokens of an input, end mark included"),
    "max_target": ("whole", "tokens of a target, end mark included"),
    "template": ("name", '"plain" text to text, or "chat": the tokenizer\'s own template'),
    "max_dev": ("whole", "dev rows used"),
    "max_test": ("whole", "test rows used"),
    "replace": ("tasks", "declared tasks in the place of some that cannot be had"),
    "data_seeds": ("seeds", "few-shot samples"),
    "replicates": ("whole", "upstream seeds of the better configurations, or of a replay's cells"),
    "upstream_seeds": ("seeds", "these upstream seeds in their place"),
    "fresh_replicates": ("count", "further upstream seeds that the winner is reported on"),
    "starts": ("whole", "downstream starts of a cell, whose scores are averaged"),
}
"""Field of `StudyOptions` → (kind of value, help)."""


def add_options(parser: Parser) -> None:
    """Add the flags that replace values of the study's preset (search_spaces/studies.toml)."""
    kinds: dict[str, dict[str, Any]] = {
        "whole": {"type": whole(1), "metavar": "N"},
        "count": {"type": whole(0), "metavar": "N"},
        "name": {"metavar": "NAME"},
        "rates": {"type": rates, "metavar": "X,…"},
        "seeds": {"type": seeds, "metavar": "N,…"},
        "tasks": {"type": parse_replacements, "metavar": "OLD=NEW,…"},
        "format": {"choices": OFFERED},
    }
    group = parser.add_argument_group("study, in place of its preset")
    for name, (kind, text) in OPTIONS.items():
        group.add_argument("--" + name.replace("_", "-"), help=text, **kinds[kind])


def options_of(flags: argparse.Namespace) -> StudyOptions:
    """Return what the flags of `add_options` replace."""
    return StudyOptions(**{name: getattr(flags, name, None) for name in OPTIONS})


def study_of(flags: argparse.Namespace, **own: Any) -> Study:
    """Return the study that the flags of `add_backbone` and `add_common` make.

    With further arguments of `Study` in `own`.
    """
    from mpt.api.study import Study

    fields = ("backbone", "gym", "preset", "smoke", "allow_missing", "precision", "train_seed")
    return Study(**{name: getattr(flags, name) for name in (*fields, *OPTIONS)}, **own)


def add_common(parser: Parser, results: str) -> None:
    """Add the flags that every job has."""
    parser.usage = "%(prog)s [flags]"  # their names alone would fill a screen
    add = parser.add_argument_group("data and methods").add_argument
    add(
        "--gym",
        metavar="DIR",
        default="embedded",
        help='a directory of few-shot files, or "embedded"',
    )
    add("--allow-missing", action="store_true", help="go on without missing tasks; labels results")
    add(
        "--train-seed",
        type=whole(0),
        metavar="N",
        default=42,
        help="root of all training randomness",
    )
    add("--plugin", metavar="FILE", help="Python file that registers upstream methods")
    add = parser.add_argument_group("results").add_argument
    add("--results", metavar="DIR", help=f"default: {results}, or results/smoke with --smoke")
    add("--store", metavar="URL", help="database (default: mpt.db in the results directory)")
    add("--storage", metavar="URI", help="where checkpoints and prompts go: a directory or bucket")
    add("--fresh", action="store_true", help="move the results so far aside and start anew")
    add("--keep-prompts", action="store_true", help="keep every tuned prompt")
    add("--json", action="store_true", help="the result as one JSON document on stdout")
    add = parser.add_argument_group("where it runs").add_argument
    add(
        "--address",
        metavar="WHERE",
        default="local",
        help='"local", "auto", a cluster\'s HOST:PORT',
    )
    add(
        "--gpus-per-trial",
        type=number,
        metavar="X",
        default=0.0,
        help="GPUs of a trial, in [0, 1]; 0.25: four share one (default: 0)",
    )
    add("--dashboard", action="store_true", help="start Ray's dashboard beside a local Ray")
    add("--mlflow", metavar="URI", help="tell an MLflow of the search")
    add("--wandb", metavar="PROJECT", help="tell Weights & Biases of the search")
    add = parser.add_argument_group("trying it out").add_argument
    add("--dry-run", action="store_true", help="print points, time and cost; write nothing")
    add(
        "--price",
        type=number,
        metavar="X",
        help="with --dry-run: price of a GPU-hour (CPU-hour without GPUs)",
    )
    add(
        "--plan-gpus",
        type=whole(1),
        metavar="N",
        help="with --dry-run: time on a cluster of so many GPUs",
    )
    add(
        "--throughput",
        type=parse_throughput,
        metavar="TFLOPS",
        help="with --plan-gpus: plan from what a GPU sustains (bfloat16[,float32]), without one",
    )
    add("--smoke", action="store_true", help="the whole path at a tiny size; numbers mean nothing")


def add_database(parser: Parser) -> None:
    """Add the database that a command reads: ``results``, and ``--store``."""
    parser.add_argument("results", type=absolute_path, help="results directory")
    parser.add_argument("--store", metavar="URL", help="database, if it is not in there")


def results_of(flags: argparse.Namespace, default: str) -> Path:
    """Return the absolute results directory; a smoke run has one of its own.

    Raises:
        UsageError: it is an address of an object store.
    """
    if flags.results and "://" in flags.results:
        raise UsageError(
            f"--results is {flags.results!r}, but must be a directory; for a cluster put the "
            "files into a bucket with --storage, and the database beside the driver or on a "
            "server with --store"
        )
    name = flags.results or ("results/smoke" if flags.smoke else default)
    return absolute_path(name)


def places(flags: argparse.Namespace, default: str) -> dict[str, Any]:
    """Return where a job's results go, as `SearchJob` takes it."""
    return job_places(results_of(flags, default), flags.store, flags.storage)


def execution_of(
    parser: Parser, flags: argparse.Namespace, next_step: str, control: str = ""
) -> Execution:
    """Return where and how a job runs.

    Args:
        parser: of these flags, see `command_of`.
        flags: what was asked for.
        next_step: the command that suits the finished job.
        control: the command that runs the control of a search; empty: there is none to run.

    Raises:
        UsageError: ``--gpus-per-trial`` is no share that Ray can give.
    """
    if not 0 <= flags.gpus_per_trial <= 1:
        raise UsageError(
            f"--gpus-per-trial is {flags.gpus_per_trial:g}, but must be in [0, 1]: a trial "
            "computes on one GPU or on a share of one"
        )
    for package in ("mlflow", "wandb"):
        if getattr(flags, package) is not None and find_spec(package) is None:
            raise UsageError(
                f"--{package} needs the package {package!r}, which is not installed: "
                f"pip install {package}"
            )
    return Execution(
        address=flags.address,
        gpus_per_trial=flags.gpus_per_trial,
        mlflow=flags.mlflow,
        wandb=flags.wandb,
        dashboard=flags.dashboard,
        methods=_registered(),
        resume=command_of(parser, flags),
        next_step=next_step,
        control_step=control,
    )


def _registered() -> dict[str, Method]:
    """Return the methods that workers have to be told; without any, torch is not imported."""
    if not registered_methods():
        return {}
    from mpt.upstream.registry import registered

    return registered()


def command_of(
    parser: Parser,
    flags: argparse.Namespace,
    program: Sequence[str] | None = None,
    **changes: object,
) -> str:
    """Return the command line that stands for these flags; without ``--fresh``, to go on.

    Args:
        parser: of these flags.
        flags: what was asked for.
        program: what is called; None: this program.
        **changes: flags that are to be otherwise.
    """
    words = list(program or parser.command or ("python", sys.argv[0]))
    for name, value in {**vars(flags), "fresh": False, **changes}.items():
        if value == parser.get_default(name):
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            parts = value if isinstance(value, tuple) else (value,)
            words.append(",".join(map(_word, parts)))
    return shlex.join(words)


def _word(value: object) -> str:
    """Return a flag's value as it is typed: short, but never another number."""
    if isinstance(value, tuple):
        return "=".join(value)
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


_EARLY: list[int] = []
"""Signals that came before a search took over."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    _EARLY.append(number)
    raise KeyboardInterrupt


def carry_out(
    job: SearchJob,
    execution: Execution,
    flags: argparse.Namespace,
    *,
    notes: Sequence[str] = (),
    table: str = "points",
) -> int:
    """Plan or run a job, as the common flags say; return the exit code.

    Args:
        job: what is to be done.
        execution: where and how.
        flags: of `add_common`.
        notes: lines that are said first.
        table: what is shown at the end, see `display_of`.
    """
    check_gym(job.plans)
    from mpt.api.work import display_of, plan_job
    from mpt.search.cost.planner import Planning
    from mpt.search.run import run_search

    job = replace(job, keep_prompts=flags.keep_prompts)
    show = display_of(job, table, as_json=flags.json)
    for note in notes:
        show.say(note)
    if flags.dry_run:
        planning = Planning(price=flags.price, gpus=flags.plan_gpus, throughput=flags.throughput)
        return plan_job(job, execution, show, planning)
    if _EARLY:  # raised in a callback of the garbage collector, where nobody heard it
        raise KeyboardInterrupt
    return run_search(job, execution, fresh=flags.fresh, display=show)


_LOADED: set[str] = set()
"""Plugins that this process has imported."""


def load_methods(argv: Sequence[str] | None) -> None:
    """Register the upstream methods of installed packages and of ``--plugin FILE``.

    This comes before the flags are parsed: the methods' names are values of some of them.

    Raises:
        UsageError: a plugin cannot be imported.
    """
    from mpt.api.methods import load_entry_points, load_plugin

    load_entry_points()
    words = list(sys.argv[1:] if argv is None else argv)
    plugins = [word.partition("=")[2] for word in words if word.startswith("--plugin=")]
    pairs = itertools.pairwise(words)
    plugins += [after for word, after in pairs if word == "--plugin"]
    for path in plugins:
        if path not in _LOADED:
            load_plugin(path)
            _LOADED.add(path)


def check_gym(plans: Sequence[StudyPlan]) -> None:
    """Refuse plans that have a real language model on the generated gym, as `check_backbones`."""
    for plan in plans:
        check_backbones([plan.config.backbone], plan.config.gym)


def check_backbones(backbones: Sequence[str], gym: str) -> None:
    """Refuse a real language model on the generated gym, which says nothing about it.

    Of names alone, so that a misspelt one is refused before torch is imported.

    Raises:
        UsageError: both are there, and ``--gym`` was not given.
    """
    asked = any(word == "--gym" or word.startswith("--gym=") for word in sys.argv)
    for backbone in backbones:
        if gym != "embedded" or backbone in EMBEDDED_BACKBONES or asked:
            continue
        near = near_backbone(backbone)
        if near is not None and not Path(backbone).exists():
            raise UsageError(
                f"backbone {backbone} is unknown; the nearest known name is {near} (a model of "
                "that name on the Hub or in a folder needs --gym DIR)"
            )
        raise UsageError(
            f"backbone {backbone} needs --gym DIR, a directory of few-shot files; the generated "
            "gym is made for the embedded models (--gym embedded takes it all the same)"
        )


def work_with(
    parser_of: Callable[[], Parser],
    work: Callable[[Parser, argparse.Namespace], int],
    argv: Sequence[str] | None,
) -> int:
    """Parse flags and do a job's work with them; return its exit code, as `exit_code` does.

    Without `argv` the process is this job's own.
    """
    if argv is None:
        collect_seldom()

    def parse_and_work() -> int:
        parser = parser_of()
        return work(parser, parser.parse_args(argv))

    return exit_code(parse_and_work)


def exit_code(work: Callable[[], int]) -> int:
    """Do a job's work; return its exit code, with errors as one line on stderr."""
    _EARLY.clear()
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _interrupt)  # a search takes over later
    try:
        return work()
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        command = Parser.command or ("python", Path(sys.argv[0]).name)
        print(f"interrupted: {unfinished(command)}", file=sys.stderr)
        return 75
