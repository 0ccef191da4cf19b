from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import toy_task
from transformers.optimization import Adafactor as HuggingFaceAdafactor
from tuning_toys import (
    P,
    families,
    mixed_tasks,
    queue,
    same,
    script_dev_scores,
    start_prompt,
)

from mpt.backbones import Backbone, load_backbone
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.prompt_tuning import TuningResult, TuningRun, tune
from mpt.errors import UsageError
from mpt.gym.fewshot import FewShotTask
from mpt.metrics.relative_gain import Candidate, select_by_dev
from mpt.prompts import init_downstream
from mpt.seeds import numpy_generator

CONFIG = DownstreamConfig(steps=6, eval_every=3, batch_size=3)


def _tune(
    backbone: Backbone,
    runs: Sequence[TuningRun],
    config: DownstreamConfig = CONFIG,
) -> list[TuningResult]:
    return tune(backbone, runs, config, TextConfig(), 42)


@pytest.fixture
def tasks() -> list[FewShotTask]:
    return mixed_tasks()


@pytest.mark.parametrize("position", ["prepend", "append"])
def test_packing_agrees_to_float64s_precision_in_float64(
    position: str, toy_checkpoint: Path, tasks: list[FewShotTask]
) -> None:
    toy_backbone64 = load_backbone(str(toy_checkpoint), dtype=torch.float64, position=position)
    config = DownstreamConfig(steps=20, eval_every=20, batch_size=4)
    runs = families(toy_backbone64, tasks)[::3]
    for run, result in zip(runs, _tune(toy_backbone64, runs, config), strict=True):
        (alone,) = _tune(toy_backbone64, [run], config)
        update = alone.prompt - run.prompt
        assert (result.prompt - alone.prompt).norm() <= 1e-10 * update.norm()


