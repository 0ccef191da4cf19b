"""Train the embedded T5: `python -m mpt.backbones.embedded.train --out DIR`.

The recipe: a byte-level BPE of the small world's text, then one run over an endless stream of
instructed examples and span corruption. The stream is a function of (seed, step), so the run is
resumable: start the same command again and it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.random import Generator
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from mpt.backbones.embedded.text import Curriculum, curriculum
from mpt.backbones.embedded.tokenizer import SENTINELS, SPECIALS, train_tokenizer
from mpt.seeds import numpy_generator, torch_generator

_BLOCK = 4
"""Batches that are drawn together and sorted by length, so that little is padding."""
_POSITIONS = "relative_attention_bias"
"""What the names of the position biases hold."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number of the training run."""

    seed: int = 7
    """Root of all generators."""
    vocab_size: int = 1536
    """Pieces of the tokenizer."""
    tokenizer_examples: int = 60_000
    """Instructed examples that the tokenizer is trained on."""
    d_model: int = 128
    """Width."""
    d_kv: int = 32
    """Width of a head."""
    d_ff: int = 384
    """Width of the gated feed-forward layer."""
    encoder_layers: int = 3
    """Encoder layers."""
    decoder_layers: int = 2
    """Decoder layers."""
    heads: int = 4
    """Attention heads."""
    recall_steps: int = 2000
    """First steps, on pairs of random tokens to be recalled (`recall`): on sentences alone look-up
    and comparison stay at chance for 14 000 steps, on dense pairs recall appears within 1000."""
    steps: int = 9500
    """Optimiser steps, `recall_steps` included."""
    batch_size: int = 64
    """Examples a step."""
    matrix_lr: float = 2e-3
    """Peak learning rate of Muon (scaled to AdamW's RMS), which trains the matrices."""
    other_lr: float = 1e-3
    """Peak learning rate of AdamW, which trains embeddings and norms."""
    position_lr: float = 2e-2
    """Peak learning rate of AdamW for the relative position biases: they must reach several units
    before a head looks at one place, and at 1e-3 copying takes more than ten times longer."""
    recall_share: float = 0.1
    """Share of rows that stay recall after the first steps."""
    match_score: float = 5.0
    """Attention score of a token for itself at the start, in half of the heads (`_mimetic`)."""
    warmup: int = 200
    """Steps of linear warm-up."""
    decay_from: float = 0.5
    """Share of the steps after which both rates fall linearly to zero."""
    span_corruption: float = 0.15
    """Share of rows that are span corruption instead of instructed."""
    clip: float = 1.0
    """Largest gradient norm."""
    short_until: float = 0.5
    """Share of the steps after recall in which most stories have two sentences and look-up counts
    double."""
    bf16: bool = True
    """Whether matrix products run in bfloat16 (weights, norms and the loss stay in float32)."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""

    def model_config(self) -> T5Config:
        """Return the architecture: T5 with gated GELU, tied embeddings, no dropout."""
        config = T5Config(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            d_kv=self.d_kv,
            d_ff=self.d_ff,
            num_layers=self.encoder_layers,
            num_decoder_layers=self.decoder_layers,
            num_heads=self.heads,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=64,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
        config.decoder_start_token_id = 0
        return config

    def rate(self, step: int) -> float:
        """Return the factor on the peak learning rates at a step (from 0)."""
        left = (self.steps - step) / (self.steps * (1 - self.decay_from))
        return min(1.0, (step + 1) / self.warmup, left)

    def text_at(self, step: int) -> Curriculum:
        """Return the mixture of rows at a step."""
        early = step < self.recall_steps + self.short_until * (self.steps - self.recall_steps)
        return curriculum(context=2.0 if early else 1.3, short=0.8 if early else 0.2)


def corrupt(ids: list[int], rng: Generator, sentinels: list[int]) -> tuple[list[int], list[int]]:
    """Replace 1-3 spans of 1-3 tokens by sentinels (T5's objective).

    Returns:
        (source, target): the text with sentinels, and the sentinels with what they stand for.
    """
    starts = sorted(rng.permutation(max(1, len(ids) - 1))[: int(rng.integers(1, 4))].tolist())
    source: list[int] = []
    target: list[int] = []
    position = 0
    for start, sentinel in zip(starts, sentinels, strict=False):
        if start < position:
            continue
        end = min(len(ids), start + int(rng.integers(1, 4)))
        source += [*ids[position:start], sentinel]
        target += [sentinel, *ids[start:end]]
        position = end
    return source + ids[position:], target


def recall(
    rng: Generator, pairs: int, tokens: int, sentinels: list[int]
) -> tuple[list[int], list[int]]:
    """Draw random key-value pairs, then the keys again with sentinels in place of the values.

    Returns:
        (source, target): `k1 v1 … kn vn ki <0> kj <1> …`; the sentinels with the values.
    """
    first = len(SPECIALS)
    drawn = (first + rng.choice(tokens - first, 2 * pairs, replace=False)).tolist()
    keys, values = drawn[:pairs], drawn[pairs:]
    order = rng.permutation(pairs).tolist()
    source = [token for pair in zip(keys, values, strict=True) for token in pair]
    target = []
    for sentinel, i in zip(sentinels, order, strict=False):
        source += [keys[i], sentinel]
        target += [sentinel, values[i]]
    return source, target


class Stream:
    """Batches of token ids as a function of (seed, step)."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> None:
        self.recipe = recipe
        self.tokenizer = tokenizer
        names = [f"<extra_id_{i}>" for i in range(SENTINELS)]
        self.sentinels = [tokenizer.vocab[name] for name in names]
        self._block: tuple[int, list[list[tuple[list[int], list[int]]]]] = (-1, [])

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (inputs [B, L], labels [B, T]) of a step, both padded with 0 on the right."""
        block = step // _BLOCK
        if self._block[0] != block:
            self._block = (block, self._draw(block))
        sources, targets = zip(*self._block[1][step % _BLOCK], strict=True)
        return _pad(sources), _pad(targets)

    def _draw(self, block: int) -> list[list[tuple[list[int], list[int]]]]:
        rng = numpy_generator(self.recipe.seed, "block", block)
        text = self.recipe.text_at(block * _BLOCK)
        size = self.recipe.batch_size
        if block * _BLOCK < self.recipe.recall_steps:
            return [self._recalled(rng, 2 * size, int(rng.integers(2, 7))) for _ in range(_BLOCK)]
        corrupted = round(self.recipe.span_corruption * size * _BLOCK)
        plain = self._ids([text.plain(rng) for _ in range(corrupted)])
        rows = [corrupt(ids[:-1], rng, self.sentinels) for ids in plain]
        rows = [([*source, 1], [*target, 1]) for source, target in rows]
        recalled = round(self.recipe.recall_share * size * _BLOCK)
        rows += [row for _ in range(recalled) for row in self._recalled(rng, 1, 3)]
        pairs = [text.instructed(rng) for _ in range(size * _BLOCK - len(rows))]
        sources, targets = self._ids([p[0] for p in pairs]), self._ids([p[1] for p in pairs])
        rows += list(zip(sources, targets, strict=True))
        rows.sort(key=lambda row: len(row[0]))
        return [rows[i * size : (i + 1) * size] for i in rng.permutation(_BLOCK)]

    def _recalled(
        self, rng: Generator, rows: int, pairs: int
    ) -> list[tuple[list[int], list[int]]]:
        drawn = [recall(rng, pairs, len(self.tokenizer), self.sentinels) for _ in range(rows)]
        return [([*source, 1], [*target, 1]) for source, target in drawn]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts)["input_ids"]


def _pad(rows: tuple[list[int], ...]) -> torch.Tensor:
    padded = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)


def optimizers(model: T5ForConditionalGeneration, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for everything else."""
    matrices = [
        p
        for name, p in model.named_parameters()
        if p.ndim == 2 and "shared" not in name and _POSITIONS not in name
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    positions = [p for name, p in model.named_parameters() if _POSITIONS in name]
    other = [p for p in rest if all(p is not position for position in positions)]
    groups = [
        {"params": other, "lr": recipe.other_lr},
        {"params": positions, "lr": recipe.position_lr},
    ]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def new_model(recipe: Recipe) -> T5ForConditionalGeneration:
    """Build the model with weights drawn from the recipe's seed; no global stream moves."""
    generator = torch_generator(recipe.seed, "weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        model = T5ForConditionalGeneration(recipe.model_config())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if _POSITIONS in name:
                _start_positions(weight, recipe, generator)
        for attention in (m for m in model.modules() if isinstance(m, T5Attention)):
            _start_attention(attention, recipe, generator)
    return model


def _start_attention(attention: T5Attention, recipe: Recipe, generator: torch.Generator) -> None:
    """Let heads start as what small models take long to find: matching and copying.

    The first half of the heads share query and key matrices, so that equal tokens attract each
    other; all heads' output matrix is twice the transposed value matrix, so that what a head looks
    at is added nearly unchanged (after Trockman and Kolter, "Mimetic initialization", 2023).
    """
    d, width = recipe.d_model, recipe.d_kv
    for head in range(recipe.heads):
        rows = slice(head * width, (head + 1) * width)
        if head < recipe.heads // 2:
            std = (recipe.match_score / (d * width)) ** 0.5
            attention.q.weight[rows].normal_(0.0, std, generator=generator)
            attention.k.weight[rows] = attention.q.weight[rows]
        attention.o.weight[:, rows] = 2 * attention.v.weight[rows].T


def _start_positions(bias: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> None:
    """Let matching heads look away from the token itself, the others at its neighbours.

    `bias` is [buckets, heads]: bucket 0 is the token itself, 1-4 the tokens just before it, and
    half of the buckets later those after it (in the encoder).
    """
    half, after = recipe.heads // 2, len(bias) // 2
    bias.normal_(0.0, 0.5, generator=generator)
    bias[0, :half] = -8.0
    bias[0, half:] -= 2.0
    bias[1:5, half] += 3.0
    bias[after + 1 : after + 5, -1] += 3.0


def train(recipe: Recipe, out: Path, log_every: int = 100) -> None:
    """Run the recipe, or what is left of it, and save model, tokenizer and manifest into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rng = numpy_generator(recipe.seed, "tokenizer")
    mixed = curriculum(context=1.0, short=0.3)
    examples = [t for _ in range(recipe.tokenizer_examples) for t in mixed.instructed(rng)]
    tokenizer = train_tokenizer(examples, recipe.vocab_size)
    stream = Stream(recipe, tokenizer)
    model = new_model(recipe)
    steppers = optimizers(model, recipe)
    state = _resume(out / "checkpoint.pt", recipe, model, steppers)
    losses: list[float] = []
    began = time.monotonic()
    for step in range(state["step"], recipe.steps):
        inputs, labels = stream.batch(step)
        losses.append(_step(model, steppers, inputs, labels, recipe, step))
        if (step + 1) % log_every == 0:
            state["losses"].append((step + 1, round(float(np.mean(losses[-log_every:])), 4)))
            print(f"step {step + 1}/{recipe.steps} loss {state['losses'][-1][1]}", flush=True)
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            state |= {"step": step + 1, "seconds": state["seconds"] + time.monotonic() - began}
            began = time.monotonic()
            _save(out / "checkpoint.pt", recipe, model, steppers, state)
    model.eval()
    model.save_pretrained(out / "weights", safe_serialization=True)
    tokenizer.save_pretrained(out / "weights")
    (out / "weights" / "manifest.json").write_text(
        json.dumps(manifest(recipe, state, out / "weights"), indent=1) + "\n"
    )


def _step(
    model: T5ForConditionalGeneration,
    steppers: list[torch.optim.Optimizer],
    inputs: torch.Tensor,
    labels: torch.Tensor,
    recipe: Recipe,
    step: int,
) -> float:
    for stepper in steppers:
        for group in stepper.param_groups:
            group["lr"] = group.setdefault("peak", group["lr"]) * recipe.rate(step)
    targets = labels.masked_fill(labels == 0, -100)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
        loss = model(input_ids=inputs, attention_mask=inputs != 0, labels=targets).loss
    if not math.isfinite(loss.item()):
        raise FloatingPointError(
            f"step {step}: the loss is {loss.item()}; lower the learning rates"
        )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for stepper in steppers:
        stepper.step()
        stepper.zero_grad()
    return float(loss.item())


def _save(
    path: Path,
    recipe: Recipe,
    model: T5ForConditionalGeneration,
    steppers: list[torch.optim.Optimizer],
    state: dict[str, Any],
) -> None:
    draft = path.with_suffix(".part")
    torch.save(
        {
            "recipe": dataclasses.asdict(recipe),
            "model": model.state_dict(),
            "steppers": [s.state_dict() for s in steppers],
            "state": state,
        },
        draft,
    )
    draft.replace(path)


def _resume(
    path: Path,
    recipe: Recipe,
    model: T5ForConditionalGeneration,
    steppers: list[torch.optim.Optimizer],
) -> dict[str, Any]:
    if not path.exists():
        return {"step": 0, "seconds": 0.0, "losses": []}
    saved = torch.load(path, weights_only=True)
    if saved["recipe"] != dataclasses.asdict(recipe):
        raise SystemExit(f"{path} belongs to another recipe; give an empty directory with --out")
    model.load_state_dict(saved["model"])
    for stepper, value in zip(steppers, saved["steppers"], strict=True):
        stepper.load_state_dict(value)
    return saved["state"]


def manifest(recipe: Recipe, state: dict[str, Any], weights: Path) -> dict[str, Any]:
    """Return what made the weights: recipe, versions, time, loss curve, digests of the files."""
    files = sorted(p for p in weights.iterdir() if p.name != "manifest.json")
    return {
        "recipe": dataclasses.asdict(recipe),
        "steps": state["step"],
        "seconds": round(state["seconds"]),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "losses": state["losses"],
        "sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint and weights go here")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimiser steps")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    train(Recipe(steps=arguments.steps), arguments.out)


if __name__ == "__main__":
    main()
