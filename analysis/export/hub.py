"""A learned prompt as a folder for the Hugging Face Hub: an adapter, and its model card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.config import EMBEDDED_BACKBONES, SMOLLM2
from mpt.errors import DataError, UsageError
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.study.choice import DIGITS

from ..results.reading import read_results
from ..results.summary import summary_of
from ..tables.table import shown
from .card import Published, card
from .file import Exported, new_folder
from .peft_adapter import (
    BEHIND,
    PromptExport,
    adapter_of,
    check_position,
    position_of,
    write_adapter,
)
from .usage import PROMPT

if TYPE_CHECKING:
    from torch import Tensor

    from ..results.cells import Cell
    from ..results.sections import Results, Section

CARD = "README.md"
LISTED = 8
"""Points that a message names."""
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.\-]*")
_HUB_ID = re.compile(r"[\w.\-]+(/[\w.\-]+)?")


def export_hub(results: Path, out: Path, export: PromptExport) -> Exported:
    """Write the prompt of a point as a folder for the Hub.

    Args:
        results: results directory.
        out: a new directory.
        export: which point, and what its card says beside the records.

    Raises:
        UsageError: there is no such point, or several and none is named; it has no single prompt,
            which stands neither before nor right behind the input; `out` exists or cannot be
            written.
        DataError: the prompt's file is absent or changed.
    """
    if not _LICENCE.fullmatch(export.license):
        raise UsageError(
            f"--license is {export.license!r}, but must be an id of the Hub's list, such as mit; "
            "leave it out where none is chosen"
        )
    learned = _learned(results, export)
    cell = learned.cell
    position = position_of(cell.study.settings)
    if position not in ("prepend", BEHIND):
        raise UsageError(
            f"{learned.called}: was trained with position {position!r}, which no code but ours "
            f"runs; train one with position 'prepend' or {BEHIND!r}"
        )
    name = export.base_model or cell.study.backbone
    public = _public(name)
    config = {**learned.config, "base_model_name_or_path": public}
    said = Published(
        section=replace(learned.section, cells=(cell,), studies=(cell.study,)),
        cell=cell,
        averaged=_averaged(results, export, cell),
        base_model=public,
        on_hub=public not in (*EMBEDDED_BACKBONES, SMOLLM2) and not _is_local(name),
        task_type=str(config["task_type"]),
        licence=export.license,
        behind=position == BEHIND,
        chat=cell.study.settings.get("text", {}).get("template") == "chat",
    )
    if said.behind:
        from mpt.prompts import prompt_bytes

        weights = prompt_bytes(learned.prompt, {"position": position})
        new_folder(out, {PROMPT: weights, CARD: card(said).encode()})
    else:
        write_adapter(out, config, learned.prompt, {CARD: card(said)})
    return Exported(
        path=out,
        count=len(learned.prompt),
        what="virtual tokens and a card",
        problems=(*learned.problems, *said.warnings),
    )


def export_point(results: Path, out: Path, export: PromptExport) -> Exported:
    """Write the prompt of a point as an adapter of PEFT; arguments and errors as `export_hub`.

    Raises:
        UsageError: also if the prompt does not stand before the input.
    """
    learned = _learned(results, export)
    check_position(learned.called, position_of(learned.cell.study.settings))
    named = {"base_model_name_or_path": export.base_model} if export.base_model else {}
    write_adapter(out, {**learned.config, **named}, learned.prompt)
    return Exported(
        path=out, count=len(learned.prompt), what="virtual tokens", problems=learned.problems
    )


@dataclass(frozen=True, kw_only=True)
class _Learned:
    """A point with its prompt."""

    section: Section
    cell: Cell
    prompt: Tensor
    """[P, d]."""
    config: Mapping[str, Any]
    problems: tuple[str, ...]

    @property
    def called(self) -> str:
        """What messages call it."""
        return f"point {self.cell.key[:DIGITS]}"


def _learned(results: Path, export: PromptExport) -> _Learned:
    recorded = read_results(results, store=export.store, study=export.study, averaged=False)
    section, cell = _chosen(recorded, export.point)
    prompt = _prompt(cell, results, export)
    return _Learned(
        section=section,
        cell=cell,
        prompt=prompt,
        config=adapter_of(f"point {cell.key[:DIGITS]}", prompt, cell.study.backbone, export.kind),
        problems=tuple(recorded.problems),
    )


def _chosen(recorded: Results, wanted: str | None) -> tuple[Section, Cell]:
    learned = [(s, c) for s in recorded.sections for c in s.every_rung if c.steps > 0]
    matching = [one for one in learned if wanted is None or one[1].key.startswith(wanted)]
    if len(matching) == 1 and (wanted is None or len(wanted) >= DIGITS):
        return matching[0]
    several = f"holds {len(learned)} points with a learned prompt" if learned else "holds none"
    given = "missing" if wanted is None else repr(wanted)
    raise UsageError(
        f"--point is {given}, but must be the first {DIGITS} digits or more of the key of a "
        f"point; {recorded.root} {several}{_listed([cell for _, cell in learned])}"
    )


def _listed(cells: Sequence[Cell]) -> str:
    ranked = sorted(cells, key=_arg, reverse=True)
    words = [
        f"{c.key[:DIGITS]} ({c.place.method}, {c.steps} steps, ARG {_percent(_arg(c))})"
        for c in ranked[:LISTED]
    ]
    more = [] if len(ranked) <= LISTED else [f"{len(ranked) - LISTED} more"]
    return f": {', '.join([*words, *more])}" if words else ""


def _arg(cell: Cell) -> float:
    summary = summary_of(cell)
    return float("-inf") if summary is None or summary.value is None else summary.value


def _percent(arg: float) -> str:
    return "undefined" if arg == float("-inf") else f"{shown(arg, 2)} %"


def _averaged(results: Path, export: PromptExport, cell: Cell) -> Cell | None:
    """Return the point's configuration over all its upstream seeds; None where there is one."""
    recorded = read_results(results, store=export.store, study=export.study)
    for section in recorded.sections:
        for one in section.every_rung:
            if one.replicates and cell.key in {point.key for point in one.points}:
                return one
    return None


def _prompt(cell: Cell, results: Path, export: PromptExport) -> Tensor:
    from mpt.prompts import prompt_from_bytes

    with open_results(results, export.store, read_only=True) as database:
        artifact = database.artifact("rung", cell.trajectory, cell.steps)
    if artifact is None:
        raise UsageError(
            f"point {cell.key[:DIGITS]} has no prompt of its own in the records; choose one whose "
            f"method learns a prompt upstream, and that did not diverge ({cell.status})"
        )
    data = Artifacts(export.storage or str(results)).read(artifact.uri, artifact.digest)
    prompt, metadata = prompt_from_bytes(data, artifact.uri)
    if metadata.get("upstream", cell.trajectory) != cell.trajectory:
        raise DataError(f"{artifact.uri}: is not the prompt of point {cell.key[:DIGITS]}")
    return prompt


def _is_local(name: str) -> bool:
    return Path(name).expanduser().exists() or not _HUB_ID.fullmatch(name)


def _public(name: str) -> str:
    return Path(name).name if _is_local(name) else name