def test_the_same_pack_again_is_bit_identical(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    runs = families(toy_backbone, tasks)
    pairs = zip(_tune(toy_backbone, runs), _tune(toy_backbone, runs), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_a_run_equals_a_plain_loop_with_hugging_faces_adafactor(
    toy_backbone64: Backbone, tasks: list[FewShotTask]
) -> None:
    task = tasks[2]  # 10 rows in batches of 4: 4, 4, 2
    config = DownstreamConfig(steps=7, eval_every=7, batch_size=4)
    (result,) = _tune(toy_backbone64, [TuningRun(task, 0.3, start_prompt(toy_backbone64))], config)
    prompt = torch.nn.Parameter(start_prompt(toy_backbone64).double())
    settings: dict[str, Any] = {"scale_parameter": False, "relative_step": False}
    settings |= {"decay_rate": -0.8, "weight_decay": 1e-5, "lr": 0.3}
    optimiser = HuggingFaceAdafactor([prompt], **settings)
    rows = toy_backbone64.encode_rows(task.name, task.train, TextConfig())
    losses = []
    for step in range(7):
        epoch, batch = divmod(step, 3)
        generator = numpy_generator(42, "order", task.name, task.seed, epoch)
        chosen = generator.permutation(10)[4 * batch : 4 * batch + 4]
        rows_now = toy_backbone64.collate([rows[row] for row in chosen], [0] * len(chosen))
        nll, tokens = toy_backbone64.row_losses(prompt[None], rows_now)
        loss = nll.sum() / tokens.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    torch.testing.assert_close(result.prompt, prompt.detach(), rtol=1e-10, atol=1e-12)
    assert result.curve[0][2] == pytest.approx(sum(losses) / 7, rel=1e-12)


def test_the_data_order_is_common_to_learning_rates_and_initialisations(
    toy_backbone: Backbone, tasks: list[FewShotTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[int], list[int]]] = []
    row_losses = toy_backbone.row_losses

    def spy(prompts: Tensor, batch: Any) -> Any:
        if prompts.requires_grad:
            seen.append((batch.run.tolist(), batch.input_ids.sum(1).tolist()))
        return row_losses(prompts, batch)

    monkeypatch.setattr(toy_backbone, "row_losses", spy)
    _tune(toy_backbone, families(toy_backbone, tasks[:1]))
    for runs, rows in seen:
        batches = [
            sorted(row for r, row in zip(runs, rows, strict=True) if r == n) for n in (0, 3)
        ]
        assert batches[0] == batches[1]


def _score_by(monkeypatch: pytest.MonkeyPatch, dev: Sequence[float]) -> list[Tensor]:
    """Let dev scores be these, one per evaluation; return the prompts that test is asked for."""
    asked: list[Tensor] = []
    remaining = iter(dev)

    def scores(self: Evaluator, prompts: Tensor, task_of_run: Sequence[int]) -> list[float]:
        if self.split == "dev":
            return [next(remaining)] * len(prompts)
        asked.append(prompts.clone())
        return [0.25] * len(prompts)

    monkeypatch.setattr(Evaluator, "scores", scores)
    return asked


@pytest.mark.parametrize(
    ("select", "dev", "best_step"),
    [
        ("best", [0.1, 0.9, 0.9, 0.3], 4),  # ties: the first
        ("best", [0.0, 0.0, 0.0, 0.0], 2),
        ("best", [0.1, 0.2, 0.3, 0.4], 7),  # the last step is always evaluated
        ("best", [math.nan, 0.2, 0.1, math.nan], 4),  # no value beats nothing
        ("best", [math.nan] * 4, 2),
        ("last", [0.1, 0.9, 0.9, 0.3], 7),
    ],
)
def test_the_selected_prompt_is_a_copy_and_tested_only_once(
    select: str,
    dev: list[float],
    best_step: int,
    toy_backbone: Backbone,
    tasks: list[FewShotTask],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = TuningRun(tasks[0], 0.3, start_prompt(toy_backbone))
    evaluated = (2, 4, 6, 7)
    states = {}
    for steps in evaluated:
        config = dataclasses.replace(CONFIG, steps=steps, eval_every=steps, select="last")
        states[steps] = _tune(toy_backbone, [run], config)[0].prompt
    asked = _score_by(monkeypatch, dev)
    config = dataclasses.replace(CONFIG, steps=7, eval_every=2, select=select)
    (result,) = _tune(toy_backbone, [run], config)
    assert [step for step, _, _ in result.curve] == list(evaluated)
    assert result.best_step == best_step
    assert torch.equal(result.prompt, states[best_step])
    assert len(asked) == 1
    assert torch.equal(asked[0][0], states[best_step])
    assert result.test == 0.25
    known = [score for score in dev if not math.isnan(score)]
    assert result.dev == max(known) if known else math.isnan(result.dev)


def test_with_the_last_prompt_the_rate_is_still_chosen_by_the_best_score(
    toy_backbone: Backbone, tasks: list[FewShotTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dev curves (.9, .5) at rate .5 and (.6, .6) at .4: the released code takes .5."""
    config = dataclasses.replace(CONFIG, steps=2, eval_every=1, select="last")
    start = start_prompt(toy_backbone)
    tuning = queue(toy_backbone, [TuningRun(tasks[0], lr, start) for lr in (0.5, 0.4)], config)
    script_dev_scores(monkeypatch, tuning, [(0.9, 0.5), (0.6, 0.6)])
    results = [result for _, result in tuning.advance()]
    assert [(result.dev, result.best_step) for result in results] == [(0.9, 2), (0.6, 2)]
    candidates = [
        Candidate(lr=lr, dev=result.dev, test=result.test)
        for lr, result in zip((0.5, 0.4), results, strict=True)
    ]
    best = select_by_dev(candidates)
    assert best is not None
    assert best.lr == 0.5


def test_a_diverging_run_ends_alone(toy_backbone: Backbone, tasks: list[FewShotTask]) -> None:
    runs = families(toy_backbone, tasks[:2])
    poisoned = list(runs)
    poisoned[1] = TuningRun(tasks[0], 0.3, torch.full_like(runs[1].prompt, math.nan))
    poisoned[5] = TuningRun(tasks[1], 1e30, runs[5].prompt)  # overflows on its way
    clean, results = _tune(toy_backbone, runs), _tune(toy_backbone, poisoned)
    for place, (one, other) in enumerate(zip(clean, results, strict=True)):
        if place in (1, 5):
            assert other.status == "diverged"
            assert math.isnan(other.dev)
            assert math.isnan(other.test)
            assert other.best_step == 0
        else:
            assert other.status == "ok"
            torch.testing.assert_close(other.prompt, one.prompt, rtol=0, atol=2e-5)
    assert results[1].cost["steps"] == 0


def test_a_pack_in_which_every_run_diverges_ends_early(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    run = TuningRun(tasks[0], 0.3, torch.full((P, toy_backbone.d_model), math.nan))
    steps: list[int] = []
    results = tune(
        toy_backbone, [run, run], CONFIG, TextConfig(), 42, lambda step, _: steps.append(step)
    )
    assert [result.status for result in results] == ["diverged", "diverged"]
    assert steps == [12]  # both count as done after their first


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 4},
        {"steps": 5},
        {"max_epochs": 1},
        {"catch_up": 0.0, "catch_up_after": 1},
        {"eval_every": 2},
        {"select": "last"},
        {"dropout": 0.2},
        {"max_test": 3},
        {"max_dev": 2},
        {"max_generated": 1},
    ],
)
def test_every_setting_of_the_recipe_acts(
    change: dict[str, Any], toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    task = dataclasses.replace(tasks[2], metric="Rouge-L")
    runs = families(toy_backbone, [task], (0.3, 3.0), prompts=3)
    base = _tune(toy_backbone, runs)
    changed = _tune(toy_backbone, runs, dataclasses.replace(CONFIG, **change))
    assert not all(same(one, other) for one, other in zip(base, changed, strict=True))


@pytest.mark.parametrize("what", ["lr", "prompt", "task", "root_seed", "text"])
def test_every_part_of_a_run_acts(
    what: str, toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    run = TuningRun(tasks[0], 0.3, start_prompt(toy_backbone))
    root, text = 42, TextConfig()
    changed = {
        "lr": dataclasses.replace(run, lr=0.2),
        "prompt": dataclasses.replace(run, prompt=start_prompt(toy_backbone, 1)),
        "task": dataclasses.replace(run, task=tasks[1]),
    }.get(what, run)
    base = _tune(toy_backbone, [run])[0]
    root = 43 if what == "root_seed" else root
    text = TextConfig(max_input=12) if what == "text" else text
    other = tune(toy_backbone, [changed], CONFIG, text, root)[0]
    assert not torch.equal(base.prompt, other.prompt)


def test_dropout_masks_do_not_depend_on_the_pack(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.3)
    runs = families(toy_backbone, tasks)
    state = torch.get_rng_state()
    packed = _tune(toy_backbone, runs, config)
    assert torch.equal(torch.get_rng_state(), state)
    for place in (0, 5, 11):
        (alone,) = _tune(toy_backbone, [runs[place]], config)
        torch.testing.assert_close(packed[place].prompt, alone.prompt, rtol=0, atol=2e-5)


def test_neither_weights_nor_starting_prompts_are_touched(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    before = {name: weight.clone() for name, weight in toy_backbone.model.named_parameters()}
    run = TuningRun(tasks[0], 0.3, start_prompt(toy_backbone))
    (result,) = _tune(toy_backbone, [run])
    assert torch.equal(run.prompt, start_prompt(toy_backbone))
    assert not torch.equal(result.prompt, run.prompt)
    assert not result.prompt.requires_grad
    for name, weight in toy_backbone.model.named_parameters():
        assert weight.grad is None
        assert torch.equal(weight, before[name])


def test_cost_counts_the_rows_trained_on(toy_backbone: Backbone, tasks: list[FewShotTask]) -> None:
    (result,) = _tune(toy_backbone, [TuningRun(tasks[0], 0.3, start_prompt(toy_backbone))])
    rows = toy_backbone.encode_rows(tasks[0].name, tasks[0].train, TextConfig())
    # 8 rows in batches of 3, 3, 2: six steps are two epochs.
    assert result.cost["steps"] == 6
    assert result.cost["examples"] == 16
    assert result.cost["tokens"] == 2 * sum(len(source) + len(target) for source, target in rows)
    assert result.cost["seconds"] > 0


def test_progress_is_told_after_every_step_and_may_end_the_pack(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    told: list[tuple[int, int]] = []

    def listen(done: int, total: int) -> None:
        told.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    run = TuningRun(tasks[0], 0.3, start_prompt(toy_backbone))
    with pytest.raises(KeyboardInterrupt):
        tune(toy_backbone, [run], CONFIG, TextConfig(), 42, listen)
    assert told == [(1, 6), (2, 6), (3, 6), (4, 6)]


def test_one_name_for_two_sets_of_data_is_refused(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    other = dataclasses.replace(tasks[0], digest="other")
    runs = [TuningRun(task, 0.3, start_prompt(toy_backbone)) for task in (tasks[0], other)]
    with pytest.raises(UsageError, match="toy-one with data seed 13 is given twice"):
        _tune(toy_backbone, runs)


def test_a_prompt_of_another_width_or_length_is_refused(
    toy_backbone: Backbone, tasks: list[FewShotTask]
) -> None:
    wide, long = torch.ones(P, toy_backbone.d_model + 1), torch.ones(P + 1, toy_backbone.d_model)
    with pytest.raises(UsageError, match=r"prompt of toy-one is \(4, 33\), but must be \[P, 32\]"):
        _tune(toy_backbone, [TuningRun(tasks[0], 0.3, wide)])
    runs = [TuningRun(tasks[0], 0.3, prompt) for prompt in (start_prompt(toy_backbone), long)]
    with pytest.raises(UsageError, match="P the same for all runs"):
        _tune(toy_backbone, runs)


def test_no_runs_give_no_results(toy_backbone: Backbone) -> None:
    assert _tune(toy_backbone, []) == []


def test_prompt_tuning_learns_what_the_model_cannot_know(toy_backbone: Backbone) -> None:
    """Half the toy's training had the labels swapped: a prompt has to say which half this is."""
    config = DownstreamConfig(steps=200, eval_every=50)
    guessing = math.log(2) / 3  # one of three target tokens is a coin toss
    for labels in (("x", "y"), ("y", "x")):
        task = toy_task("toy-one", 13, labels=labels, shots=8, test=20)
        prompt = init_downstream(toy_backbone, task.name, 8, np.random.default_rng(0))
        (result,) = _tune(toy_backbone, [TuningRun(task, 0.3, prompt)], config)
        last = result.curve[-1][2]
        assert last < 0.4 * guessing, f"training loss {last:.3f}, guessing is {guessing:.3f}"
        assert result.test == 1.0
