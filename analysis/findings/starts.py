"""Does a learned start help, where, and is it better than multi-task learning?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpt.words import counted

from ..results.names import BASELINE, UNTRAINED, ZERO_SHOT, method_label
from .finding import Finding, extent, listed, signed
from .matrix import Duel, Matrix
from .paired import Paired
from .settings import Setting

MTL = "multitask"


def start_findings(settings: Sequence[Setting], matrix: Matrix) -> tuple[list[Finding], list[str]]:
    """Return what is found about learned starts, and what was not run."""
    bare = [one for one in [_without_prompt(matrix)] if one is not None]
    learned = [name for name in matrix.methods if any(name in s.learned for s in settings)]
    if not learned:
        return bare, ["learned starts on target tasks (a replay)"]
    findings = [_help(learned, matrix), _where(learned, matrix)]
    control = _beyond_start(learned, matrix)
    findings.append(control)
    others = [name for name in learned if name != MTL and (name, MTL) in matrix.duels]
    if others:
        findings.append(_against_mtl(others, matrix))
    missing = [] if control else ["the untrained start, which is the control of learned ones"]
    missing += [] if others else ["another learned start beside MTL"]
    return [*(one for one in findings if one is not None), *bare], missing


def _help(learned: Sequence[str], matrix: Matrix) -> Finding | None:
    gains = {n: d for n in learned if (d := matrix.duels.get((n, BASELINE))) is not None}
    if not gains:
        return None
    told, verdict = _verdict(gains, "plain prompt tuning")
    numbers = [f"{method_label(n)} {signed(d.mean)}" for n, d in gains.items()]
    first = next(iter(gains.values()))
    span = "one setting" if first.settings == 1 else f"{first.settings} settings"
    return Finding(
        question="Does a learned start help?",
        sentence=f"{verdict}, as the mean relative gain (ARG) over {span}: "
        f"{listed(numbers)} ({extent(first.mean)}).",
        tables=("table-2", "duels"),
        told=told,
    )


def _beyond_start(learned: Sequence[str], matrix: Matrix) -> Finding | None:
    added = {n: d for n in learned if (d := matrix.duels.get((n, UNTRAINED))) is not None}
    alone = matrix.duels.get((UNTRAINED, BASELINE))
    if not added or alone is None:
        return None
    told, verdict = _verdict(added, "the untrained one")
    numbers = [f"{method_label(n)} {signed(d.mean, ' points')}" for n, d in added.items()]
    first = next(iter(added.values()))
    return Finding(
        question="Is it the learning, or the start?",
        sentence=f"{verdict}: {listed(numbers)}; with nothing learned the start has an ARG of "
        f"{signed(alone.mean)} ({extent(first.mean, first.settings)}).",
        tables=("duels", "table-2"),
        told=told,
    )


def _without_prompt(matrix: Matrix) -> Finding | None:
    duel = matrix.duels.get((ZERO_SHOT, BASELINE))
    if duel is None:
        return None
    sign = duel.mean.sign
    verdict = {
        1: "The model as it is scores above plain prompt tuning",
        0: "The model as it is cannot be told from plain prompt tuning",
        -1: "The model as it is scores below plain prompt tuning",
    }[sign]
    return Finding(
        question="What can the model do without a prompt?",
        sentence=f"{verdict}: zero-shot has an ARG of {signed(duel.mean)} "
        f"({counted(duel.settings, 'setting')}, {counted(len(duel.mean.tasks), 'task')}, "
        f"{counted(duel.mean.data_seeds, 'data seed')}).",
        tables=("table-2", "duels"),
        told=sign != 0,
    )


def _verdict(duels: Mapping[str, Duel], other: str) -> tuple[bool, str]:
    """Return whether any of these can be told from another start, and how many, in words."""
    signs = [duel.mean.sign for duel in duels.values()]
    sides = [(signs.count(1), "above"), (signs.count(-1), "below")]
    told = [f"{n} {'lies' if n == 1 else 'lie'} {where}" for n, where in sides if n]
    if not told:
        return False, f"No learned start can be told from {other}"
    return True, f"Of {counted(len(duels), 'learned start')}, {listed(told)} {other}"


def _where(learned: Sequence[str], matrix: Matrix) -> Finding | None:
    every: dict[tuple[str, str], Paired] = {}
    for name in learned:
        duel = matrix.duels.get((name, BASELINE))
        every |= {(name, label): one for label, one in duel.pairs.items()} if duel else {}
    if len({label for _, label in every}) < 2:
        return None
    signs = [one.sign for one in every.values()]
    high = max(every, key=lambda at: every[at].value)
    low = min(every, key=lambda at: every[at].value)
    return Finding(
        question="Where does it help?",
        sentence=f"Of {len(every)} (method, setting) pairs the interval lies above 0 in "
        f"{signs.count(1)}, below in {signs.count(-1)}, and holds 0 in {signs.count(0)}; highest "
        f"is {_named(high)} with {signed(every[high])} ({extent(every[high])}), lowest "
        f"{_named(low)} with {signed(every[low])} ({extent(every[low])}).",
        tables=("table-2", "table-2-details"),
        told=any(signs),
    )


def _named(at: tuple[str, str]) -> str:
    name, label = at
    return f"{method_label(name)} on {label}"


def _against_mtl(others: Sequence[str], matrix: Matrix) -> Finding:
    signs: dict[str, list[int]] = {}
    for name in others:
        for label, one in matrix.duels[name, MTL].pairs.items():
            signs.setdefault(label, []).append(one.sign)
    tied = sum(not any(row) for row in signs.values())
    parts = []
    for name in others:
        duel = matrix.duels[name, MTL]
        parts.append(
            f"{method_label(name)} wins {duel.wins}, ties {duel.ties} and loses {duel.losses} "
            f"(mean difference {signed(duel.mean, ' points')})"
        )
    verdict = (
        f"No method can be told from MTL in {tied} of {counted(len(signs), 'setting')}"
        if tied
        else f"A method can be told from MTL in {len(signs)} of {counted(len(signs), 'setting')}"
    )
    return Finding(
        question="Is it better than multi-task learning?",
        sentence=f"{verdict}; {'; '.join(parts)}; {extent(matrix.duels[others[0], MTL].mean)}.",
        tables=("duels", "table-2"),
        told=tied < len(signs),
    )
