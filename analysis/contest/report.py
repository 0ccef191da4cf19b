"""The report of a contest as files: ``contest.md``, ``.html``, ``.json``, and the figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpt.errors import UsageError
from mpt.study.contest.part import WHOLE, ContestPart

NAME = "contest"
TITLE = "Better than multitask learning?"


def write_contest(
    results: Path, store: str | None, frozen: Path, out: Path, part: ContestPart = WHOLE
) -> Mapping[str, Any]:
    """Read a confirmation and write its report.

    Args:
        results: results directory.
        store: URL of the database, if it is not in there.
        frozen: the file of frozen settings.
        out: folder of the report, which is made; files of these names are replaced.
        part: what of the confirmation the report speaks of.

    Returns:
        ``lines`` for people, and ``files`` and ``verdict`` for programs.

    Raises:
        UsageError: there is nothing to report on, or `out` cannot be written.
        DataError: what there is, is broken.
    """
    from .arenas import read_confirmed  # drawing and statistics take seconds to import
    from .forest import draw_contest
    from .verdict import judge

    verdict = judge(read_confirmed(results, store, frozen, part))
    from ..figures.drawing.style import save
    from ..tables.render import to_markdown
    from .tables import arena_table, pooled_table, to_json

    tables = [pooled_table(verdict), arena_table(verdict)]
    page = [f"# {TITLE}", "", *(f"- {one}" for one in verdict.sentences), ""]
    page += [f"![Differences to the best multitask learning]({NAME}.svg)", ""]
    texts = {
        f"{NAME}.md": "\n".join([*page, *map(to_markdown, tables)]),
        f"{NAME}.html": _html(verdict.sentences, tables),
        f"{NAME}.json": json.dumps(to_json(verdict), indent=1, ensure_ascii=False) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in texts.items():
            (out / name).write_text(content, encoding="utf-8")
        drawn = save(draw_contest(verdict), out, NAME)
    except OSError as error:
        raise UsageError(f"--report {out} cannot be written ({error.strerror})") from None
    files = [*(out / name for name in texts), *drawn]
    lines = [f"verdict  {one}" for one in verdict.sentences]
    return {
        "lines": [*lines, f"report   {out / NAME}.md, .html, .json, .svg"],
        "files": [str(path) for path in files],
        "verdict": verdict.sentences,
    }


def _html(sentences: Sequence[str], tables: Sequence[Any]) -> str:
    """Return one page without scripts of its own."""
    from markupsafe import Markup, escape

    from ..tables.render import to_html

    parts = [Markup("<h1>{}</h1>").format(TITLE)]
    parts += [Markup("<p>{}</p>").format(one) for one in sentences]
    parts.append(Markup('<p><img src="{}.svg" alt="{}"></p>').format(NAME, escape(TITLE)))
    parts += [Markup(to_html(table)) for table in tables]
    head = Markup('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{}</title>')
    style = "<style>body{font-family:sans-serif;margin:2em}td,th{padding:.2em .6em;border:1px "
    style += "solid #ccc;text-align:left}small{display:block}table{border-collapse:collapse}"
    style += "</style></head><body>"
    body = Markup("\n").join(parts)
    return f"{head.format(TITLE)}{style}\n{body}\n</body></html>\n"
