"""Time, peak memory and gradient error of one outer step, every engine side by side.

    python benchmarks/meta_step.py [--batch 4 8] [--length 128] [--inner-steps 1 10] [--device D]

Every cell runs in a process of its own, so that its peak is its own; ratios are to FoMAML in the
same run. Memory is what a step needs beyond the loaded model (on a GPU as its allocator counts it,
else by the process's high-water mark, which Linux alone can reset). The error is relative to the
same gradient in float64, through the graph of all inner steps. The default backbones are random
T5s of a given shape: cost does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measuring import in_a_process, peak, reset_peak
from random_models import SHAPES, save_random
from torch import Tensor

from mpt.backbones import Backbone, Row, load_backbone
from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.upstream.losses import ItemsLoss
from mpt.upstream.one_episode import OnlyLoss
from mpt.upstream.registry import UPSTREAM_METHODS


@dataclasses.dataclass(frozen=True)
class Engine:
    """One line of the table."""

    name: str
    method: str
    second_order: str = "auto"
    checkpointing: bool = False


ENGINES = (
    Engine("fomaml", "fomaml"),
    Engine("fomaml, checkpoints", "fomaml", checkpointing=True),
    Engine("finite difference", "maml", "finite_difference"),
    Engine("finite difference, checkpoints", "maml", "finite_difference", checkpointing=True),
    Engine("exact", "maml", "exact"),
    Engine("unrolled", "maml", "unrolled"),
    Engine("higher", "maml", "higher"),
    Engine("reptile", "reptile"),
)


@dataclasses.dataclass(frozen=True)
class Size:
    """What a step reads."""

    batch: int
    length: int
    inner_steps: int


class RandomRows:
    """Rows of random frequent tokens, in place of `ItemRows`.

    Args:
        backbone: whose tokens they are.
        size: of an episode.
        target_length: tokens of every target.
        episodes: how many have rows of their own.
        shortest: least share of the size's length that an input has.
    """

    def __init__(
        self,
        backbone: Backbone,
        size: Size,
        target_length: int,
        *,
        episodes: int = 1,
        shortest: float = 1.0,
    ):
        ids = torch.tensor(backbone.frequent_ids(5000))
        generator = torch.Generator().manual_seed(0)

        def draw(length: int) -> list[int]:
            return ids[torch.randint(len(ids), (length,), generator=generator)].tolist()

        count = episodes * size.batch * (size.inner_steps + 1)
        least = math.ceil(shortest * size.length)
        lengths = torch.randint(least, size.length + 1, (count,), generator=generator)
        self._rows: list[Row] = [(draw(n), draw(target_length)) for n in lengths.tolist()]

    def rows(self, item: int, split: str, places: Sequence[int]) -> list[Row]:
        """Return rows by their number."""
        return [self._rows[index] for index in places]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What all cells share."""

    device: str
    prompt: int
    target_length: int
    inner_lr: float
    repeats: int
    """Timed steps."""


def main() -> None:
    """Measure and print."""
    flags = _flags()
    print(
        f"backbone {flags.backbone} on {flags.device}, prompt {flags.prompt}, α {flags.inner_lr}"
    )
    print(f"best of {flags.repeats} steps; memory beyond the model; × is to fomaml\n")
    with tempfile.TemporaryDirectory() as folder:
        if flags.backbone in SHAPES:
            in_a_process(save_random, flags.backbone, folder)
            flags.backbone = folder
        _tables(flags)


