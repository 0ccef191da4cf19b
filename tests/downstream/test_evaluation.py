from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import toy_task

from mpt.backbones import Backbone, Batch
from mpt.backbones.generation import Begun, Generation
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.evaluation import Evaluator, zero_shot
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.gym.fewshot import Example, FewShotTask
from mpt.metrics import task_metrics

METRICS = sorted(task_metrics.METRICS)


def _prompts(backbone: Backbone, runs: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(runs, 4, backbone.d_model, generator=generator)


def _task(metric: str) -> FewShotTask:
    """A task on whose outputs every metric is defined; several answers, odd writing."""
    labels = ("0.5", "2") if metric == "Pearson Correlation" else ("x", "y")
    task = toy_task(labels=labels, metric=metric, test=12)
    if metric in ("ACC", "EM", "QA-F1", "Rouge-L"):
        odd = [("X", "y"), ("the y",), ("yy", "x"), ("x y",)]
        test = tuple(
            Example(example.input, odd[place] if place < len(odd) else example.outputs)
            for place, example in enumerate(task.test)
        )
        return dataclasses.replace(task, test=test)
    return task


def _evaluator(
    backbone: Backbone,
    tasks: Sequence[FewShotTask],
    split: str = "test",
    max_tokens: int = 500,
    **changes: Any,
) -> Evaluator:
    return Evaluator(backbone, tasks, split, DownstreamConfig(**changes), TextConfig(), max_tokens)


Write = Callable[[Tensor, list[int], int], str]


@pytest.fixture(scope="module")
def write(toy_backbone: Backbone) -> Write:
    """What is generated from a prompt, an input alone and a limit; the same for every metric."""
    known: dict[tuple[bytes, tuple[int, ...], int], str] = {}

    def written(prompt: Tensor, ids: list[int], most: int) -> str:
        key = prompt.numpy().tobytes(), tuple(ids), most
        if key not in known:
            batch = toy_backbone.collate([(ids, [toy_backbone.end_id])], [0])
            (known[key],) = toy_backbone.generate(prompt[None], batch, most)
        return known[key]

    return written


def _by_generation(
    backbone: Backbone, task: FewShotTask, prompt: Tensor, max_generated: int, write: Write
) -> float:
    """The score when every output is generated, row by row."""
    rows = backbone.encode_rows(task.name, task.test, TextConfig())
    predictions = [write(prompt, ids, max_generated) for ids, _ in rows]
    return task_metrics.score(task.metric, predictions, [e.outputs for e in task.test])


@pytest.mark.parametrize("max_generated", [8, 2])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_exactly_those_of_generating_everything(
    metric: str, max_generated: int, toy_backbone: Backbone, write: Write
) -> None:
    task = _task(metric)
    # Small prompts leave the toy its labels; large ones make it babble.
    prompts = torch.cat([_prompts(toy_backbone, 6, scale) for scale in (0.3, 1.0, 4.0)])
    evaluator = _evaluator(toy_backbone, [task], max_generated=max_generated)
    scores = evaluator.scores(prompts, [0] * len(prompts))
    expected = [
        _by_generation(toy_backbone, task, prompt, max_generated, write) for prompt in prompts
    ]
    assert scores == expected
    if metric != "Pearson Correlation" and metric != "Matthew Correlation":
        assert len(set(scores)) > 1


def test_a_packed_score_equals_the_score_alone_over_mixed_tasks(toy_backbone: Backbone) -> None:
    tasks = [_task("ACC"), dataclasses.replace(_task("QA-F1"), name="other", seed=21)]
    prompts = _prompts(toy_backbone, 4)
    together = _evaluator(toy_backbone, tasks).scores(prompts, [1, 0, 0, 1])
    for run, task in enumerate([1, 0, 0, 1]):
        alone = _evaluator(toy_backbone, [tasks[task]], max_tokens=1)
        assert alone.scores(prompts[run : run + 1], [0]) == [together[run]]


def test_generation_is_left_out_where_it_cannot_change_the_score(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[int] = []
    continue_ids = toy_backbone.continue_ids

    def spy(begun: Sequence[Begun], limit: int) -> list[list[int]]:
        generated.append(len(begun))
        return continue_ids(begun, limit)

    monkeypatch.setattr(toy_backbone, "continue_ids", spy)
    monkeypatch.setattr(toy_backbone, "generate_ids", None)
    prompts = _prompts(toy_backbone, 8)
    accuracy = toy_task(test=20)
    scores = _evaluator(toy_backbone, [accuracy]).scores(prompts, [0] * 8)
    assert min(scores) < 1  # there are wrong rows
    assert sum(generated) == 0
    _evaluator(toy_backbone, [dataclasses.replace(accuracy, metric="Rouge-L")]).scores(
        prompts, [0] * 8
    )
    assert 0 < sum(generated) < 160


def test_a_truncated_target_is_compared_as_generation_would_give_it(
    toy_backbone: Backbone, write: Write
) -> None:
    # The answer is "x" but the target is cut to its blank and the end mark.
    task = toy_task(test=12)
    text = TextConfig(max_target=2)
    evaluator = Evaluator(toy_backbone, [task], "test", DownstreamConfig(), text, 500)
    prompts = _prompts(toy_backbone, 8)
    expected = [_by_generation(toy_backbone, task, prompt, 64, write) for prompt in prompts]
    assert evaluator.scores(prompts, [0] * 8) == expected
    assert max(expected) > 0


@pytest.mark.parametrize("split", ["dev", "test"])
def test_only_the_first_rows_count_where_a_limit_is_set(
    split: str, toy_backbone: Backbone
) -> None:
    task = toy_task(shots=6, test=12)
    cut = dataclasses.replace(task, **{split: getattr(task, split)[:3]})
    prompts = _prompts(toy_backbone, 10)
    limit = {"max_dev": 3, "max_test": 12} if split == "dev" else {"max_dev": 12, "max_test": 3}
    limited = _evaluator(toy_backbone, [task], split, **limit).scores(prompts, [0] * 10)
    assert limited == _evaluator(toy_backbone, [cut], split).scores(prompts, [0] * 10)
    assert limited != _evaluator(toy_backbone, [task], split).scores(prompts, [0] * 10)


@pytest.mark.parametrize(
    "changes", [{"repetition_penalty": 2.5}, {"beams": 4, "length_penalty": 0.5}]
)
def test_with_beams_or_a_penalty_every_output_is_really_generated(
    changes: dict[str, Any], toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, task = _prompts(toy_backbone, 3, scale=3.0), toy_task(test=10)
    rows = toy_backbone.encode_rows(task.name, task.test, TextConfig())
    how, generate_ids = Generation(**changes), toy_backbone.generate_ids
    expected = []
    for run in range(3):
        outputs = generate_ids(prompts, toy_backbone.collate(rows, [run] * 10), 5, how)
        texts = [toy_backbone.decode(ids) for ids in outputs]
        expected.append(task_metrics.score(task.metric, texts, [e.outputs for e in task.test]))
    asked: list[tuple[int, Generation]] = []

    def spy(prompts: Tensor, batch: Batch, limit: int, how: Generation) -> list[list[int]]:
        asked.append((len(batch), how))
        return generate_ids(prompts, batch, limit, how)

    monkeypatch.setattr(toy_backbone, "generate_ids", spy)
    evaluator = _evaluator(toy_backbone, [task], max_generated=5, **changes)
    assert evaluator.scores(prompts, [0] * 3) == expected
    assert sum(count for count, _ in asked) == 30
    assert {used for _, used in asked} == {how}


def _sorted_by_label() -> FewShotTask:
    """20 test rows, of which the first 12 are one class; 6 dev rows, sorted too."""
    task = toy_task(metric="Classification-F1", test=2)
    one, other = task.test
    return dataclasses.replace(
        task,
        test=tuple([one] * 12 + [other] * 8),
        dev=tuple([one] * 4 + [other] * 2),
    )


@pytest.mark.parametrize(("sample", "expected"), [("first", 1.0), ("stratified", 3 / 8)])
def test_a_constant_answer_is_not_right_on_a_stratified_sample(
    sample: str, expected: float, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten rows of 20: 6 and 4. F1 of a constant: 2·6/(10 + 6) = 3/4 and 0, on average 3/8."""
    evaluator = _evaluator(toy_backbone, [_sorted_by_label()], max_test=10, sample=sample, beams=2)
    monkeypatch.setattr(evaluator, "_generated", lambda _, jobs: ((job, "x") for job in jobs))
    assert evaluator.scores(_prompts(toy_backbone, 1), [0]) == [pytest.approx(expected)]


def test_every_way_of_tuning_is_scored_on_the_same_rows(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str]]] = []

    def scores(self: Evaluator, prompts: Tensor, *_: object) -> list[float]:
        seen.append((self.split, [row.outputs[0] for row in self._examples]))
        return [0.5] * len(prompts)

    monkeypatch.setattr(Evaluator, "scores", scores)
    config = DownstreamConfig(steps=1, eval_every=1, max_test=5, max_dev=3, sample="stratified")
    task = _sorted_by_label()
    for seed in (42, 43):
        run = TuningRun(task, 0.3, _prompts(toy_backbone, 1)[0])
        tune(toy_backbone, [run], config, TextConfig(), seed)
        fine_tune(
            toy_backbone,
            [TuningRun(task, 1e-3, no_prompt(toy_backbone))],
            config,
            TextConfig(),
            seed,
        )
    assert seen == [("dev", ["x", "x", "y"]), ("test", ["x", "x", "x", "y", "y"])] * 4


# --- zero-shot ---


def test_zero_shot_is_the_models_own_generation_without_a_prompt(toy_backbone: Backbone) -> None:
    task = _task("EM")
    rows = [row for row, _ in toy_backbone.encode_rows(task.name, task.test, TextConfig())]
    model: Any = toy_backbone.model
    written = [
        toy_backbone.decode(
            model.generate(torch.tensor([row]), max_new_tokens=4, do_sample=False, num_beams=1)[
                0, 1:
            ].tolist()
        )
        for row in rows
    ]
    # answers that the model does give: every second row is right
    told = [
        Example(e.input, (w if n % 2 else "?",))
        for n, (e, w) in enumerate(zip(task.test, written, strict=True))
    ]
    task = dataclasses.replace(task, test=tuple(told))
    config = DownstreamConfig(max_generated=4, max_dev=3)
    result = zero_shot(toy_backbone, task, config, TextConfig())
    assert result.test == pytest.approx(len(told[1::2]) / len(told))
    assert (result.status, result.best_step, result.prompt.shape[0]) == ("ok", 0, 0)
    assert result.curve[0][:2] == (0, result.dev)
    assert {name: result.cost[name] for name in ("steps", "examples", "tokens")} == {
        "steps": 0,
        "examples": 0,
        "tokens": 0,
    }


def test_one_test_file_of_several_data_seeds_is_evaluated_once(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def scores(self: Evaluator, prompts: Tensor, *_: object) -> list[float]:
        seen.append(self.split)
        return [len(seen) / 10]

    monkeypatch.setattr(Evaluator, "scores", scores)
    first = _task("ACC")
    same = dataclasses.replace(first, seed=first.seed + 1)
    other = dataclasses.replace(same, test=first.test[1:])
    known: dict[tuple[Example, ...], float] = {}
    found = [
        zero_shot(toy_backbone, task, DownstreamConfig(), TextConfig(), known).test
        for task in (first, same, other)
    ]
    assert seen == ["dev", "test", "dev", "dev", "test"]
    assert found == [0.2, 0.2, 0.5]
