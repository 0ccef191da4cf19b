"""The paper's recipe and the released code's, wherever they differ (docs/recipe.md).

A recipe is the full settings of every stage, as the classes that the rest of the library takes;
nothing else in the library knows its name. ``recipe("paper")`` is what the paper says, and ours
where it is silent; ``recipe("released")`` is what the authors' released files do, but for the
padding before the prompt, which ``recipe("released-exact")`` has too. The rows of that
page are named in the text under each field; rows that are not named are the same in both, or are a
property of the library (6, 19, 20: see there).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpt.config import DownstreamConfig, PromptConfig, TextConfig, UpstreamConfig, adapts
from mpt.errors import UsageError

RECIPES = ("paper", "released", "released-exact")
TUNING_LRS = (5e-4, 3e-4, 2e-4, 1e-4)
"""Learning rates where all weights are tuned (§5.3)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of every stage under one name."""

    name: str
    backbone: str
    """Row 1: Hub id for prompts."""
    tuning_backbone: str
    """Row 1: Hub id where all weights are tuned."""
    prompt: PromptConfig
    """Row 5: where the prompt stands."""
    upstream_text: TextConfig
    """Row 8: lengths upstream; a method may have a `max_target` of its own."""
    downstream_text: TextConfig
    """Row 8: lengths downstream."""
    upstream: Mapping[str, UpstreamConfig]
    """Rows 3, 8, 9, 15, 24, 25, 26: settings of every method."""
    steps: int
    """Outer steps of a meta method."""
    multitask_epochs: int
    """Row 17: epochs over the union of train and dev."""
    max_epochs: int | None
    """Row 4: most epochs of a meta method over the items; None: no cap."""
    downstream: DownstreamConfig
    """Rows 8, 9, 11, 12, 13, 14, 23, 24, 25, 27: prompt tuning."""
    tuning: DownstreamConfig
    """Row 28: tuning of all weights."""
    precision: Mapping[str, str]
    """Row 10: number format of weights and activations, by method and for "downstream"."""

    @property
    def upstream_precision(self) -> str | None:
        """Number format of the methods with an inner loop; None: that of "downstream"."""
        (own,) = {self.precision[method] for method in self.upstream if adapts(method)}
        return None if own == self.precision["downstream"] else own


def recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        UsageError: there is no such recipe.
    """
    makers = dict(zip(RECIPES, (paper, released, released_exact), strict=True))
    if name not in makers:
        raise UsageError(f"recipe is {name!r}, but must be one of {', '.join(RECIPES)}")
    return makers[name]()


def paper() -> Recipe:
    """Return what the paper says, with the library's defaults where it is silent."""
    meta = UpstreamConfig(
        inner_lr=3e-5,
        outer_lr=0.5,
        inner_steps=1,
        items_per_step=1,
        support_draw="apart",
        epoch_order="reshuffled",
        answers="first",
        reptile_difference="accumulated",
    )
    downstream = DownstreamConfig(
        batch_size=8,
        steps=3000,
        eval_every=50,
        select="best",
        epoch_order="reshuffled",
        answers="first",
        loss_parts=1,
        max_test=None,
        sample="stratified",
        max_generated=128,
    )
    return Recipe(
        name="paper",
        backbone="google/t5-large-lm-adapt",
        tuning_backbone="google/t5-large-lm-adapt",
        prompt=PromptConfig(length=100, position="prepend"),
        upstream_text=TextConfig(max_input=512, max_target=64),
        downstream_text=TextConfig(max_input=512, max_target=64),
        upstream=_methods(meta),
        steps=5000,
        multitask_epochs=20,
        max_epochs=None,
        downstream=downstream,
        tuning=dataclasses.replace(downstream, lrs=TUNING_LRS, bias_decay=True),
        precision=_precision("float32", "bfloat16"),
    )


