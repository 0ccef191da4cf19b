"""Memory that runs out: passes get smaller, and nothing else changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tuning_toys import P, families, limits, mixed_tasks, queue, same_results

from mpt.backbones import Backbone, Batch
from mpt.backbones.generation import Begun
from mpt.config import DownstreamConfig
from mpt.downstream.out_of_memory import halved, is_out_of_memory
from mpt.errors import UsageError
from mpt.store.state import pack_state, unpack_state

CONFIG = DownstreamConfig(steps=4, eval_every=2, batch_size=3, max_generated=4)
EVERYTHING = 10**6
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


def _padded(batch: Batch) -> int:
    return len(batch) * (P + batch.input_ids.shape[1] + batch.target_ids.shape[1])


def _places(begun: Sequence[Begun]) -> int:
    return len(begun) * max(len(row.mask) for row in begun)


class Memory:
    """Stands before a backbone's passes; those above its room, or one of them, fail."""

    def __init__(self, error: Exception, room: int = EVERYTHING, fail_at: int = -1):
        self.error, self.room, self.fail_at = error, room, fail_at
        self.sizes: list[int] = []

    def guard(self, monkeypatch: pytest.MonkeyPatch, backbone: Backbone, name: str) -> None:
        method = getattr(backbone, name)

        def guarded(*given: Any) -> Any:
            begun = name == "continue_ids"
            self.sizes.append(_places(given[0]) if begun else _padded(given[1]))
            if self.sizes[-1] > self.room or len(self.sizes) == self.fail_at:
                raise self.error
            return method(*given)

        monkeypatch.setattr(backbone, name, guarded)


@pytest.mark.parametrize("error", FULL, ids=["cuda", "python", "cpu"])
def test_a_step_is_done_again_in_smaller_passes(
    error: Exception, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:5]
    large = limits(tokens=1024, evaluation_tokens=512, pass_cost=1000)
    with monkeypatch.context() as full:
        memory = Memory(error, room=150)
        memory.guard(full, toy_backbone, "row_losses")
        tuning = queue(toy_backbone, runs, CONFIG, large)
        results = tuning.advance()
    assert max(memory.sizes) > 150
    assert tuning.limits.tokens == 128
    assert tuning.limits.evaluation == 512
    assert "toy; out of memory in training: tokens 1024 → " in tuning.limits.source
    # The same bits as with that limit from the first step on: the failed one left no trace.
    small = dataclasses.replace(large, tokens=128)
    assert same_results(results, queue(toy_backbone, runs, CONFIG, small).advance())


def test_passes_that_had_gone_through_before_the_failing_one_leave_no_trace(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:5]
    before = limits(tokens=100, pass_cost=1000)
    with monkeypatch.context() as full:
        memory = Memory(FULL[0], fail_at=3)
        memory.guard(full, toy_backbone, "row_losses")
        tuning = queue(toy_backbone, runs, CONFIG, before)
        results = tuning.advance()
    tokens = tuning.limits.tokens
    assert tokens < memory.sizes[2]
    evaluation = tuning.limits.evaluation
    assert tokens == evaluation == 50
    # The first two passes of the step had already left gradients.
    assert same_results(
        results,
        queue(toy_backbone, runs, CONFIG, dataclasses.replace(before, tokens=tokens)).advance(),
    )


@pytest.mark.parametrize("name", ["greedy_pass", "continue_ids", "generate_ids"])
@pytest.mark.parametrize("beams", [1, 2])
def test_an_evaluation_goes_on_in_smaller_passes(
    name: str, beams: int, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [dataclasses.replace(task, metric="Rouge-L") for task in mixed_tasks()]
    config = dataclasses.replace(CONFIG, beams=beams)
    runs = families(toy_backbone, tasks)[:5]
    expected = queue(toy_backbone, runs, config, limits(tokens=1024)).advance()
    with monkeypatch.context() as full:
        memory = Memory(FULL[0], room=100)
        memory.guard(full, toy_backbone, name)
        tuning = queue(toy_backbone, runs, config, limits(tokens=1024))
        results = tuning.advance()
    if (beams > 1) != (name == "generate_ids"):
        assert memory.sizes == []  # a search with beams does not follow the arg-max
        return
    assert max(memory.sizes) > 100
    assert tuning.limits.tokens == 1024
    assert tuning.limits.evaluation < 1024
    assert "out of memory in evaluation: tokens 1024 → " in tuning.limits.source
    assert [(r.dev, r.test) for _, r in results] == [(r.dev, r.test) for _, r in expected]
    failures = sum(size > 100 for size in memory.sizes)
    assert failures <= 4, "the limit must be remembered from one evaluation to the next"


def test_a_lowered_limit_is_remembered_in_the_state(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:5]
    large = limits(tokens=1024, pass_cost=1000)
    with monkeypatch.context() as full:
        Memory(FULL[0], room=150).guard(full, toy_backbone, "row_losses")
        tuning = queue(toy_backbone, runs, CONFIG, large)
        tuning.advance(0)
        state = pack_state(tuning.state_dict())
        expected = tuning.advance()
    other = queue(toy_backbone, runs, CONFIG, large)
    other.load_state_dict(unpack_state(state))
    assert other.limits == tuning.limits
    assert same_results(expected, other.advance())


def test_evaluation_follows_the_limit_of_training_where_it_has_none_of_its_own(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:5]
    Memory(FULL[0], room=150).guard(monkeypatch, toy_backbone, "row_losses")
    evaluated = Memory(FULL[0])
    evaluated.guard(monkeypatch, toy_backbone, "greedy_pass")
    tuning = queue(toy_backbone, runs, CONFIG, limits(tokens=1024, pass_cost=1000))
    tuning.advance()
    assert tuning.limits.evaluation == 128
    assert 64 < max(evaluated.sizes) <= 128  # as a queue that loads the state would do it


@pytest.mark.parametrize("name", ["row_losses", "greedy_pass"])
def test_a_single_row_that_does_not_fit_is_named(
    name: str, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:2]
    Memory(FULL[0], room=0).guard(monkeypatch, toy_backbone, name)
    message = r"one row of \d\d tokens \(prompt included\) does not fit .*; shorten the prompt"
    with pytest.raises(UsageError, match=message):
        queue(toy_backbone, runs, CONFIG).advance()


def test_a_pass_with_dropout_cannot_be_cut(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:2]
    Memory(FULL[0], room=0).guard(monkeypatch, toy_backbone, "row_losses")
    config = dataclasses.replace(CONFIG, dropout=0.1)
    with pytest.raises(UsageError, match=r"3 rows and .* with dropout .* lower batch_size"):
        queue(toy_backbone, runs, config).advance()


@pytest.mark.parametrize("name", ["row_losses", "greedy_pass"])
def test_another_error_is_not_taken_for_it(
    name: str, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:2]
    Memory(RuntimeError("shapes do not match"), room=0).guard(monkeypatch, toy_backbone, name)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        queue(toy_backbone, runs, CONFIG).advance()


def test_what_a_cpu_says_is_understood() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_limit_is_halved_until_it_forbids_the_pass() -> None:
    assert halved(1024, rows=4, padded=1024) == 512
    assert halved(1024, rows=4, padded=600) == 512
    assert halved(1024, rows=4, padded=512) == 256  # 512 would allow it again
    assert halved(1, rows=2, padded=100) == 1
