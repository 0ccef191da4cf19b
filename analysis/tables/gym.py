"""Tables 1 and 9 to 11: the partitions, their tasks, the source subsets, and the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mpt.gym.catalogue import ALL_SHOTS, FAMILIES, Catalogue
from mpt.gym.crossfit.tasks import load_rows

from ..results.names import PARTITION_LABELS, in_order, partition_label
from .table import Table, text

_FAMILY_LABELS = {
    "classification": "Cls",
    "question_answering": "QA",
    "conditional_generation": "CG",
    "other": "other",
}


def gym_tables(catalogue: Catalogue) -> list[Table]:
    """Return Tables 1, 9, 10 and 11 of a catalogue."""
    return [
        partition_table(catalogue),
        member_table(catalogue),
        subset_table(catalogue),
        reference_table(catalogue),
    ]


def partition_table(catalogue: Catalogue) -> Table:
    """Return Table 1: the size of every partition, by family of tasks."""
    rows = []
    for name in in_order(catalogue.partitions, PARTITION_LABELS):
        part = catalogue.partitions[name]
        rows.append(
            (
                text(partition_label(name)),
                text(name),
                *(
                    cell
                    for tasks in (part.source, part.target)
                    for cell in (text(len(tasks)), text(_families(catalogue, tasks)))
                ),
            )
        )
    return Table(
        name="table-1",
        title="Table 1. Partitions",
        columns=("partition", "name here", "source tasks", "of which", "target tasks", "of which"),
        rows=tuple(rows),
        notes=(
            "Cls: classification, QA: question answering, CG: conditional generation. No task is "
            "source and target of one partition; shared text is counted by: python -m mpt.gym "
            "doctor DIR.",
        ),
    )


def _families(catalogue: Catalogue, tasks: Sequence[str]) -> str:
    count = Counter(catalogue.task(task).family for task in tasks)
    return ", ".join(f"{count[name]} {_FAMILY_LABELS[name]}" for name in FAMILIES if count[name])


def member_table(catalogue: Catalogue) -> Table:
    """Return Table 9: the tasks of every partition, and those that select hyperparameters."""
    rows = [
        (text(partition_label(name)), text(side), text(", ".join(tasks)))
        for name in in_order(catalogue.partitions, PARTITION_LABELS)
        for side, tasks in (
            ("source", catalogue.partitions[name].source),
            ("target", catalogue.partitions[name].target),
        )
    ]
    rows.append((text("all"), text("validation"), text(", ".join(catalogue.validation_tasks))))
    return Table(
        name="table-9",
        title="Table 9. Tasks of the partitions",
        columns=("partition", "side", "tasks"),
        rows=tuple(rows),
    )


def subset_table(catalogue: Catalogue) -> Table:
    """Return Table 10: the named subsets of source tasks."""
    return Table(
        name="table-10",
        title="Table 10. Subsets of source tasks",
        columns=("subset", "number", "tasks"),
        rows=tuple(
            (text(name), text(len(tasks)), text(", ".join(tasks)))
            for name, tasks in catalogue.source_subsets.items()
        ),
    )


def reference_table(catalogue: Catalogue) -> Table:
    """Return Table 11: every task with its family, metric, sample size and reference."""
    published = load_rows()
    rows = []
    for name in sorted(catalogue.tasks):
        info = catalogue.tasks[name]
        row = published.get(name)
        shots = "all" if info.shots == ALL_SHOTS else info.shots
        unit = " per class" if row is not None and row.per_label else ""
        rows.append(
            (
                text(name),
                text(_FAMILY_LABELS[info.family]),
                text(info.metric),
                text(f"{shots}{unit}"),
                text("–" if row is None or row.reference is None else row.reference),
            )
        )
    return Table(
        name="table-11",
        title="Table 11. Tasks and their references",
        columns=("task", "family", "metric", "shots", "reference"),
        rows=tuple(rows),
    )
