"""``python -m analysis report|arg|significance|export``: tables, figures, exports."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.arguments import OneLineParser
from mpt.cli.flags import Parser
from mpt.errors import MptError, UsageError
from mpt.words import counted

from .export.file import UNKNOWN, Exported
from .tables.render import RENDERERS

if TYPE_CHECKING:
    from .export.peft_adapter import PromptExport


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (0 done, 2 usage, 3 bad data).

    Args:
        argv: arguments without the program's name; None for those of the process.
    """
    try:
        flags = parser_of().parse_args(argv)
        return int(flags.run(flags))
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser_of() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = OneLineParser(
        prog=Parser.command[0] if Parser.command else "python -m analysis",
        description="Tables, figures and exports of a database.",
    )
    commands = parser.add_subparsers(
        required=True, title="commands", metavar="report|arg|significance|export"
    )
    _add_report(
        commands.add_parser(
            "report",
            help="every table and figure of a database, as a static site",
            description="Write index.html (opens from disk), report.md, and every table as "
            "Markdown, CSV and LaTeX.",
        )
    )
    _add_arg(
        commands.add_parser(
            "arg",
            help="ARG of a database, or of scores from elsewhere",
            description="Print the ARG over prompt tuning of a database, or of a CSV file with "
            "the columns method,partition,backbone,task,seed,test (prompt tuning is method pt).",
        )
    )
    _add_significance(
        commands.add_parser(
            "significance",
            help="which cells of a table of scores are different, paired and corrected",
            description="Compare every method of files of scores (see arg) with prompt tuning and "
            "with MTL: ARG with intervals over tasks and over data seeds, sign-flip tests over "
            "tasks, corrected by Holm for all comparisons.",
        )
    )
    _add_exports(
        commands.add_parser(
            "export",
            help="records and prompts in the formats of other programs",
            description="Write records or a prompt in the format of another program.",
        )
    )
    return parser


