"""One training pass and one evaluation with what stands first read once, and whole rows.

    python benchmarks/sides/kept_prompt.py [--backbones embedded-gpt2 smollm2] [--prompt 20 100]
    python benchmarks/sides/kept_prompt.py --position append ...

Prepended: each prompt is read once a training pass, and once an evaluation. Appended: the inputs
have been read before, as from the second visit of a row on.

Rows of random frequent tokens, 4 target tokens. "Trained" is a pass forward and backward,
"teacher-forced" the pass of an evaluation that every row takes, "generated" greedy generation of
at most 8 tokens. Both sides take the same passes, in turns; what reading prepended prompts costs
is in the time. The choices of the two sides have to be equal, and gradients up to rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import machine, now

from mpt.backbones import Backbone, Batch, load_backbone

TARGET, WRITTEN = 4, 8
ROUNDING = 1e-4
"""Of a gradient, relative to its norm, in float32."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is evaluated."""

    prompt: int
    """P."""
    length: int
    """Input tokens of every row."""
    runs: int
    rows: int
    """Rows of every run."""
    batch: int
    """Rows of a pass; the runs take turns in it."""


def main() -> None:
    """Measure and print."""
    flags = _flags()
    torch.set_num_threads(1)
    print(machine(flags.device))
    print("backbone        P    L  pass            whole rows, s   kept, s   ratio")
    for name in flags.backbones:
        backbone = load_backbone(name, position=flags.position, device=flags.device)
        for p, length in itertools.product(flags.prompt, flags.length):
            size = Size(
                prompt=p, length=length, runs=flags.runs, rows=flags.rows, batch=flags.batch
            )
            for kind, (whole, kept) in seconds(backbone, size, flags.repeats).items():
                print(
                    f"{name:14} {p:3} {length:4}  {kind:14} {whole:14.3f} {kept:9.3f} "
                    f"{whole / kept:7.2f}",
                    flush=True,
                )


def seconds(backbone: Backbone, size: Size, repeats: int) -> dict[str, tuple[float, float]]:
    """Return for each kind of pass the median seconds of whole rows and of what is kept.

    Raises:
        SystemExit: the two sides chose different tokens.
    """
    prompts, batches = _drawn(backbone, size)
    passes: dict[str, Callable[[Batch], Any]] = {
        "trained": lambda batch: _gradient(backbone, prompts, batch),
        "teacher-forced": lambda batch: backbone.greedy_tokens(prompts, batch).tolist(),
        "generated": lambda batch: backbone.generate_ids(prompts, batch, WRITTEN),
    }
    sides = _sides(backbone, prompts)
    medians = {}
    for kind, one_pass in passes.items():
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            chosen = []
            for side, own in zip(sides, taken, strict=True):
                started = now(backbone.device.type)
                with side():
                    chosen.append([one_pass(batch) for batch in batches])
                own.append(now(backbone.device.type) - started)
            if not all(map(_equal, *chosen)):
                raise SystemExit(f"{backbone.name}, {kind}, {size}: the choices differ")
        medians[kind] = (statistics.median(taken[0]), statistics.median(taken[1]))
    return medians


def _gradient(backbone: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    leaf = prompts.clone().requires_grad_()
    return torch.autograd.grad(backbone.run_losses(leaf, batch).sum(), leaf)[0]


def _equal(one: Any, other: Any) -> bool:
    """Whether two passes gave the same tokens, or gradients that differ by rounding alone."""
    if isinstance(one, Tensor):
        return bool((one - other).norm() <= ROUNDING * other.norm())
    return bool(one == other)


def _sides(
    backbone: Backbone, prompts: Tensor
) -> tuple[Callable[[], contextlib.AbstractContextManager[None]], ...]:
    """Return what reads whole rows, and what reads once what stands first."""
    once: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    if backbone.position == "prepend":
        once = functools.partial(backbone.fixed, prompts)
    return lambda: _without_cache(backbone), once


@contextlib.contextmanager
def _without_cache(backbone: Any) -> Iterator[None]:
    cache, backbone.input_cache = backbone.input_cache, None
    try:
        yield
    finally:
        backbone.input_cache = cache


def _drawn(backbone: Backbone, size: Size) -> tuple[Tensor, list[Batch]]:
    """Return prompts [R, P, d] of words, and the batches of all rows."""
    ids = torch.tensor(backbone.frequent_ids(2000))
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        return ids[torch.randint(len(ids), (count,), generator=generator)].tolist()

    words = torch.tensor([draw(size.prompt) for _ in range(size.runs)])
    prompts = backbone.embeddings()[words.to(backbone.device)]
    count = size.runs * size.rows
    rows = [(draw(size.length), [*draw(TARGET - 1), backbone.end_id]) for _ in range(count)]
    table = backbone.table(rows)
    places = range(count)
    parts = [places[first : first + size.batch] for first in range(0, count, size.batch)]
    return prompts, [table.batch(part, [n % size.runs for n in part]) for part in parts]


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["embedded-gpt2", "smollm2"])
    parser.add_argument("--position", choices=("prepend", "append"), default="prepend")
    parser.add_argument("--prompt", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--length", type=int, nargs="+", default=[48, 96])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
