"""Paper mode: each published number with ours beside it, and what follows from the two.

The status of a number, by the first rule that holds:

1. *not attempted*: nothing of ours asks the same question. Needed are the paper's backbone, the
   published target tasks and sample sizes, the five data seeds, every run, a relative gain on
   every task, and nothing left out. What is lacking is said; our number, if there is one, is
   shown all the same.
2. *reproduced*: ours is printed the same (it differs by at most half of the last digit).
3. *not attempted*: there is no interval, so a difference says nothing.
4. *within interval*: the published number, give or take half of its last digit, lies in our 95 %
   bootstrap interval over data seeds.
5. *contradicted*: it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..published.numbers import Published
from ..tables.table import Table, TableCell, number, text

REPRODUCED = "reproduced"
WITHIN = "within interval"
CONTRADICTED = "contradicted"
NOT_ATTEMPTED = "not attempted"
STATUSES = (REPRODUCED, WITHIN, CONTRADICTED, NOT_ATTEMPTED)

_ROUNDING = 1e-9
"""What float64 arithmetic may add to a difference of half a digit."""


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What the records say where the paper has a number."""

    cell: TableCell
    """Our number with its interval over data seeds."""
    lacking: str = ""
    """Why it does not ask the paper's question; empty if it does."""


@dataclass(frozen=True, kw_only=True)
class NumberComparison:
    """One published number and ours."""

    published: Published
    ours: Ours | None
    status: str
    """One of `STATUSES`."""
    why: str
    """What rule 1 or 3 found; empty otherwise."""


def compare(published: Published, ours: Ours | None) -> NumberComparison:
    """Apply the rules of the module text."""
    status, why = _judge(published, ours)
    return NumberComparison(published=published, ours=ours, status=status, why=why)


def _judge(published: Published, ours: Ours | None) -> tuple[str, str]:
    if ours is None:
        return NOT_ATTEMPTED, "no record"
    cell = ours.cell
    if ours.lacking or cell.value is None:
        return NOT_ATTEMPTED, ours.lacking or "no number"
    near = published.half_unit + _ROUNDING
    if abs(cell.value - published.value) <= near:
        return REPRODUCED, ""
    if cell.low is None or cell.high is None:
        return NOT_ATTEMPTED, "no interval"
    inside = cell.low - near <= published.value <= cell.high + near
    return (WITHIN if inside else CONTRADICTED), ""


def paper_table(comparisons: Sequence[NumberComparison]) -> Table:
    """Return the table of all published numbers with ours beside them."""
    rows = []
    for one in comparisons:
        paper = one.published
        digits = paper.digits
        ours = TableCell() if one.ours is None else one.ours.cell
        rows.append(
            (
                text(paper.place),
                text(paper.row),
                text(paper.column),
                number(paper.value, digits),
                number(paper.spread, digits) if paper.spread is not None else text(""),
                ours,
                text(one.status),
                text(one.why),
            )
        )
    count = {status: sum(one.status == status for one in comparisons) for status in STATUSES}
    total = ", ".join(f"{n} {status}" for status, n in count.items())
    return Table(
        name="paper",
        title="Every published number, and ours",
        columns=("place", "row", "column", "published", "±", "ours", "status", "why not"),
        rows=tuple(rows),
        notes=(
            f"{len(comparisons)} numbers: {total}.",
            "Reproduced: printed the same. Within interval: the published number lies in our 95 % "
            "bootstrap interval over data seeds. Contradicted: it does not. Not attempted: no "
            "complete run on the paper's backbone, tasks, sample sizes and five data seeds.",
        ),
    )
