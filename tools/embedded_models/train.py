"""Train an embedded backbone: `python -m tools.embedded_models.train --family t5 --out DIR`.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerFast

from mpt.seeds import numpy_generator
from tools.embedded_models.bart import BartRecipe
from tools.embedded_models.gpt2 import GPT2Recipe
from tools.embedded_models.recipe import Pair, Recipe
from tools.embedded_models.stream import Stream
from tools.embedded_models.t5 import T5Recipe
from tools.embedded_models.text import curriculum
from tools.embedded_models.tokenizer import train_tokenizer

RECIPES: dict[str, type[Recipe]] = {row.family: row for row in (T5Recipe, BartRecipe, GPT2Recipe)}
"""Family → its recipe."""


def optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for everything else."""
    matrices, groups = recipe.groups(model)
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(recipe: Recipe, out: Path, log_every: int = 100) -> None:
    """Run the recipe, or what is left of it, and save model, tokenizer and manifest into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rng = numpy_generator(recipe.seed, "tokenizer")
    mixed = curriculum(context=1.0, short=0.3)
    examples = [t for _ in range(recipe.tokenizer_examples) for t in mixed.instructed(rng)]
    tokenizer = train_tokenizer(examples, recipe.vocab_size, recipe.family)
    stream = Stream(recipe, tokenizer)
    model = recipe.new_model()
    steppers = optimizers(model, recipe)
    state = _resume(out / "checkpoint.pt", recipe, model, steppers)
    losses: list[float] = []
    began = time.monotonic()
    for step in range(state["step"], recipe.steps):
        losses.append(_step(model, steppers, stream.batch(step), tokenizer, recipe, step))
        if (step + 1) % log_every == 0:
            state["losses"].append((step + 1, round(float(np.mean(losses[-log_every:])), 4)))
            print(f"step {step + 1}/{recipe.steps} loss {state['losses'][-1][1]}", flush=True)
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            state |= {"step": step + 1, "seconds": state["seconds"] + time.monotonic() - began}
            began = time.monotonic()
            _save(out / "checkpoint.pt", recipe, model, steppers, state)
    model.eval().to(recipe.saved)
    model.save_pretrained(out / "weights", safe_serialization=True)
    tokenizer.save_pretrained(out / "weights")
    (out / "weights" / "manifest.json").write_text(
        json.dumps(manifest(recipe, state, out / "weights"), indent=1) + "\n"
    )


def _step(
    model: Any,
    steppers: list[torch.optim.Optimizer],
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    step: int,
) -> float:
    for stepper in steppers:
        for group in stepper.param_groups:
            group["lr"] = group.setdefault("peak", group["lr"]) * recipe.rate(step)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
        loss = recipe.loss(model, pairs, tokenizer, step)
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
    model: Any,
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
    model: Any,
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
    parser.add_argument("--family", choices=RECIPES, default="t5", help="what to train")
    parser.add_argument("--steps", type=int, help="optimiser steps, if not the recipe's")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = RECIPES[arguments.family]
    train(recipe(steps=arguments.steps or recipe.steps), arguments.out)


if __name__ == "__main__":
    main()
