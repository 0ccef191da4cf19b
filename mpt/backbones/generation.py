"""How output tokens are chosen: greedily or by beam search.

Shapes: B rows, K beams, V vocabulary, d model width, n tokens written.

Each row is searched by itself: what it is batched with changes nothing but rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEVER = -1e9
"""Log-probability of what must not be chosen."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Which output is looked for; the defaults are greedy (recipe row 14 has both)."""

    beams: int = 1
    """K; 1 is greedy. A beam search stops as soon as K outputs have ended ("early stopping")."""
    repetition_penalty: float = 1.0
    """Scores of tokens already written are divided by it if positive and else multiplied. What
    the model was given (input, prompt, start token) is never counted, on any backbone."""
    length_penalty: float = 1.0
    """Beams are compared by log-probability / length^length_penalty."""

    @property
    def plain(self) -> bool:
        """Whether every token is the arg-max of the model's own logits."""
        return self.beams == 1 and self.repetition_penalty == 1.0


GREEDY = Generation()


class Decoding(ABC):
    """A model in the middle of writing B rows."""

    @abstractmethod
    def next_states(self, tokens: Tensor | None) -> Tensor:
        """Take the tokens [B] just chosen (None at the start); return the next states [B, d]."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; a row may be named several times."""


@dataclass(frozen=True)
class Begun:
    """A row that a model has read, maybe with the beginning of its output."""

    written: list[int]
    """Tokens of the output that need not be written again; the last of them is not yet read."""
    memory: Tensor
    """What the model keeps of each of S places: [..., S, h]."""
    mask: Tensor
    """Which of them are real [S]."""


class BatchRead(ABC):
    """What a model keeps of B rows that it has read together with their targets."""

    @abstractmethod
    def row(self, index: int, written: list[int]) -> Begun:
        """Return a row of which all but the last of these n ≥ 1 tokens are its target's first."""


Head = Callable[[Tensor], Tensor]
"""States [B, d] → logits [B, V]."""


def greedy_search(
    decoding: Decoding, head: Head, end: int, max_new_tokens: int, penalty: float
) -> list[list[int]]:
    """Return every row's output, the end mark included where it came; stop when all ended."""
    logits = head(decoding.next_states(None))
    token = logits.argmax(-1)
    written = token[:, None]  # [B, n]
    ended = token == end
    while written.shape[1] < max_new_tokens and not bool(ended.all()):
        logits = head(decoding.next_states(token))
        token = _penalised(logits, written, penalty).argmax(-1)
        written = torch.cat([written, token[:, None]], 1)
        ended |= token == end
    return [_until(ids, end) for ids in written.tolist()]


def beam_search(
    decoding: Decoding, head: Head, end: int, max_new_tokens: int, how: Generation
) -> list[list[int]]:
    """Return every row's best output by beam search.

    It is Hugging Face's search with ``early_stopping=True``: of the 2K best continuations of the
    K running beams, those among the first K that end are kept as outputs, the K best others run
    on; a row is done when K outputs are kept, when nothing better can come, or at the length
    limit, where all count as ended.
    """
    first = head(decoding.next_states(None))
    search = _Beams(len(first), how, end, max_new_tokens, first.device)
    decoding.select(torch.arange(len(first), device=first.device).repeat_interleave(how.beams))
    logits = first.repeat_interleave(how.beams, 0)
    while True:
        rows, tokens = search.take(logits)
        if bool(search.done.all()):
            return [_until(ids, end) for ids in search.best()]
        decoding.select(rows)
        logits = head(decoding.next_states(tokens))


class _Beams:
    """K running and K ended outputs of every row."""

    def __init__(self, b: int, how: Generation, end: int, limit: int, device: torch.device):
        self._how, self._end, self._limit = how, end, limit
        k = how.beams
        self._running = torch.zeros(b, k, 0, dtype=torch.long, device=device)
        self._log_p = torch.full((b, k), _NEVER, device=device)
        self._log_p[:, 0] = 0.0  # at first all beams are the same: one counts
        self._kept = torch.full((b, k, limit), end, dtype=torch.long, device=device)
        self._scores = torch.full((b, k), _NEVER, device=device)
        self.done = torch.zeros(b, dtype=torch.bool, device=device)

    def take(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose continuations; return which rows [B·K] go on and with which tokens [B·K]."""
        b, k = self._log_p.shape
        n = self._running.shape[2] + 1
        log_p = logits.log_softmax(-1)
        log_p = _penalised(log_p, self._running.flatten(0, 1), self._how.repetition_penalty)
        total = (log_p.view(b, k, -1) + self._log_p[:, :, None]).flatten(1)  # [B, K·V]
        best, flat_index = total.topk(min(2 * k, total.shape[1]))
        beam, token = flat_index // log_p.shape[1], flat_index % log_p.shape[1]  # [B, 2K]
        outputs = torch.cat([_pick(self._running, beam), token[:, :, None]], 2)  # [B, 2K, n]
        ends = (token == self._end) | (n == self._limit)
        self._keep(outputs, best, ends)
        self._log_p, going = best.masked_fill(ends, _NEVER).topk(k)
        self._running = _pick(outputs, going)
        self._finish(n)
        offset = torch.arange(b, device=beam.device)[:, None] * k
        rows = (beam.gather(1, going) + offset).flatten()
        return rows, self._running[:, :, -1].flatten()

    def _keep(self, outputs: Tensor, log_p: Tensor, ends: Tensor) -> None:
        """Keep the K best of the outputs that ended now or before, in rows not yet done."""
        k, n = self._scores.shape[1], outputs.shape[2]
        scores = log_p / n**self._how.length_penalty
        counts = ends & (torch.arange(ends.shape[1], device=ends.device) < k)
        scores = scores.masked_fill(~counts | self.done[:, None], _NEVER)
        padded = outputs.new_full((*outputs.shape[:2], self._limit), self._end)
        padded[:, :, :n] = outputs
        self._scores, chosen = torch.cat([self._scores, scores], 1).topk(k)
        self._kept = _pick(torch.cat([self._kept, padded], 1), chosen)

    def _finish(self, n: int) -> None:
        """Mark the rows that hold K outputs or are at the limit.

        No row runs dry: each of K beams has one end mark, so K of the 2K continuations go on.
        """
        full = (self._scores > _NEVER / 2).all(1)
        self.done = self.done | full | (n == self._limit)

    def best(self) -> list[list[int]]:
        """Return every row's best output."""
        outputs: list[list[int]] = self._kept[:, 0].tolist()
        return outputs


def _pick(outputs: Tensor, beams: Tensor) -> Tensor:
    """Return the outputs [B, ·, n] of these beams [B, ·]."""
    return outputs.gather(1, beams[:, :, None].expand(-1, -1, outputs.shape[2]))


def _penalised(scores: Tensor, written: Tensor, penalty: float) -> Tensor:
    """Return scores [B, V] with those of the written tokens [B, n] lowered."""
    if penalty == 1.0 or written.shape[1] == 0:
        return scores
    old = scores.gather(1, written)
    return scores.scatter(1, written, torch.where(old < 0, old * penalty, old / penalty))


def _until(ids: list[int], end: int) -> list[int]:
    """Cut after the first end mark."""
    return ids[: ids.index(end) + 1] if end in ids else ids
