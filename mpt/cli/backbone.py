"""``mpt backbone NAME``: what a language model is, and what a step of it takes."""

from __future__ import annotations

from collections.abc import Sequence

from mpt.cli.flags import Parser, exit_code, whole


def main(argv: Sequence[str] | None = None) -> int:
    """Describe a backbone; return the exit code."""
    return exit_code(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser("What a backbone is, and the memory of one training step of a prompt.")
    parser.add_argument("name", help="a packaged backbone, a Hub id or a local checkpoint")
    parser.add_argument("--rows", type=whole(1), default=8, help="examples of a step")
    parser.add_argument("--prompt", type=whole(1), default=100, help="virtual tokens")
    parser.add_argument("--input", type=whole(2), default=512, help="tokens of an input")
    parser.add_argument("--target", type=whole(2), default=64, help="tokens of a target")
    flags = parser.parse_args(argv)
    from mpt.backbones.memory import main as memory

    words = [flags.name]
    for name in ("rows", "prompt", "input", "target"):
        words += [f"--{name}", str(getattr(flags, name))]
    return int(memory(words))