def released() -> Recipe:
    """Return what the authors' released files do.

    float16 autocast (row 10) is refused by `load_backbone`: T5 overflows in it. It is named here
    all the same, so that nothing pretends to be it. The cap of row 12 is the number of epochs at
    which a task of 32 train rows ends at 2000 steps of 16. The limit of 128 output tokens counts
    the start token there (row 8): 127 are generated.
    """
    meta = UpstreamConfig(
        inner_lr=3e-5,
        outer_lr=0.5,
        inner_steps=1,
        items_per_step=2,
        support_draw="apart",
        epoch_order="reshuffled",
        answers="random",
        dropout=0.1,
        second_order="higher",
        reptile_difference="subtracted",
    )
    downstream = DownstreamConfig(
        batch_size=16,
        steps=3000,
        max_epochs=1000,
        eval_every=50,
        select="last",
        epoch_order="repeated",
        answers="random",
        loss_parts=2,
        dropout=0.1,
        max_test=1000,
        sample="first",
        max_generated=127,
        beams=4,
        repetition_penalty=2.5,
        length_penalty=1.0,
    )
    return dataclasses.replace(
        paper(),
        name="released",
        tuning_backbone="google/t5-v1_1-large",
        prompt=PromptConfig(length=100, position="append"),
        downstream_text=TextConfig(max_input=512, max_target=128),
        upstream=_methods(
            meta,
            reptile={"support_draw": "jointly"},
            multitask={"max_target": 128, "epoch_order": "repeated"},
        ),
        max_epochs=120,
        downstream=downstream,
        tuning=dataclasses.replace(
            downstream,
            lrs=TUNING_LRS,
            steps=1000,
            max_epochs=300,
            select="best",
            bias_decay=False,
        ),
        precision=_precision("float32", "float16"),
    )


def released_exact() -> Recipe:
    """Return "released" with the prompt after the padding, as in the authors' files (row 5).

    Every number then depends on the padding of its batch: there by up to 70 % of a loss on rows of
    very different lengths.
    """
    prompt = PromptConfig(length=100, position="append_padded")
    return dataclasses.replace(released(), name="released-exact", prompt=prompt)


def upstream_steps(recipe: Recipe, method: str, items: int, rows: int) -> int:
    """Return the outer steps of a method on a set of source tasks.

    Args:
        recipe: steps, epochs and caps.
        method: one of `METHODS`.
        items: (task, data seed) pairs.
        rows: train and dev rows of all items together.

    Returns:
        For multitask learning epochs · ⌈rows / batch⌉; else the steps, at most ``max_epochs``
        times over the items (12 tasks with 5 seeds and 2 items a step: 3600).
    """
    config = recipe.upstream[method]
    if method == "multitask":
        return recipe.multitask_epochs * math.ceil(rows / config.batch_size)
    if recipe.max_epochs is None:
        return recipe.steps
    return min(recipe.steps, recipe.max_epochs * items // config.items_per_step)


def _methods(
    meta: UpstreamConfig,
    *,
    reptile: Mapping[str, Any] | None = None,
    multitask: Mapping[str, Any] | None = None,
) -> dict[str, UpstreamConfig]:
    """Return the settings of every method (§5.3: batches 2, 4, 4, 4; inner steps 1, 1, 10)."""
    ten = {"batch_size": 4, "inner_steps": 10, **(reptile or {})}
    union = {"batch_size": 4, "items_per_step": 1, **(multitask or {})}
    return {
        "maml": dataclasses.replace(meta, method="maml", batch_size=2),
        "fomaml": dataclasses.replace(meta, method="fomaml", batch_size=4),
        "reptile": dataclasses.replace(meta, method="reptile", **ten),
        "multitask": dataclasses.replace(meta, method="multitask", **union),
    }


def _precision(meta: str, other: str) -> dict[str, str]:
    formats = dict.fromkeys(("maml", "fomaml", "reptile"), meta)
    return {**formats, "multitask": other, "downstream": other}
