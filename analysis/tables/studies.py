"""Which studies a section is made of."""

from __future__ import annotations

from collections import Counter

from ..results.names import PARTITION_LABELS, partition_label, rank
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
    ordered = sorted(
        section.studies,
        key=lambda s: (s.role, s.backbone, rank(s.partition, PARTITION_LABELS), s.id),
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
