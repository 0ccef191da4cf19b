"""``python -m analysis report|arg|export``: tables, figures, files for other programs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mpt.cli.flags import Parser, number
from mpt.errors import MptError

from .export.file import Exported
from .tables.render import RENDERERS


class _Command(Parser):
    """A parser of one command; argparse gives it its name."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(description)
        self.prog = prog
        self.formatter_class = argparse.HelpFormatter


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (0 done, 2 usage, 3 bad data).

    Args:
        argv: arguments without the program's name; None for those of the process.
    """
    try:
        flags = _parser().parse_args(argv)
        return int(flags.run(flags))
    except MptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> Parser:
    parser = _Command("python -m analysis", "Tables, figures and exports, read from records.")
    commands = parser.add_subparsers(
        required=True, metavar="report|arg|export", parser_class=_Command
    )
    _add_report(
        commands.add_parser(
            "report",
            help="every table and figure of a results directory, as a static site",
            description="Write index.html (opens from disk), report.md, and every table as "
            "Markdown, CSV and LaTeX.",
        )
    )
    arg = commands.add_parser(
        "arg",
        help="ARG of scores from elsewhere",
        description="Print the ARG over prompt tuning (method pt) of a CSV file with the columns "
        "method,partition,backbone,task,seed,test.",
    )
    arg.add_argument("--scores", required=True, type=Path, help="the file")
    arg.add_argument("--partition", help="only this one (default: all of the file)")
    arg.add_argument("--format", choices=tuple(RENDERERS), default="md", help="of the table")
    arg.set_defaults(run=_arg)
    _add_exports(
        commands.add_parser(
            "export",
            help="records and prompts in the formats of other programs",
            description="Write records or a prompt in the format of another program.",
        )
    )
    return parser


def _add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--results", required=True, type=Path, metavar="DIR", help="results directory, only read")
    add("--out", required=True, type=Path, metavar="DIR", help="where the report goes")
    add("--backbone", help="of the tables that show one model (default: T5-large if it was run)")
    for unit in ("steps", "samples"):
        add(
            f"--budget-{unit}",
            type=number,
            metavar="N",
            help=f"upstream {unit} of the view at equal cost (default: what all methods used)",
        )
    add("--copy-records", action="store_true", help="make the report whole without DIR")
    add("--no-figures", action="store_true", help="tables only")
    parser.set_defaults(run=_report)


def _report(flags: argparse.Namespace) -> int:
    from .report.report import ReportOptions, write_report

    budgets = {"steps": flags.budget_steps, "examples": flags.budget_samples}
    options = ReportOptions(
        backbone=flags.backbone,
        budgets={unit: budget for unit, budget in budgets.items() if budget is not None},
        figures=not flags.no_figures,
        copy_records=flags.copy_records,
    )
    written = write_report(flags.results, flags.out, options)
    for problem in written.problems:
        print(f"ignored: {problem}", file=sys.stderr)
    print(
        f"{written.tables} tables, {written.figures} figures, {written.cells} pages of cells → "
        f"{written.index}"
    )
    return 0


def _add_exports(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(
        required=True, metavar="optuna|parquet|peft", parser_class=_Command
    )
    for name, about in (
        ("optuna", "the points of every search as trials; FILE ends in .db or .log (journal)"),
        ("parquet", "every leaf as a row"),
    ):
        kind = kinds.add_parser(name, help=about, description=f"Write {about}.")
        kind.add_argument("--results", required=True, type=Path, metavar="DIR", help="only read")
        kind.add_argument("--out", required=True, type=Path, metavar="FILE", help="a new file")
        kind.set_defaults(run=_export, kind=name)
    peft = kinds.add_parser(
        "peft",
        help="a prompt as an adapter of PEFT",
        description="Write a prompt as an adapter of PEFT.",
    )
    peft.add_argument("prompt", type=Path, metavar="PROMPT", help="a .safetensors file of ours")
    peft.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new directory")
    peft.add_argument("--base-model", help="id or folder (default: what the records say)")
    peft.add_argument("--kind", choices=("seq2seq", "causal"), help="of model (default: by model)")
    peft.set_defaults(run=_export_peft)


def _export(flags: argparse.Namespace) -> int:
    from .export.optuna_storage import export_optuna
    from .export.parquet import export_parquet

    write = export_optuna if flags.kind == "optuna" else export_parquet
    return _exported(write(flags.results, flags.out))


def _export_peft(flags: argparse.Namespace) -> int:
    from .export.peft_adapter import export_peft

    return _exported(export_peft(flags.prompt, flags.out, flags.base_model, flags.kind))


def _exported(written: Exported) -> int:
    for problem in written.problems:
        print(f"ignored: {problem}", file=sys.stderr)
    print(f"{written.count} {written.what} → {written.path}")
    return 0


def _arg(flags: argparse.Namespace) -> int:
    from .paper.arg_table import arg_table
    from .tables.arg import scored_methods

    table = arg_table(scored_methods(flags.scores, flags.partition))
    sys.stdout.write(RENDERERS[flags.format](table))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
