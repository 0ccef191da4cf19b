"""The fenced blocks of the documentation: what is run, written to a file, or typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^ *```(\w*)(?: title=\"([^\"]+)\")? *$")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    """The word after the fence: python, sh, toml, diff, text, or nothing."""
    title: str
    """The file that it is the content of; empty for none."""
    text: str
    line: int
    """Where it begins in the page."""


def pages() -> list[Path]:
    """Every page of the site and the README."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order; a fence that is not understood is an error."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    held: list[str] = []
    begin = 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if opened is None:
            if line.lstrip().startswith("```"):
                opened, held, begin = _FENCE.match(line), [], number
                assert opened is not None, f"{name_of(page)}:{number}: fence {line!r}"
        elif line.strip() == "```":
            text = "\n".join(held) + "\n"
            found.append(Block(opened[1], opened[2] or "", text, begin))
            opened = None
        else:
            held.append(line)
    assert opened is None, f"{name_of(page)}:{begin}: this block is never closed"
    return found


def patched(text: str, diff: str) -> str:
    """Apply the hunks of a unified diff by their lines, wherever in the file they stand.

    Raises:
        AssertionError: the old lines of a hunk are not there exactly once, or the hunk's head does
            not count them right (`patch` refuses it then).
    """
    parts = re.split(r"^@@ -\d+,(\d+) \+\d+,(\d+) @@\n", diff, flags=re.MULTILINE)[1:]
    for was, now, hunk in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        rows = [(line[:1] or " ", line[1:]) for line in hunk.splitlines()]
        counts = [sum(sign in signs for sign, _ in rows) for signs in (" -", " +")]
        assert counts == [int(was), int(now)], f"{counts} lines before and after in\n{hunk}"
        old = "".join(f"{rest}\n" for sign, rest in rows if sign in " -")
        new = "".join(f"{rest}\n" for sign, rest in rows if sign in " +")
        assert text.count(old) == 1, f"{text.count(old)} places fit the hunk\n{old}"
        text = text.replace(old, new)
    return text


def commands(text: str) -> list[str]:
    """Return the command lines of a block: without comments, broken lines joined."""
    joined = re.sub(r" *\\\n *", " ", text)
    lines = [re.sub(r"(^| {2,})#.*$", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line]


def inline_commands(page: Path) -> list[str]:
    """Return what a page says in running text to type, as far as it is whole: a flag and value."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"`((?:mpt|python|ray) [^`]+)`", text)
    return [" ".join(words.split()) for words in found if re.search(r"--[\w-]+ [^-]", words)]
