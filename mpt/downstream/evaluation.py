"""Scores of many prompts at once: one teacher-forced pass first, generation only where needed.

A row's greedy output equals its target if and only if every arg-max under teacher forcing does;
then the target's text is the prediction. For the other rows the pass gives the output's beginning,
which is all of it where it ends there, and often decides the score (`verdict.py`). Only what is
left is generated, from what the model keeps of that pass where it can. The scores are exactly
those of generating everything. A search with beams or a repetition penalty does not follow the
arg-max: there every output is generated. A prompt that stands first in a causal model is read once
for all rows (`Backbone.fixed`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from mpt.backbones.base import Backbone, Batch, Row
from mpt.backbones.generation import BatchRead, Begun, Generation
from mpt.backbones.rows import length_groups
from mpt.downstream.limits import default_limits
from mpt.downstream.out_of_memory import attempt, halved
from mpt.downstream.record import TuningResult
from mpt.downstream.verdict import can_still_match
from mpt.gym.fewshot import some_rows
from mpt.metrics import task_metrics

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig, TextConfig
    from mpt.gym.fewshot import Example, FewShotTask

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Job:
    """One output to predict: a row read with a run's prompt."""

    run: int
    row: int


class Evaluator:
    """One split of several tasks, tokenised once, against which stacks of prompts are scored.

    Args:
        backbone: the frozen model.
        tasks: distinct tasks; `scores` refers to them by position.
        split: "dev" or "test".
        config: row limits `max_dev` and `max_test`, their `sample`, `max_generated`, how to
            generate, and (where padding matters) the size of the batches, taken in file order,
            that are padded.
        text: lengths of inputs and targets.
        max_tokens: padded tokens per forward pass; `max_tokens` is lowered where a pass does not
            fit into memory.
    """

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[FewShotTask],
        split: str,
        config: DownstreamConfig,
        text: TextConfig,
        max_tokens: int,
    ):
        self._backbone, self.max_tokens = backbone, max_tokens
        self._max_generated = config.max_generated
        self._how = Generation(
            beams=config.beams,
            repetition_penalty=config.repetition_penalty,
            length_penalty=config.length_penalty,
        )
        self._tasks, self.split = tasks, split
        self._examples: list[Example] = []
        self._rows_of: list[range] = []
        rows: list[Row] = []
        limit = config.max_test if split == "test" else config.max_dev
        for task in tasks:
            examples = some_rows(
                task.test if split == "test" else task.dev,
                limit,
                stratified=config.sample == "stratified",
                name=f"{task.name} {split}",
            )
            self._rows_of.append(range(len(rows), len(rows) + len(examples)))
            self._examples += examples
            rows += backbone.encode_rows(task.name, examples, text)
        self._table = backbone.table(rows)
        self._widths = self._padded_to(config.batch_size) if backbone.padding_matters else None
        self._padded_inputs = self._widths or self._table.input_lengths
        self._texts: dict[tuple[int, ...], str] = {}

    def scores(self, prompts: Tensor, task_of_run: Sequence[int]) -> list[float]:
        """Return the score of every prompt on its task's split.

        Args:
            prompts: [R, P, d].
            task_of_run: for each of the R prompts the position of its task.
        """
        jobs = [_Job(run, row) for run, t in enumerate(task_of_run) for row in self._rows_of[t]]
        metrics = [self._tasks[task_of_run[job.run]].metric for job in jobs]
        with self._backbone.fixed(prompts):
            predictions = self._predictions(prompts, jobs, metrics)
        return [
            task_metrics.score(
                self._tasks[task].metric,
                [predictions[_Job(run, row)] for row in self._rows_of[task]],
                [self._examples[row].outputs for row in self._rows_of[task]],
            )
            for run, task in enumerate(task_of_run)
        ]

    def _predictions(
        self, prompts: Tensor, jobs: Sequence[_Job], metrics: Sequence[str]
    ) -> dict[_Job, str]:
        """Return every job's output, or another text of the same score."""
        if not self._how.plain:
            return dict(self._generated(prompts, jobs))
        predictions: dict[_Job, str] = {}
        unread: list[_Job] = []
        begun: list[tuple[_Job, Begun]] = []

        def write_on() -> bool:
            """Finish what was begun; return whether there was anything."""
            rows = list(begun)
            begun.clear()
            predictions.update(self._continued(rows))
            return bool(rows)

        for job, known in self._beginnings(prompts, jobs, metrics, write_on):
            if known is None:
                unread.append(job)
            elif isinstance(known, str):
                predictions[job] = known
            else:
                longest = max([len(known.mask), *(len(row.mask) for _, row in begun)])
                if (len(begun) + 1) * longest > self.max_tokens:  # no pass would hold all
                    write_on()
                begun.append((job, known))
        write_on()
        predictions.update(self._generated(prompts, unread))
        return predictions

    def _beginnings(
        self,
        prompts: Tensor,
        jobs: Sequence[_Job],
        metrics: Sequence[str],
        relieve: Callable[[], bool],
    ) -> Iterator[tuple[_Job, str | Begun | None]]:
        """Yield each job with a text of the right score, or with what is to be gone on from.

        That is nothing where the model cannot go on from its teacher-forced pass. `relieve` is
        called where memory runs out; it returns whether it could free some.
        """
        inputs, targets = self._padded_inputs, self._table.target_lengths
        lengths = [prompts.shape[1] + inputs[job.row] + targets[job.row] for job in jobs]

        def greedy(places: Sequence[int]) -> list[str | Begun | None]:
            batch = self._batch([jobs[index] for index in places])
            tokens, read = self._backbone.greedy_pass(prompts, batch, self._max_generated)
            return [
                self._verdict(jobs[index].row, ids, metrics[index], read, position)
                for position, (index, ids) in enumerate(zip(places, tokens.tolist(), strict=True))
            ]

        for index, known in self._in_passes(lengths, 1, greedy, relieve):
            yield jobs[index], known

    def _verdict(
        self, row: int, greedy: list[int], metric: str, read: BatchRead | None, position: int
    ) -> str | Begun | None:
        """Return the row's output, or any text that scores like it, or else its beginning."""
        target = self._table.target(row)
        same = next((n for n, t in enumerate(target) if t != greedy[n]), len(target))
        known = greedy[: same + 1][: min(len(target), self._max_generated)]
        ended = same == len(target) or known[-1] == self._backbone.end_id
        if ended or len(known) == self._max_generated:
            return self._text(known)
        if task_metrics.METRICS[metric].exact_match_decides:
            beginning = self._text(known)
            if not can_still_match(metric, beginning, self._examples[row].outputs):
                return beginning
        return None if read is None else read.row(position, known)

    def _continued(self, begun: Sequence[tuple[_Job, Begun]]) -> Iterator[tuple[_Job, str]]:
        """Yield each job with its text, written on from its beginning."""

        def go_on(places: Sequence[int]) -> list[list[int]]:
            rows = [begun[index][1] for index in places]
            return self._backbone.continue_ids(rows, self._max_generated)

        for index, ids in self._in_passes([len(row.mask) for _, row in begun], 1, go_on):
            yield begun[index][0], self._text(ids)

    def _generated(self, prompts: Tensor, jobs: Sequence[_Job]) -> Iterator[tuple[_Job, str]]:
        """Yield each job with its generated text."""
        lengths = [prompts.shape[1] + self._padded_inputs[job.row] for job in jobs]

        def generate(places: Sequence[int]) -> list[list[int]]:
            batch = self._batch([jobs[index] for index in places])
            return self._backbone.generate_ids(prompts, batch, self._max_generated, self._how)

        for index, ids in self._in_passes(lengths, self._how.beams, generate):
            yield jobs[index], self._text(ids)

    def _batch(self, jobs: Sequence[_Job]) -> Batch:
        rows = [job.row for job in jobs]
        widths = None if self._widths is None else [self._widths[row] for row in rows]
        return self._table.batch(rows, [job.run for job in jobs], widths)

    def _padded_to(self, batch_size: int) -> list[int]:
        """Return each row's padded input length in batches of a task's rows in file order."""
        widths: list[int] = []
        for own in self._rows_of:
            lengths = self._table.input_lengths[own.start : own.stop]
            for first in range(0, len(lengths), batch_size):
                part = lengths[first : first + batch_size]
                widths += [max(part)] * len(part)
        return widths

    def _in_passes(
        self,
        lengths: Sequence[int],
        beams: int,
        run: Callable[[Sequence[int]], Sequence[_T]],
        relieve: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, _T]]:
        """Yield every place with what `run` makes of it, several places a pass.

        Where memory runs out, what is left goes on in smaller passes, unless some can be freed.

        Args:
            lengths: tokens of every place.
            beams: rows that a place becomes.
            run: places of one pass → one value each.
            relieve: frees memory, if it can; returns whether it did.
        """
        waiting = list(range(len(lengths)))
        while waiting:
            done: set[int] = set()
            limit = self.max_tokens
            for group in length_groups([lengths[n] for n in waiting], limit // beams):
                places = [waiting[n] for n in group]
                outputs = attempt(run, places)
                if outputs is None:
                    if not relieve():
                        padded = beams * len(places) * max(lengths[index] for index in places)
                        self.max_tokens = halved(limit, rows=len(places), padded=padded)
                    break
                yield from zip(places, outputs, strict=True)
                outputs = None  # what it holds is freed before the next pass
                done.update(places)
                if self.max_tokens < limit:  # lowered by whoever was given these
                    break
            waiting = [index for index in waiting if index not in done]

    def _text(self, ids: Sequence[int]) -> str:
        """Decode; outputs repeat (labels), so texts are remembered."""
        key = tuple(ids)
        if key not in self._texts:
            self._texts[key] = self._backbone.decode(key)
        return self._texts[key]


def zero_shot(
    backbone: Backbone,
    task: FewShotTask,
    config: DownstreamConfig,
    text: TextConfig,
    known: dict[tuple[Example, ...], float] | None = None,
) -> TuningResult:
    """Return what the frozen model gives without any prompt: nothing is trained or chosen.

    The path is that of prompt tuning with a prompt of 0 tokens, as in fine-tuning: same rows, same
    texts, same metric. The model has not been told the words of the labels, so a task of labels
    often scores 0.

    Args:
        backbone: the frozen model.
        task: its test rows are scored, and its dev rows, by which nothing is chosen.
        config: rows and generation; what it says of training is not read.
        text: lengths of inputs and targets.
        known: scores of test files of this task; the new one is put there. The data seeds of a
            task mostly share one, and without training its score is the same.
    """
    known = {} if known is None else known
    started = time.perf_counter()
    none = torch.zeros(1, 0, backbone.d_model, device=backbone.device)
    limit = default_limits(backbone.device).evaluation

    def score(split: str) -> float:
        return Evaluator(backbone, [task], split, config, text, limit).scores(none, [0])[0]

    dev, file = score("dev"), tuple(task.test)
    test = known[file] = known[file] if file in known else score("test")
    return TuningResult(
        dev=dev,
        test=test,
        best_step=0,
        curve=((0, dev, math.nan),),
        prompt=none[0].cpu(),
        status="ok",
        cost={"steps": 0, "examples": 0, "tokens": 0, "seconds": time.perf_counter() - started},
    )
