"""What the analysis imports: what it reads, relatively, in the order in which data flow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDER = (
    *("published", "results", "tables", "figures", "findings", "paper", "significance", "contest"),
    *("export", "report", "__main__"),
)
"""Parts of the analysis in the order in which data flow."""
ALLOWED = (
    "arguments",
    "config",
    "errors",
    "keys",
    "metrics",
    "seeds",
    "words",
    "gym",
    "store",
    "study",
)
"""Parts of the library that the analysis may read."""
EXTRA = {
    "export/peft_adapter.py": {"mpt.backbones.load", "mpt.prompts"},
    "export/hub.py": {"mpt.prompts"},
    "__main__.py": {"mpt.cli.flags"},
}
"""An adapter of PEFT names the folder of a packaged model, and holds a prompt of ours, as a folder
for the hub does; the command line has the parser of all commands."""


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (level of a relative import or 0, module) of every import, those in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names] if node.module is None else [node.module]
            yield from ((node.level, name) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)


FILES = sorted((ROOT / "analysis").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_of_the_analysis_imports_relatively_downward_and_reads_only(path: Path) -> None:
    place = path.relative_to(ROOT / "analysis")
    part = place.parts[0].removesuffix(".py")
    for level, name in _imports(path):
        if level == 0:
            parts = name.split(".")
            assert parts[0] != "analysis", f"{name} is not relative"
            if parts[0] == "mpt":
                assert parts[1] in ALLOWED or name in EXTRA.get(str(place), set()), name
            continue
        above = place.parent.parts[: len(place.parent.parts) - level + 1]
        target = (*above, *name.split("."))[0]
        if part != "__init__":
            assert ORDER.index(target) <= ORDER.index(part), f"{part} imports {target}"


def test_no_folder_of_the_analysis_has_more_than_15_modules() -> None:
    folders = {path.parent for path in FILES}
    assert max(len(list(folder.glob("*.py"))) for folder in folders) <= 15
