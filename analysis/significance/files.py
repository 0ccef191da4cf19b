"""The comparisons as files: tables as Markdown and CSV, JSON, the figure as SVG and PNG."""

from __future__ import annotations

import json
from pathlib import Path

from mpt.errors import UsageError

from ..figures.drawing.style import save
from ..tables.render import to_csv, to_markdown
from .comparisons import Significance
from .forest import draw_forest
from .tables import tables
from .terminal import to_json


def json_text(significance: Significance) -> str:
    """Return `terminal.to_json` as text; equal results give equal text."""
    return json.dumps(to_json(significance), indent=1, ensure_ascii=False) + "\n"


def write_files(significance: Significance, out: Path) -> list[Path]:
    """Write every file into a folder, which is made; files of these names are replaced.

    Raises:
        UsageError: the folder cannot be made or written.
    """
    pages = tables(significance)
    texts = {"significance.md": "\n".join(map(to_markdown, pages[:2]))}
    texts |= {f"{table.name}.csv": to_csv(table) for table in pages}
    texts["significance.json"] = json_text(significance)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in texts.items():
            (out / name).write_text(content, encoding="utf-8")
        drawn = save(draw_forest(significance), out, "significance")
    except OSError as error:
        raise UsageError(f"--out {str(out)!r} cannot be written ({error.strerror})") from None
    return [*(out / name for name in texts), *drawn]
