"""Outer steps whose episodes share passes, and the same steps with one episode after the other.

    python benchmarks/sides/shared_passes.py [--backbones embedded t5-small-random t5-base-random]
                                             [--methods maml fomaml path] [--items 2 4 8]

Rows of random frequent tokens, as long as `--length` or down to half of it (what a pass pads costs
time on both sides, more where more rows share it), from items that share nothing. The sides take
turns, on a CPU timed in CPU seconds of one thread; a ratio below 1 is a gain of shared passes. The
outer gradients of the two sides have to be equal up to rounding. MAML has the engine that "auto"
takes on the backbone.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import Spread, machine, now, peak, reset_peak, spread
from meta_step import RandomRows, Size
from random_models import open_backbone

from mpt.backbones import Backbone
from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.upstream.engine import acting
from mpt.upstream.losses import ItemsLoss
from mpt.upstream.one_episode import on_stacks
from mpt.upstream.registry import UPSTREAM_METHODS

METHODS: dict[str, dict[str, Any]] = {
    "maml": {"inner_lr": 1.0},
    "fomaml": {"inner_lr": 1.0},
    "path": {"inner_lr": 0.1, "inner_optimiser": "adafactor"},
}
"""Method → its settings."""
ROUNDING = 1e-2
"""Of a gradient, relative to its norm, in float32 and through a second-order term."""
SHORTEST = 0.5
"""Least share of `Size.length` that a row has."""
TARGET = 8
"""Tokens of a target."""

Step = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method with so many episodes a step."""

    backbone: str
    method: str
    """With the engine of its second-order term, if it has one."""
    items: int
    apart_s: float
    """Median seconds of a step whose episodes take turns."""
    shared_s: float
    """Median seconds of a step whose episodes share passes."""
    ratio: Spread
    """Shared over apart, of each round."""
    bytes: tuple[int, int] | None
    """What a step needs beyond the model, apart and shared; None on a CPU, where a process keeps
    what it has freed."""

    def __str__(self) -> str:
        held = self.bytes or ()
        return (
            f"{self.backbone:16} {self.method:24} {self.items:5} {self.apart_s:8.3f} "
            f"{self.shared_s:8.3f}  {self.ratio!s:20}"
            + "".join(f" {own / 2**20:7.0f} MB" for own in held)
        )


def main() -> None:
    """Measure and print."""
    flags = _flags()
    torch.set_num_threads(1)
    print(machine(flags.device))
    print(f"prompt {flags.prompt}, batch {flags.batch}, length {flags.length}")
    print("backbone         method                   items  apart s shared s  ratio")
    size = Size(flags.batch, flags.length, flags.inner_steps)
    for name in flags.backbones:
        backbone = open_backbone(name, flags.device)
        for method, items in itertools.product(flags.methods, flags.items):
            print(cell(backbone, method, size, items, flags.prompt, flags.rounds), flush=True)


def cell(
    backbone: Backbone, method: str, size: Size, items: int, prompt: int, rounds: int
) -> Cell:
    """Return what a step takes on both sides.

    Raises:
        SystemExit: their gradients differ by more than rounding.
    """
    config = UpstreamConfig(method=method, inner_steps=size.inner_steps, **METHODS[method])
    config = acting(config, backbone)
    apart, shared = sides(backbone, config, size, items, prompt)
    device = backbone.device.type
    expected = apart()
    off = float((shared() - expected).norm() / expected.norm())
    if not off <= ROUNDING:
        raise SystemExit(
            f"{backbone.name}, {method}, {items} items: gradients are {off:.1e} apart"
        )
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        turns = list(zip((apart, shared), taken, strict=True))
        for step, own in turns if number % 2 == 0 else turns[::-1]:
            started = now(device)
            step()
            own.append(now(device) - started)
    engine = f", {config.second_order}" if method == "maml" else ""
    return Cell(
        backbone=backbone.name,
        method=method + engine,
        items=items,
        apart_s=spread(taken[0]).median,
        shared_s=spread(taken[1]).median,
        ratio=spread([own / other for other, own in zip(*taken, strict=True)]),
        bytes=None if device == "cpu" else (_held(apart, device), _held(shared, device)),
    )


def _held(step: Step, device: str) -> int:
    """Return the bytes that a step needs beyond what is there before it."""
    before = reset_peak(device)
    step()
    return peak(device) - before


def sides(
    backbone: Backbone, config: UpstreamConfig, size: Size, items: int, prompt: int
) -> tuple[Step, Step]:
    """Return the same outer step apart and shared; each returns its gradients [E, P, d]."""
    data: Any = RandomRows(backbone, size, TARGET, episodes=items, shortest=SHORTEST)
    episodes = [_episode(number, size) for number in range(items)]
    phi = backbone.embeddings()[backbone.frequent_ids(prompt)]
    outer_gradients = on_stacks(UPSTREAM_METHODS[config.method].outer_gradient)

    def step(own: Sequence[Episode]) -> Tensor:
        loss = ItemsLoss(backbone, data, [episode.item for episode in own])
        prompts = phi.repeat(len(own), 1, 1)
        return outer_gradients(loss, prompts, own, config)[0]

    return lambda: torch.cat([step([one]) for one in episodes]), lambda: step(episodes)


def _episode(number: int, size: Size) -> Episode:
    """Return an episode whose rows no other has."""
    first = number * size.batch * (size.inner_steps + 1)
    batches = [
        tuple(range(first + n * size.batch, first + (n + 1) * size.batch))
        for n in range(size.inner_steps + 1)
    ]
    return Episode(number, number, "random", 0, tuple(batches[:-1]), batches[-1])


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    shapes = ["embedded", "t5-small-random", "t5-base-random"]
    add("--backbones", nargs="+", default=shapes)
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    add("--items", type=int, nargs="+", default=[2, 4, 8], help="episodes of a step")
    add("--batch", type=int, default=4, help="rows of a support or query batch")
    add("--length", type=int, default=64, help="input tokens of the longest rows")
    add("--inner-steps", type=int, default=1)
    add("--prompt", type=int, default=20)
    add("--rounds", type=int, default=3)
    add("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
