"""``mpt backbone NAME``: what a language model is, whether it passes, what a step of it takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mpt.cli.flags import Parser, work_with


def main(argv: Sequence[str] | None = None) -> int:
    """Describe a backbone; return the exit code."""
    return work_with(parser_of, _work, argv)


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "What a backbone is, whether it passes the self-check, the memory of one training step, "
        "and the prompt position and number format that suit it."
    )
    parser.add_argument(
        "name", help="a packaged backbone, smollm2, a Hub id (id@revision) or a local checkpoint"
    )
    return parser


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    from mpt.backbones.describe import describe, lines

    for line in lines(describe(flags.name)):
        print(line)
    return 0
