"""Synthetic tables of scores with known effects, as arrays and as files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.significance.settings import Setting

SEEDS = (13, 21, 42, 87, 100)
SHORT = {"prompt_tuning": "pt", "multitask": "mtl", "fine_tuning": "ft"}


class Synthetic:
    """Makes settings whose methods have a given mean relative gain and tasks that scatter."""

    def __init__(self, root: int) -> None:
        self._rng = np.random.default_rng(root)

    def setting(
        self,
        effects: Mapping[str, float],
        partition: str = "toy",
        tasks: int = 12,
        spread: float = 0.08,
    ) -> Setting:
        """Gains scatter over tasks by t₃ × spread; data seeds share half of their noise."""
        rng = self._rng
        base = rng.uniform(0.2, 0.6, size=(tasks, 1))
        shared = rng.normal(0, 0.01, size=(tasks, len(SEEDS)))
        scores = {}
        for name in ("prompt_tuning", *effects):
            gain = effects.get(name, 0.0) + (
                0 if name == "prompt_tuning" else spread * rng.standard_t(3, size=(tasks, 1))
            )
            noise = rng.normal(0, 0.01, size=(tasks, len(SEEDS)))
            scores[name] = np.clip(base * (1 + gain) + shared + noise, 0.01, 1)
        return Setting(
            partition=partition,
            backbone="toy-model",
            tasks=tuple(f"task{n:02}" for n in range(tasks)),
            seeds=SEEDS,
            scores=scores,
            printed={},
        )


def lines(setting: Setting) -> str:
    """Return a setting as a file of scores."""
    rows = ["method,partition,backbone,task,seed,test"]
    for method, table in setting.scores.items():
        for task, row in zip(setting.tasks, table.tolist(), strict=True):
            for seed, test in zip(setting.seeds, row, strict=True):
                name = SHORT.get(method, method)
                place = f"{setting.partition},{setting.backbone}"
                rows.append(f"{name},{place},{task},{seed},{test!r}")
    return "\n".join(rows) + "\n"
