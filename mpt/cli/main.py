"""``mpt``: one command for everything.

mpt search maml --smoke
mpt replay --from results/search
mpt report --results results/search --out report
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from mpt.cli.flags import Parser, exit_code
from mpt.errors import UsageError
from mpt.processes import collect_seldom


@dataclass(frozen=True)
class Command:
    """One command."""

    group: str
    text: str
    run: Callable[[list[str]], int]


def own_module(name: str) -> Any:
    """Return the module of a command of this package."""
    return importlib.import_module(f"mpt.cli.{name.replace('-', '_')}")


def _own(name: str) -> Callable[[list[str]], int]:
    return lambda argv: int(own_module(name).main(argv))


def _search(argv: list[str]) -> int:
    return int(own_module("search").command(argv))


def _paper(argv: list[str]) -> int:
    return int(own_module("paper").main(argv, report=report_lines))


def _analysis(name: str) -> Callable[[list[str]], int]:
    return lambda argv: int(analysis("__main__").main([name, *argv]))


def _gym(argv: list[str]) -> int:
    return int(importlib.import_module("mpt.gym.__main__").main(argv, program="mpt gym"))


def report_lines(*where: Any) -> Sequence[str]:
    """Write a report at the end of a study; only then are tables and figures imported."""
    lines: Sequence[str] = analysis("report.report").report_lines(*where)
    return lines


def analysis(module: str) -> Any:
    """Return a module of the analysis, which is a part of the installed package."""
    return importlib.import_module(f"mpt.analysis.{module}")


COMMANDS: dict[str, Command] = {
    "search": Command("search", "search the settings of a method (mpt search METHOD)", _search),
    "per-setting": Command(
        "search", "search every method in every partition", _own("per-setting")
    ),
    "replay": Command(
        "search", "best settings over partitions, backbones, methods", _own("replay")
    ),
    "similarity": Command("search", "compare tasks, choose sources", _own("similarity")),
    "watch": Command("search", "a search while it runs, from its results", _own("watch")),
    "paper": Command("search", "the whole study: searches, replay, sweeps, report", _paper),
    "report": Command("results", "tables and figures as one site", _analysis("report")),
    "arg": Command("results", "ARG of results, or of scores from elsewhere", _analysis("arg")),
    "significance": Command(
        "results", "which cells of a table of scores are different", _analysis("significance")
    ),
    "export": Command("results", "Optuna, Parquet, PEFT, Hugging Face Hub", _analysis("export")),
    "studies": Command("results", "which studies a database holds", _own("studies")),
    "doctor": Command("results", "check a database and its files", _own("doctor")),
    "gym": Command("data", "build, verify and examine few-shot files", _gym),
    "backbone": Command("data", "what a language model is, and whether it fits", _own("backbone")),
    "completion": Command("shell", "completion for bash, zsh or tcsh", _own("completion")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if argv is None:  # the program itself, and no function of somebody else's
        collect_seldom()
    words = list(sys.argv[1:] if argv is None else argv)
    return exit_code(lambda: _main(words))


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"mpt {metadata.version('mpt')}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UsageError(f"command is {name!r}, but must be one of {', '.join(COMMANDS)}")
    Parser.command = ("mpt", name)
    return COMMANDS[name].run(rest)


def usage() -> str:
    """Return the help text."""
    lines = ["usage: mpt COMMAND [flags]     mpt COMMAND --help     mpt --version", ""]
    lines.append("Hyperparameter search for meta prompt tuning, with Ray Tune.")
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [
            f"  {name:<13} {command.text}"
            for name, command in COMMANDS.items()
            if command.group == group
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
