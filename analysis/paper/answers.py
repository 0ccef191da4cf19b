"""Which of our cells answers a published number, and what it lacks to be the same question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mpt.config import DATA_SEEDS
from mpt.gym.catalogue import load_catalogue
from mpt.study.replaced import REPLACED, replaced_text
from mpt.study.study import source_sets

from ..published.numbers import (
    BEST_SETTING,
    WORST_SETTING,
    Published,
    published_numbers,
)
from ..results.cells import OWN, Cell
from ..results.names import BACKBONES, method_label, paper_backbone
from ..results.summary import Summary
from ..tables.arg import (
    DETAILS,
    INTERVALS,
    ScoredMethod,
    arg_cell,
    detail_cells,
    incomplete,
    seeds_note,
)
from ..tables.lookup import Lookup, column_label, pilot_choice
from ..tables.main import COMPARED, SWEPT, task_cell
from ..tables.similarity import pairs_of
from ..tables.table import Row, Table, TableCell, number, text
from .comparison import NumberComparison, Ours, compare

MAIN = "T5-large"
"""Backbone of every table of the paper but Table 5."""
_SEARCHED = "random_to_random"


def paper_comparisons(look: Lookup) -> list[NumberComparison]:
    """Return every published number with ours."""
    return [compare(published, _answer(look, published)) for published in published_numbers()]


class _ClaimedTwice(Exception):
    """Several studies of one protocol have a cell where the paper has one number."""


def _answer(look: Lookup, published: Published) -> Ours | None:
    try:
        return _FINDERS[published.place](look, published)
    except _ClaimedTwice as error:
        return Ours(cell=TableCell(), lacking=str(error))


def _one_claim(look: Lookup, partition: str, **fields: str) -> None:
    """Raise `_ClaimedTwice` if a column of ours is of several studies."""
    editions = look.editions(partition, **fields)
    if editions != [""]:
        raise _ClaimedTwice(f"studies {', '.join(editions)} claim it; choose one with --study")


def scores_comparison(one: ScoredMethod) -> NumberComparison | None:
    """Return Table 2's number for a method of a file of scores; None if it prints none.

    Fine-tuning has one number for all partitions with the same target tasks.
    """
    partitions = load_catalogue().partitions
    if one.partition not in partitions:
        return None
    targets = partitions[one.partition].target
    for published in published_numbers():
        if (published.place, published.row) != ("Table 2", one.method):
            continue
        same = one.method == "fine_tuning" and partitions[published.column].target == targets
        if same or published.column == one.partition:
            lacking = _lacking(one.summary, one.backbone, MAIN, targets) or one.lacking
            cell = arg_cell(one.summary, done=one.done, of=one.of)
            return compare(published, Ours(cell=cell, lacking=lacking))
    return None


def arg_table(methods: Sequence[ScoredMethod], label: str = "") -> Table:
    """Return one row a method, with Table 2's number and the status of ours."""
    rows = []
    notes = []
    for one in methods:
        cell = arg_cell(one.summary, done=one.done, of=one.of)
        column = column_label((one.partition, one.edition))
        names = (column, one.backbone, method_label(one.method))
        rows.append((*map(text, names), *detail_cells(one.summary, cell), *_paper_cells(one)))
        said = [*filter(None, [seeds_note(one.summary)]), *one.summary.gain.reasons]
        notes += [f"{', '.join(names)}: {why}" for why in said]
    return Table(
        name="arg",
        title=f"ARG over prompt tuning{label and f' – {label}'}",
        columns=("partition", "backbone", "method", *DETAILS, "Table 2", "status"),
        rows=tuple(rows),
        notes=(INTERVALS, *notes),
    )


def _paper_cells(one: ScoredMethod) -> Row:
    comparison = scores_comparison(one)
    if comparison is None:
        return text("–"), text("–")
    why = f" ({comparison.why})" if comparison.why else ""
    return number(comparison.published.value), text(comparison.status + why)


def _lacking(summary: Summary | None, backbone: str, wanted: str, targets: Sequence[str]) -> str:
    if paper_backbone(backbone) != wanted:
        return f"run on {backbone}, not on {wanted}"
    if summary is None:
        return "no score"
    if {gain.task for gain in summary.gain.tasks} != set(targets):
        return "other target tasks"
    if set(summary.seeds) != set(DATA_SEEDS):
        return f"data seeds are {', '.join(map(str, summary.seeds))}"
    if not summary.whole:
        return f"{summary.gain.defined} of {summary.gain.of} tasks have a relative gain"
    return ""


def _ours(
    look: Lookup,
    cell: Cell | None,
    targets: Sequence[str],
    *,
    wanted: str = MAIN,
    sources: int | None = None,
    task: str | None = None,
) -> Ours | None:
    """Return what a cell says about a number of the paper, or of one of its tasks."""
    if cell is None:
        return None
    shown = look.table_cell(cell) if task is None else task_cell(look, cell, task)
    lacking = _lacking(look.summary(cell), cell.place.backbone, wanted, targets)
    if cell.status != "ok":
        lacking = incomplete(cell)
    lacking = lacking or incomplete(cell) or _replaced(cell)
    if not lacking and sources is not None and cell.sources != sources:
        lacking = f"{cell.sources} source tasks, not {sources}"
    return Ours(cell=shown, lacking=lacking)


