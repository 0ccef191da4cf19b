"""The forest plot: a panel a setting, a row a method, its ARG and its difference to MTL."""

from __future__ import annotations

import math

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from ..figures.drawing import style
from ..figures.drawing.style import Axes, Canvas
from ..results.names import BASELINE, method_label
from .comparisons import JUDGE, MTL, MethodComparison, Significance
from .settings import Setting

_COLUMNS, _WIDTH_CM, _ROW_CM, _FRAME_CM = 2, 16.0, 0.27, 1.3
_ASIDE = 0.16
"""Half the distance between the two views of one row."""


@style.drawn
def draw_forest(significance: Significance) -> Canvas:
    """Return the figure; the ids of its artists are "KIND:partition:method:reference".

    Kinds: value; interval (of the test), or t where so few tasks have none; fixed (these tasks).
    """
    settings = [setting for setting in significance.settings if setting.methods]
    lines = math.ceil(len(settings) / _COLUMNS)
    most = max(len(_rows(significance, setting)) for setting in settings)
    figure = style.canvas(2.4 + lines * (_FRAME_CM + _ROW_CM * most), _WIDTH_CM)
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for ax, setting in zip(panels, settings, strict=False):
        _panel(ax, significance, setting)
    for ax in panels[len(settings) :]:
        ax.set_visible(False)
    for ax in panels[max(0, len(settings) - _COLUMNS) : len(settings)]:
        ax.set_xlabel("ARG, or its difference to MTL's, %")
    style.title(
        figure,
        "Gain over prompt tuning and over MTL, 95 % intervals; filled: different from 0 after "
        f"Holm's correction for {significance.table.size} comparisons. One upstream seed per "
        "method: its noise is in no interval",
    )
    style.legend(figure, _handles(), columns=5)
    return figure


def _rows(significance: Significance, setting: Setting) -> list[tuple[str, MethodComparison]]:
    rows = []
    for method in setting.methods:
        for reference, name in ((BASELINE, ""), (MTL, " − MTL")):
            one = significance.table.of(setting, method, reference)
            if one is not None:
                rows.append((method_label(method) + name, one))
    return rows


def _panel(ax: Axes, significance: Significance, setting: Setting) -> None:
    rows = _rows(significance, setting)
    style.rows(ax, [label for label, _ in rows])
    for row, (_, one) in enumerate(rows):
        _draw_row(ax, row, one)
    ax.set_title(f"{setting.label}: {len(setting.tasks)} tasks", loc="left")


def _draw_row(ax: Axes, row: int, one: MethodComparison) -> None:
    name = f"{one.setting.partition}:{one.method}:{one.reference}"
    color = style.look(one.method).color
    judged, fixed = one.views[JUDGE], one.views.get("these_tasks")
    spare = one.views.get("other_tasks_t")
    if judged.low is not None and judged.high is not None:
        ax.hlines(row - _ASIDE, judged.low, judged.high, colors=color, lw=1.4,
                  gid=f"interval:{name}")  # fmt: skip
    elif spare is not None and spare.low is not None and spare.high is not None:
        ax.hlines(row - _ASIDE, spare.low, spare.high, colors=color, lw=0.9, ls=":",
                  gid=f"t:{name}")  # fmt: skip
    if fixed is not None and fixed.low is not None and fixed.high is not None:
        ax.hlines(row + _ASIDE, fixed.low, fixed.high, colors=style.GREY, lw=0.7,
                  gid=f"fixed:{name}")  # fmt: skip
    ax.plot(
        [one.value], [row - _ASIDE], marker=style.look(one.method).marker, ms=3.4, lw=0,
        color=color, mfc=color if one.sign() else "white", mew=0.8, zorder=3, gid=f"value:{name}",
    )  # fmt: skip


def _handles() -> list[Artist]:
    def entry(label: str, **kind: object) -> Line2D:
        return Line2D([], [], label=label, **{"color": style.BLACK, "lw": 0.0, **kind})  # type: ignore[arg-type]

    return [
        entry("different", marker="o"),
        entry("not told apart", marker="o", mfc="white"),
        entry("other tasks", lw=1.4),
        entry("other tasks, t (too few for the test)", lw=0.9, ls=":"),
        entry("these tasks, other data seeds", lw=0.7, color=style.GREY),
    ]
