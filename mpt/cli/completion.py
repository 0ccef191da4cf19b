"""``mpt completion SHELL``: a script that completes commands and flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mpt.cli.flags import Parser, work_with

SHELLS = ("bash", "zsh", "tcsh")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a completion script; return the exit code."""
    return work_with(parser_of, _work, argv)


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser('Print a completion script, e.g. for ~/.bashrc: eval "$(mpt completion bash)"')
    parser.add_argument("shell", choices=SHELLS)
    return parser


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(whole_parser(), shell=flags.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser of all commands, as far as they have parsers of their own."""
    from mpt.cli import (
        backbone,
        doctor,
        paper,
        per_setting,
        replay,
        search,
        similarity,
        studies,
        watch,
    )
    from mpt.cli.main import COMMANDS
    from mpt.config import known_methods

    own = {
        "replay": replay.parser_of,
        "per-setting": per_setting.parser_of,
        "paper": paper.parser_of,
        "similarity": similarity.parser_of,
        "studies": studies.parser_of,
        "watch": watch.parser_of,
        "doctor": doctor.parser_of,
        "backbone": backbone.parser_of,
        "completion": parser_of,
    }
    whole = argparse.ArgumentParser(prog="mpt")
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        parents = [own[name]()] if name in own else []
        part = commands.add_parser(
            name, help=command.text, parents=parents, add_help=False, conflict_handler="resolve"
        )
        if name == "search":
            methods = part.add_subparsers()
            for method in known_methods():
                methods.add_parser(
                    method,
                    help=f"search the settings of {method}",
                    parents=[search.parser_of(method)],
                    add_help=False,
                    conflict_handler="resolve",
                )
    return whole
