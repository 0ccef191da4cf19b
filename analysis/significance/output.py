"""The comparisons as text of at most 80 columns, as JSON, and as files."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import Any

from mpt.errors import UsageError

from ..figures.drawing.style import save
from ..results.names import BASELINE, method_label
from ..tables.render import to_csv, to_markdown
from ..tables.table import shown, shown_interval
from .comparisons import JUDGE, MTL, VIEWS, Family, MethodComparison, Significance
from .forest import draw_forest
from .settings import Setting
from .statistics import Estimated
from .tables import WORDS, notes, record_table, setting_title, shown_p, tables, verdict

WIDTH = 80
_HEADER = f"{'%':>18}  {'other tasks 95 %':16} {'these tasks 95 %':16} better     p  verdict"


def to_text(significance: Significance) -> str:
    """Return a block a setting, the matrix of wins, and the notes; lines of at most 80 columns."""
    blocks = [
        _block(significance, setting) for setting in significance.settings if setting.methods
    ]
    blocks.append(_record(significance))
    lines = (textwrap.fill(note, WIDTH, break_long_words=False) for note in notes(significance))
    return "\n\n".join((*blocks, *lines)) + "\n"


def _block(significance: Significance, setting: Setting) -> str:
    lines = [setting_title(setting), _HEADER]
    for method in setting.methods:
        for reference, name in ((BASELINE, method_label(method)), (MTL, "  − MTL")):
            one = significance.table.of(setting, method, reference)
            if one is not None:
                lines.append(_line(name, one))
    return "\n".join(lines)


def _line(name: str, one: MethodComparison) -> str:
    other, these = (_interval(one.views.get(view)) for view in (JUDGE, "these_tasks"))
    better = f"{one.better}/{len(one.differences)}"
    return (
        f"{name[:10]:10} {shown(one.value, 2):>7}  {other:16} {these:16} {better:>6}"
        f" {shown_p(one.corrected[JUDGE]):>6} {verdict(one)}"
    )


def _interval(estimate: Estimated | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "none"
    return shown_interval((estimate.low, estimate.high), 2)


def _record(significance: Significance) -> str:
    table = record_table(significance)
    lines = [table.title, " " * 11 + "".join(f"{label[:9]:>10}" for label in table.columns[1:])]
    for name, *cells in table.rows:
        row = "".join(f"{cell.text or '':>10}" for cell in cells)
        lines.append(f"{(name.text or '')[:10]:11}{row}")
    return "\n".join((*lines, *textwrap.wrap(table.notes[0], WIDTH)))


def to_json(significance: Significance) -> dict[str, Any]:
    """Return everything as plain values: % for gains, None for what there is not."""
    return {
        "views": dict(VIEWS),
        "judged_by": JUDGE,
        "correction": "Holm",
        "root_seed": significance.root,
        "settings": [
            {
                "partition": setting.partition,
                "backbone": setting.backbone,
                "tasks": list(setting.tasks),
                "data_seeds": list(setting.seeds),
                "left_out": list(setting.left_out),
            }
            for setting in significance.settings
        ],
        "table": _family(significance.table),
        "other_pairs": _family(significance.pairs),
        "wins_ties_losses": {
            method: {
                o: list(significance.record(method, o))
                for o in significance.methods
                if o != method
            }
            for method in significance.methods
        },
        "notes": list(notes(significance)),
    }


def _family(family: Family) -> dict[str, Any]:
    return {
        "size": family.size,
        "comparisons": [
            {
                "partition": one.setting.partition,
                "backbone": one.setting.backbone,
                "method": one.method,
                "reference": one.reference,
                "difference": one.value,
                "better": one.better,
                "tasks": len(one.differences),
                "verdict": WORDS[one.sign()],
                "views": {
                    view: {**dataclasses.asdict(estimate), "p_holm": one.corrected[view]}
                    for view, estimate in one.views.items()
                },
                **_printed(one),
            }
            for one in family.comparisons
        ],
    }


def _printed(one: MethodComparison) -> dict[str, float | None]:
    return {"table_2": one.setting.printed.get(one.method)} if one.reference == BASELINE else {}


def json_text(significance: Significance) -> str:
    """Return `to_json` as text; equal results give equal text."""
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
