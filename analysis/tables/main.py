"""Tables 2 to 8 of the paper from the records: ARG with interval, leaves and flags in every cell.

Tables 1 and 9 to 11 are in `analysis.tables.gym`, costs in `analysis.tables.costs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpt.replay.similarity.pairs import FILE, Pairs, about_pairs
from mpt.replay.similarity.ranking import load_rankings

from ..published.numbers import CASES, PILOT_CHOICES, PILOT_TARGETS, TARGET_SHOTS
from ..results.cells import OWN, Cell
from ..results.names import (
    METHODS,
    PARTITION_LABELS,
    in_order,
    method_label,
    paper_backbone,
    partition_label,
)
from .arg import DETAILS, INTERVALS, detail_cells
from .lookup import Lookup, is_plain, pilot_choice
from .table import Table, TableCell, number, text

SWEPT = "cls_to_cls"
"""Partition of Tables 3 and 4 and of Figure 3."""
COMPARED = "nonpara_to_para"
"""Partition of Table 5."""
MOST_CASES = 4
"""Tasks of Table 6 on a gym that has none of the paper's cases."""


def result_tables(look: Lookup, pairs: Pairs | None = None) -> list[Table]:
    """Return Tables 2 to 8 and what stands beside them.

    Args:
        look: the cells.
        pairs: similarities of Table 7; None where they were not computed.

    Raises:
        DataError: several records claim one cell.
    """
    return [
        main_table(look),
        detail_table(look),
        shots_table(look, "target"),
        shots_table(look, "source"),
        sources_table(look),
        backbone_table(look),
        case_table(look),
        similarity_table(pairs or {}, about_pairs(look.study.results)),
        pilot_table(pilot_values(look), pilot_notes(look)),
    ]


def main_table(look: Lookup) -> Table:
    """Return Table 2: ARG by method and partition."""
    seen = {cell.place.partition for cell in look.targets()}
    partitions = in_order({*PARTITION_LABELS, *seen}, PARTITION_LABELS)
    return Table(
        name="table-2",
        title=f"Table 2. ARG % by method and partition ({look.about})",
        columns=("method", *map(partition_label, partitions)),
        rows=tuple(
            (text(method_label(method)), *(look.show(method, part) for part in partitions))
            for method in METHODS
        ),
        notes=(INTERVALS,),
    )


def detail_table(look: Lookup) -> Table:
    """Return Table 2 with the interval over tasks, the median, and tasks near zero."""
    rows, notes = [], []
    for cell in sorted(look.targets(), key=_in_paper_order):
        summary = look.summary(cell)
        if summary is None or not is_plain(cell):
            continue
        names = (partition_label(cell.place.partition), method_label(cell.place.method))
        rows.append((*map(text, names), *detail_cells(summary, look.table_cell(cell))))
        notes += [f"{' '.join(names)}: {reason}" for reason in summary.gain.reasons]
        notes += [f"{' '.join(names)}: {cell.partial}"] if cell.partial else []
    return Table(
        name="table-2-details",
        title=f"Table 2 in detail ({look.about})",
        columns=("partition", "method", *DETAILS),
        rows=tuple(rows),
        notes=(INTERVALS, *notes),
    )


def _in_paper_order(cell: Cell) -> tuple[list[int], str, str]:
    place = cell.place
    parts, methods = list(PARTITION_LABELS), list(METHODS)
    known = [parts.index(place.partition) if place.partition in parts else len(parts)]
    known.append(methods.index(place.method) if place.method in methods else len(methods))
    return known, place.partition, place.method


def shots_table(look: Lookup, which: str) -> Table:
    """Return Table 3 (`which` = "target") or the numbers of Figure 3 ("source")."""
    field = f"{which}_shots"
    other = "source_shots" if which == "target" else "target_shots"
    cells = look.targets(partition=SWEPT, source_set="all", **{other: OWN})
    sizes = in_order({getattr(cell.place, field) for cell in cells}, (OWN, *TARGET_SHOTS))
    methods = in_order({cell.place.method for cell in cells}, METHODS)
    label = "Table 3. ARG % by target shots" if which == "target" else "ARG % by source shots"
    return Table(
        name="table-3" if which == "target" else "figure-3",
        title=f"{label} ({partition_label(SWEPT)}, {look.about})",
        columns=("method", *sizes),
        rows=tuple(
            (
                text(method_label(method)),
                *(look.show(method, SWEPT, **{field: size}) for size in sizes),
            )
            for method in methods
        ),
        notes=(
            "Columns are examples per class; own is each task's published size (16 per class, 32 "
            "where it is not sampled per class).",
        ),
    )


def sources_table(look: Lookup) -> Table:
    """Return Table 4: ARG by the number of source tasks."""
    cells = [
        cell
        for cell in look.targets(partition=SWEPT, source_shots=OWN, target_shots=OWN)
        if pilot_choice(cell) is None and cell.place.method != "fine_tuning"
    ]
    sizes: dict[str, int] = {}
    for cell in cells:
        sizes[cell.place.source_set] = cell.sources or 0
    sets = sorted(sizes, key=lambda name: (sizes[name], name))
    return Table(
        name="table-4",
        title=f"Table 4. ARG % by source tasks ({partition_label(SWEPT)}, {look.about})",
        columns=("method", *(f"{name} ({sizes[name]} tasks)" for name in sets)),
        rows=tuple(
            (
                text(method_label(method)),
                *(look.show(method, SWEPT, source_set=name) for name in sets),
            )
            for method in in_order({cell.place.method for cell in cells}, METHODS)
        ),
    )


