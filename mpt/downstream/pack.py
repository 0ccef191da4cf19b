"""A pack: R prompt-tuning runs that go through one frozen model side by side.

Rows are tagged with their run and read with its prompt. The loss of a step is the sum over runs
of each run's own loss, so the gradient of a prompt is that of its run alone; Adafactor keeps
its state per run. Every run counts its own steps: runs may enter and leave between any two.

Shapes: R active runs, P prompt tokens, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mpt.backbones.base import Backbone
from mpt.backbones.rows import Batch, cheapest_groups, groups_of_runs
from mpt.downstream.data import TrainRows
from mpt.downstream.evaluation import Evaluator
from mpt.downstream.limits import PackLimits
from mpt.downstream.out_of_memory import attempt, halved
from mpt.downstream.record import Record, TuningRun
from mpt.errors import UsageError
from mpt.optim import Adafactor
from mpt.seeds import derive

if TYPE_CHECKING:
    from mpt.config import DownstreamConfig

__all__ = ["Member", "Pack", "TuningRun", "Work"]


@dataclass(frozen=True)
class Member:
    """A run of a pack."""

    position: int
    """Its position among all runs to be done."""
    task: int
    """Position of its task among the train rows' tasks."""
    lr: float
    """Adafactor learning rate."""
    steps: int
    """Steps after which it is through."""
    record: Record


@dataclass(frozen=True)
class Work:
    """What one step of a pack has done."""

    steps: int
    """Runs that took a step."""
    examples: int
    tokens: int
    """Real tokens, those of the prompts included: of every row, or once a pass and run where that
    is how they are read."""
    padded_tokens: int
    """Tokens that went through the model."""


@dataclass
class Reading:
    """What the passes of a step have read."""

    prompts: int = 0
    """Prompts."""
    places: int = 0
    """Padded tokens of inputs and targets."""