def _replaced(cell: Cell) -> str:
    """Say which of the tasks that a cell depends on are replaced in its study; empty if none."""
    cell_place, catalogue = cell.place, load_catalogue()
    replaced: Mapping[str, str] = cell.study.settings.get(REPLACED, {})
    if not replaced or cell_place.partition not in catalogue.partitions:
        return replaced_text(replaced)
    partition = catalogue.partition(cell_place.partition)
    tasks = set(partition.target if cell_place.role == "target" else catalogue.validation_tasks)
    if cell_place.method != "fine_tuning":  # learns nothing upstream
        parts = source_sets(catalogue, partition.name)
        tasks |= set(parts.get(cell_place.source_set, partition.source))
    return replaced_text({old: new for old, new in replaced.items() if old in tasks})


def _replayed(
    look: Lookup, method: str, partition: str, wanted: str = MAIN, **fields: str
) -> Cell | None:
    """Return the cell on the paper's backbone or else on that of our tables."""
    for name in _backbones(look, wanted):
        _one_claim(look, partition, backbone=name, **fields)
        cell = look.cell(method, partition, backbone=name, **fields)
        cell = cell or look.shared_cell(method, partition, backbone=name, **fields)
        if cell is not None:
            return cell
    return None


def _backbones(look: Lookup, wanted: str) -> list[str]:
    """Return the study's ids of a backbone of the paper, the likeliest first, then our own."""
    names = {cell.place.backbone for cell in look.section.select(role="target")}
    same = [name for name in names if paper_backbone(name) == wanted]
    ids = BACKBONES[wanted]
    same.sort(key=lambda name: (ids.index(name.rstrip("/").rsplit("/", 1)[-1].lower()), name))
    return [*same, look.backbone] if wanted == MAIN else same


def _table_2(look: Lookup, published: Published) -> Ours | None:
    method, partition = published.row, published.column
    about = load_catalogue().partition(partition)
    sources = None if method == "fine_tuning" else len(about.source)
    return _ours(look, _replayed(look, method, partition), about.target, sources=sources)


def _table_3(look: Lookup, published: Published) -> Ours | None:
    about = load_catalogue().partition(SWEPT)
    sizes = (OWN, "16") if published.column == "16" else (published.column,)
    cells = (_replayed(look, published.row, SWEPT, target_shots=size) for size in sizes)
    cell = next((cell for cell in cells if cell is not None), None)
    return _ours(look, cell, about.target, sources=len(about.source))


def _table_4(look: Lookup, published: Published) -> Ours | None:
    about = load_catalogue().partition(SWEPT)
    count = published.column
    names = ("all", count) if int(count) == len(about.source) else (count, f"{SWEPT}_{count}")
    cells = (_replayed(look, published.row, SWEPT, source_set=name) for name in names)
    cell = next((cell for cell in cells if cell is not None), None)
    return _ours(look, cell, about.target, sources=int(count))


def _table_5(look: Lookup, published: Published) -> Ours | None:
    about = load_catalogue().partition(COMPARED)
    cell = _replayed(look, published.column, COMPARED, wanted=published.row)
    return _ours(look, cell, about.target, wanted=published.row)


def _table_6(look: Lookup, published: Published) -> Ours | None:
    task, kind = published.row.rsplit(" ", 1)
    partition = published.column
    best = kind == "MPT"
    _one_claim(look, partition)
    cell = look.best(partition) if best else _replayed(look, "multitask", partition)
    if cell is None or task not in cell.tasks:
        return None
    about = load_catalogue().partition(partition)
    return _ours(look, cell, about.target, sources=len(about.source), task=task)


def _table_7(look: Lookup, published: Published) -> Ours | None:
    triples = pairs_of(look)[0].get(published.row, ())
    if published.column != "mean" or not triples:
        return None
    mean = sum(value for *_, value in triples) / len(triples)
    return Ours(cell=number(mean, published.digits), lacking="the paper names no pairs")


def _table_8(look: Lookup, published: Published) -> Ours | None:
    for cell in look.targets(method="maml"):
        if pilot_choice(cell) == f"{published.column}5" and published.row in cell.tasks:
            return _ours(look, cell, tuple(cell.tasks), sources=5, task=published.row)
    return None


def _search(look: Lookup, published: Published) -> Ours | None:
    setting = BEST_SETTING if published.column == "best" else WORST_SETTING
    validation = load_catalogue().validation_tasks
    points = look.section.select(role="validation", method=published.row, partition=_SEARCHED)
    for cell in sorted(points, key=lambda c: (paper_backbone(c.place.backbone) != MAIN, c.key)):
        if {**cell.config, "steps": cell.steps}.items() >= setting.items():
            return _ours(look, cell, validation)
    return None


_FINDERS: Mapping[str, Callable[[Lookup, Published], Ours | None]] = {
    "Table 2": _table_2,
    "Table 3": _table_3,
    "Table 4": _table_4,
    "Table 5": _table_5,
    "Table 6": _table_6,
    "Table 7": _table_7,
    "Table 8": _table_8,
    "A.5": _search,
}
