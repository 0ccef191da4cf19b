"""What every number has cost, and comparisons at equal upstream budget.

Upstream costs are those of the trajectory up to the cell's step, downstream costs those of all of
the cell's runs (every learning rate), without the shared baseline. Device-hours are seconds ×
devices / 3600: GPU-hours on a GPU. On a CPU a device is one worker process, and they say nothing
about GPU-hours.

At equal budget nothing is interpolated: of each trajectory the recorded rung with most upstream
steps (or samples) within the budget is taken; a method without one is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..results.cells import RUN_COSTS, Cell
from ..results.names import method_label
from ..results.searched import Searched
from .lookup import Lookup, column_label
from .searches import searched_cell, searched_value
from .table import Row, Table, TableCell, quantity, text

UNITS = {"steps": "steps", "examples": "samples"}
"""Cost that a budget may be in → what people call it."""


def cost_table(look: Lookup) -> Table:
    """Return the cost of every plain target cell."""
    rows = [
        _cost_row(look, column_label((partition, edition)), cell)
        for partition, edition in look.columns({c.place.partition for c in look.targets()})
        for method in look.methods
        if (cell := look.cell(method, partition, edition=edition)) is not None
    ]
    return Table(
        name="costs",
        title=f"Cost beside score ({look.about})",
        columns=(
            "partition",
            "method",
            "ARG %",
            "upstream steps",
            "upstream samples",
            "upstream device-hours",
            "runs",
            "downstream steps",
            "downstream tokens",
            "downstream device-hours",
        ),
        rows=tuple(rows),
        notes=(
            f"{_machines(look)} Device-hours are seconds × devices / 3600: GPU-hours on a GPU. On "
            "a CPU a device is one worker process, and they say nothing about GPU-hours.",
            "A rung of a longer trajectory counts the steps up to it; runs that several cells "
            "share count in each. Of several upstream seeds the costs are means: those of one.",
            *_starts_note(look),
        ),
    )


def _cost_row(look: Lookup, column: str, cell: Cell) -> Row:
    spent = downstream_cost(cell)
    return (
        text(column),
        text(method_label(cell.place.method)),
        look.table_cell(cell),
        *map(quantity, (cell.cost["steps"], cell.cost["examples"])),
        quantity(device_hours(cell.cost["seconds"], cell.devices)),
        text(f"{cell.counts[0] / len(cell.points):g}"),
        *map(quantity, (spent["steps"], spent["tokens"])),
        quantity(device_hours(spent["seconds"], cell.devices)),
    )


def _machines(look: Lookup) -> str:
    machines = set()
    for cell in look.targets():
        machine = cell.point.provenance.get("machine") or {}
        where = machine.get("device") or f"{machine.get('cpus', '?')} CPUs, GPU not recorded"
        machines.add(f"{machine.get('system', 'unknown system')}, {where}")
    return f"Recorded on: {'; '.join(sorted(machines)) or 'nothing yet'}."


def _starts_note(look: Lookup) -> list[str]:
    told = [
        (cell.devices * point.point.provenance["starts"]["seconds"])
        for cell in look.targets()
        for point in cell.points
        if point.point.provenance.get("starts")
    ]
    if not told:
        return []
    hours = device_hours(math.fsum(told), 1)
    return [
        f"Not in these columns: targets chose or raced their starts for {hours:.2g} device-hours "
        "in all."
    ]


def downstream_cost(cell: Cell) -> dict[str, float]:
    """Return the summed cost of the runs of a cell, for one upstream seed."""
    rows = [row for point in cell.points for row in point.tasks.values()]
    samples = [sample for row in rows for sample in row.values()]
    return {
        name: math.fsum(sample.cost[name] for sample in samples) / len(cell.points)
        for name in RUN_COSTS
    }


def device_hours(seconds: float, devices: int) -> float:
    """Return seconds × devices / 3600."""
    return seconds * devices / 3600


def within_budget(rungs: Iterable[Cell], unit: str, budget: float) -> Cell | None:
    """Return the rung with the largest upstream cost that is not above the budget.

    Args:
        rungs: of one trajectory.
        unit: "steps" or "examples" (samples).
        budget: in that unit.

    Returns:
        None if every rung costs more, or a cost of 0 says that it was not recorded.
    """
    fitting = [cell for cell in rungs if 0 < cell.cost[unit] <= budget]
    return max(fitting, key=lambda cell: cell.cost[unit], default=None)


def common_budget(rungs: Sequence[Sequence[Cell]], unit: str) -> float | None:
    """Return the largest budget that every trajectory has used up: the least of their largest."""
    largest = [max((cell.cost[unit] for cell in group), default=0) for group in rungs]
    used = [cost for cost in largest if cost > 0]
    return min(used) if used else None


def budget_table(look: Lookup, unit: str, budget: float | None = None) -> Table:
    """Return ARG by method and partition at equal upstream cost.

    Args:
        look: the cells.
        unit: "steps" or "examples" (samples).
        budget: in that unit; None takes, for each partition, `common_budget` of its methods.
    """
    methods = look.upstream_methods
    rows = []
    for partition, edition in look.columns({c.place.partition for c in look.targets()}):
        groups = {}
        for method in methods:
            cell = look.cell(method, partition, edition=edition)
            if cell is not None:
                groups[method] = look.section.rungs[cell.key]
        allowed = common_budget(list(groups.values()), unit) if budget is None else budget
        row = [text(column_label((partition, edition))), quantity(allowed)]
        for method in methods:
            best = within_budget(groups.get(method, ()), unit, allowed or 0)
            row.append(TableCell() if best is None else look.table_cell(best))
            row.append(TableCell() if best is None else quantity(best.cost[unit]))
        rows.append(tuple(row))
    word = UNITS[unit]
    return Table(
        name=f"budget-{word}",
        title=f"ARG % at equal upstream {word} ({look.about})",
        columns=(
            "partition",
            f"{word} allowed",
            *(name for m in methods for name in (method_label(m), f"{method_label(m)} {word}")),
        ),
        rows=tuple(rows),
        notes=(
            f"Of each trajectory the recorded rung with most {word} within the budget; nothing is "
            "interpolated, and a method without such a rung is missing. Where no budget is given, "
            "it is the largest that all methods of the row have used up.",
        ),
    )


def search_budget_table(look: Lookup, unit: str) -> Table:
    """Return the best point of every search at each upstream cost that some search recorded.

    The point of a column has the highest validation ARG among the rungs (of all trajectories)
    that are within the budget, on the upstream seeds that its search ranks it by.
    """
    searches = [(one, own) for one in look.section.searches if (own := _plain_cells(look, one))]
    budgets = sorted({c.cost[unit] for _, own in searches for c in own if c.cost[unit] > 0})
    rows = []
    for search, own in sorted(searches, key=lambda one: one[1][0].place.paper_order):
        at = own[0].place
        names = (column_label((at.partition, at.edition)), method_label(at.method))
        best_cells = (_best_within(look, search, own, unit, budget) for budget in budgets)
        rows.append((*map(text, names), *best_cells))
    word = UNITS[unit]
    return Table(
        name=f"search-budget-{word}",
        title=f"Best validation ARG % within a budget of upstream {word} ({look.about})",
        columns=(
            "partition",
            "method",
            *(f"≤ {TableCell(value=b, digits=0).number} {word}" for b in budgets),
        ),
        rows=tuple(rows),
        notes=("A maximum over settings is too high by chance: compare at equal settings too.",),
    )


def _plain_cells(look: Lookup, search: Searched) -> list[Cell]:
    """Return a search's cells that belong in the tables of one model and all sources."""
    return [
        cell
        for cell in search.cells
        if cell.place.backbone == look.backbone
        and cell.place.is_plain()
        and look.summary(cell) is not None
    ]


def _best_within(
    look: Lookup, search: Searched, cells: Sequence[Cell], unit: str, budget: float
) -> TableCell:
    within = [cell for cell in cells if 0 < cell.cost[unit] <= budget]
    values = [(searched_value(look, search, cell), cell) for cell in within]
    ranked = [(value, cell.key, cell) for value, cell in values if value is not None]
    if not ranked:
        return TableCell()
    return searched_cell(look, search, max(ranked, key=lambda one: one[:2])[2])
