"""From a recipe's row to what the code then does, seen from outside and counted by hand."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import save_toy_t5, toy_task
from transformers import GenerationConfig

from mpt.backbones import Backbone, load_backbone
from mpt.downstream import data, fine_tuning
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.fine_tuning import fine_tune, no_prompt
from mpt.downstream.prompt_tuning import TuningResult, TuningRun, tune
from mpt.gym.fewshot import Example, FewShotTask
from mpt.study.recipes import recipe
from mpt.upstream import inner
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.losses import ItemsLoss
from mpt.upstream.methods import maml

LONG = 200
"""Letters of the inputs and answers of `wordy`: longer than every limit on targets."""


@pytest.fixture(scope="module")
def wordy() -> FewShotTask:
    """One row a part; a byte-level tokenizer makes a token of every letter."""
    rows = (Example("q" * LONG, ("a" * LONG,)),)
    return FewShotTask("wordy", 1, 13, "EM", rows, rows, rows, "digest of wordy")


@pytest.mark.parametrize(
    ("name", "method", "target"),
    [
        ("paper", "maml", 64),
        ("paper", "multitask", 64),
        ("released", "maml", 64),
        ("released", "fomaml", 64),
        ("released", "reptile", 64),
        ("released", "multitask", 128),
    ],
)
def test_upstream_targets_are_cut_at_the_recipes_length(
    name: str, method: str, target: int, wordy: FewShotTask, toy_checkpoint: Path
) -> None:
    wanted = recipe(name)
    backbone = load_backbone(str(toy_checkpoint), position=wanted.prompt.position)
    config = dataclasses.replace(wanted.upstream[method], items_per_step=1)
    prompt = dataclasses.replace(wanted.prompt, length=2)
    run = UpstreamRun(backbone, [wordy], config, prompt, wanted.upstream_text, 42)
    run.advance(1)
    source = LONG + len(" [wordy] ") + 1  # the text and the end mark
    assert run.cost.tokens == run.cost.examples * (source + target)


def _endless(path: Path) -> Any:
    """A T5 that never writes its end mark."""
    backbone = load_backbone(str(save_toy_t5(path)))
    with torch.no_grad():
        backbone.model.get_parameter("lm_head.weight")[backbone.end_id] = 0.0
    return backbone


@pytest.mark.parametrize(("name", "new"), [("paper", 128), ("released", 127)])
def test_the_released_limit_counts_the_start_token_as_hugging_face_does(
    name: str, new: int, tmp_path: Path
) -> None:
    backbone = _endless(tmp_path)
    prompts = torch.randn(1, 2, backbone.d_model, generator=torch.Generator().manual_seed(0))
    batch = backbone.collate([(backbone.encode_input("pab", 40), [backbone.end_id])], [0])
    (ids,) = backbone.generate_ids(prompts, batch, recipe(name).downstream.max_generated)
    assert len(ids) == new
    how = GenerationConfig(
        max_length=128,
        do_sample=False,
        eos_token_id=backbone.end_id,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    embedded, mask = backbone._with_prompts(prompts, batch)
    theirs = backbone.model.generate(
        inputs_embeds=embedded, attention_mask=mask, generation_config=how
    )
    assert theirs[0, 1:].tolist() == ids[: theirs.shape[1] - 1]
    assert theirs.shape[1] - 1 == 127


@dataclass
class Seen:
    """What a run was seen to do."""

    batches: list[list[int]] = field(default_factory=list)
    """Train rows (answers told apart) of every step."""
    dropout: set[float] = field(default_factory=set)
    scored: dict[str, Any] = field(default_factory=dict)
    """Split → (rows, beams, repetition penalty, length penalty, most new tokens)."""
    parts: set[int] = field(default_factory=set)


def _twenty_rows() -> FewShotTask:
    """20 train rows with two answers each, 1200 test rows."""
    task = toy_task(shots=10, test=1200)
    train = tuple(dataclasses.replace(row, outputs=(*row.outputs, "z")) for row in task.train)
    return dataclasses.replace(task, train=train)


def _watch(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen, dev = Seen(), iter([0.9, 0.5])
    batch, dropout, weights = data.TrainRows.batch, Backbone.dropout, data.token_weights

    def watched_batch(self: data.TrainRows, task: int, step: int) -> list[int]:
        seen.batches.append(batch(self, task, step))
        return seen.batches[-1]

    def watched_dropout(self: Backbone, rate: float, seed: int) -> Any:
        seen.dropout.add(rate)
        return dropout(self, rate, seed)

    def watched_weights(tokens: list[int], parts: int) -> list[float]:
        seen.parts.add(parts)
        return weights(tokens, parts)

    def scores(self: Any, prompts: Tensor, *_: object) -> list[float]:
        how, rows = self._how, self._examples
        told = (how.beams, how.repetition_penalty, how.length_penalty, self._max_generated)
        seen.scored[self.split] = (len(rows), *told)
        return [next(dev) if self.split == "dev" else 0.25] * len(prompts)

    monkeypatch.setattr(data.TrainRows, "batch", watched_batch)
    monkeypatch.setattr(Backbone, "dropout", watched_dropout)
    monkeypatch.setattr(data, "token_weights", watched_weights)
    monkeypatch.setattr(Evaluator, "scores", scores)
    return seen


def _tuned(name: str, tuned: str, backbone: Backbone) -> TuningResult:
    """Four steps of a recipe, an evaluation after every second."""
    wanted = recipe(name)
    settings = wanted.downstream if tuned == "prompt" else wanted.tuning
    config = dataclasses.replace(settings, steps=4, eval_every=2)
    start = torch.zeros(2, backbone.d_model) if tuned == "prompt" else no_prompt(backbone)
    run = TuningRun(_twenty_rows(), settings.lrs[0], start)
    tuner = tune if tuned == "prompt" else fine_tune
    return tuner(backbone, [run], config, wanted.downstream_text, 42)[0]


PAPER_HOW, RELEASED_HOW = (1, 1.0, 1.0, 128), (4, 2.5, 1.0, 127)


@pytest.mark.parametrize("tuned", ["prompt", "weights"])
def test_a_run_of_the_paper_does_what_the_paper_says(
    tuned: str, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _watch(monkeypatch)
    result = _tuned("paper", tuned, toy_backbone)
    assert [len(rows) for rows in seen.batches] == [8, 8, 4, 8]  # batches of 8 of 20 rows
    assert seen.batches[3] != seen.batches[0]  # the second epoch is shuffled anew
    assert (seen.dropout, seen.parts) == ({0.0}, {1})
    read = [row for rows in seen.batches[:3] for row in rows]
    assert sorted(read) == list(range(20))  # every row with its first answer
    assert seen.scored["test"][0] == 1200
    assert seen.scored["test"][1:] == seen.scored["dev"][1:] == PAPER_HOW
    assert (result.dev, result.best_step) == (0.9, 2)  # the best prompt, or weights


@pytest.mark.parametrize(("tuned", "tested_at"), [("prompt", 4), ("weights", 2)])
def test_a_run_of_the_released_code_does_what_that_does(
    tuned: str, tested_at: int, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _watch(monkeypatch)
    result = _tuned("released", tuned, toy_backbone)
    rows = [[place // 2 for place in batch] for batch in seen.batches]  # two answers a row
    assert [len(own) for own in rows] == [16, 4, 16, 4]  # two devices with 8 rows each
    assert rows[2:] == rows[:2]  # one order for all epochs
    assert sorted([*rows[0], *rows[1]]) == list(range(20))
    assert {place % 2 for batch in seen.batches for place in batch} == {0, 1}  # a random answer
    assert seen.batches[0] != seen.batches[2]  # at each reading
    assert (seen.dropout, seen.parts) == ({0.1}, {2})
    assert seen.scored["test"][0] == 1000
    assert seen.scored["test"][1:] == seen.scored["dev"][1:] == RELEASED_HOW
    # the best score chooses the rate; the last prompt is tested, but the best weights
    assert (result.dev, result.best_step) == (0.9, tested_at)


@pytest.mark.parametrize(("name", "biases"), [("paper", True), ("released", False)])
def test_weight_decay_leaves_the_released_biases_alone(
    name: str, biases: bool, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    _watch(monkeypatch)
    decays: list[bool] = []
    make = fine_tuning._adafactor

    def watched(weight: torch.nn.Parameter, lr: float, *, decays_: bool) -> Any:
        decays.append(decays_)
        return make(weight, lr, decays=decays_)

    monkeypatch.setattr(
        fine_tuning,
        "_adafactor",
        lambda weight, lr, *, decays: watched(weight, lr, decays_=decays),
    )
    _tuned(name, "weights", toy_backbone)
    names = [name for name, _ in toy_backbone.model.named_parameters()]
    found = dict(zip(names, decays, strict=True))
    assert sum("relative_attention_bias" in name for name in names) == 2
    assert {decay for name, decay in found.items() if "bias" in name} == {biases}
    assert {decay for name, decay in found.items() if "bias" not in name} == {True}


# Method → rows of every pass of an episode and episodes an outer step, as printed and as released.
PASSES: list[tuple[str, list[tuple[str, int]], int, int]] = [
    ("maml", [("support", 2), ("query", 2)], 1, 2),
    ("fomaml", [("support", 4), ("query", 4)], 1, 2),
    ("reptile", [("support", 4)] * 10, 1, 2),
    ("multitask", [("support", 4)], 1, 1),
]


@pytest.mark.parametrize("name", ["paper", "released", "released-exact"])
@pytest.mark.parametrize(("method", "passes", "printed", "items"), PASSES)
def test_an_outer_step_does_what_its_recipe_says(
    name: str,
    method: str,
    passes: list[tuple[str, int]],
    printed: int,
    items: int,
    toy_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = recipe(name)
    backbone = load_backbone(str(toy_checkpoint), position=wanted.prompt.position)
    seen = _watch(monkeypatch)
    read: list[tuple[str, tuple[int, ...]]] = []
    walks: list[bool] = []
    engines: list[str] = []
    for split in ("support", "query"):
        plain = getattr(ItemsLoss, split)

        def watched(
            self: ItemsLoss,
            prompts: Tensor,
            rows: Any,
            *,
            plain: Any = plain,
            split: str = split,
            **options: Any,
        ) -> Tensor:
            read.extend((split, tuple(own)) for own in rows)
            found: Tensor = plain(self, prompts, rows, **options)
            return found

        monkeypatch.setattr(ItemsLoss, split, watched)
    for engine, plain_engine in maml.ENGINES.items():

        def watched_engine(*given: Any, engine: str = engine, plain: Any = plain_engine) -> Any:
            engines.append(engine)
            return plain(*given)

        monkeypatch.setitem(maml.ENGINES, engine, watched_engine)
    way = inner._way

    def watched_way(start: Tensor, config: Any, walk: bool) -> Any:
        walks.append(walk)
        return way(start, config, walk)

    monkeypatch.setattr(inner, "_way", watched_way)
    task = _twenty_rows()
    prompt = dataclasses.replace(wanted.prompt, length=2)
    run = UpstreamRun(backbone, [task], wanted.upstream[method], prompt, wanted.upstream_text, 42)
    before = run.prompt.clone()
    run.advance(1)
    released = name != "paper"
    count = items if released else printed
    assert [(split, len(rows)) for split, rows in read] == passes * count
    assert seen.dropout == {0.1 if released else 0.0}
    # the first step of Adafactor moves the prompt by β · u, the rms of u at most 1 and near it
    rms = float((run.prompt - before).square().mean().sqrt())
    assert rms == pytest.approx(0.5, rel=0.1)
    if method == "maml":
        assert set(engines) == {"higher" if released else "unrolled"}
    if method == "reptile":
        assert set(walks) == {released}
        answers = 2 if released else 1
        distinct = [len({row // answers for row in rows}) for _, rows in read[:10]]
        # jointly: 40 of 20 rows with replacement; apart: no row twice in a batch
        assert (min(distinct) < 4) == released


def test_random_answers_reach_the_upstream_loss(toy_checkpoint: Path) -> None:
    """Targets of 2 and 5 letters: the tokens counted are those of the rows drawn, told apart."""
    rows = tuple(Example("q" * n, ("x", "yyyy")) for n in range(1, 9))
    task = dataclasses.replace(toy_task(), train=rows, dev=rows)
    wanted = recipe("released")
    backbone = load_backbone(str(toy_checkpoint), position="append")
    run = UpstreamRun(
        backbone,
        [task],
        wanted.upstream["multitask"],
        dataclasses.replace(wanted.prompt, length=2),
        wanted.upstream_text,
        42,
    )
    run.advance(4)  # 16 rows in batches of 4: every row once
    known = [row for part in (rows, rows) for row in part]
    shortest = sum(len(f" [toy] {row.input}") + 1 + len(" x") + 1 for row in known)
    # each long answer has three letters more
    more, rest = divmod(run.cost.tokens - shortest, 3)
    assert rest == 0
    assert 0 < more < 16
