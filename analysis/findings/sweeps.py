"""More labels, more sources, other backbones: the ends of every sweep compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..figures.charts.from_cells import shots_label
from ..results.cells import Place
from ..results.names import BASELINE, method_label
from .finding import Finding, extent, listed, signed
from .matrix import differences_of
from .paired import moderated, paired
from .settings import Setting, shared_seeds


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A question that is asked of settings that differ in one field of their place."""

    question: str
    field: str
    table: str
    unit: str
    """Behind a value: "examples per class"."""
    wanted: str
    """What was not run where no setting has two values."""
    size: Callable[[Setting], float | None]
    """Orders the values; None: not one of this sweep."""


def _shots(field: str) -> Callable[[Setting], float | None]:
    def size(setting: Setting) -> float | None:
        value = shots_label(getattr(setting.place, field))
        return float("inf") if value == "all" else float(value) if value.isdigit() else None

    return size


def _sources(setting: Setting) -> float | None:
    named = setting.place.source_set
    counts = [
        cell.sources
        for name in setting.learned
        for cell in setting.methods[name].values()
        if named == "all" or named.isdigit()
    ]
    return float(counts[0]) if counts else None


SWEEPS = (
    Sweep(
        question="Do more labels of the target task change the gain?",
        field="target_shots",
        table="table-3",
        unit="examples per class",
        wanted="target tasks with more or fewer labels (Table 3)",
        size=_shots("target_shots"),
    ),
    Sweep(
        question="Do more labels of the source tasks help?",
        field="source_shots",
        table="figure-3",
        unit="examples per class",
        wanted="source tasks with more labels (Figure 3)",
        size=_shots("source_shots"),
    ),
    Sweep(
        question="Do more source tasks help?",
        field="source_set",
        table="table-4",
        unit="source tasks",
        wanted="fewer source tasks (Table 4)",
        size=_sources,
    ),
)


def sweep_findings(settings: Sequence[Setting]) -> tuple[list[Finding], list[str]]:
    """Return what sweeps and backbones show, and what was not run."""
    findings, missing = [], []
    for sweep in SWEEPS:
        own = _swept(settings, sweep)
        findings += own
        missing += [] if own else [sweep.wanted]
    backbones = backbone_findings(settings)
    return [*findings, *backbones], missing + ([] if backbones else ["other backbones (Table 5)"])


def _swept(settings: Sequence[Setting], sweep: Sweep) -> list[Finding]:
    groups: dict[Place, list[tuple[float, Setting]]] = {}
    for setting in settings:
        size = sweep.size(setting)
        if setting.place.is_plain(but=sweep.field) and size is not None:
            key = dataclasses.replace(setting.place, **{sweep.field: ""})
            groups.setdefault(key, []).append((size, setting))
    findings = (_ends(sorted(g, key=lambda row: row[0]), sweep) for g in groups.values())
    return [one for one in findings if one is not None]


def _ends(group: Sequence[tuple[float, Setting]], sweep: Sweep) -> Finding | None:
    (least, few), (most, many) = group[0], group[-1]
    if least == most:
        return None
    names, raw, gains = [], [], []
    for name in many.learned:
        start, end = shared_seeds(few.methods.get(name, {}), many.methods[name])
        change = paired(end, start) if start else None
        before, after = (paired(one, None) if one else None for one in (start, end))
        if change is not None and before is not None and after is not None:
            names.append(name)
            raw.append(change)
            gains += [before, after]
    if not names:
        return None
    changes = dict(zip(names, moderated(raw), strict=True))
    ends = moderated(gains)
    parts = [
        f"{method_label(name)} from {signed(before)} to {signed(after)}, a change of "
        f"{signed(changes[name], ' points')}"
        for name, before, after in zip(names, ends[::2], ends[1::2], strict=True)
    ]
    told = [name for name, one in changes.items() if one.sign]
    verdict = (
        f"The gain changes for {len(told)} of {len(changes)} methods"
        if told
        else "No change of the gain can be told"
    )
    return Finding(
        question=sweep.question,
        sentence=f"{verdict} between {_size(least)} and {_size(most)} {sweep.unit} "
        f"({many.label}, {many.place.backbone}): {'; '.join(parts)} "
        f"({extent(next(iter(changes.values())))}).",
        tables=(sweep.table,),
        told=bool(told),
    )


def _size(value: float) -> str:
    return "all" if value == float("inf") else f"{value:g}"


def backbone_findings(settings: Sequence[Setting]) -> list[Finding]:
    """Return a finding for each partition that was run on several backbones."""
    groups: dict[Place, list[Setting]] = {}
    for setting in settings:
        if setting.place.is_plain():
            groups.setdefault(dataclasses.replace(setting.place, backbone=""), []).append(setting)
    return [_backbones(group) for group in groups.values() if len(group) > 1]


def _backbones(group: Sequence[Setting]) -> Finding:
    parts, told = [], False
    for setting in group:
        gains = {
            name: one
            for (name, _), pairs in differences_of(
                [setting], [(name, BASELINE) for name in setting.learned]
            ).items()
            for one in pairs.values()
        }
        if not gains:
            continue
        best = max(gains, key=lambda name: gains[name].value)
        above = sum(one.sign > 0 for one in gains.values())
        told |= any(one.sign for one in gains.values())
        parts.append(
            f"on {setting.place.backbone.rstrip('/').rsplit('/', 1)[-1]} {above} of "
            f"{len(gains)} learned starts lie above prompt tuning, the highest "
            f"{method_label(best)} {signed(gains[best])} ({extent(gains[best])})"
        )
    return Finding(
        question="Does it hold on other backbones?",
        sentence=f"{group[0].label}: {listed(parts)}.",
        tables=("table-5",),
        told=told,
    )
