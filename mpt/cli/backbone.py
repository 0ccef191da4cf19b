"""``mpt backbone NAME``: what a language model is, whether it passes, what a step of it takes."""

from __future__ import annotations

from collections.abc import Sequence

from mpt.cli.flags import Parser, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Describe a backbone; return the exit code."""
    return exit_code(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser(
        "What a backbone is, whether it passes the self-check, the memory of one training step, "
        "and the prompt position and number format that suit it."
    )
    parser.add_argument(
        "name", help="a packaged backbone, smollm2, a Hub id (id@revision) or a local checkpoint"
    )
    flags = parser.parse_args(argv)
    from mpt.backbones.describe import describe, lines

    for line in lines(describe(flags.name)):
        print(line)
    return 0
