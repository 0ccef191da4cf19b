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


def _parts_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a parser's commands, by name."""
    return {
        name: part
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, part in action.choices.items()
    }


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser of all commands."""
    from mpt.cli.main import COMMANDS, analysis, own_module
    from mpt.cli.search import parser_of as search_parser
    from mpt.config import known_methods
    from mpt.gym.__main__ import parser_of as gym_parser

    parsers = _parts_of(analysis("__main__").parser_of())
    parsers |= {"gym": gym_parser("mpt gym"), "search": argparse.ArgumentParser(add_help=False)}
    parsers |= {name: own_module(name).parser_of() for name in COMMANDS if name not in parsers}
    whole = argparse.ArgumentParser(prog="mpt")
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        part = commands.add_parser(
            name,
            help=command.text,
            parents=[parsers[name]],
            add_help=False,
            conflict_handler="resolve",
        )
        if name == "search":
            methods = part.add_subparsers()
            for method in known_methods():
                methods.add_parser(
                    method,
                    help=f"search the settings of {method}",
                    parents=[search_parser(method)],
                    add_help=False,
                    conflict_handler="resolve",
                )
    return whole
