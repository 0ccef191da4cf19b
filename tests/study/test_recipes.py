from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mpt.backbones import load_backbone
from mpt.config import METHODS
from mpt.errors import UsageError
from mpt.study import recipes
from mpt.study.recipes import RECIPES, recipe, upstream_steps
from mpt.study.spaces import SPACES

# docs/recipe.md, row by row: (row, setting, what the paper says, what the released code does).
ROWS: list[tuple[int, str, Any, Any]] = [
    (1, "backbone", "google/t5-large-lm-adapt", "google/t5-large-lm-adapt"),
    (1, "tuning_backbone", "google/t5-large-lm-adapt", "google/t5-v1_1-large"),
    (3, "upstream.maml.items_per_step", 1, 2),
    (3, "upstream.fomaml.items_per_step", 1, 2),
    (3, "upstream.reptile.items_per_step", 1, 2),
    (3, "upstream.multitask.items_per_step", 1, 1),
    (4, "max_epochs", None, 120),
    (5, "prompt.position", "prepend", "append"),
    (8, "upstream_text.max_input", 512, 512),
    (8, "upstream_text.max_target", 64, 64),
    (8, "upstream.maml.max_target", None, None),
    (8, "upstream.fomaml.max_target", None, None),
    (8, "upstream.reptile.max_target", None, None),
    (8, "upstream.multitask.max_target", None, 128),
    (8, "downstream_text.max_target", 64, 128),
    (9, "upstream.maml.dropout", 0.0, 0.1),
    (9, "upstream.multitask.dropout", 0.0, 0.1),
    (9, "downstream.dropout", 0.0, 0.1),
    (10, "precision.maml", "float32", "float32"),
    (10, "precision.multitask", "bfloat16", "float16"),
    (10, "precision.downstream", "bfloat16", "float16"),
    (11, "downstream.batch_size", 8, 16),
    (12, "downstream.steps", 3000, 3000),
    (12, "downstream.max_epochs", None, 1000),
    (13, "downstream.select", "best", "last"),
    (13, "downstream.eval_every", 50, 50),
    (14, "downstream.beams", 1, 4),
    (14, "downstream.repetition_penalty", 1.0, 2.5),
    (14, "downstream.length_penalty", 1.0, 1.0),
    (8, "downstream.max_generated", 128, 127),
    (8, "tuning.max_generated", 128, 127),
    (15, "upstream.reptile.reptile_difference", "accumulated", "subtracted"),
    (16, "upstream.maml.inner_lr", 3e-5, 3e-5),
    (17, "multitask_epochs", 20, 20),
    (23, "downstream.max_test", None, 1000),
    # §2: the table of settings, with the code's 1000 steps where all weights are tuned
    (0, "steps", 5000, 5000),
    (0, "upstream.maml.outer_lr", 0.5, 0.5),
    (0, "upstream.multitask.outer_lr", 0.5, 0.5),
    (0, "upstream.maml.batch_size", 2, 2),
    (0, "upstream.fomaml.batch_size", 4, 4),
    (0, "upstream.reptile.batch_size", 4, 4),
    (0, "upstream.multitask.batch_size", 4, 4),
    (0, "upstream.maml.inner_steps", 1, 1),
    (0, "upstream.fomaml.inner_steps", 1, 1),
    (0, "upstream.reptile.inner_steps", 10, 10),
    (0, "downstream.lrs", (0.5, 0.4, 0.3, 0.2), (0.5, 0.4, 0.3, 0.2)),
    (23, "downstream.sample", "stratified", "first"),
    (23, "tuning.sample", "stratified", "first"),
    (24, "upstream.maml.answers", "first", "random"),
    (24, "upstream.fomaml.answers", "first", "random"),
    (24, "upstream.reptile.answers", "first", "random"),
    (24, "upstream.multitask.answers", "first", "random"),
    (24, "downstream.answers", "first", "random"),
    (24, "tuning.answers", "first", "random"),
    (25, "upstream.maml.epoch_order", "reshuffled", "reshuffled"),
    (25, "upstream.fomaml.epoch_order", "reshuffled", "reshuffled"),
    (25, "upstream.reptile.epoch_order", "reshuffled", "reshuffled"),
    (25, "upstream.multitask.epoch_order", "reshuffled", "repeated"),
    (25, "downstream.epoch_order", "reshuffled", "repeated"),
    (25, "tuning.epoch_order", "reshuffled", "repeated"),
    (26, "upstream.maml.support_draw", "apart", "apart"),
    (26, "upstream.fomaml.support_draw", "apart", "apart"),
    (26, "upstream.reptile.support_draw", "apart", "jointly"),
    (27, "downstream.loss_parts", 1, 2),
    (27, "tuning.loss_parts", 1, 2),
    (28, "tuning.select", "best", "best"),
    (28, "tuning.steps", 3000, 1000),
    (28, "tuning.max_epochs", None, 300),
    (28, "tuning.bias_decay", True, False),
    (28, "tuning.batch_size", 8, 16),
    (28, "tuning.dropout", 0.0, 0.1),
    (28, "tuning.beams", 1, 4),
    (0, "tuning.lrs", (5e-4, 3e-4, 2e-4, 1e-4), (5e-4, 3e-4, 2e-4, 1e-4)),
    (0, "prompt.length", 100, 100),
]


