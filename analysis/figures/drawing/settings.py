"""A search's settings: importance, parallel coordinates, maps of two settings."""

from __future__ import annotations

import itertools
import math

import numpy as np
from matplotlib.tri import Triangulation

from ..charts.data import Search, name_of, write
from ..charts.sensitivity import Importance, heights, marginal, on_log_scale
from . import style
from .style import Axes, Canvas

GRID = 8
"""Two settings of at most this many values each are drawn as a table, others as a landscape."""
PAIRS = 3
"""Most pairs of settings that are drawn, one below the other."""
_SPREAD = 0.035
"""Half width of the fan in which lines through the same value of a setting are drawn."""


@style.drawn
def draw_importance(importance: Importance, title: str) -> Canvas:
    """Return a bar for each setting and evaluator; the thin line is fANOVA's range of forests."""
    names = list(next(iter(importance.evaluators.values())))
    figure, ax = style.axes(height_cm=2.2 + 0.75 * len(names))
    colors = (style.BLUE, style.ORANGE)
    handles = []
    for number, (evaluator, shares) in enumerate(importance.evaluators.items()):
        ys = [row + 0.36 * (number - 0.5) for row in range(len(names))]
        bars = ax.barh(
            ys, [shares[name].value or 0.0 for name in names], height=0.32, color=colors[number],
            label=evaluator, gid=f"bars:{evaluator}",
        )  # fmt: skip
        handles.append(bars)
        for y, name in zip(ys, names, strict=True):
            share = shares[name]
            if share.interval is not None:
                ax.hlines(y, *share.interval, colors=style.BLACK, lw=0.7)
            end = share.high if share.high is not None else share.value
            ax.annotate(
                f"{share.value:.2f}", (end or 0.0, y), xytext=(2, 0), textcoords="offset points",
                va="center", fontsize=style.SMALL,
            )  # fmt: skip
    ax.set_yticks(range(len(names)), [name_of(name) for name in names])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.08)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("share of the variation of ARG")
    style.title(figure, title)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.drawn
def draw_parallel(search: Search) -> Canvas:
    """Return a line for each point through its settings to its score, coloured by the score.

    Settings of a wide range are on a log scale. Lines through the same value are fanned out in the
    order of their scores. Points without a score are dotted grey and end before the last axis.
    """
    names = search.varied
    figure, ax = style.axes(height_cm=6.5)
    at = {name: heights(search, name) for name in names}
    scores = [float(point.score.value or 0.0) for point in search.scored]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    span = (high - low) or 1.0
    ordered = [*search.without, *reversed(search.scored)]  # the best is drawn last, on top
    fan = np.linspace(-_SPREAD, _SPREAD, len(ordered)) if len(ordered) > 1 else np.zeros(1)
    for offset, point in zip(fan, ordered, strict=True):
        ys = [at[name][point.settings[name]] + float(offset) for name in names]
        if point.score.value is None:
            ax.plot(range(len(names)), ys, color=style.GREY, lw=0.5, ls=":", gid="missing")
            continue
        share = (point.score.value - low) / span
        color, _ = style.shade(share)
        ax.plot(
            range(len(names) + 1), [*ys, share], color=color, gid="line",
            lw=1.4 if point is search.best else 0.7,
        )  # fmt: skip
    for number, name in enumerate(names):
        _axis(ax, number, {write(v): y for v, y in _ticks(at[name]).items()})
    _axis(ax, len(names), {f"{low + t * span:.1f}": t for t in (0, 0.25, 0.5, 0.75, 1)})
    ax.set_xticks(range(len(names) + 1), [*map(name_of, names), "ARG, %"])
    ax.set_yticks([])
    ax.set_ylim(-0.08, 1.08)
    ax.set_xlim(-0.25, len(names) + 0.15)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="x", length=0)
    style.title(figure, f"Settings and score: {search.title}")
    return figure


def _ticks(places: dict[float, float]) -> dict[float, float]:
    """Return the values that are written on an axis: all of a few, else five spread evenly."""
    if len(places) <= 6:
        return places
    wanted = [min(places, key=lambda v: abs(places[v] - t)) for t in np.linspace(0, 1, 5)]
    return {value: places[value] for value in wanted}


