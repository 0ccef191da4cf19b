"""Tables 7 and 8: how similar tasks are, and what learning from similar ones gives."""

from __future__ import annotations

from collections.abc import Mapping

from ..published.numbers import PILOT_CHOICES, PILOT_TARGETS
from ..results.cells import Cell
from ..results.names import in_order
from ..results.sections import PAIRS, RANKING
from .lookup import Lookup, pilot_choice, ranked_by, with_edition
from .table import Table, TableCell, number, text

Pairs = Mapping[str, list[tuple[str, str, float]]]
"""Kind ("similar", "dissimilar", of inputs or of prompts) → (task, task, similarity)."""


_RANKED_BY = {
    "prompts": "Sources are ranked by the similarity of tuned prompts, as in the paper (A.7).",
    "inputs": "Sources in columns by inputs are ranked by the similarity of input states of the "
    "frozen model. The paper ranks them by tuned prompts (A.7): these are not compared with it.",
}


def pairs_of(look: Lookup) -> tuple[Pairs, str]:
    """Return the similarities of Table 7 on the tables' backbone, and what they are of."""
    for body in look.section.documents.get(PAIRS, ()):
        if body["backbone"] == look.backbone:
            pairs = {
                kind: [(str(one), str(other), float(value)) for one, other, value in entries]
                for kind, entries in sorted(body["pairs"].items(), key=_similar_first)
            }
            return pairs, str(body["about"])
    return {}, ""


def _similar_first(row: tuple[str, object]) -> tuple[bool, bool]:
    """Order kinds as the paper does; stored documents have them in the order of the letters."""
    kind, _ = row
    return "prompts" in kind, kind.startswith("dissimilar")


def similarity_table(look: Lookup) -> Table:
    """Return Table 7: similarity of pairs said to be alike and of pairs said not to be."""
    pairs, about = pairs_of(look)
    rows = [
        (text(kind), text(left), text(right), number(value, 3))
        for kind, entries in pairs.items()
        for left, right, value in entries
    ]
    for kind, entries in pairs.items():
        if entries:
            mean = sum(value for *_, value in entries) / len(entries)
            rows.append((text(kind), text("mean"), text(""), number(mean, 3)))
    return Table(
        name="table-7",
        title="Table 7. Similarity of pairs",
        columns=("kind", "one", "other", "similarity"),
        rows=tuple(rows),
        notes=(about,) if about else (),
    )


def pilot_values(look: Lookup) -> dict[str, dict[str, TableCell]]:
    """Return target task → choice of sources → relative gain, from the cells of the pilot."""
    values: dict[str, dict[str, TableCell]] = {}
    for cell in look.targets():
        choice = pilot_choice(cell)
        for task in cell.tasks if choice else ():
            label = task if cell.place.method == "maml" else f"{task}, {cell.place.method}"
            column = with_edition(choice or "", cell.place.edition)
            values.setdefault(label, {})[column] = look.table_cell(cell, task=task)
    return values


def pilot_notes(look: Lookup) -> tuple[str, ...]:
    """Return what sources were ranked by, and one line a cell of the pilot: its source tasks.

    Similarities stand beside them where they are known.
    """
    notes, kinds = [], set()
    for cell in look.targets():
        choice = pilot_choice(cell)
        for task in cell.tasks if choice else ():
            kinds.add(ranked_by(cell))
            values = _similarities(look, cell, task)
            names = sorted(cell.source_tasks, key=lambda name: (-values.get(name, 0.0), name))
            listed = (f"{n} {values[n]:.3f}" if n in values else n for n in names)
            label = with_edition(choice or "", cell.place.edition)
            notes.append((task, _choice_order(label), f"{label}: {', '.join(listed)}"))
    about = (text for kind, text in _RANKED_BY.items() if kind in kinds)
    return (*about, *(f"{task}, {line}" for task, _, line in sorted(notes)))


def _similarities(look: Lookup, cell: Cell, task: str) -> dict[str, float]:
    """Return source task → similarity; nothing where several rankings contradict each other."""
    rankings = [
        {str(name): float(value) for name, value in body["ranked"]}
        for body in look.section.documents.get(RANKING, ())
        if (body["backbone"], body["partition"], body["target"], body.get("by", "inputs"))
        == (cell.place.backbone, cell.place.partition, task, ranked_by(cell))
    ]
    return rankings[0] if len(rankings) == 1 else {}


def pilot_table(
    values: Mapping[str, Mapping[str, TableCell]], notes: tuple[str, ...] = ()
) -> Table:
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
        notes=notes,
    )


def _choice_order(choice: str) -> tuple[int, str]:
    first = [at for at, name in enumerate(PILOT_CHOICES) if choice.startswith(name)]
    return (first or [len(PILOT_CHOICES)])[0], choice
