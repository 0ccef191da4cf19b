from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from mpt.config import (
    DownstreamConfig,
    PromptConfig,
    StudyConfig,
    TextConfig,
    UpstreamConfig,
    near_backbone,
)
from mpt.errors import UsageError

CONFIGS = [PromptConfig, TextConfig, UpstreamConfig, DownstreamConfig, StudyConfig]

REFUSED: list[tuple[Any, str, Any, str]] = [
    (PromptConfig, "length", 0, "a whole number ≥ 1"),
    (PromptConfig, "length", 2.0, "a whole number ≥ 1"),
    (PromptConfig, "length", True, "a whole number ≥ 1"),
    (PromptConfig, "position", "middle", "one of prepend, append, append_padded"),
    (TextConfig, "max_input", 1, "a whole number ≥ 2"),
    (TextConfig, "max_target", 1, "a whole number ≥ 2"),
    (UpstreamConfig, "method", "adam", "one of maml"),
    (UpstreamConfig, "inner_lr", 0, "a finite number > 0"),
    (UpstreamConfig, "inner_lr", math.inf, "a finite number > 0"),
    (UpstreamConfig, "outer_lr", math.nan, "a finite number > 0"),
    (UpstreamConfig, "outer_lr", "0.5", "a finite number > 0"),
    (UpstreamConfig, "inner_steps", 0, "a whole number ≥ 1"),
    (UpstreamConfig, "batch_size", -1, "a whole number ≥ 1"),
    (UpstreamConfig, "items_per_step", None, "a whole number ≥ 1"),
    (UpstreamConfig, "dropout", 1.0, r"a number in \[0, 1\)"),
    (UpstreamConfig, "dropout", -0.1, r"a number in \[0, 1\)"),
    (DownstreamConfig, "lrs", (), "distinct finite numbers > 0"),
    (DownstreamConfig, "lrs", (0.5, 0.5), "distinct finite numbers > 0"),
    (DownstreamConfig, "lrs", 0.5, "distinct finite numbers > 0"),
    (DownstreamConfig, "steps", 0, "a whole number ≥ 1"),
    (DownstreamConfig, "eval_every", 0, "a whole number ≥ 1"),
    (DownstreamConfig, "max_epochs", 0, "a whole number ≥ 1 or None"),
    (DownstreamConfig, "patience", 0, "a whole number ≥ 1 or None"),
    (DownstreamConfig, "catch_up", -0.1, "a finite number ≥ 0 or None"),
    (DownstreamConfig, "catch_up", math.nan, "a finite number ≥ 0 or None"),
    (DownstreamConfig, "catch_up_after", 0, "a whole number ≥ 1"),
    (DownstreamConfig, "select", "worst", '"best" or "last"'),
    (DownstreamConfig, "loss_parts", 0, "a whole number ≥ 1"),
    (DownstreamConfig, "epoch_order", "sorted", '"reshuffled" or "repeated"'),
    (DownstreamConfig, "answers", "last", '"first" or "random"'),
    (UpstreamConfig, "epoch_order", "sorted", '"reshuffled" or "repeated"'),
    (UpstreamConfig, "answers", "all", '"first" or "random"'),
    (UpstreamConfig, "support_draw", "together", '"apart" or "jointly"'),
    (UpstreamConfig, "inner_optimiser", "adam", '"sgd" or "adafactor"'),
    (UpstreamConfig, "average", "mean", "one of last, polynomial, schedule_free"),
    (UpstreamConfig, "decay_horizon", 0, "a whole number ≥ 1 or None"),
    (UpstreamConfig, "soup", 0, "a whole number ≥ 1"),
    (UpstreamConfig, "start_seed", -1, "a whole number ≥ 0 or None"),
    (DownstreamConfig, "start", "best", "one of learned, chosen, raced"),
    (DownstreamConfig, "race_steps", 0, "a whole number ≥ 1 or None"),
    (UpstreamConfig, "max_target", 1, "a whole number ≥ 2 or None"),
    (DownstreamConfig, "bias_decay", 0.0, "true or false"),
    (DownstreamConfig, "max_test", 0, "a whole number ≥ 1 or None"),
    (DownstreamConfig, "max_dev", 1.5, "a whole number ≥ 1 or None"),
    (DownstreamConfig, "sample", "random", '"first" or "stratified"'),
    (DownstreamConfig, "max_generated", 0, "a whole number ≥ 1"),
    (StudyConfig, "data_seeds", (), "distinct whole numbers"),
    (StudyConfig, "data_seeds", (13, 13), "distinct whole numbers"),
    (StudyConfig, "train_seed", -1, "a whole number ≥ 0"),
]


@pytest.mark.parametrize(("config", "field", "value", "rule"), REFUSED)
def test_a_value_out_of_range_is_refused_with_name_value_and_rule(
    config: Any, field: str, value: Any, rule: str
) -> None:
    with pytest.raises(UsageError, match=f"{config.__name__}: {field} is .*must be {rule}") as e:
        config(**{field: value})
    assert repr(value) in str(e.value)
    assert e.value.exit_code == 2


@pytest.mark.parametrize("start", ["learned", "chosen"])
def test_steps_of_a_race_are_refused_where_there_is_none(start: str) -> None:
    rule = f'race_steps is 3, but must be None where start is "{start}".*; set it to "raced"'
    with pytest.raises(UsageError, match=rule):
        DownstreamConfig(start=start, race_steps=3)
    assert DownstreamConfig(start="raced", race_steps=3).race_steps == 3


def test_all_broken_fields_are_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"inner_lr is -1.*; batch_size is 0.*; dropout is 2"):
        UpstreamConfig(inner_lr=-1, batch_size=0, dropout=2)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_is_frozen_and_takes_keywords_only(config: Any) -> None:
    made = config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(made)[0].name, None)
    with pytest.raises(TypeError):
        config(1)


def test_the_defaults_are_the_papers() -> None:
    # The paper, §5.3 and A.5: MAML as selected on R→R, prompt tuning, lengths.
    upstream, downstream = UpstreamConfig(), DownstreamConfig()
    assert (upstream.inner_lr, upstream.outer_lr, upstream.batch_size) == (3e-5, 0.5, 2)
    assert (upstream.inner_steps, upstream.items_per_step) == (1, 2)
    assert downstream.lrs == (0.5, 0.4, 0.3, 0.2)
    assert (downstream.batch_size, downstream.steps, downstream.eval_every) == (8, 3000, 50)
    assert (downstream.max_epochs, downstream.patience, downstream.catch_up) == (None, None, None)
    assert (PromptConfig().length, TextConfig().max_input) == (100, 512)
    assert StudyConfig().data_seeds == (13, 21, 42, 87, 100)


@pytest.mark.parametrize(("rows", "steps"), [(8, 20), (9, 30), (32, 80), (100, 100)])
def test_the_cap_on_epochs_bites_on_few_rows_only(rows: int, steps: int) -> None:
    # Ten epochs of rows / 4 batches, the last of them not full.
    assert DownstreamConfig(steps=100, batch_size=4, max_epochs=10).steps_on(rows) == steps
    assert DownstreamConfig(steps=100, batch_size=4).steps_on(rows) == 100


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("embeded", "embedded"),
        ("embedded-gpt", "embedded-gpt2"),
        ("smolm2", "smollm2"),
        ("embedded", None),  # known itself
        ("gpt2", None),  # a model of the Hub that is no slip of the pen
        ("Qwen/Qwen2.5-0.5B", None),
    ],
)
def test_a_slip_of_the_pen_finds_the_known_backbone(name: str, near: str | None) -> None:
    assert near_backbone(name) == near
