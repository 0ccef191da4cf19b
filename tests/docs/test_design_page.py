"""The page on how it is built: what it says of libraries is what the code imports."""

from __future__ import annotations

import ast
import re

import pytest
from pages import DOCS, ROOT

TEXT = (DOCS / "design.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| .+ \| (`.+`.*) \|$", TEXT, re.MULTILINE)


def _imported(*folders: str) -> set[str]:
    """Return the top names of all that the code of some folders imports."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return found


def test_the_libraries_of_its_table_are_imported() -> None:
    named = {name for cell in TABLE for name in re.findall(r"`([a-z0-9]+)`", cell)}
    assert len(named) >= 15
    assert named - _imported("mpt", "analysis") == set()


@pytest.mark.parametrize(
    ("library", "folders"),
    [
        ("pandas", ["analysis"]),
        ("pydantic", ["mpt", "analysis"]),
        ("typer", ["mpt", "analysis"]),
        ("tyro", ["mpt", "analysis"]),
    ],
)
def test_a_library_it_says_is_not_used_is_not_imported(library: str, folders: list[str]) -> None:
    assert re.search(rf"(not use|or) `{library}`", TEXT)
    assert library not in _imported(*folders)
