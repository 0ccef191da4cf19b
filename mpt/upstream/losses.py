"""What an outer gradient knows of model and data: the losses of prompts on rows of items.

Shapes: E episodes that share passes, P prompt tokens, d model width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mpt.backbones.base import Backbone, Row
from mpt.gym.union import Union
from mpt.upstream.checkpointing import activation_checkpointing

if TYPE_CHECKING:
    from mpt.config import TextConfig
    from mpt.gym.episodes import Episode
    from mpt.gym.fewshot import FewShotTask


class EpisodeLoss(Protocol):
    """What an outer gradient knows of model and data: the loss of a prompt on rows of an item."""

    def support(
        self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False
    ) -> Tensor:
        """Return the token-mean loss of `prompt` [P, d] on these train rows, a scalar.

        With `second_order` it can be differentiated twice; without, attention may be fused.
        """

    def query(self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False) -> Tensor:
        """Return the token-mean loss of `prompt` [P, d] on these dev rows, a scalar."""

    def shares(self, rows: Sequence[int]) -> list[float]:
        """Return each row's share w in the support loss: L(rows) = Σ_r w_r L([r])."""


StackRows = Sequence[Sequence[int]]
"""Rows of each of E episodes; none of an episode that takes no part in a pass."""


class StackLoss(Protocol):
    """The losses of E episodes, read in the same passes, each with a prompt of its own.

    A loss depends on the prompt and the rows of its own episode alone, so the gradient of the sum
    of all losses is the stack of their gradients. A loss without rows is 0.
    """

    def support(self, prompts: Tensor, rows: StackRows, *, second_order: bool = False) -> Tensor:
        """Return the token-mean losses [E] of `prompts` [E, P, d] on each episode's train rows.

        With `second_order` they can be differentiated twice; without, attention may be fused.
        """

    def query(self, prompts: Tensor, rows: StackRows, *, second_order: bool = False) -> Tensor:
        """Return the token-mean losses [E] of `prompts` [E, P, d] on each episode's dev rows."""

    def shares(self, rows: StackRows) -> list[list[float]]:
        """Return for each episode the share of each of its rows, see `EpisodeLoss.shares`."""


@dataclass
class Cost:
    """What a trajectory has cost so far, resumed parts included."""

    steps: int = 0
    """Outer steps."""
    examples: int = 0
    """Examples read, support and query."""
    tokens: int = 0
    """Tokens of these examples, input and target, without prompt and padding."""
    seconds: float = 0.0
    """Wall-clock time inside `UpstreamRun.advance`."""


class ItemRows:
    """Tokenised train and dev rows of every item; an item is tokenised when it is first met."""

    def __init__(self, backbone: Backbone, tasks: Sequence[FewShotTask], text: TextConfig):
        self._backbone, self._tasks, self._text = backbone, tasks, text
        self._known: dict[tuple[int, str], list[Row]] = {}

    def rows(self, item: int, split: str, places: Sequence[int]) -> list[Row]:
        """Return rows of "train" or "dev" of an item."""
        if (item, split) not in self._known:
            task = self._tasks[item]
            examples = task.train if split == "train" else task.dev
            self._known[item, split] = self._backbone.encode_rows(task.name, examples, self._text)
        return [self._known[item, split][index] for index in places]

    def count(self, episode: Episode, cost: Cost) -> None:
        """Add the examples and tokens of an episode to `cost`."""
        rows = self.rows(episode.item, "dev", episode.query) if episode.query else []
        for batch in episode.support:
            rows += self.rows(episode.item, "train", batch)
        cost.examples += len(rows)
        cost.tokens += sum(len(source) + len(target) for source, target in rows)


class UnionRows(ItemRows):
    """Tokenised rows of the union of all items, by their number in `mpt.gym.union.Union`."""

    def __init__(self, backbone: Backbone, tasks: Sequence[FewShotTask], text: TextConfig):
        super().__init__(backbone, tasks, text)
        self._union = Union(tasks)

    def rows(self, item: int, split: str, places: Sequence[int]) -> list[Row]:
        """Return rows of the union; `item` and `split` are those of its one "train"."""
        rows: list[Row] = []
        for position in places:
            owner, part, row = self._union.locate(position)
            rows += super().rows(owner, part, [row])
        return rows


class ItemsLoss:
    """`StackLoss` of episodes of these items on the backbone.

    Args:
        backbone: the frozen model.
        data: its tokenised rows.
        items: the item of each episode.
        checkpointing: recompute activations in passes that are differentiated once.
        together: of each episode the train rows whose inputs are padded to one length, where
            padding matters; None: those of each pass.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: ItemRows,
        items: Sequence[int],
        *,
        checkpointing: bool = False,
        together: StackRows | None = None,
    ):
        self._backbone, self._data, self._items = backbone, data, tuple(items)
        self._checkpointing = checkpointing
        self._train_widths: list[int] | None = None
        if together is not None and backbone.padding_matters:
            self._train_widths = list(map(_longest, self._read("train", together)))

    def support(self, prompts: Tensor, rows: StackRows, *, second_order: bool = False) -> Tensor:
        """Return the losses on train rows, see `StackLoss`."""
        return self._losses("train", prompts, rows, second_order)

    def query(self, prompts: Tensor, rows: StackRows, *, second_order: bool = False) -> Tensor:
        """Return the losses on dev rows, see `StackLoss`."""
        return self._losses("dev", prompts, rows, second_order)

    def shares(self, rows: StackRows) -> list[list[float]]:
        """Return each train row's share of its episode's target tokens, see `StackLoss`."""
        tokens = [[len(target) for _, target in own] for own in self._read("train", rows)]
        return [[count / sum(own) for count in own] for own in tokens]

    def _read(self, split: str, rows: StackRows) -> list[list[Row]]:
        """Return the tokenised rows of each episode."""
        pairs = zip(self._items, rows, strict=True)
        return [self._data.rows(item, split, own) for item, own in pairs]

    def _losses(self, split: str, prompts: Tensor, rows: StackRows, second_order: bool) -> Tensor:
        read = self._read(split, rows)
        taking_part = [number for number, own in enumerate(read) if own]
        runs = [run for run, number in enumerate(taking_part) for _ in read[number]]
        widths = self._widths(split, read)
        whole = len(taking_part) == len(read)
        with contextlib.ExitStack() as stack:
            if second_order:
                stack.enter_context(self._backbone.second_order())
            elif self._checkpointing:
                stack.enter_context(activation_checkpointing(self._backbone))
            batch = self._backbone.collate([row for own in read for row in own], runs, widths)
            losses = self._backbone.run_losses(prompts if whole else prompts[taking_part], batch)
        if whole:
            return losses
        places = torch.tensor(taking_part, device=losses.device)
        return losses.new_zeros(len(read)).index_copy(0, places, losses)

    def _widths(self, split: str, read: Sequence[Sequence[Row]]) -> list[int] | None:
        """Return to how many tokens each row's input is padded, where padding matters.

        It is the longest input of the row's own episode: others in the pass have no say.
        """
        if not self._backbone.padding_matters:
            return None
        own = self._train_widths if split == "train" else None
        longest = own or [_longest(rows) for rows in read]
        return [width for width, rows in zip(longest, read, strict=True) for _ in rows]


def _longest(rows: Sequence[Row]) -> int:
    """Return the tokens of the longest input; 0 of no rows."""
    return max((len(source) for source, _ in rows), default=0)
