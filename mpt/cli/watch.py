"""``mpt watch RESULTS``: a search or replay that runs, or has ended, seen from its results."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.arguments import number
from mpt.cli.flags import Parser, add_database, work_with
from mpt.errors import UsageError

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from mpt.search.watch.view import Look

TERMINAL_S, PIPE_S = 5.0, 60.0
"""Seconds between two views: on a terminal, where it is redrawn, and elsewhere."""


def main(argv: Sequence[str] | None = None) -> int:
    """Show a search until its driver is gone; return the exit code."""
    return work_with(parser_of, _work, argv)


def parser_of() -> Parser:
    """Return the parser of this command."""
    parser = Parser(
        "Show a search or replay while it runs, from its results alone: ranking, running trials, "
        "cost and time left. Nothing is written; it ends with the search, or with Ctrl-C."
    )
    add_database(parser)
    parser.add_argument("--study", metavar="ID", help="this study or protocol (default: the last)")
    plugin = "Python file that registers upstream methods"
    parser.add_argument("--plugin", metavar="FILE", help=plugin)
    often = "between two views (default: 5 on a terminal, else 60)"
    parser.add_argument("--every", type=number, metavar="SECONDS", help=often)
    parser.add_argument("--once", action="store_true", help="one view, and no waiting")
    return parser


def _work(parser: Parser, flags: argparse.Namespace) -> int:
    if flags.every is not None and flags.every <= 0:
        raise UsageError(f"--every is {flags.every:g}, but must be > 0, seconds between two views")
    if flags.once and flags.every is not None:
        raise UsageError("--once shows one view, but --every says how often; give one of them")
    try:
        with _screen(flags.once) as live:
            _watch(flags, live)
    except KeyboardInterrupt:
        print("watched no longer; what was watched goes on", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _watch(flags: argparse.Namespace, live: Live | None) -> None:
    """Show one view after the other, until nobody works on the results."""
    from mpt.search.watch.view import closing

    wait = flags.every or (PIPE_S if live is None else TERMINAL_S)
    while not flags.once and _begins(flags.results, flags.store):
        time.sleep(1.0)
    while True:
        look, text = _view(flags.results, flags.store, flags.study)
        end = closing(look)
        last = flags.once or end is not None
        if live is None or last:
            _print(text, live)
        else:
            live.update(_cropped(text, live), refresh=True)
        if last:
            print("" if end is None else end, end="" if end is None else "\n", flush=True)
            return
        if live is None:
            print(flush=True)
        time.sleep(wait)


def _begins(results: Path, store: str | None) -> bool:
    """Return whether a driver is there that has made no database so far."""
    from mpt.store.database import FILE
    from mpt.store.lock import is_held

    return store is None and not (results / FILE).exists() and is_held(results) is True


def _view(results: Path, store: str | None, study: str | None) -> tuple[Look, Text]:
    """Return what is there now, in data and in words."""
    from rich.text import Text

    from mpt.search.display.display import make_console
    from mpt.search.display.header import folder_text
    from mpt.search.watch.view import look, show
    from mpt.store.database import open_results

    console = make_console()
    with (
        open_results(results, store, read_only=True) as database,
        console.capture() as capture,
    ):
        view = look(database, results, study)
        show(view, console, folder_text(results) if store is None else database.name)
    return view, Text.from_ansi(capture.get())


@contextlib.contextmanager
def _screen(once: bool) -> Iterator[Live | None]:
    """Give a part of the terminal that is redrawn; None where each view is printed."""
    if once or not sys.stdout.isatty():
        yield None
        return
    from rich.live import Live

    from mpt.search.display.display import make_console

    with Live(console=make_console(), transient=True, auto_refresh=False) as live:
        yield live


def _cropped(text: Text, live: Live) -> Text:
    """Return as many lines as the terminal has, and how many there are more."""
    from rich.text import Text

    width, room = live.console.width, live.console.height - 1
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        if line.plain.startswith(" "):  # of a table, which is as wide as it is
            line.truncate(width, overflow="ellipsis")
            lines.append(line)
        else:
            lines += line.wrap(live.console, width)
    hidden = len(lines) - (room - 1)
    if hidden > 1:
        lines[room - 1 :] = [Text(f"… {hidden} more lines: mpt watch --once")]
    return Text("\n", no_wrap=True).join(lines)


def _print(text: Text, live: Live | None) -> None:
    """Print a view that stays."""
    from mpt.search.display.display import make_console

    if live is not None:
        live.stop()
    make_console().print(text, end="")
