"""What an outer gradient knows of model and data: the loss of a prompt on rows of an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from mpt.backbones.base import Backbone, Row

if TYPE_CHECKING:
    from mpt.config import TextConfig
    from mpt.gym.episodes import Episode
    from mpt.gym.fewshot import FewShotTask


class EpisodeLoss(Protocol):
    """What an outer gradient knows of model and data: the loss of a prompt on rows of an item."""

    def support(
        self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False
    ) -> Tensor:
        """Return the token-mean loss of `prompt` [P, d] on these train rows, a scalar."""

    def query(self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False) -> Tensor:
        """Return the token-mean loss of `prompt` [P, d] on these dev rows, a scalar."""


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
        self._rows: dict[tuple[int, str], list[Row]] = {}

    def get(self, item: int, split: str) -> list[Row]:
        """Return the rows of "train" or "dev" of an item."""
        if (item, split) not in self._rows:
            task = self._tasks[item]
            examples = task.train if split == "train" else task.dev
            self._rows[item, split] = self._backbone.encode_rows(task.name, examples, self._text)
        return self._rows[item, split]

    def count(self, episode: Episode, cost: Cost) -> None:
        """Add the examples and tokens of an episode to `cost`."""
        train, dev = self.get(episode.item, "train"), self.get(episode.item, "dev")
        rows = [train[row] for batch in episode.support for row in batch]
        rows += [dev[row] for row in episode.query]
        cost.examples += len(rows)
        cost.tokens += sum(len(source) + len(target) for source, target in rows)


class ItemLoss:
    """`EpisodeLoss` of one item on the backbone."""

    def __init__(self, backbone: Backbone, data: ItemRows, item: int):
        self._backbone, self._data, self._item = backbone, data, item

    def support(
        self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False
    ) -> Tensor:
        """Return the loss on train rows, see `EpisodeLoss`."""
        return self._loss("train", prompt, rows, second_order)

    def query(self, prompt: Tensor, rows: Sequence[int], *, second_order: bool = False) -> Tensor:
        """Return the loss on dev rows, see `EpisodeLoss`."""
        return self._loss("dev", prompt, rows, second_order)

    def _loss(self, split: str, prompt: Tensor, rows: Sequence[int], second_order: bool) -> Tensor:
        known = self._data.get(self._item, split)
        batch = self._backbone.collate([known[row] for row in rows], [0] * len(rows))
        if not second_order:
            return self._backbone.run_losses(prompt[None], batch)[0]
        with self._backbone.second_order():
            return self._backbone.run_losses(prompt[None], batch)[0]
