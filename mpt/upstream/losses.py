"""What an outer gradient knows of model and data: the loss of a prompt on rows of an item."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

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


class ItemLoss:
    """`EpisodeLoss` of one item on the backbone.

    Args:
        backbone: the frozen model.
        data: its tokenised rows.
        item: which item.
        checkpointing: recompute activations in passes that are differentiated once.
        together: train rows whose inputs are padded to one length, where padding matters; None:
            those of each pass.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: ItemRows,
        item: int,
        *,
        checkpointing: bool = False,
        together: Sequence[int] | None = None,
    ):
        self._backbone, self._data, self._item = backbone, data, item
        self._checkpointing = checkpointing
        self._train_width: int | None = None
        if together is not None and backbone.padding_matters:
            sources = [source for source, _ in data.rows(item, "train", together)]
            self._train_width = max(map(len, sources))

    def support(
        self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False
    ) -> Tensor:
        """Return the loss on train rows, see `EpisodeLoss`."""
        return self._loss("train", prompt, rows, second_order)

    def query(self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False) -> Tensor:
        """Return the loss on dev rows, see `EpisodeLoss`."""
        return self._loss("dev", prompt, rows, second_order)

    def shares(self, rows: Sequence[int]) -> list[float]:
        """Return each train row's share of the target tokens, see `EpisodeLoss`."""
        tokens = [len(target) for _, target in self._data.rows(self._item, "train", rows)]
        return [count / sum(tokens) for count in tokens]

    def _loss(self, split: str, prompt: Tensor, rows: Sequence[int], second_order: bool) -> Tensor:
        known = self._data.rows(self._item, split, rows)
        width = self._train_width if split == "train" else None
        widths = None if width is None else [width] * len(rows)
        batch = self._backbone.collate(known, [0] * len(rows), widths)
        with contextlib.ExitStack() as stack:
            if second_order:
                stack.enter_context(self._backbone.second_order())
            elif self._checkpointing:
                stack.enter_context(activation_checkpointing(self._backbone))
            return self._backbone.run_losses(prompt[None], batch)[0]
