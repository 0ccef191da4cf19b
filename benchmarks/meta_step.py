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
import multiprocessing
import multiprocessing.connection
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from mpt.backbones import Backbone, Row, load_backbone
from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode
from mpt.upstream.losses import ItemLoss
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


SHAPES = {
    "random-tiny": {"d_model": 256, "d_ff": 512, "layers": 4, "heads": 4, "vocabulary": 8000},
    "random-small": {"d_model": 512, "d_ff": 1024, "layers": 8, "heads": 6, "vocabulary": 32128},
    "random-base": {"d_model": 768, "d_ff": 2048, "layers": 12, "heads": 12, "vocabulary": 32128},
    "random-large": {
        "d_model": 1024,
        "d_ff": 2816,
        "layers": 24,
        "heads": 16,
        "vocabulary": 32128,
    },
}
"""Name → shape; from "small" on those of T5 v1.1."""


@dataclasses.dataclass(frozen=True)
class Size:
    """What a step reads."""

    batch: int
    length: int
    inner_steps: int


class RandomRows:
    """Rows of random frequent tokens, in place of `ItemRows`."""

    def __init__(self, backbone: Backbone, size: Size, target_length: int):
        ids = torch.tensor(backbone.frequent_ids(5000))
        generator = torch.Generator().manual_seed(0)

        def draw(length: int) -> list[int]:
            return ids[torch.randint(len(ids), (length,), generator=generator)].tolist()

        count = size.batch * (size.inner_steps + 1)
        self._rows: list[Row] = [(draw(size.length), draw(target_length)) for _ in range(count)]

    def rows(self, item: int, split: str, places: Sequence[int]) -> list[Row]:
        """Return rows by their number."""
        return [self._rows[place] for place in places]


def main() -> None:
    """Measure and print."""
    flags = _flags()
    print(
        f"backbone {flags.backbone} on {flags.device}, prompt {flags.prompt}, α {flags.inner_lr}"
    )
    print(f"best of {flags.repeats} steps; memory beyond the model; × is to fomaml\n")
    with tempfile.TemporaryDirectory() as folder:
        if flags.backbone in SHAPES:
            _in_a_process(_save_random, flags.backbone, folder)
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
        reference = _in_a_process(_reference, flags, size)
        base: dict[str, float] | None = None
        for engine in chosen:
            found = _in_a_process(_cell, flags, size, engine)
            if isinstance(found, str):
                print(f"  {engine.name:{width}}  {found}", flush=True)
                continue
            base = base or (found if engine.name == "fomaml" else None)
            error = "" if engine.method == "reptile" else _error(found["gradient"], reference)
            print(
                f"  {engine.name:{width}}  {1e3 * found['seconds']:6.0f} ms  "
                f"{_ratio(found, base, 'seconds')}  {found['bytes'] / 2**20:6.1f} MB  "
                f"{_ratio(found, base, 'bytes')}  {error}",
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
    add("--backbone", default="random-tiny", help=f'{known}, "embedded", a Hub id or a path')
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


def _in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns in a fresh process, or one line that says why it does not.

    The process is forked before anything ran here: it has the libraries and nothing else.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, work, arguments))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return "ended without a word (out of memory?)"
    finally:
        process.join()


def _send(
    pipe: multiprocessing.connection.Connection, work: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads()))
    try:
        pipe.send(work(*arguments))
    except Exception as error:  # one engine that cannot run must not end the table
        pipe.send(f"{type(error).__name__}: {error}"[:160])


def _step(
    flags: argparse.Namespace, size: Size, engine: Engine, backbone: Backbone
) -> Callable[[], Tensor]:
    """Return a function that computes the outer gradient once."""
    data: Any = RandomRows(backbone, size, flags.target_length)
    loss = ItemLoss(backbone, data, 0, checkpointing=engine.checkpointing)
    batches = [
        tuple(range(n * size.batch, (n + 1) * size.batch)) for n in range(size.inner_steps + 1)
    ]
    episode = Episode(0, 0, "random", 0, tuple(batches[:-1]), batches[-1])
    config = UpstreamConfig(
        method=engine.method, inner_lr=flags.inner_lr, second_order=engine.second_order
    )
    ids = backbone.frequent_ids(flags.prompt)
    wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
    prompt = backbone.embeddings()[ids].to(wide)
    outer_gradient = UPSTREAM_METHODS[engine.method].outer_gradient
    return lambda: outer_gradient(loss, prompt, episode, config)[0]


def _cell(flags: argparse.Namespace, size: Size, engine: Engine) -> dict[str, Any]:
    backbone = load_backbone(flags.backbone, device=flags.device)
    # A small step first, so that libraries and their buffers are in place.
    _step(flags, Size(1, 8, 1), engine, backbone)()
    step = _step(flags, size, engine, backbone)
    before = _reset_peak(flags.device)
    times = []
    for _ in range(flags.repeats):
        started = time.perf_counter()
        gradient = step().cpu()
        times.append(time.perf_counter() - started)
    peak = _peak(flags.device) - before
    numbers = gradient.double().flatten().tolist()
    return {"seconds": min(times), "bytes": peak, "gradient": numbers}


def _reference(flags: argparse.Namespace, size: Size) -> list[float] | str:
    backbone = load_backbone(flags.backbone, device=flags.device, dtype=torch.float64)
    engine = Engine("reference", "maml", "unrolled")
    return _step(flags, size, engine, backbone)().cpu().flatten().tolist()


def _save_random(name: str, folder: str) -> None:
    """Save a random T5 of a shape, with a tokenizer that has its tokens and no more."""
    shape = SHAPES[name]
    settings: dict[str, Any] = {
        "vocab_size": shape["vocabulary"],
        "d_model": shape["d_model"],
        "d_kv": 64,
        "d_ff": shape["d_ff"],
        "num_layers": shape["layers"],
        "num_decoder_layers": shape["layers"],
        "num_heads": shape["heads"],
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    }
    logging.disable_progress_bar()
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(**settings)).save_pretrained(folder)
    words = ["<pad>", "</s>", "<unk>", *(f"w{n}" for n in range(shape["vocabulary"] - 3))]
    vocabulary = {word: place for place, word in enumerate(words)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)


def _reset_peak(device: str) -> int:
    """Return the bytes in use, from which on the peak is counted."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is in use
    return _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device != "cpu" else _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit(
        f"/proc/self/status has no {field}: memory on a CPU is measured on Linux only"
    )


def _ratio(found: dict[str, float], base: dict[str, float] | None, key: str) -> str:
    return f"{found[key] / base[key]:5.2f}" if base and base[key] > 0 else " " * 5


def _error(gradient: list[float], reference: list[float] | str) -> str:
    if isinstance(reference, str):
        return f"no reference: {reference}"
    return f"{math.dist(gradient, reference) / math.hypot(*reference):.1e}"


if __name__ == "__main__":
    main()
