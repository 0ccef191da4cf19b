"""The comparisons as tables: cells, every view of every comparison, wins and losses."""

from __future__ import annotations

from collections.abc import Sequence

from ..results.names import BASELINE, method_label, partition_label
from ..tables.table import Row, Table, TableCell, number, text
from .comparisons import JUDGE, MTL, VIEWS, MethodComparison, Significance
from .settings import Setting
from .statistics import Estimated

WORDS = {1: "higher", 0: "tie", -1: "lower"}
"""Sign of a verdict → how it is called; a tie is what is not different after correction."""
UPSTREAM = (
    "All scores of a method in a setting come from one upstream run (one upstream seed): no "
    "interval or test here contains upstream seed noise, and the files cannot say how large it is."
)


def notes(significance: Significance) -> tuple[str, ...]:
    """Return what a reader of any of the tables must know, one statement each."""
    repeats = len(significance.table.comparisons) - significance.table.size
    smallest = {
        len(setting.tasks): f"{len(setting.tasks)} tasks {2.0 ** (1 - len(setting.tasks)):.3g}"
        for setting in significance.settings
        if setting.methods
    }
    left_out = [f"{s.label}: {why}" for s in significance.settings for why in s.left_out]
    return (
        "Judged by the view over other tasks of the kind (tasks random): each task is one unit, "
        "its data seeds are averaged first; method, reference and prompt tuning share its "
        "few-shot samples (paired). Two-sided sign-flip test of the mean over tasks, exact up to "
        "20 tasks; its interval is the test turned round, 95 % each, not corrected.",
        "These tasks: the 95 % interval if the tasks stay and only data seeds are drawn anew, "
        "within each task (t, linearised ratio). In brackets: its verdict, corrected by itself, "
        "where it is another; (all): this view, the t test over tasks and the sign-flip test of "
        "log ratios all agree that there is a difference.",
        f"p: corrected by Holm for {significance.table.size} comparisons, all of this table"
        + (f" ({repeats} more repeat one of them: same scores, counted once)" if repeats else "")
        + "; higher or lower where p ≤ 0.05, else tie: not told apart, not shown to be equal.",
        f"Smallest p before correction that the number of tasks allows: "
        f"{', '.join(smallest[count] for count in sorted(smallest))}; below 6 tasks the test can "
        "never call anything different and has no interval.",
        UPSTREAM,
        *((f"Not compared: {'; '.join(left_out)}.",) if left_out else ()),
    )


def shown_p(p: float | None) -> str:
    """Return a p value with three decimals, or "<0.001"; a dash if there is none."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def cells_table(significance: Significance) -> Table:
    """Return one row a cell (setting × method): ARG and the difference to MTL."""
    rows = []
    for setting in significance.settings:
        for method in setting.methods:
            names = (partition_label(setting.partition), len(setting.tasks), method_label(method))
            own = _verdict_cells(significance.table.of(setting, method, BASELINE))
            other = _verdict_cells(significance.table.of(setting, method, MTL))
            rows.append((*map(text, names), *own, *other, number(setting.printed.get(method))))
    backbones = sorted({setting.backbone for setting in significance.settings})
    return Table(
        name="significance",
        title=f"Which cells are different from prompt tuning and from MTL: {', '.join(backbones)}",
        columns=(
            *("setting", "tasks", "method", "ARG %", "ARG, these tasks", "p, PT", "against PT"),
            *("minus MTL", "minus MTL, these tasks", "p, MTL", "against MTL", "Table 2"),
        ),
        rows=tuple(rows),
        notes=notes(significance),
    )


def _verdict_cells(one: MethodComparison | None) -> Row:
    if one is None:
        return (text(""),) * 4
    return (
        estimate_cell(one.views[JUDGE]),
        estimate_cell(one.views.get("these_tasks"), alone=True),
        text(shown_p(one.corrected[JUDGE])),
        text(verdict(one)),
    )


def verdict(one: MethodComparison) -> str:
    """Return the judged verdict; in brackets that about these tasks if it is another.

    "(all)" stands behind a difference on which every view of `VIEWS` agrees.
    """
    judged, these = one.sign(), one.sign("these_tasks")
    if judged != these:
        return f"{WORDS[judged]} ({WORDS[these]})"
    firm = judged and all(one.sign(view) == judged for view in VIEWS)
    return WORDS[judged] + (" (all)" if firm else "")


def estimate_cell(estimate: Estimated | None, *, alone: bool = False) -> TableCell:
    """Return the cell of a value with its interval, or of the interval alone."""
    if estimate is None:
        return TableCell()
    value = None if alone else estimate.value
    return TableCell(value=value, low=estimate.low, high=estimate.high)


def views_table(significance: Significance) -> Table:
    """Return one row a comparison, those beside the table included, with every view's test."""
    columns = []
    for view in VIEWS:
        columns += [f"{view} %", f"{view} p", f"{view} p Holm", f"{view} verdict"]
    families = (("table", significance.table), ("other pairs", significance.pairs))
    return Table(
        name="significance-views",
        title="Every comparison in every view",
        columns=("family", "setting", "method", "reference", "tasks better", "tasks", *columns),
        rows=tuple(_views_row(name, one) for name, kin in families for one in kin.comparisons),
        notes=(
            *(f"{view}: {about}." for view, about in VIEWS.items()),
            f"Each view of each family is corrected by itself (Holm): {significance.table.size} "
            f"comparisons of the table, {significance.pairs.size} other pairs.",
            UPSTREAM,
        ),
    )


def _views_row(family: str, one: MethodComparison) -> Row:
    names = (method_label(one.method), method_label(one.reference))
    row = [text(family), text(partition_label(one.setting.partition)), *map(text, names)]
    row += [number(one.better, 0), number(len(one.differences), 0)]
    for view in VIEWS:
        estimate = one.views.get(view)
        row.append(estimate_cell(estimate))
        row.append(number(None if estimate is None else estimate.p, 6))
        row.append(number(one.corrected.get(view), 6))
        row.append(text("" if estimate is None else WORDS[one.sign(view)]))
    return tuple(row)


def record_table(significance: Significance) -> Table:
    """Return wins, ties and losses over settings, each method (row) against each (column)."""
    methods = significance.methods
    rows = [
        (
            text(method_label(method)),
            *(text(_record(significance, method, other)) for other in methods),
        )
        for method in methods
    ]
    return Table(
        name="significance-record",
        title="Settings in which the row wins/ties/loses against the column",
        columns=("method", *map(method_label, methods)),
        rows=tuple(rows),
        notes=(
            f"Columns and rows PT and MTL: the {significance.table.size} comparisons of the "
            f"table. The other pairs: {significance.pairs.size} comparisons, corrected by "
            "themselves (Holm).",
        ),
    )


def _record(significance: Significance, method: str, other: str) -> str:
    return "–" if method == other else "/".join(map(str, significance.record(method, other)))


def tables(significance: Significance) -> Sequence[Table]:
    """Return all three tables."""
    return cells_table(significance), record_table(significance), views_table(significance)


def setting_title(setting: Setting) -> str:
    """Return a setting's name with how many scores a method has."""
    return f"{setting.label}: {len(setting.tasks)} tasks × {len(setting.seeds)} data seeds"
