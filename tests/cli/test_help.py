"""Help texts: every value has a name that says what is typed there, and fits a terminal."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator

import pytest
import shtab

from analysis.__main__ import parser_of as analysis_parser
from mpt.cli import beat_mtl
from mpt.cli.completion import whole_parser
from mpt.cli.main import COMMANDS, main
from mpt.config import EMBEDDED_BACKBONES, SMOLLM2
from mpt.errors import UsageError
from mpt.gym.__main__ import parser_of as gym_parser

LISTS = {"NAME,…", "MODEL,…", "N,…", "X,…", "OLD=NEW,…"}
WORDS = {"DIR", "FILE", "FOLDER", "ID", "MODEL", "N", "NAME", "PROJECT", "PROMPT", "SECONDS"}
WORDS |= {"TFLOPS", "URI", "URL", "WHERE", "X"}


def _parts(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _parts(part)


def _flags() -> dict[str, argparse.Action]:
    """Return every flag of every command that takes a value, by a name for messages."""
    roots = (whole_parser(), analysis_parser(), gym_parser("mpt gym"), beat_mtl.parser_of())
    return {
        f"{parser.prog} {action.option_strings[0]}": action
        for root in roots
        for parser in _parts(root)
        for action in parser._actions
        if action.option_strings and action.nargs != 0 and action.choices is None
    }


def test_every_value_of_a_flag_is_named_by_its_kind_not_by_the_flag() -> None:
    flags = _flags()
    assert len(flags) > 200
    unnamed = {name: a.metavar for name, a in flags.items() if a.metavar not in WORDS | LISTS}
    assert not unnamed


def test_a_number_stands_where_one_number_is_read_and_nowhere_else() -> None:
    """What is read as a list, or as text, was once shown as one number too."""
    wrong = []
    for name, action in _flags().items():
        try:
            read = action.type("1") if callable(action.type) else "1"
        except (argparse.ArgumentTypeError, UsageError):
            continue
        one, listed = isinstance(read, int | float), isinstance(read, tuple)
        if (action.metavar in ("N", "X", "SECONDS")) != one:
            wrong.append(name)
        if listed and action.metavar not in LISTS | {"TFLOPS"}:
            wrong.append(name)
    assert not wrong


@pytest.mark.parametrize("name", [*COMMANDS, ""])
def test_help_is_readable_at_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        main([*([name] if name else []), "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    usage = re.split(r"\n\s*\n", text)[0]
    assert usage.count("\n") < 5, "a list of flags is no usage"


def test_flags_of_gym_and_export_stand_in_groups() -> None:
    (commands,) = (
        a for a in analysis_parser()._actions if isinstance(a, argparse._SubParsersAction)
    )
    (build,) = (one for one in _parts(gym_parser("mpt gym")) if one.prog.endswith(" build"))
    kinds = list(_parts(commands.choices["export"]))
    assert len(kinds) == 5
    for parser in (build, *kinds[1:]):
        loose = [a.dest for a in parser._optionals._group_actions]
        assert loose == ["help"], parser.prog
    for parser in (gym_parser("mpt gym"), kinds[0]):
        assert "positional arguments" not in parser.format_help()


def test_every_backbone_with_a_name_of_its_own_is_named_where_one_is_chosen() -> None:
    flags = _flags()
    for command in ("mpt search maml", "mpt per-setting"):
        text = flags[f"{command} --backbone"].help or ""
        assert [name for name in (*EMBEDDED_BACKBONES, SMOLLM2) if f'"{name}"' not in text] == []


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["search", "maml"], "--racing"),
        (["report"], "--budget-samples"),
        (["arg"], "--scores"),
        (["significance"], "--json"),
        (["export", "peft"], "--base-model"),
        (["gym", "build"], "--shots"),
        (["gym", "verify"], "--help"),
    ],
)
def test_a_shell_completes_the_flags_of_every_command(words: list[str], flag: str) -> None:
    script = shtab.complete(whole_parser(), shell="bash")
    head = "_".join(["", *words])
    (flags,) = re.findall(rf"^_shtab_mpt{head}_option_strings=\((.*)\)$", script, re.M)
    assert flag in re.findall(r"[\w-]+", flags)
