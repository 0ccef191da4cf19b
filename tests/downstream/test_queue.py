from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from toys import toy_task
from tuning_toys import (
    TEXT,
    P,
    families,
    limits,
    mixed_tasks,
    queue,
    same,
    same_results,
    start_prompt,
)

from mpt.backbones import Backbone
from mpt.config import DownstreamConfig
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.queue import TuningQueue
from mpt.downstream.record import TuningResult, TuningRun
from mpt.errors import DataError
from mpt.keys import digest
from mpt.prompts import prompt_digest
from mpt.store.state import pack_state, unpack_state

CONFIG = DownstreamConfig(steps=6, eval_every=3, batch_size=3, max_generated=4)
Finished = list[tuple[int, TuningResult]]


def _by_intervals(tuning: TuningQueue) -> list[Finished]:
    """Work one interval at a time."""
    found = []
    while not tuning.done:
        found.append(tuning.advance(0))
    return found


def _spy_on(split: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that is going to hold the number of prompts of every evaluation."""
    sizes: list[int] = []
    scores = Evaluator.scores

    def spy(self: Evaluator, prompts: torch.Tensor, tasks: Sequence[int]) -> list[float]:
        if self.split == split:
            sizes.append(len(prompts))
        return scores(self, prompts, tasks)

    monkeypatch.setattr(Evaluator, "scores", spy)
    return sizes


def test_waiting_runs_enter_in_order_as_others_leave(toy_backbone: Backbone) -> None:
    runs = families(toy_backbone, mixed_tasks())[:8]
    tuning = queue(toy_backbone, runs, CONFIG, limits(runs=3))
    seen = []
    while not tuning.done:
        before = tuning.progress
        seen.append((before.finished, before.running, before.waiting))
        finished = tuning.advance(0)
        if finished:
            places = [place for place, _ in finished]
            assert places == list(range(before.finished, before.finished + len(places)))
    # Two intervals each for runs 0-2, 3-5 and 6-7.
    assert seen == [(0, 3, 5), (0, 3, 5), (3, 3, 2), (3, 3, 2), (6, 2, 0), (6, 2, 0)]
    assert (tuning.progress.finished, tuning.progress.running) == (8, 0)


def test_runs_of_different_length_leave_one_by_one_and_are_evaluated_together(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are capped at two epochs: 4, 8 and 12 steps of two rows, evaluated every 5."""
    tasks = [toy_task("toy", 13, shots=shots) for shots in (2, 4, 6)]
    tasks = [dataclasses.replace(task, seed=n) for n, task in enumerate(tasks)]
    runs = [TuningRun(task, 0.3, start_prompt(toy_backbone)) for task in tasks]
    config = dataclasses.replace(CONFIG, steps=100, max_epochs=2, batch_size=2, eval_every=5)
    sizes = _spy_on("dev", monkeypatch)
    finished = _by_intervals(queue(toy_backbone, runs, config, limits(runs=2)))
    assert [[place for place, _ in some] for some in finished] == [[0], [1], [], [2]]
    # Run 2 enters when run 0 leaves, after run 1's fifth step.
    assert sizes == [2, 2, 1, 1]
    results = dict(itertools.chain(*finished))
    curves = [[step for step, _, _ in results[place].curve] for place in range(3)]
    assert curves == [[4], [5, 8], [5, 10, 12]]
    assert [results[place].cost["steps"] for place in range(3)] == [4, 8, 12]


def test_a_run_is_tested_when_it_finishes_and_only_once(
    toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = _spy_on("test", monkeypatch)
    runs = families(toy_backbone, mixed_tasks())[:5]
    finished = _by_intervals(queue(toy_backbone, runs, CONFIG, limits(runs=2)))
    assert [len(some) for some in finished] == [0, 2, 0, 2, 0, 1]
    assert tested == [2, 2, 1]


def test_how_the_time_is_cut_changes_no_bit(toy_backbone: Backbone) -> None:
    runs = families(toy_backbone, mixed_tasks())
    whole = queue(toy_backbone, runs, CONFIG).advance()
    cut = dict(itertools.chain(*_by_intervals(queue(toy_backbone, runs, CONFIG))))
    assert same_results(whole, sorted(cut.items()))
    assert [place for place, _ in whole] == list(range(len(runs)))


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_resumed_queue_gives_the_same_bits(at: int, toy_backbone: Backbone) -> None:
    """The state goes through bytes, as it does through a file."""
    runs = families(toy_backbone, mixed_tasks())
    runs[4] = TuningRun(runs[4].task, 1e30, runs[4].prompt)  # diverges on its way
    whole = queue(toy_backbone, runs, CONFIG).advance()
    first = queue(toy_backbone, runs, CONFIG)
    found = dict(itertools.chain(*[first.advance(0) for _ in range(at)]))
    state = pack_state(first.state_dict())
    first.advance(0)  # goes on after the save, as a killed process would have
    other = queue(toy_backbone, runs, CONFIG, limits(runs=1, tokens=77))
    other.load_state_dict(unpack_state(state))
    assert other.limits == limits()  # those of the state
    found.update(other.advance())
    assert same_results(whole, sorted(found.items()))
    assert whole[4][1].status == "diverged"


def test_a_state_in_the_middle_of_an_interval_gives_the_same_bits(toy_backbone: Backbone) -> None:
    runs = families(toy_backbone, mixed_tasks())[:4]
    config = dataclasses.replace(CONFIG, steps=7, eval_every=3)
    whole = queue(toy_backbone, runs, config).advance()
    for stop in (1, 3, 5, 7, 9, 13):
        first, taken = queue(toy_backbone, runs, config), 0

        def interrupt(last: int = stop) -> None:
            nonlocal taken
            taken += 1
            if taken == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            first.advance(on_step=interrupt)
        other = queue(toy_backbone, runs, config)
        other.load_state_dict(unpack_state(pack_state(first.state_dict())))
        assert same_results(whole, other.advance()), stop
    # What an earlier call returned is stored by now, although this one did not end.
    tuning = queue(toy_backbone, runs, config, limits(runs=2))
    while not tuning.advance(0):
        continue
    assert set(tuning.state_dict()["results"]) == {"0", "1"}
    with pytest.raises(ZeroDivisionError):
        tuning.advance(on_step=lambda: 1 // 0)
    assert tuning.state_dict()["results"] == {}


def test_results_that_may_not_be_stored_yet_are_in_the_state(toy_backbone: Backbone) -> None:
    runs = families(toy_backbone, mixed_tasks())[:4]
    tuning = queue(toy_backbone, runs, CONFIG, limits(runs=2))
    tuning.advance(0)
    finished = tuning.advance(0)
    assert [place for place, _ in finished] == [0, 1]

    def resumed() -> TuningQueue:
        other = queue(toy_backbone, runs, CONFIG)
        other.load_state_dict(tuning.state_dict())
        return other

    # The caller may have died before storing them: they come once more.
    assert same_results(resumed().advance(0), finished)
    # Asking for more says that they are stored.
    assert tuning.advance(0) == []
    assert resumed().advance(0)[0][0] == 2
    last = tuning.advance(0)
    assert tuning.done
    other = resumed()
    assert not other.done
    assert same_results(other.advance(0), last)
    assert other.done


def test_progress_counts_on_over_a_resumption(toy_backbone: Backbone) -> None:
    task = mixed_tasks()[0]  # 8 rows in batches of 3, 3, 2: six steps are two epochs
    runs = [TuningRun(task, lr, start_prompt(toy_backbone)) for lr in (0.3, 0.1, 0.2)]
    tuning = queue(toy_backbone, runs, CONFIG, limits(runs=2))
    assert tuning.progress.steps_left == 18
    tuning.advance(0)
    other = queue(toy_backbone, runs, CONFIG)
    other.load_state_dict(unpack_state(pack_state(tuning.state_dict())))
    assert other.progress == tuning.progress
    assert (other.progress.steps, other.progress.steps_left) == (6, 12)
    results = other.advance()
    done = other.progress
    assert (done.steps, done.steps_left, done.finished, done.waiting) == (18, 0, 3, 0)
    assert done.examples == sum(result.cost["examples"] for _, result in results) == 3 * 16
    real = sum(result.cost["tokens"] for _, result in results) + P * 3 * 16
    assert done.tokens == real
    assert done.padded_tokens >= done.tokens
    assert done.useful_share == done.tokens / done.padded_tokens
    assert sum(result.cost["seconds"] for _, result in results) == pytest.approx(done.seconds)


def test_a_diverging_run_makes_room_for_a_waiting_one(toy_backbone: Backbone) -> None:
    runs = families(toy_backbone, mixed_tasks())[:4]
    broken = torch.full_like(runs[0].prompt, torch.nan)
    runs[0] = TuningRun(runs[0].task, 0.3, broken)
    tuning = queue(toy_backbone, runs, CONFIG, limits(runs=2))
    ((place, result),) = tuning.advance(0)
    assert (place, result.status, result.cost["steps"]) == (0, "diverged", 0)
    assert (tuning.progress.running, tuning.progress.waiting) == (2, 1)
    assert [place for place, _ in tuning.advance()] == [1, 2, 3]


def test_tensors_of_finished_runs_are_freed(toy_backbone: Backbone) -> None:
    runs = families(toy_backbone, mixed_tasks())[:4]
    tuning = queue(toy_backbone, runs, CONFIG, limits(runs=2))
    tuning.advance(0)
    tuning.advance(0)
    state = tuning.state_dict()
    assert set(state["records"]) == {"2", "3"}
    assert state["pack"]["prompts"].shape == (2, P, toy_backbone.d_model)


@pytest.mark.parametrize("what", ["lr", "prompt", "task", "order", "config", "fewer"])
def test_a_state_of_other_runs_is_refused_and_changes_nothing(
    what: str, toy_backbone: Backbone
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:3]
    tuning = queue(toy_backbone, runs, CONFIG)
    tuning.advance(0)
    others = list(runs)
    others[1] = {
        "lr": dataclasses.replace(runs[1], lr=0.2),
        "prompt": dataclasses.replace(runs[1], prompt=start_prompt(toy_backbone, 9)),
        "task": dataclasses.replace(runs[1], task=mixed_tasks()[2]),
    }.get(what, runs[1])
    if what == "order":
        others = [runs[1], runs[0], runs[2]]
    if what == "fewer":
        others = runs[:2]
    config = dataclasses.replace(CONFIG, patience=3) if what == "config" else CONFIG
    other = queue(toy_backbone, others, config)
    before = pack_state(other.state_dict())
    with pytest.raises(DataError, match=r"state is of tuning queue \w{12}, but this one is"):
        other.load_state_dict(tuning.state_dict())
    assert pack_state(other.state_dict()) == before


def test_a_queue_from_before_races_of_starts_is_the_same_queue(toy_backbone: Backbone) -> None:
    """Else what a search was in the middle of at an update would start anew."""
    runs = families(toy_backbone, mixed_tasks())[:3]
    listed = queue(toy_backbone, runs, CONFIG)._list
    fields = {f.name for f in dataclasses.fields(CONFIG)} - {"race_steps"}
    older = {
        "backbone": toy_backbone.digest,
        "position": toy_backbone.position,
        "config": {name: getattr(CONFIG, name) for name in fields},
        "text": dataclasses.asdict(TEXT),
        "root_seed": listed._root,
        "runs": [
            [run.task.name, run.task.seed, run.task.digest, run.lr, prompt_digest(run.prompt)]
            for run in runs
        ],
    }
    assert listed.identity == digest(older)
    raced = dataclasses.replace(CONFIG, start="raced", race_steps=2)
    assert queue(toy_backbone, runs, raced)._list.identity != listed.identity


@pytest.mark.parametrize("missing", ["tick", "records", "pack", "results"])
def test_an_incomplete_state_is_refused_and_changes_nothing(
    missing: str, toy_backbone: Backbone
) -> None:
    runs = families(toy_backbone, mixed_tasks())[:3]
    tuning = queue(toy_backbone, runs, CONFIG)
    tuning.advance(0)
    state: dict[str, Any] = tuning.state_dict()
    del state[missing]
    other = queue(toy_backbone, runs, CONFIG)
    before = pack_state(other.state_dict())
    with pytest.raises(DataError, match=rf"incomplete .*{missing}.*start the queue anew"):
        other.load_state_dict(state)
    assert pack_state(other.state_dict()) == before


def test_no_runs_are_done_at_once(toy_backbone: Backbone) -> None:
    tuning = TuningQueue(toy_backbone, [], CONFIG, TEXT, 42)
    assert tuning.done
    assert tuning.advance() == []
    assert tuning.progress.runs == 0


def test_dropout_masks_of_a_late_run_are_those_of_its_own_steps(toy_backbone: Backbone) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.3)
    runs = families(toy_backbone, mixed_tasks())[:4]
    packed = dict(queue(toy_backbone, runs, config, limits(runs=3)).advance())
    ((_, alone),) = queue(toy_backbone, runs[3:], config).advance()
    # One pass a run: nothing is packed, so not even the rounding differs.
    assert torch.equal(packed[3].prompt, alone.prompt)
    other = queue(toy_backbone, runs[3:], dataclasses.replace(config, dropout=0.2)).advance()
    assert not same(other[0][1], alone)