def _budget(text: str) -> float:
    """Parse a finite number > 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be a number > 0")
    return value


def _add_source(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    add = parser.add_argument_group("what is read").add_argument
    add("--results", required=required, type=Path, metavar="DIR", help="results, only read")
    add("--store", metavar="URL", help="their database (default: mpt.db in DIR)")
    add("--study", metavar="ID", help="only this study or protocol: its first 8 digits or more")


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="where the report goes")
    add(
        "--backbone",
        metavar="MODEL",
        help="of the tables that show one model (default: T5-large if it was run)",
    )
    for unit in ("steps", "samples"):
        add(
            f"--budget-{unit}",
            type=_budget,
            metavar="N",
            help=f"upstream {unit} of the view at equal cost (default: what all methods used)",
        )
    add("--contest", type=Path, metavar="DIR", help="results of a contest (tune_jobs/beat_mtl.py)")
    add("--copy-records", action="store_true", help="add the records of every point as JSON")
    add("--no-figures", action="store_true", help="tables only")
    parser.set_defaults(run=_report)


def _report(flags: argparse.Namespace) -> int:
    from .report.report import ReportOptions, write_report

    budgets = {"steps": flags.budget_steps, "examples": flags.budget_samples}
    options = ReportOptions(
        store=flags.store,
        study=flags.study,
        backbone=flags.backbone,
        budgets={unit: budget for unit, budget in budgets.items() if budget is not None},
        contest=flags.contest,
        figures=not flags.no_figures,
        copy_records=flags.copy_records,
    )
    written = write_report(flags.results, flags.out, options)
    for problem in written.problems:
        print(f"ignored: {problem}", file=sys.stderr)
    print(
        f"{counted(written.tables, 'table')}, {counted(written.figures, 'figure')}, "
        f"{counted(written.cells, 'page')} of cells → {written.index}"
    )
    return 0


def _add_arg(parser: argparse.ArgumentParser) -> None:
    _add_source(parser, required=False)
    add = parser.add_argument
    add("--scores", type=Path, metavar="FILE", help="a CSV file in place of a database")
    add("--partition", metavar="NAME", help="only this one (default: all that are there)")
    add("--format", choices=tuple(RENDERERS), default="md", help="of the table")
    parser.set_defaults(run=_arg)


def _arg(flags: argparse.Namespace) -> int:
    from .paper.answers import arg_table
    from .results.reading import read_results
    from .tables.arg import recorded_methods, scored_methods

    if (flags.scores is None) == (flags.results is None):
        raise UsageError("arg reads one thing: give either --scores FILE or --results DIR")
    if flags.scores is not None:
        tables = [arg_table(scored_methods(flags.scores, flags.partition))]
    else:
        recorded = read_results(flags.results, store=flags.store, study=flags.study)
        tables = [
            arg_table(recorded_methods(section, flags.partition), section.label)
            for section in recorded.sections
        ]
    sys.stdout.write("\n".join(map(RENDERERS[flags.format], tables)))
    sys.stdout.flush()
    return 0


def _add_significance(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scores", type=Path, metavar="DIR", help="a folder of CSV files of scores, or one file")
    add("--out", type=Path, metavar="FOLDER", help="write tables, JSON and the figure there")
    add("--json", action="store_true", help="print JSON in place of text")
    parser.set_defaults(run=_significance)


def _significance(flags: argparse.Namespace) -> int:
    from .significance.comparisons import read_significance
    from .significance.output import json_text, to_text, write_files
    from .tables.arg import ROOT_SEED

    significance = read_significance(flags.scores, ROOT_SEED)
    sys.stdout.write(json_text(significance) if flags.json else to_text(significance))
    sys.stdout.flush()
    if flags.out is not None:
        written = write_files(significance, flags.out)
        print(f"{len(written)} files → {flags.out}", file=sys.stderr)
    return 0


def _add_exports(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(
        required=True, title="formats", metavar="optuna|parquet|peft|hub"
    )
    for name, about in (
        ("optuna", "the points of every search as trials; FILE ends in .db or .log (journal)"),
        ("parquet", "every run as a row"),
    ):
        kind = kinds.add_parser(name, help=about, description=f"Write {about}.")
        _add_source(kind)
        kind.add_argument_group("what is written").add_argument(
            "--out", required=True, type=Path, metavar="FILE", help="a new file"
        )
        kind.set_defaults(run=_export, kind=name)
    peft = kinds.add_parser(
        "peft",
        help="a prompt as an adapter of PEFT",
        description="Write a prompt as an adapter of PEFT.",
    )
    add = peft.add_argument_group("what is read: a file, or a point of results").add_argument
    add("prompt", nargs="?", type=Path, metavar="PROMPT", help="a .safetensors file of ours")
    add("--results", type=Path, metavar="DIR", help="results that know the prompt (default: those "
        "around its file)")  # fmt: skip
    add("--store", metavar="URL", help="their database (default: mpt.db in DIR)")
    add("--point", metavar="ID", help="the prompt of this point: 8 digits of its key or more")
    add("--storage", metavar="URI", help="where prompts are (default: the results directory)")
    peft.add_argument_group("what is written").add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="a new directory"
    )
    _add_model(peft)
    peft.set_defaults(run=_export_peft)
    hub = kinds.add_parser(
        "hub",
        help="a point's prompt as a folder for the Hugging Face Hub",
        description="Write a point's prompt as a folder for the Hugging Face Hub: an adapter of "
        "PEFT (the prompt alone where it stands behind the input, as PEFT cannot put it), and a "
        "model card with the study, the scores and their intervals.",
    )
    _add_source(hub)
    add = hub.add_argument_group("which prompt").add_argument
    add("--point", metavar="ID", help="first 8 digits of its key or more (default: the only one)")
    add("--storage", metavar="URI", help="where prompts are (default: the results directory)")
    add = hub.add_argument_group("what is written").add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="a new directory")
    add("--license", default=UNKNOWN, metavar="ID", help="the Hub's id of a licence, like mit")
    _add_model(hub)
    hub.set_defaults(run=_export_hub)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what a prompt is a prompt of."""
    add = parser.add_argument_group("language model").add_argument
    add("--base-model", metavar="MODEL", help="id or folder (default: what the records say)")
    add("--kind", choices=("seq2seq", "causal"), help="of model (default: by model)")


def _export(flags: argparse.Namespace) -> int:
    from .export.optuna_storage import export_optuna
    from .export.parquet import export_parquet

    write = export_optuna if flags.kind == "optuna" else export_parquet
    return _exported(write(flags.results, flags.out, store=flags.store, study=flags.study))


def _export_peft(flags: argparse.Namespace) -> int:
    from .export.peft_adapter import export_peft

    if (flags.prompt is None) == (flags.point is None):
        raise UsageError(
            "peft writes one prompt: give either its file, or --results DIR --point ID"
        )
    export = _prompt_export(flags)
    if flags.prompt is not None:
        return _exported(export_peft(flags.prompt, flags.out, export, flags.results))
    from .export.hub import export_point

    if flags.results is None:
        raise UsageError("--point says something only with --results; give both or neither")
    return _exported(export_point(flags.results, flags.out, export), "note")


def _export_hub(flags: argparse.Namespace) -> int:
    from .export.hub import export_hub

    return _exported(export_hub(flags.results, flags.out, _prompt_export(flags)), "note")


def _prompt_export(flags: argparse.Namespace) -> PromptExport:
    from .export.peft_adapter import PromptExport

    names = {field.name for field in dataclasses.fields(PromptExport)}
    return PromptExport(**{name: value for name, value in vars(flags).items() if name in names})


def _exported(written: Exported, head: str = "ignored") -> int:
    for problem in written.problems:
        print(f"{head}: {problem}", file=sys.stderr)
    print(f"{written.count} {written.what} → {written.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
