"""Which sweeps a study has: Figure 3 and the settings of Tables 3 and 4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mpt.gym.catalogue import PARTITIONS

from ..results.cells import Cell
from ..results.names import in_order, partition_label
from .charts.from_cells import short_backbone, shots_label, sweep_of
from .drawing.curves import draw_sweep
from .figure import Figure, beside, lacks, noted, partial_notes, slug
from .interactive.tasks import sweep_plot


def sweep_plans(cells: Sequence[Cell], suffix: str) -> Iterator[Figure]:
    """Yield the sweeps of a backbone's target cells; `suffix` ends the files' names.

    What was never swept is named once, for the first backbone (no suffix).
    """
    kinds = (
        ("source-shots", "source_shots", "examples per class of the source tasks", "Figure 3"),
        ("target-shots", "target_shots", "examples per class of the target tasks", "Table 3"),
        ("source-tasks", "source_set", "source tasks", "Table 4"),
    )
    for name, field, setting, source in kinds:
        drawn = 0
        for partition in in_order({c.place.partition for c in cells}, PARTITIONS):
            chosen = [
                cell
                for cell in cells
                if cell.place.partition == partition and cell.place.is_plain(but=field)
            ]
            plan = _sweep_plan(chosen, field, f"ARG against {setting}", setting, source)
            if plan is not None:
                drawn += 1
                yield replace(plan, name=f"{name}-{slug(partition)}{suffix}")
        if not drawn and not suffix:
            why = f"no setting was run with two choices of {setting}"
            yield Figure(name=name, title=f"ARG against {setting} ({source})", missing=why)


def _sweep_plan(
    cells: Sequence[Cell], field: str, title: str, setting: str, source: str
) -> Figure | None:
    if field == "source_set":  # named choices (of a pilot) are no numbers to be put in order
        cells = [c for c in cells if c.place.source_set.isdigit() or c.place.source_set == "all"]
        values = [str(c.sources) if c.sources else c.place.source_set for c in cells]
    else:
        values = [shots_label(getattr(cell.place, field)) for cell in cells]
    if not cells:
        return None
    label = (
        f"{partition_label(cells[0].place.partition)}, {short_backbone(cells[0].place.backbone)}"
    )
    full = f"{title} ({source}): {label}"
    sweep = sweep_of(cells, values, title=full, setting=setting, paper_table=source)
    if sweep is None:
        return None
    note = " Hollow and dotted: the paper's numbers." if sweep.published else ""
    lacking, notes = noted(sweep.series, [f"at {value}" for value in sweep.values])
    note += beside([*notes, *partial_notes(cells)])
    caption = f"ARG; line: 95 % bootstrap interval over data seeds.{note}{lacks(lacking)}"
    return Figure(
        name="",
        title=full,
        caption=caption,
        canvas=draw_sweep(sweep),
        plot=sweep_plot(sweep),
    )