class Pack:
    """The runs that are going on: prompts, optimiser and the records that count their steps.

    Args:
        backbone: the frozen model.
        rows: train rows of all tasks.
        config: the recipe.
        root_seed: root of dropout.
        prompt_length: P.
        limits: what goes through the model at once.
    """

    def __init__(
        self,
        backbone: Backbone,
        rows: TrainRows,
        config: DownstreamConfig,
        root_seed: int,
        prompt_length: int,
        limits: PackLimits,
    ):
        self._backbone, self._rows, self._config = backbone, rows, config
        self._root, self._p = root_seed, prompt_length
        self._shares = backbone.shares_prompts and config.dropout == 0
        self._wide = torch.float64 if backbone.dtype == torch.float64 else torch.float32
        self._optimiser = Adafactor(self._stack([]), [])
        self._through: list[Member] = []
        self._last: list[Tensor] = []
        self.limits = limits
        self.members: list[Member] = []
        """Runs with steps to go, slot by slot."""

    def _stack(self, prompts: Sequence[Tensor]) -> Tensor:
        """Return the prompts as a stack [N, P, d] of their own, at least in float32."""
        wide = [prompt.detach().to(self._backbone.device, self._wide) for prompt in prompts]
        empty = torch.empty(
            0, self._p, self._backbone.d_model, dtype=self._wide, device=self._backbone.device
        )
        return torch.stack(wide) if wide else empty

    @property
    def places(self) -> list[int]:
        """Positions of all runs that are here: with steps to go, or through and not yet gone."""
        return [member.position for member in (*self.members, *self._through)]

    def enter(self, members: Sequence[Member]) -> None:
        """Let runs enter at their first step, from the prompt that their record holds."""
        if members:
            self._optimiser.add(
                self._stack([member.record.prompt for member in members]),
                [member.lr for member in members],
            )
            self.members += members

    def leave(self, places: Sequence[int]) -> None:
        """Let runs leave; their tensors are freed."""
        self._keep([slot for slot, m in enumerate(self.members) if m.position not in places])
        stay = [n for n, member in enumerate(self._through) if member.position not in places]
        self._through = [self._through[n] for n in stay]
        self._last = [self._last[n] for n in stay]

    def _keep(self, slots: Sequence[int]) -> None:
        if len(slots) < len(self.members):
            self._optimiser.keep(slots)
            self.members = [self.members[slot] for slot in slots]

    def step(self) -> Work:
        """Take the next step of every run that has one; a diverging run leaves.

        Raises:
            UsageError: a single row does not fit into memory.
        """
        rows_of = [self._rows.batch(m.task, m.record.steps + 1) for m in self.members]
        losses, grads, read = self._gradient(rows_of)
        finite = (losses.isfinite() & grads.isfinite().all(2).all(1)).tolist()
        for m, rows, loss, fine in zip(
            self.members, rows_of, losses.tolist(), finite, strict=True
        ):
            if fine:
                m.record.count(loss, rows, self._rows.table)
        work = self._work(rows_of, read)
        if not all(finite):
            grads = grads[self._drop_diverged(finite)]
        if self.members:
            self._optimiser.step(grads)
        self._set_aside()
        return work

    def _work(self, rows_of: Sequence[Sequence[int]], read: Reading) -> Work:
        table = self._rows.table
        rows = [row for own in rows_of for row in own]
        tokens = sum(table.input_lengths[row] + table.target_lengths[row] for row in rows)
        prompts = self._p * read.prompts
        return Work(len(rows_of), len(rows), tokens + prompts, read.places + prompts)

    def _set_aside(self) -> None:
        """Put runs that have taken their last step aside, to be evaluated with the others."""
        through = [slot for slot, m in enumerate(self.members) if m.record.steps == m.steps]
        self._through += [self.members[slot] for slot in through]
        self._last += [self._optimiser.prompts[slot].clone() for slot in through]
        self._keep([slot for slot in range(len(self.members)) if slot not in through])

    def evaluate(self, dev: Evaluator) -> None:
        """Score every prompt on dev and note the ones to be selected."""
        finite = self._optimiser.prompts.isfinite().all(2).all(1).tolist()
        if not all(finite):
            self._drop_diverged(finite)
        broken = [
            member.position
            for member, prompt in zip(self._through, self._last, strict=True)
            if not bool(prompt.isfinite().all())
        ]
        for member in self._through:
            member.record.diverged |= member.position in broken
        self.leave(broken)
        members = [*self.members, *self._through]
        if not members:
            return
        prompts = torch.cat([self._optimiser.prompts, self._stack(self._last)])
        scores = dev.scores(prompts, [member.task for member in members])
        for member, prompt, score in zip(members, prompts, scores, strict=True):
            if member.record.note(member.record.steps, score, self._config.select):
                member.record.prompt = prompt.clone()

    def _drop_diverged(self, finite: Sequence[bool]) -> list[int]:
        """Let the runs that are not finite leave the pack; return the slots that stay."""
        stay = [slot for slot, fine in enumerate(finite) if fine]
        for member, fine in zip(self.members, finite, strict=True):
            member.record.diverged |= not fine
        self._keep(stay)
        return stay

    def _gradient(self, rows_of: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Reading]:
        """Return each run's loss [R], its gradient [R, P, d] and what was read.

        Where memory runs out the step is done again with smaller passes: it has changed nothing.
        """
        while (gradients := self._in_passes(rows_of)) is None:
            continue
        return gradients

    def _in_passes(
        self, rows_of: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, Reading] | None:
        """Return the same, or None where a pass did not fit; the limit is lower then."""
        prompts = self._optimiser.prompts.detach().requires_grad_()
        table = self._rows.table
        rows = [row for own in rows_of for row in own]
        slots = [slot for slot, own in enumerate(rows_of) for _ in own]
        weights = prompts.new_tensor([w for own in rows_of for w in self._rows.weights(own)])
        losses = prompts.new_zeros(len(rows_of)).detach()
        widths = [width for own in rows_of for width in self._rows.widths(own) or ()]
        read = Reading()
        for group in self._groups(rows, slots, widths or None):
            own_widths = [widths[n] for n in group] if widths else None
            own_slots = [slots[n] for n in group]
            batch = table.batch([rows[n] for n in group], own_slots, own_widths)
            places = len(group) * (batch.input_ids.shape[1] + batch.target_ids.shape[1])
            shares = attempt(self._pass, prompts, batch, weights[group])
            if shares is None:
                self._shrink(len(group), places + len(group) * self._p)
                return None
            losses.index_add_(0, batch.run, shares.to(losses.dtype))
            read.prompts += len(set(own_slots) if self._shares else group)
            read.places += places
        assert prompts.grad is not None
        return losses, prompts.grad, read

    def _pass(self, prompts: Tensor, batch: Batch, weights: Tensor) -> Tensor:
        """Add a pass's gradient to that of the prompts; return the rows' shares of the losses."""
        with self._backbone.dropout(self._config.dropout, self._dropout_seed(batch)):
            nll, _ = self._backbone.row_losses(prompts, batch)
            shares = nll * weights
            shares.sum().backward()
        return shares.detach()

    def _shrink(self, rows: int, padded: int) -> None:
        """Lower the limit below a pass that did not fit into memory."""
        if self._config.dropout > 0 and rows > 1:
            raise UsageError(
                f"a pass of {rows} rows and {padded} padded tokens does not fit into memory, and "
                "with dropout it cannot be cut, since its masks would change; lower batch_size, "
                "set dropout to 0, or take a larger device"
            )
        tokens = halved(self.limits.tokens, rows=rows, padded=padded)
        self.limits = self.limits.shrunk(tokens=tokens)

    def _groups(
        self, rows: Sequence[int], slots: Sequence[int], widths: Sequence[int] | None
    ) -> list[list[int]]:
        """Return which rows share a forward pass: those of similar lengths, or one run's.

        Whole runs where a prompt is read once a pass, if that is cheaper; one run with dropout.
        """
        if self._config.dropout > 0:
            return [[n for n, s in enumerate(slots) if s == slot] for slot in sorted(set(slots))]
        table, limits = self._rows.table, self.limits
        inputs = widths or [table.input_lengths[row] for row in rows]
        targets = [table.target_lengths[row] for row in rows]
        options = {"pass_cost": limits.pass_cost, "max_tokens": limits.tokens}
        if self._shares:
            return groups_of_runs(inputs, targets, slots, prompt=self._p, **options)
        return cheapest_groups(inputs, targets, extra=self._p, **options)

    def _dropout_seed(self, batch: Batch) -> int:
        """Return the seed of a pass with dropout, in which all rows are of one run."""
        if self._config.dropout == 0:
            return 0
        member = self.members[int(batch.run[0])]
        task, step = self._rows.tasks[member.task], member.record.steps + 1
        return derive(self._root, "dropout", "downstream", task.name, task.seed, step)

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the records as a tree for `mpt.store.state`, of copies."""
        return {
            "limits": self.limits.to_dict(),
            "active": [member.position for member in self.members],
            "prompts": self._optimiser.prompts.detach().cpu().clone(),
            "optimiser": self._optimiser.state_dict(),
            "through": [member.position for member in self._through],
            "last": [prompt.detach().cpu().clone() for prompt in self._last],
        }

    def load_state_dict(self, state: dict[str, Any], member_of: dict[int, Member]) -> None:
        """Go on from a state; `member_of` gives the run, with its record, at a position."""
        members = [member_of[position] for position in state["active"]]
        prompts = self._stack(list(state["prompts"].unbind()))
        optimiser = Adafactor(prompts, [member.lr for member in members])
        optimiser.load_state_dict(state["optimiser"])
        last = [self._stack([prompt])[0] for prompt in state["last"]]
        through = [member_of[position] for position in state["through"]]
        limits = PackLimits.from_dict(state["limits"])
        self.members, self._optimiser = members, optimiser
        self._through, self._last, self.limits = through, last, limits
