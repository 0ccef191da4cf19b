"""A learned prompt as a folder for the Hugging Face Hub: an adapter, and its model card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpt.config import EMBEDDED_BACKBONES, SMOLLM2
from mpt.errors import DataError, UsageError
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.study.choice import DIGITS

from ..results.reading import load_results
from ..results.summary import summary_of
from ..tables.table import shown
from .card import Published, card
from .file import UNKNOWN, Exported
from .peft_adapter import Model, adapter_of, check_position, write_adapter

if TYPE_CHECKING:
    from torch import Tensor

    from ..results.cells import Cell
    from ..results.sections import Results, Section

CARD = "README.md"
LISTED = 8
"""Points that a message names."""
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.\-]*")
_HUB_ID = re.compile(r"[\w.\-]+(/[\w.\-]+)?")


@dataclass(frozen=True, kw_only=True)
class HubExport:
    """What is published, and what is said of it."""

    model: Model
    """Id of the language model, its kind, and the database."""
    point: str | None
    """First eight digits or more of a point's key; None: there must be only one."""
    study: str | None = None
    """Only points of this study or protocol."""
    storage: str | None = None
    """Where prompts are; None: the results directory."""
    licence: str = UNKNOWN
    """The Hub's id of a licence, such as "mit"."""


def export_hub(results: Path, out: Path, export: HubExport) -> Exported:
    """Write the prompt of a point as a folder for the Hub.

    Args:
        results: results directory.
        out: a new directory.
        export: which point, and what its card says beside the records.

    Raises:
        UsageError: there is no such point, or several and none is named; it has no single prompt,
            which does not stand before the input; `out` exists or cannot be written.
        DataError: the prompt's file is absent or changed.
    """
    if not _LICENCE.fullmatch(export.licence):
        raise UsageError(
            f"--license is {export.licence!r}, but must be an id of the Hub's list, such as mit; "
            "leave it out where none is chosen"
        )
    store = export.model.store
    recorded = load_results(results, store=store, study=export.study, averaged=False)
    section, cell = _chosen(recorded, export.point)
    called = f"point {cell.key[:DIGITS]}"
    check_position(called, cell.study.settings)
    prompt = _prompt(cell, results, store, export.storage)
    name = export.model.name or cell.study.backbone
    config = adapter_of(
        f"point {cell.key[:DIGITS]}", prompt, cell.study.backbone, export.model.kind
    )
    public = _public(name)
    config["base_model_name_or_path"] = public
    said = Published(
        section=replace(section, cells=(cell,), studies=(cell.study,)),
        cell=cell,
        averaged=_averaged(results, store, export.study, cell),
        base_model=public,
        on_hub=public not in (*EMBEDDED_BACKBONES, SMOLLM2) and not _is_local(name),
        task_type=str(config["task_type"]),
        licence=export.licence,
    )
    write_adapter(out, config, prompt, {CARD: card(said)})
    return Exported(
        path=out,
        count=len(prompt),
        what="virtual tokens and a card",
        problems=(*recorded.problems, *said.warnings),
    )


def _chosen(recorded: Results, wanted: str | None) -> tuple[Section, Cell]:
    """Return the point that is meant, with its section."""
    learned = [(s, c) for s in recorded.sections for c in _every(s) if c.steps > 0]
    found = [one for one in learned if wanted is None or one[1].key.startswith(wanted)]
    if len(found) == 1 and (wanted is None or len(wanted) >= DIGITS):
        return found[0]
    several = f"holds {len(learned)} points with a learned prompt" if learned else "holds none"
    given = "missing" if wanted is None else repr(wanted)
    raise UsageError(
        f"--point is {given}, but must be the first {DIGITS} digits or more of the key of a "
        f"point; {recorded.root} {several}{_listed([cell for _, cell in learned])}"
    )


def _every(section: Section) -> Iterator[Cell]:
    """Yield every recorded point, each once."""
    seen: set[str] = set()
    for cell in section.cells:
        for one in (cell, *section.rungs.get(cell.key, ())):
            if one.key not in seen:
                seen.add(one.key)
                yield one


def _listed(cells: Sequence[Cell]) -> str:
    """Return points with their scores, the best first."""
    ranked = sorted(cells, key=_arg, reverse=True)
    words = [
        f"{c.key[:DIGITS]} ({c.place.method}, {c.steps} steps, ARG {_words(c)})"
        for c in ranked[:LISTED]
    ]
    more = [] if len(ranked) <= LISTED else [f"{len(ranked) - LISTED} more"]
    return f": {', '.join([*words, *more])}" if words else ""


def _arg(cell: Cell) -> float:
    summary = summary_of(cell)
    return float("-inf") if summary is None or summary.value is None else summary.value


def _words(cell: Cell) -> str:
    value = _arg(cell)
    return "undefined" if value == float("-inf") else f"{shown(value, 2)} %"


def _averaged(results: Path, store: str | None, study: str | None, cell: Cell) -> Cell | None:
    """Return the point's configuration over all its upstream seeds; None where there is one."""
    recorded = load_results(results, store=store, study=study)
    for section in recorded.sections:
        for one in _every(section):
            if one.replicates and cell.key in {point.key for point in one.points}:
                return one
    return None


def _prompt(cell: Cell, results: Path, store: str | None, storage: str | None) -> Tensor:
    """Return the prompt [P, d] that a point was learned as."""
    from mpt.prompts import prompt_from_bytes

    with open_results(results, store, read_only=True) as database:
        found = database.artifact("rung", cell.trajectory, cell.steps)
    if found is None:
        raise UsageError(
            f"point {cell.key[:DIGITS]} has no prompt of its own in the records; choose one whose "
            f"method learns a prompt upstream, and that did not diverge ({cell.status})"
        )
    data = Artifacts(storage or str(results)).read(found.uri, found.digest)
    prompt, metadata = prompt_from_bytes(data, found.uri)
    if metadata.get("upstream", cell.trajectory) != cell.trajectory:
        raise DataError(f"{found.uri}: is not the prompt of point {cell.key[:DIGITS]}")
    return prompt


def _is_local(name: str) -> bool:
    return Path(name).expanduser().exists() or not _HUB_ID.fullmatch(name)


def _public(name: str) -> str:
    """Return the name of a model without the folders above it."""
    return Path(name).name if _is_local(name) else name
