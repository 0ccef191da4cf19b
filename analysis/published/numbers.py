"""Every number that the paper prints (Qin, Joty, Li, Zhao, ACL 2023), with its place in it.

Nothing else in this project is typed in from the paper's results. Numbers are in the unit that is
printed: relative gains and ARG in %, similarities as fractions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mpt.gym.catalogue import PARTITIONS

_TABLE_2: Mapping[str, tuple[tuple[float, float], ...]] = {
    "maml": (
        (8.78, 0.69), (20.16, 0.84), (10.57, 1.03), (6.34, 0.48), (0.32, 0.04),
        (7.54, 0.73), (6.71, 0.39), (-16.59, 1.36), (3.26, 0.24), (11.14, 0.93),
    ),
    "fomaml": (
        (1.24, 0.18), (18.80, 1.13), (17.84, 1.21), (7.32, 0.42), (6.42, 0.51),
        (9.81, 0.64), (3.88, 0.31), (16.63, 1.58), (9.83, 0.76), (-0.68, 0.07),
    ),
    "reptile": (
        (8.42, 0.46), (-5.17, 0.71), (-4.18, 0.37), (2.42, 0.21), (-1.54, 0.18),
        (-3.38, 0.49), (0.78, 0.07), (0.77, 0.09), (-0.09, 0.01), (20.44, 1.34),
    ),
    "multitask": (
        (7.14, 0.62), (-5.64, 0.92), (5.73, 0.43), (4.97, 0.39), (8.51, 1.16),
        (13.47, 0.97), (19.67, 1.72), (25.65, 1.93), (17.23, 1.08), (-5.19, 0.86),
    ),
    # partitions with equal target tasks have one number, which is printed for each
    "fine_tuning": (
        (-12.61, 1.57), (16.02, 1.44), (16.02, 1.44), (16.02, 1.44), (-35.70, 2.73),
        (-35.70, 2.73), (-35.70, 2.73), (-47.37, 2.97), (-47.37, 2.97), (1.56, 0.12),
    ),
}  # fmt: skip
"""ARG and what stands behind its ±, in the order of `PARTITIONS`."""

_TABLE_3 = {
    "maml": (20.16, 9.10, 5.64, 8.36, 3.27),
    "multitask": (-5.64, -14.17, 1.96, -0.20, 0.53),
}
TARGET_SHOTS = ("16", "32", "64", "128", "all")
"""Examples per class in Table 3 and Figure 3."""

_TABLE_4 = {"12": 8.44, "24": 12.89, "45": 20.16}

_TABLE_5 = {
    "T5-large": (11.14, -0.68, 20.44, -5.19, 1.56),
    "T5-base": (9.24, 4.15, 7.96, 1.64, 7.41),
    "T5-XL": (14.35, 2.46, 10.74, 5.72, -9.61),
    "BART-large": (7.63, 1.16, 8.94, -2.37, 2.74),
    "GPT2-large": (3.19, -2.68, 4.62, -1.43, 3.75),
}

_TABLE_6 = {
    ("amazon_polarity", "random_to_random"): (3.10, 2.25),
    ("amazon_polarity", "cls_to_cls"): (7.40, 10.45),
    ("ai2_arc", "random_to_random"): (12.54, 5.55),
    ("ai2_arc", "both_to_noncls"): (8.17, 6.69),
    ("samsum", "random_to_random"): (1.97, 6.77),
    ("samsum", "both_to_noncls"): (2.50, 5.71),
    ("superglue-copa", "both_to_noncls"): (1.20, 10.00),
    ("superglue-copa", "qa_to_qa"): (-3.20, 4.80),
}
"""Relative gain in % of the best meta method (MPT) and of multi-task learning (MTL)."""

_TABLE_7 = {
    "similar": (0.772, 0.695, 0.754, 0.819, 0.802),
    "dissimilar": (0.326, 0.311, 0.283, 0.315, 0.297),
}
_TABLE_7_MEAN = {"similar": 0.768, "dissimilar": 0.306}

_TABLE_8 = {
    "quoref": (7.28, 3.61, 0.95),
    "glue-qnli": (9.53, 4.36, 4.87),
    "samsum": (5.94, 4.07, -1.42),
}
PILOT_CHOICES = ("highest", "random", "lowest")
"""How Table 8 chooses the five source tasks of a target."""

CASES = tuple(_TABLE_6)
"""(task, partition) of Table 6, in its order."""
PILOT_TARGETS = tuple(_TABLE_8)
"""Target tasks of Table 8."""

BEST_SETTING = {"inner_lr": 3e-5, "outer_lr": 0.5, "steps": 5000}
"""Of MAML on random_to_random, validation tasks (A.5)."""
WORST_SETTING = {"inner_lr": 5e-5, "outer_lr": 0.2, "steps": 2500}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One printed number."""

    place: str
    """Table or section of the paper."""
    row: str
    """Method, backbone, task or kind of pair."""
    column: str
    """Partition, sample size, number of sources, or position."""
    value: float
    spread: float | None = None
    """What stands behind ±; the paper does not say what it is."""
    digits: int = 2

    @property
    def half_unit(self) -> float:
        """Half of the last printed digit: a number this near is printed the same."""
        return 0.5 * 10**-self.digits


def published_numbers() -> tuple[Published, ...]:
    """Return every printed number, in the order of the paper."""
    return (
        *(
            Published(place="Table 2", row=method, column=name, value=value, spread=spread)
            for method, row in _TABLE_2.items()
            for name, (value, spread) in zip(PARTITIONS, row, strict=True)
        ),
        *(
            Published(place="Table 3", row=method, column=shots, value=value)
            for method, row in _TABLE_3.items()
            for shots, value in zip(TARGET_SHOTS, row, strict=True)
        ),
        *(
            Published(place="Table 4", row="maml", column=sources, value=value)
            for sources, value in _TABLE_4.items()
        ),
        *(
            Published(place="Table 5", row=backbone, column=method, value=value)
            for backbone, row in _TABLE_5.items()
            for method, value in zip(_TABLE_2, row, strict=True)
        ),
        *(
            Published(place="Table 6", row=f"{task} {kind}", column=partition, value=value)
            for (task, partition), pair in _TABLE_6.items()
            for kind, value in zip(("MPT", "MTL"), pair, strict=True)
        ),
        *_table_7(),
        *(
            Published(place="Table 8", row=task, column=choice, value=value)
            for task, row in _TABLE_8.items()
            for choice, value in zip(PILOT_CHOICES, row, strict=True)
        ),
        Published(place="A.5", row="maml", column="best", value=10.14),
        Published(place="A.5", row="maml", column="worst", value=-16.21),
    )


def _table_7() -> Iterator[Published]:
    for kind, row in _TABLE_7.items():
        for at, value in enumerate(row, start=1):
            yield Published(place="Table 7", row=kind, column=f"pair {at}", value=value, digits=3)
    for kind, value in _TABLE_7_MEAN.items():
        yield Published(place="Table 7", row=kind, column="mean", value=value, digits=3)
