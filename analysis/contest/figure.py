"""The forest plot of a contest: a panel a contestant, a row a partition, one for all pooled."""

from __future__ import annotations

from ..figures.drawing import style
from ..figures.drawing.style import Axes, Canvas
from ..results.names import partition_label
from .verdict import Against, Verdict

_ROW_CM, _FRAME_CM, _WIDTH_CM = 0.4, 1.6, 16.0


@style.drawn
def draw_contest(verdict: Verdict) -> Canvas:
    """Return the figure; the ids of its artists are "KIND:contestant:partition"."""
    shown = verdict.against
    rows = max(len(one.partitions) for one in shown) + 1
    figure = style.canvas(_FRAME_CM + _ROW_CM * rows, _WIDTH_CM)
    panels = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True).ravel()
    for ax, one in zip(panels, shown, strict=True):
        _panel(ax, one, verdict.confirmed.frozen.entries[one.name].upstream.config.method)
    smoke = ". Smoke run: the numbers mean nothing" if verdict.confirmed.smoke else ""
    style.title(
        figure,
        "ARG minus that of the best multitask learning, % points, with 95 % intervals over "
        f"{len(verdict.confirmed.seeds)} fresh upstream seeds and data seeds; pooled: "
        f"simultaneous for {len(shown)} comparisons{smoke}",
    )
    return figure


def _panel(ax: Axes, one: Against, method: str) -> None:
    color = style.look(method).color
    rows = [
        *((name, pair.value, pair.interval) for name, pair in one.partitions.items()),
        ("pooled", one.pooled.value, one.interval),
    ]
    ax.axvline(0, color=style.GREY, lw=0.7, zorder=1)
    ax.grid(axis="x")
    for row, (name, value, ends) in enumerate(rows):
        gid = f"{one.name}:{name}"
        if ends is not None:
            ax.hlines(row, *ends, colors=color, lw=1.4, gid=f"interval:{gid}")
        told = ends is not None and (ends[0] > 0 or ends[1] < 0)
        ax.plot(
            [value], [row], marker="D" if name == "pooled" else "o", ms=3.4, lw=0, color=color,
            mfc=color if told else "white", mew=0.8, zorder=3, gid=f"value:{gid}",
        )  # fmt: skip
    labels = ["pooled" if name == "pooled" else partition_label(name) for name, *_ in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_title(one.name, loc="left")
