"""A search's points in order: ranking, path from worst to best, agreement of rungs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..charts.data import Estimate, Search, name_of, point_label, write
from ..charts.sensitivity import AblationPath, Change, RungAgreement
from . import style
from .style import Axes, Canvas

MOST = 60
"""Points that a ranking shows; of a longer one, the first three quarters and the last quarter."""
_ROW_CM = 0.31


@style.drawn
def draw_ranking(search: Search) -> Canvas:
    """Return all points, best first, with intervals; those without a score stand at the bottom.

    The shaded strip is the interval of the best point: what overlaps with it may be as good.
    """
    varied = search.varied
    rows: list[tuple[str, Estimate]] = [
        (f"{rank}.  {point_label(point, varied)}", point.score)
        for rank, point in enumerate(search.scored, start=1)
    ]
    if len(rows) > MOST:
        tail = MOST // 4
        gap = Estimate(value=None, note=f"{len(rows) - MOST} more")
        rows = [*rows[: MOST - tail], ("⋮", gap), *rows[-tail:]]
    rows += [(f"–  {point_label(point, varied)}", point.score) for point in search.without]
    figure, ax = style.axes(height_cm=2.2 + _ROW_CM * len(rows))
    _draw_rows(ax, rows)
    best = None if search.best is None else search.best.score
    if best is not None and best.interval is not None:
        ax.axvspan(*best.interval, color=style.PALE, lw=0, zorder=0, gid="best")
    ax.tick_params(axis="y", labelsize=style.SMALL + 0.5)
    figure.supxlabel(f"ARG, %      (rows: {' · '.join(map(name_of, varied))})")
    style.title(figure, f"Ranking: {search.title}")
    return figure


def _draw_rows(ax: Axes, rows: Sequence[tuple[str, Estimate]]) -> None:
    """Draw a dot and an interval of each row; a note where there is no number."""
    style.rows(ax, [label for label, _ in rows])
    for row, (_, estimate) in enumerate(rows):
        if estimate.value is None:
            ax.annotate(
                estimate.note, (0.02, row), xycoords=ax.get_yaxis_transform(), va="center",
                color=style.GREY, fontsize=style.SMALL, gid="missing",
            )  # fmt: skip
        elif estimate.interval is not None:
            ax.hlines(row, *estimate.interval, colors=style.BLUE, lw=0.8, gid="interval")
    scored = [(row, e.value) for row, (_, e) in enumerate(rows) if e.value is not None]
    ax.plot(
        [value for _, value in scored], [row for row, _ in scored], color=style.BLUE, marker="o",
        ms=2.6, lw=0, gid="value",
    )  # fmt: skip


@style.drawn
def draw_ablation(path: AblationPath, title: str) -> Canvas:
    """Return the path from the worst point (top) to the best, one changed setting a row."""
    rows = [(_change_label(change), change.point.score) for change in path.changes]
    if path.stopped:
        rows.append(("…", Estimate(value=None, note=path.stopped)))
    figure, ax = style.axes(height_cm=2.4 + 0.6 * len(rows))
    values = [float(change.point.score.value or 0.0) for change in path.changes]
    ax.step(values, range(len(values)), color=style.GREY, lw=0.6, where="post", gid="path")
    _draw_rows(ax, rows)
    for row, value in enumerate(values):
        ax.annotate(
            f"{value:+.2f}", (value, row), xytext=(0, 4), textcoords="offset points",
            ha="center", fontsize=style.SMALL,
        )  # fmt: skip
    ax.set_ylim(len(rows) - 0.4, -0.7)
    figure.supxlabel("ARG, %")
    style.title(figure, title)
    return figure


def _change_label(change: Change) -> str:
    if change.setting is None or change.before is None or change.after is None:
        settings = change.point.settings
        return "worst:\n" + "\n".join(f"{name_of(n)} {write(v)}" for n, v in settings.items())
    return f"{name_of(change.setting)} {write(change.before)} → {write(change.after)}"


@style.drawn
def draw_rungs(agreement: RungAgreement, title: str) -> Canvas:
    """Return Spearman's ρ (above the diagonal) and Kendall's τ (below) between rungs.

    Each field has the number, its interval, and the number of trajectories.
    """
    rungs = agreement.rungs
    figure, ax = style.axes(height_cm=7.0)
    size = len(rungs)
    for rung in range(size):
        ax.fill_between([rung - 0.5, rung + 0.5], rung - 0.5, rung + 0.5, color=style.PALE)
        ax.text(rung, rung, f"{rungs[rung]}\nsteps", ha="center", va="center")
    for early in range(size):
        for late in range(early + 1, size):
            key = (rungs[early], rungs[late])
            n = agreement.trajectories[key]
            _draw_field(ax, late, early, "ρ", agreement.spearman, key, n)
            _draw_field(ax, early, late, "τ", agreement.kendall, key, n)
    ax.set_xlim(-0.5, size - 0.5)
    ax.set_ylim(size - 0.5, -0.5)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    style.title(figure, title)
    figure.supxlabel("ρ: Spearman, τ: Kendall, [95 % interval], n trajectories")
    return figure


def _draw_field(
    ax: Axes,
    x: int,
    y: int,
    symbol: str,
    numbers: Mapping[tuple[int, int], Estimate],
    key: tuple[int, int],
    n: int,
) -> None:
    """Write one correlation into its field and colour the field by it (grey: none)."""
    estimate = numbers[key]
    if estimate.value is None:
        text, color, ink = f"{symbol}: no value\nn = {n}", style.PALE, style.GREY
    else:
        ends = estimate.interval
        interval = "" if ends is None else f"\n[{ends[0]:.2f}, {ends[1]:.2f}]"
        text = f"{symbol} = {estimate.value:.2f}{interval}\nn = {n}"
        color, ink = style.shade((estimate.value + 1) / 2)
    ax.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=color, lw=0)
    ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=5.5, gid=f"{symbol}:{key}")