def _axis(ax: Axes, x: float, ticks: dict[str, float]) -> None:
    ax.axvline(x, color=style.BLACK, lw=0.6, zorder=3)
    for text, y in ticks.items():
        ax.text(
            x - 0.03, y, text, ha="right", va="center", fontsize=style.SMALL + 0.5, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.75},
        )  # fmt: skip


@style.drawn
def draw_maps(search: Search) -> Canvas:
    """Return the mean score over the other settings, for each pair of the first settings.

    Few values each: a table with the numbers ("?" where no point has a score, empty where none
    was run). Otherwise a landscape by linear interpolation between the points, which are shown.
    """
    chosen = list(itertools.combinations(search.varied, 2))[:PAIRS]
    figure = style.canvas(height_cm=1.2 + 3.7 * len(chosen))
    places = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
    scores = [float(point.score.value or 0.0) for point in search.scored]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    for ax, (x, y) in zip(places, chosen, strict=True):
        few = all(len({p.settings[n] for p in search.points}) <= GRID for n in (x, y))
        (_draw_table if few else _draw_landscape)(ax, search, x, y, (low, high))
        ax.set_xlabel(name_of(x), labelpad=1)
        ax.set_ylabel(name_of(y), labelpad=1)
    style.title(figure, f"Mean ARG of two settings, %: {search.title}")
    return figure


def _draw_table(ax: Axes, search: Search, x: str, y: str, span: tuple[float, float]) -> None:
    columns, rows = (sorted({p.settings[name] for p in search.points}) for name in (x, y))
    for (at_x, at_y), (mean, n, of) in marginal(search, x, y).items():
        column, row = columns.index(at_x), rows.index(at_y)
        if math.isnan(mean):
            text, color, ink = "?", style.PALE, style.GREY
        else:
            color, ink = style.shade((mean - span[0]) / ((span[1] - span[0]) or 1.0))
            text = f"{mean:+.2f}" + (f"\n{n} of {of}" if n < of else "")
        box = ([column - 0.5, column + 0.5], row - 0.5, row + 0.5)
        ax.fill_between(*box, color=color, lw=0)
        ax.text(
            column, row, text, ha="center", va="center", color=ink, fontsize=5.5,
            gid=f"cell:{write(at_x)},{write(at_y)}",
        )  # fmt: skip
    ax.set_xticks(range(len(columns)), map(write, columns))
    ax.set_yticks(range(len(rows)), map(write, rows))
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(-0.5, len(rows) - 0.5)


def _draw_landscape(ax: Axes, search: Search, x: str, y: str, span: tuple[float, float]) -> None:
    xs, ys = (np.array([p.settings[name] for p in search.points]) for name in (x, y))
    log_x, log_y = on_log_scale(xs), on_log_scale(ys)
    means = {at: mean for at, (mean, _, _) in marginal(search, x, y).items()}
    scored = {at: mean for at, mean in means.items() if not math.isnan(mean)}
    px, py = (np.array([at[axis] for at in scored]) for axis in (0, 1))
    levels = np.linspace(span[0], span[1] if span[1] > span[0] else span[0] + 1, 9)
    flat = np.column_stack([np.log(px) if log_x else px, np.log(py) if log_y else py])
    if len(scored) >= 4 and np.linalg.matrix_rank(flat - flat.mean(0)) == 2:
        mesh = Triangulation(*((flat - flat.min(0)) / np.ptp(flat, 0)).T)
        mesh = Triangulation(px, py, mesh.triangles)  # neighbours are those of the shown scale
        ax.tricontourf(
            mesh, list(scored.values()), levels=levels, cmap=style.SEQUENTIAL, alpha=0.7
        )
    dots = ax.scatter(
        px, py, c=list(scored.values()), cmap=style.SEQUENTIAL, vmin=levels[0], vmax=levels[-1],
        s=9, edgecolors="white", linewidths=0.4, gid="value",
    )  # fmt: skip
    for at in means.keys() - scored.keys():
        ax.plot(*at, marker="$?$", color=style.GREY, lw=0, gid="missing")
    if log_x:
        ax.set_xscale("log")
    if log_y:
        ax.set_yscale("log")
    ax.figure.colorbar(dots, ax=ax, label="ARG, %", pad=0.02)
