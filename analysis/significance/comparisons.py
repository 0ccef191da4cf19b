"""Comparisons of methods within settings: their views, and families corrected together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpt.metrics.differences import holm
from mpt.seeds import numpy_generator

from ..results.names import BASELINE, METHODS, in_order
from .settings import Setting, read_settings
from .statistics import LEVEL, Estimated, fixed_tasks, sign_flip, t_interval

MTL = "multitask"
"""The method that the others are compared with beside plain prompt tuning."""
JUDGE = "other_tasks"
"""The view that decides what is called different."""
VIEWS: Mapping[str, str] = {
    JUDGE: "other tasks of the kind: sign-flip test over tasks",
    "other_tasks_t": "other tasks of the kind: t test over tasks",
    "other_tasks_log": "other tasks of the kind: sign-flip test of log score ratios",
    "these_tasks": "these very tasks: data seeds within tasks, t",
}
"""View → what it asks and how."""


@dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """A method against a reference in one setting; unit: % of the score of plain prompt tuning."""

    setting: Setting
    method: str
    reference: str
    differences: tuple[float, ...]
    """One a task, in the order of the setting's tasks; their mean is the difference of ARGs."""
    views: Mapping[str, Estimated]
    """By the names of `VIEWS`; the log view (in % of log) lacks if a mean score is not positive,
    these_tasks with one data seed, other_tasks_t with one task."""
    corrected: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """View → p corrected for the family (Holm); filled in by `correct`."""

    @property
    def value(self) -> float:
        """ARG of the method minus that of the reference (0 for plain prompt tuning)."""
        return self.views[JUDGE].value

    @property
    def better(self) -> int:
        """Tasks on which the method scores higher than the reference."""
        return sum(difference > 0 for difference in self.differences)

    def sign(self, view: str = JUDGE) -> int:
        """Return 1 (higher), −1 (lower) or 0 (not different from 0 after correction)."""
        if self.corrected.get(view, 1.0) > LEVEL:
            return 0
        return 1 if self.views[view].value > 0 else -1

    @property
    def evidence(self) -> tuple[object, ...]:
        """What the comparison is made of: two with the same one are one comparison."""
        names = (self.method, self.reference, BASELINE)
        scores = (self.setting.scores[name].tobytes() for name in names)
        return (self.setting.tasks, self.setting.backbone, self.method, self.reference, *scores)


def compare(setting: Setting, method: str, reference: str, root: int) -> MethodComparison:
    """Return ARG of a method minus that of a reference; `root` seeds drawn sign patterns."""
    first, second, base = (setting.scores[name] for name in (method, reference, BASELINE))
    means, others = first.mean(axis=1), second.mean(axis=1)
    differences = 100 * (means - others) / base.mean(axis=1)
    names = (setting.partition, setting.backbone, method, reference)
    views = {JUDGE: sign_flip(differences.tolist(), numpy_generator(root, "flip", *names))}
    if len(differences) > 1:
        views["other_tasks_t"] = t_interval(differences.tolist())
    if (means > 0).all() and (others > 0).all():
        logs = 100 * np.log(means / others)
        views["other_tasks_log"] = sign_flip(
            logs.tolist(), numpy_generator(root, "flip log", *names)
        )
    if first.shape[1] > 1:
        views["these_tasks"] = fixed_tasks(100 * (first - second), base)
    return MethodComparison(
        setting=setting,
        method=method,
        reference=reference,
        differences=tuple(differences.tolist()),
        views=views,
    )


@dataclass(frozen=True, kw_only=True)
class Family:
    """Comparisons that were corrected together."""

    comparisons: tuple[MethodComparison, ...]
    size: int
    """Number that p values were corrected for: comparisons that repeat another count once."""

    def of(self, setting: Setting, method: str, reference: str) -> MethodComparison | None:
        """Return one comparison; None if it is not in the family."""
        for one in self.comparisons:
            if one.setting is setting and (one.method, one.reference) == (method, reference):
                return one
        return None


def correct(comparisons: Iterable[MethodComparison]) -> Family:
    """Correct every view's p values by Holm, each view as a family of its own.

    Fine-tuning learns nothing upstream, so settings with equal target tasks share its scores, and
    the paper prints one number for them: such comparisons are one.
    """
    all_comparisons = list(comparisons)
    distinct = {one.evidence: one for one in all_comparisons}
    corrected: dict[tuple[object, ...], dict[str, float]] = {key: {} for key in distinct}
    for view in VIEWS:
        keys = [key for key, one in distinct.items() if view in one.views]
        ps = holm({str(at): distinct[key].views[view].p for at, key in enumerate(keys)})
        for at, key in enumerate(keys):
            corrected[key][view] = ps[str(at)]
    return Family(
        comparisons=tuple(
            dataclasses.replace(one, corrected=corrected[one.evidence]) for one in all_comparisons
        ),
        size=len(distinct),
    )


@dataclass(frozen=True, kw_only=True)
class Significance:
    """All that scores say about which methods differ."""

    settings: tuple[Setting, ...]
    table: Family
    """Every method against plain prompt tuning, and every other one against MTL."""
    pairs: Family
    """Every other pair of methods, corrected as a family of its own."""
    root: int
    """Seed of drawn sign patterns."""

    @property
    def methods(self) -> list[str]:
        """Every method of a setting, in the order of the paper, plain prompt tuning last."""
        names = {name for setting in self.settings for name in setting.scores}
        return [*in_order(names - {BASELINE}, METHODS), *({BASELINE} & names)]

    def record(self, method: str, other: str) -> tuple[int, int, int]:
        """Return the number of settings in which a method wins, ties and loses against another."""
        signs = []
        for one in (*self.table.comparisons, *self.pairs.comparisons):
            if (one.method, one.reference) == (method, other):
                signs.append(one.sign())
            elif (one.method, one.reference) == (other, method):
                signs.append(-one.sign())
        return signs.count(1), signs.count(0), signs.count(-1)


def find_significance(settings: Sequence[Setting], root: int) -> Significance:
    """Compare the methods of every setting and correct both families; `root` as in `compare`."""
    table, pairs = [], []
    for setting in settings:
        for method in setting.methods:
            table.append(compare(setting, method, BASELINE, root))
            if MTL in setting.scores and method != MTL:
                table.append(compare(setting, method, MTL, root))
        others = [method for method in setting.methods if method != MTL]
        both = itertools.combinations(others, 2)
        pairs += [compare(setting, first, second, root) for first, second in both]
    return Significance(
        settings=tuple(settings), table=correct(table), pairs=correct(pairs), root=root
    )


def read_significance(source: Path, root: int) -> Significance:
    """Read scores (see `settings.read_settings`) and compare their methods."""
    return find_significance(read_settings(source), root)
