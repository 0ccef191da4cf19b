"""Every command that the documentation shows is one that its program understands."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from pages import ROOT, blocks, commands, inline_commands, name_of, pages

from mpt.cli import main as cli
from mpt.cli.flags import Parser
from mpt.errors import UsageError

OTHERS = (
    # programs of others, whose flags are not looked at
    "docker",
    "eval",
    "exec",
    "export",
    "git",
    "kill",
    "kubectl",
    "optuna-dashboard",
    "patch",
    "pgrep",
    "pip",
    "sbatch",
    "srun",
)
_PROGRAM = re.compile(rf"^(?:mpt|python|make|ray|{'|'.join(OTHERS)})(?= )")
METHOD = """import mpt

@mpt.upstream_method
def mine(loss, prompt, episode, config):
    return prompt, 0.0
"""


class Understood(BaseException):
    """Raised where a command's flags have been parsed, before it does anything."""


@pytest.fixture(autouse=True)
def program_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the words that stand for the program be those of no command after a test either."""
    monkeypatch.setattr(Parser, "command", ())


@pytest.fixture
def parses_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every command end when its flags are understood; files that are named are there."""
    parse, own = argparse.ArgumentParser.parse_args, Parser.parse_args

    def outer(self: Any, args: Any = None, namespace: Any = None) -> Any:
        flags = parse(self, args, namespace)
        if isinstance(self, Parser):  # which looks at the flags once more
            return flags
        raise Understood

    def inner(self: Parser, args: Any = None, namespace: Any = None) -> Any:
        own(self, args, namespace)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", outer)
    monkeypatch.setattr(Parser, "parse_args", inner)
    monkeypatch.setattr("mpt.cli.flags._LOADED", set())
    monkeypatch.chdir(tmp_path)
    Path("my_method.py").write_text(METHOD)


def shown(page: Path) -> list[str]:
    """Return the commands of a page: of its blocks that are no program, and of its text."""
    found = inline_commands(page)
    for block in blocks(page):
        if block.language not in ("", "sh", "bash", "text"):
            continue
        lines = [part.strip() for line in commands(block.text) for part in line.split(";  ")]
        if block.language == "sh":
            unknown = [line for line in lines if not _PROGRAM.match(line)]
            assert not unknown, f"{name_of(page)}:{block.line}: which programs are {unknown}?"
        found += [line for line in lines if _PROGRAM.match(line)]
    return found


def understand(line: str, page: Path) -> None:
    """Parse one command line.

    Raises:
        AssertionError: what it names is not there, or its flags are wrong; the text says which.
    """
    words = shlex.split(re.sub(r"\$\w+", "1", line))
    if words[0] == "srun" and "ray" in words:
        words = words[words.index("ray") :]
    program, rest = words[0], words[1:]
    if program == "mpt":
        _parsed(lambda: cli._main(rest), line)
    elif program == "python":
        _python(rest, line, page)
    elif program == "ray":
        _ray(rest, line)
    elif program == "make":
        target = re.escape(rest[0])
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
    else:
        assert program in OTHERS, line


def _parsed(work: Callable[[], object], line: str) -> None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            work()
    except Understood:
        return
    except (UsageError, SystemExit) as error:
        raise AssertionError(f"{line}: {said.getvalue()}{error}") from error
    raise AssertionError(f"{line}: {said.getvalue() or 'nothing was parsed'}")


def _python(rest: Sequence[str], line: str, page: Path) -> None:
    if rest[0] == "-m":
        module = importlib.import_module(f"{rest[1]}.__main__")
        _parsed(lambda: module.main(rest[2:]), line)
        return
    rest = [word for word in rest if word != "-u"]
    if rest[0].startswith("tune_jobs/"):
        script = ROOT / rest[0]
        assert script.is_file(), line
        sys.argv[:] = [str(script), *rest[1:]]
        _parsed(lambda: runpy.run_path(str(script), run_name="__main__"), line)
    else:
        written = [block.title for block in blocks(page)]
        assert rest[0] in written or (ROOT / rest[0]).is_file(), f"{line}: there is no such file"


def _ray(rest: list[str], line: str) -> None:
    from ray.scripts.scripts import cli as ray_cli

    if rest[0] in ("symmetric-run", "submit") and "--" in rest:  # a job stands behind it
        at = rest.index("--")
        head = [] if rest[0] == "symmetric-run" else ["python", rest[2]]
        understand(shlex.join([*head, *rest[at + 1 :]]), ROOT / "README.md")
    command: Any = ray_cli
    while isinstance(command, click.Group):
        assert rest, line
        name, rest = rest[0], rest[1:]
        assert name in command.commands, f"{line}: ray has no {name}"
        command = command.commands[name]
    try:
        command.make_context(name, rest)
    except click.ClickException as error:
        raise AssertionError(f"{line}: {error.format_message()}") from error


@pytest.mark.usefixtures("parses_only")
@pytest.mark.parametrize("page", [page for page in pages() if shown(page)], ids=name_of)
def test_the_commands_of_a_page_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mpt"])
    for line in shown(page):
        understand(line, page)


@pytest.mark.usefixtures("parses_only")
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("mpt search maml --sercher optuna", "unrecognized arguments: --sercher"),
        ("mpt serch maml", "command is 'serch'"),
        ("mpt search maml --price 2", "--price says something only with --dry-run"),
        ("mpt gym build --out DIR", "the following arguments are required: --source"),
        ("python tune_jobs/maml_rr.py --addres auto", "unrecognized arguments: --addres"),
        ("ray up --no-restarts cluster.yaml", "No such option.*--no-restarts"),
        ("ray metrics launch-promotheus", "ray has no launch-promotheus"),
        ("srun ray symmetric-run --min-nodes 2 -- python x.py", "no such file"),
        ("srun ray symmetric-run --min-nodes 2 -- make test", "Missing option '--address'"),
        ("make serch", "make serch"),
        ("python tune_jobs/maml.py", "python tune_jobs/maml.py"),
    ],
)
def test_a_command_that_is_misspelt_is_found(
    line: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mpt"])
    with pytest.raises(AssertionError, match=why):
        understand(line, ROOT / "README.md")
