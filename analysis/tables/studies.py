"""Which studies a section is made of."""

from __future__ import annotations

from collections import Counter

from ..results.names import PARTITION_LABELS, in_order, partition_label
from ..results.sections import Section
from .table import Table, text

_COLUMNS = (
    "study",
    "role",
    "backbone",
    "partition",
    "sources",
    "source shots",
    "target shots",
    "cells",
    "partial",
)


def study_table(section: Section) -> Table:
    """Return the studies by id: place, backbone, and how many points each has."""
    points = Counter(cell.study.key for cell in section.cells)
    parts = in_order((study.partition for study in section.studies), PARTITION_LABELS)
    ordered = sorted(
        section.studies, key=lambda s: (s.role, s.backbone, parts.index(s.partition), s.id)
    )
    rows = (
        (
            study.id,
            study.role,
            study.backbone,
            partition_label(study.partition),
            study.source_set,
            study.source_shots or "own",
            study.target_shots or "own",
            points[study.key],
            study.partial or "",
        )
        for study in ordered
    )
    return Table(
        name="studies",
        title="Studies",
        columns=_COLUMNS,
        rows=tuple(tuple(map(text, row)) for row in rows),
        notes=("Across studies only relative gains over the baseline of each are compared.",),
    )
