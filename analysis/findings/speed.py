"""How fast: downstream steps until a run stands where prompt tuning ends."""

from __future__ import annotations

from collections.abc import Sequence

from mpt.words import counted

from ..figures.charts.data import Estimate
from ..figures.charts.from_cells import Group
from ..figures.charts.from_curves import curves_of, evaluations, median_steps, reaches
from ..results.names import BASELINE, in_order, method_label
from ..results.sections import Section
from .finding import Finding, listed
from .settings import Setting

SHARE = 0.95
"""Share of prompt tuning's best dev score that counts as standing where it ends."""


def speed_findings(
    section: Section, settings: Sequence[Setting]
) -> tuple[list[Finding], list[str]]:
    """Return what learning curves show over all settings, and what was not run."""
    steps: dict[str, dict[tuple[str, int], float]] = {}
    root = 0
    for at, setting in enumerate(settings):
        cells = tuple(next(iter(row.values())) for row in setting.methods.values())
        if not cells:
            continue
        group = Group(partition=setting.place.partition, cells=cells, scored="")
        curves = curves_of(group, section.runs)
        if evaluations(curves) < 2:
            continue
        root = cells[0].train_seed
        for method, own in reaches(group, curves, SHARE).items():
            # the same task in another setting is another run, but drawn with the same seeds
            named = {(f"{at} {task}", seed): step for (task, seed), step in own.items()}
            steps.setdefault(method, {}).update(named)
    if not steps.get(BASELINE) or len(steps) < 2:
        return [], ["learning curves (runs with two dev evaluations or more)"]
    medians = {name: median_steps(steps[name], root) for name in in_order(steps, [BASELINE])}
    return [_finding(medians, {name: len(row) for name, row in steps.items()}, settings)], []


def _finding(
    medians: dict[str, Estimate], counts: dict[str, int], settings: Sequence[Setting]
) -> Finding:
    base = medians[BASELINE]
    faster = [n for n, one in medians.items() if n != BASELINE and _before(one, base)]
    others = len(medians) - 1
    verdict = (
        f"{len(faster)} of {others} methods come there sooner than plain prompt tuning"
        if faster
        else "No method can be said to come there sooner than plain prompt tuning"
    )
    parts = [f"{method_label(n)} {_steps(one)} of {counts[n]} runs" for n, one in medians.items()]
    return Finding(
        question="How fast does tuning converge?",
        sentence=f"{verdict} (intervals that do not touch). Median downstream steps to "
        f"{100 * SHARE:.0f} % of prompt tuning's best dev score, over "
        f"{counted(len(settings), 'setting')}, first upstream seed, every (task, data seed): "
        f"{listed(parts)}.",
        tables=("costs",),
        told=bool(faster),
    )


def _before(one: Estimate, base: Estimate) -> bool:
    return one.high is not None and base.low is not None and one.high < base.low


def _steps(one: Estimate) -> str:
    if one.value is None:
        return f"never in half ({one.note})"
    ends = f" [{one.low:.0f}, {one.high:.0f}]" if one.low is not None else " (no interval)"
    return f"{one.value:.0f}{ends}"