def backbone_table(look: Lookup) -> Table:
    """Return Table 5: ARG by backbone."""
    cells = [c for c in look.study.select(role="target", gym=look.gym) if is_plain(c)]
    backbones = sorted({cell.place.backbone for cell in cells})
    rows = []
    for name in backbones:
        known = paper_backbone(name)
        label = name if known is None else f"{known} ({name})"
        shown = (look.show(method, COMPARED, backbone=name) for method in METHODS)
        rows.append((text(label), *shown))
    return Table(
        name="table-5",
        title=f"Table 5. ARG % by backbone ({partition_label(COMPARED)})",
        columns=("backbone", *METHODS.values()),
        rows=tuple(rows),
    )


def cases_of(look: Lookup) -> list[tuple[str, str]]:
    """Return (task, partition) of Table 6: the paper's, or some of a gym that has none of them."""
    where: dict[str, list[str]] = {}
    for cell in sorted(look.targets(), key=_in_paper_order):
        for task in cell.tasks if is_plain(cell) else ():
            if cell.place.partition not in where.setdefault(task, []):
                where[task].append(cell.place.partition)
    if any(task in where for task, _ in CASES) or not where:
        return list(CASES)
    often = sorted(where, key=lambda task: (-len(where[task]), task))[:MOST_CASES]
    return [(task, partition) for task in often for partition in where[task][:2]]


def case_table(look: Lookup) -> Table:
    """Return Table 6: relative gain of the best meta method and of multi-task learning."""
    rows = []
    for task, partition in cases_of(look):
        best, multitask = look.best_meta(partition), look.cell("multitask", partition)
        which = "–" if best is None else method_label(best.place.method)
        rows.append(
            (
                text(task),
                text(partition_label(partition)),
                text(which),
                task_cell(look, best, task),
                task_cell(look, multitask, task),
            )
        )
    return Table(
        name="table-6",
        title=f"Table 6. Relative gain % on single tasks ({look.about})",
        columns=("task", "partition", "best MPT", "ΔMPT", "ΔMTL"),
        rows=tuple(rows),
        notes=("The best MPT is the meta method with the highest ARG on the partition.",),
    )


def task_cell(look: Lookup, cell: Cell | None, task: str) -> TableCell:
    """Return the relative gain of a cell on one of its tasks, with its interval."""
    if cell is None or task not in cell.tasks:
        return TableCell()
    return look.table_cell(cell, task=task)


def similarity_table(pairs: Pairs, about: str = "") -> Table:
    """Return Table 7: similarity of pairs said to be alike and of pairs said not to be.

    Args:
        pairs: the similarities.
        about: what they were computed on.
    """
    rows = [
        (text(kind), text(left), text(right), number(value, 3))
        for kind, found in pairs.items()
        for left, right, value in found
    ]
    for kind, found in pairs.items():
        if found:
            mean = sum(value for *_, value in found) / len(found)
            rows.append((text(kind), text("mean"), text(""), number(mean, 3)))
    return Table(
        name="table-7",
        title="Table 7. Similarity of pairs",
        columns=("kind", "one", "other", "similarity"),
        rows=tuple(rows),
        notes=(f"Read from {FILE} beside the records.", *([about] if about else [])),
    )


def pilot_values(look: Lookup) -> dict[str, dict[str, TableCell]]:
    """Return target task → choice of sources → relative gain, from the cells of the pilot."""
    values: dict[str, dict[str, TableCell]] = {}
    for cell in look.targets():
        choice = pilot_choice(cell)
        for task in cell.tasks if choice else ():
            label = task if cell.place.method == "maml" else f"{task}, {cell.place.method}"
            values.setdefault(label, {})[choice or ""] = look.table_cell(cell, task=task)
    return values


def pilot_notes(look: Lookup) -> tuple[str, ...]:
    """Return one line a cell of the pilot: its source tasks, with similarities where known."""
    known = {ranking.place: dict(ranking.ranked) for ranking in load_rankings(look.study.results)}
    notes = []
    for cell in look.targets():
        choice, place = pilot_choice(cell), cell.place
        for task in cell.tasks if choice and cell.source_tasks else ():
            values = known.get((place.backbone, place.gym, place.partition, task), {})
            names = sorted(cell.source_tasks, key=lambda name: (-values.get(name, 0.0), name))
            listed = (f"{n} {values[n]:.3f}" if n in values else n for n in names)
            notes.append((task, _choice_order(choice or ""), f"{choice}: {', '.join(listed)}"))
    return tuple(f"{task}, {line}" for task, _, line in sorted(notes))


def pilot_table(values: Mapping[str, Mapping[str, TableCell]], notes: Sequence[str] = ()) -> Table:
    """Return Table 8: relative gain with few sources of highest, random or lowest similarity.

    Args:
        values: target task → choice of sources ("highest5") → relative gain in %.
        notes: what was chosen.
    """
    choices = sorted({choice for row in values.values() for choice in row}, key=_choice_order)
    return Table(
        name="table-8",
        title="Table 8. Relative gain % of MAML with few sources, chosen by similarity",
        columns=("target task", *(choices or PILOT_CHOICES)),
        rows=tuple(
            (text(task), *(values[task].get(choice, TableCell()) for choice in choices))
            for task in in_order(values, PILOT_TARGETS)
        ),
        notes=tuple(notes),
    )


def _choice_order(choice: str) -> tuple[int, str]:
    """Highest before random before lowest."""
    first = [at for at, name in enumerate(PILOT_CHOICES) if choice.startswith(name)]
    return (first or [len(PILOT_CHOICES)])[0], choice