def _tables(flags: argparse.Namespace) -> None:
    """Measure and print one table a size."""
    names = [engine.name for engine in ENGINES]
    chosen = [engine for engine in ENGINES if not flags.engines or engine.name in flags.engines]
    width = max(map(len, names))
    sizes = itertools.product(flags.batch, flags.length, flags.inner_steps)
    for size in itertools.starmap(Size, sizes):
        print(f"batch {size.batch}, length {size.length}, inner steps {size.inner_steps}")
        print(f"  {'engine':{width}}  {'time':>9}  {'×':>5}  {'memory':>9}  {'×':>5}  error")
        reference = in_a_process(_reference, flags, size)
        base: dict[str, float] | None = None
        for engine in chosen:
            cell = in_a_process(_cell, flags, size, engine)
            if isinstance(cell, str):
                print(f"  {engine.name:{width}}  {cell}", flush=True)
                continue
            base = base or (cell if engine.name == "fomaml" else None)
            error = "" if engine.method == "reptile" else _words(cell["gradient"], reference)
            print(
                f"  {engine.name:{width}}  {1e3 * cell['seconds']:6.0f} ms  "
                f"{_ratio(cell, base, 'seconds')}  {cell['bytes'] / 2**20:6.1f} MB  "
                f"{_ratio(cell, base, 'bytes')}  {error}",
                flush=True,
            )
        print()


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    known = ", ".join(SHAPES)
    add("--backbone", default="t5-tiny-random", help=f'{known}, "embedded", a Hub id or a path')
    add("--device", default="cpu", help='"cpu" or "cuda"')
    add("--batch", type=int, nargs="+", default=[4], help="2 to 16")
    add("--length", type=int, nargs="+", default=[128], help="input tokens, 64 to 512")
    add("--target-length", type=int, default=16, help="target tokens")
    add("--inner-steps", type=int, nargs="+", default=[1, 10], help="k, 1 to 10")
    add("--prompt", type=int, default=20, help="prompt tokens")
    add("--inner-lr", type=float, default=10.0, help="α")
    add("--repeats", type=int, default=2, help="timed steps")
    add("--engines", nargs="+", choices=[engine.name for engine in ENGINES], help="default: all")
    return parser.parse_args()


def _step(
    setting: Setting, size: Size, engine: Engine, backbone: Backbone
) -> Callable[[], Tensor]:
    """Return a function that computes the outer gradient once."""
    data: Any = RandomRows(backbone, size, setting.target_length)
    loss = OnlyLoss(ItemsLoss(backbone, data, [0], checkpointing=engine.checkpointing))
    batches = [
        tuple(range(n * size.batch, (n + 1) * size.batch)) for n in range(size.inner_steps + 1)
    ]
    episode = Episode(0, 0, "random", 0, tuple(batches[:-1]), batches[-1])
    config = UpstreamConfig(
        method=engine.method, inner_lr=setting.inner_lr, second_order=engine.second_order
    )
    ids = backbone.frequent_ids(setting.prompt)
    wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
    prompt = backbone.embeddings()[ids].to(wide)
    outer_gradient = UPSTREAM_METHODS[engine.method].outer_gradient
    return lambda: outer_gradient(loss, prompt, episode, config)[0]


def measured(backbone: Backbone, setting: Setting, size: Size, engine: Engine) -> dict[str, Any]:
    """Return the best seconds of a step, the bytes it needs and its gradient as numbers."""
    # A small step first, so that libraries and their buffers are in place.
    _step(setting, Size(1, 8, 1), engine, backbone)()
    step = _step(setting, size, engine, backbone)
    before = reset_peak(setting.device)
    times = []
    for _ in range(setting.repeats):
        started = time.perf_counter()
        gradient = step().cpu()
        times.append(time.perf_counter() - started)
    bytes_held = peak(setting.device) - before
    numbers = gradient.double().flatten().tolist()
    return {"seconds": min(times), "bytes": bytes_held, "gradient": numbers}


def _cell(flags: argparse.Namespace, size: Size, engine: Engine) -> dict[str, Any]:
    backbone = load_backbone(flags.backbone, device=flags.device)
    return measured(backbone, _setting(flags), size, engine)


def _setting(flags: argparse.Namespace) -> Setting:
    names = [field.name for field in dataclasses.fields(Setting)]
    return Setting(**{name: getattr(flags, name) for name in names})


def _reference(flags: argparse.Namespace, size: Size) -> list[float] | str:
    backbone = load_backbone(flags.backbone, device=flags.device, dtype=torch.float64)
    engine = Engine("reference", "maml", "unrolled")
    return _step(_setting(flags), size, engine, backbone)().cpu().flatten().tolist()


def _ratio(cell: dict[str, float], base: dict[str, float] | None, key: str) -> str:
    return f"{cell[key] / base[key]:5.2f}" if base and base[key] > 0 else " " * 5


def _words(gradient: list[float], reference: list[float] | str) -> str:
    if isinstance(reference, str):
        return f"no reference: {reference}"
    return f"{relative_error(gradient, reference):.1e}"


def relative_error(gradient: Sequence[float], reference: Sequence[float]) -> float:
    """Return |g − r| / |r|."""
    return math.dist(gradient, reference) / math.hypot(*reference)


if __name__ == "__main__":
    main()
