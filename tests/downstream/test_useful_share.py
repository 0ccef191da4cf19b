"""How much of what goes through the model is real: the passes of a step against one padded batch.

Only lengths are looked at; nothing goes through a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mpt.backbones import Backbone, load_backbone
from mpt.backbones.rows import cheapest_groups
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.data import TrainRows
from mpt.downstream.limits import PackLimits, default_limits
from mpt.embedded.gym import ensure_embedded_gym
from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import FewShotTask, available_seeds, load_task

R, STEPS = 16, 4
CONFIG = DownstreamConfig(batch_size=8)
REAL = Path(__file__).resolve().parents[3] / "shared" / "gym"
REAL_P, EMBEDDED_P = 100, 20  # prompt tokens, as in the paper and in the embedded study


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("embedded")


def _tasks(gym: Path, count: int) -> list[FewShotTask]:
    """The first tasks of a gym, one data seed each."""
    catalogue = load_catalogue(gym)
    found = []
    for name in sorted(catalogue.tasks):
        seeds = available_seeds(gym, catalogue.task(name))
        if seeds:
            found.append(load_task(gym, catalogue.task(name), seeds[0]))
    return found[:count]


def _shares(
    backbone: Backbone, tasks: Sequence[FewShotTask], p: int, packed: PackLimits
) -> tuple[float, float]:
    """Return real / padded tokens of R runs in bucketed passes, and in one padded batch."""
    rows = TrainRows(backbone, tasks, TextConfig(max_input=512, max_target=64), 0, CONFIG)
    real, bucketed, whole = 0, 0, 0
    for step in range(1, STEPS + 1):
        batch = [row for n in range(R) for row in rows.batch(n % len(tasks), step)]
        inputs = np.array([rows.table.input_lengths[row] for row in batch])
        targets = np.array([rows.table.target_lengths[row] for row in batch])
        real += int((p + inputs + targets).sum())
        whole += len(batch) * int(p + inputs.max() + targets.max())
        groups = cheapest_groups(
            inputs.tolist(),
            targets.tolist(),
            extra=p,
            pass_cost=packed.pass_cost,
            max_tokens=packed.tokens,
        )
        bucketed += sum(
            len(group) * int(p + inputs[group].max() + targets[group].max()) for group in groups
        )
    return real / bucketed, real / whole


def test_hardly_any_padding_is_left_on_the_embedded_gym(backbone: Backbone) -> None:
    tasks = _tasks(ensure_embedded_gym(), R)
    share, whole = _shares(backbone, tasks, EMBEDDED_P, default_limits("cpu"))
    # Measured: 0.95 against 0.67 in one padded batch.
    assert share > 0.94
    assert share > whole + 0.1


def test_hardly_any_padding_is_left_on_real_files(backbone: Backbone) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no few-shot files at {REAL}")
    tasks = _tasks(REAL, R)
    share, whole = _shares(backbone, tasks, REAL_P, default_limits("cpu"))
    # Measured: 0.96 against 0.36 in one padded batch, in tokens of the embedded model.
    assert share > 0.94
    assert share > whole + 0.1