def _setting(name: str, path: str) -> Any:
    found: Any = recipe(name)
    for part in path.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


@pytest.mark.parametrize(("row", "path", "said", "done"), ROWS)
def test_each_row_of_the_protocol_is_selected(row: int, path: str, said: Any, done: Any) -> None:
    assert _setting("paper", path) == said
    assert _setting("released", path) == done


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_settings_for_every_method_under_its_own_name(name: str) -> None:
    upstream = recipe(name).upstream
    assert set(upstream) == set(METHODS)
    assert all(config.method == method for method, config in upstream.items())
    assert recipe(name).name == name


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="'ours', but must be one of paper, released, rel"):
        recipe("ours")


def test_the_cap_on_epochs_bites_with_few_source_tasks_only() -> None:
    # recipe row 4: 12 source tasks with 5 seeds end at 3600 steps; 45 tasks do not.
    steps = {tasks: upstream_steps(recipe("released"), "maml", 5 * tasks, 0) for tasks in (12, 45)}
    assert steps == {12: 3600, 45: 5000}
    assert upstream_steps(recipe("paper"), "maml", 60, 0) == 5000


def test_multitask_steps_are_those_of_its_epochs() -> None:
    # recipe row 17: 280 060 steps of 4 in 20 epochs are 14 003 batches an epoch.
    assert upstream_steps(recipe("released"), "multitask", 570, 4 * 14003) == 280060
    assert upstream_steps(recipe("released"), "multitask", 570, 4 * 14002 + 1) == 280060


def test_small_tasks_end_at_two_thousand_steps_in_the_released_recipe() -> None:
    # recipe row 12; 16 a class and two classes are 32 rows.
    assert recipe("released").downstream.steps_on(32) == 2000
    assert recipe("released").downstream.steps_on(64) == 3000
    assert recipe("paper").downstream.steps_on(32) == 3000


def test_fine_tuning_ends_after_three_hundred_epochs_in_the_released_recipe() -> None:
    # recipe row 28: 32 rows in steps of 16 are two steps an epoch.
    assert recipe("released").tuning.steps_on(32) == 600
    assert recipe("released").tuning.steps_on(64) == 1000
    assert recipe("paper").tuning.steps_on(32) == 3000


def test_the_released_number_format_of_tuning_is_refused_and_not_replaced() -> None:
    dtype = getattr(torch, recipe("released").precision["downstream"])
    with pytest.raises(UsageError, match="float16"):
        load_backbone("embedded", dtype=dtype)


def test_the_exact_recipe_differs_from_the_released_one_in_the_place_of_the_prompt_only() -> None:
    released, exact = recipe("released"), recipe("released-exact")
    assert (released.prompt.position, exact.prompt.position) == ("append", "append_padded")
    assert dataclasses.replace(exact, name="released", prompt=released.prompt) == released


CITED = r"(?:§|section |appendix )([A\d][.\d]*\d)"


def test_spaces_and_recipes_cite_sections_that_the_paper_has() -> None:
    """Hyperparameters stand in §5.3, the search in A.5, similarity in A.6 and A.7."""
    files = [*SPACES.glob("*.toml"), Path(recipes.__file__)]
    cited = {
        found
        for path in files
        if path.name != "studies.toml"
        for found in re.findall(CITED, path.read_text("utf-8"))
    }
    assert cited <= {"5.3", "A.5", "A.6", "A.7"}
    assert {"5.3", "A.5"} <= cited
