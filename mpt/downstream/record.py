"""One downstream run: what is asked, what is known of it so far, and what it gave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mpt.backbones.rows import RowTable
from mpt.gym.fewshot import FewShotTask

Curve = Sequence[tuple[int, float, float]]
"""(step, dev score, mean training loss since the evaluation before) of every evaluation; the loss
is NaN where nothing was trained."""


@dataclass(frozen=True, eq=False)
class TuningRun:
    """One downstream run to be done."""

    task: FewShotTask
    lr: float
    """Adafactor learning rate."""
    prompt: Tensor
    """Starting prompt [P, d]; it is copied."""


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What one downstream run gave."""

    dev: float
    """Dev score by which the learning rate is chosen: that of the selected prompt, or with
    ``select="last"`` the best of the curve (recipe row 13); NaN if the run diverged."""
    test: float
    """Test score of the selected prompt; NaN if the run diverged."""
    best_step: int
    """Step after which the selected prompt stood; 0 if the run diverged."""
    curve: tuple[tuple[int, float, float], ...]
    """(step, dev score, mean training loss since the evaluation before) of every evaluation."""
    prompt: Tensor
    """The selected prompt [P, d], on the CPU; if the run diverged, the one selected until then.
    [0, d] where there was none."""
    status: str
    """"ok" or "diverged"."""
    cost: dict[str, float]
    """steps, examples and tokens trained on, and the run's share of the pack's seconds."""
    stopped: str | None = None
    """Rule and step by which the run was ended before its last step (see
    `mpt.downstream.stopping`); None if it was not."""

    def state_dict(self) -> dict[str, Any]:
        """Return the result as a tree for `mpt.store.state`."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TuningResult:
        """Return the result that gave this state."""
        return cls(**{**state, "curve": tuple(_curve(state["curve"]))})


@dataclass
class Record:
    """What is known of a run so far."""

    prompt: Tensor
    """The prompt to be selected as things stand; the starting prompt before any evaluation."""
    diverged: bool = False
    dev: float = math.nan
    """The best dev score so far; NaN before any."""
    best_step: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Training losses since the last evaluation."""
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """The run's share of the time spent."""
    stopped: str | None = None
    """Why the run ended before its last step."""

    def note(self, step: int, score: float, select: str) -> bool:
        """Note the dev score after `step`; return whether the state is now the selected one.

        The last prompt may be the one that is tested, but a run is always judged by its best
        score, as in the released code.
        """
        self.curve.append((step, score, math.fsum(self.losses) / len(self.losses)))
        self.losses.clear()
        # The first of equal scores stays; NaN (a metric without a value) beats nothing.
        better = score > self.dev or (math.isnan(self.dev) and not math.isnan(score))
        if better:
            self.dev = score
        if not (better or self.best_step == 0 or select == "last"):
            return False
        self.best_step = step
        return True

    def count(self, loss: float, rows: Sequence[int], table: RowTable) -> None:
        """Add a step on these rows of a table."""
        self.losses.append(loss)
        self.steps += 1
        self.examples += len(rows)
        self.tokens += sum(table.input_lengths[row] + table.target_lengths[row] for row in rows)

    def result(self, test: float) -> TuningResult:
        """Return what the finished run gave, with the test score of its selected prompt."""
        return TuningResult(
            dev=math.nan if self.diverged else self.dev,
            test=test,
            best_step=0 if self.diverged else self.best_step,
            curve=tuple(self.curve),
            prompt=self.prompt.detach().cpu().clone(),
            status="diverged" if self.diverged else "ok",
            cost={
                "steps": self.steps,
                "examples": self.examples,
                "tokens": self.tokens,
                "seconds": self.seconds,
            },
            stopped=self.stopped,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the record as a tree for `mpt.store.state`."""
        state = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {
            **state,
            "prompt": self.prompt.detach().cpu().clone(),
            "curve": list(self.curve),
            "losses": list(self.losses),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Record:
        """Return the record that gave this state, its prompt on `device`."""
        return cls(
            **{
                **state,
                "prompt": state["prompt"].to(device, copy=True),
                "curve": _curve(state["curve"]),
                "losses": list(state["losses"]),
            }
        )


def _curve(entries: Sequence[Sequence[Any]]) -> list[tuple[int, float, float]]:
    """Return a curve as tuples, which JSON has made lists."""
    return [(int(step), float(dev), float(loss)) for step, dev, loss in entries]
