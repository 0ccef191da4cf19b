"""Upstream methods written out with plain PyTorch, `higher` and Hugging Face's Adafactor.

They share with the library the batches that are drawn and the seeds of dropout, and nothing else:
embeddings, layout, loss, inner and outer steps are done here on the Hugging Face model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import higher
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.optimization import Adafactor

from mpt.backbones import Backbone
from mpt.config import UpstreamConfig
from mpt.gym.episodes import Episode, EpisodeStream
from mpt.gym.fewshot import Example, FewShotTask
from mpt.gym.union import UnionStream
from mpt.seeds import derive


class _Phi(nn.Module):
    def __init__(self, prompt: Tensor):
        super().__init__()
        self.phi = nn.Parameter(prompt)

    def forward(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        return loss(self.phi)


def _adafactor(phi: nn.Parameter, lr: float) -> Adafactor:
    settings: dict[str, Any] = {"scale_parameter": False, "relative_step": False}
    settings |= {"decay_rate": -0.8, "weight_decay": 1e-5, "clip_threshold": 1.0}
    settings |= {"beta1": None, "warmup_init": False, "lr": lr}
    return Adafactor([phi], **settings)


class PlainLoop:
    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[FewShotTask],
        config: UpstreamConfig,
        start: Tensor,
        root_seed: int,
    ):
        self.backbone, self.tasks, self.config, self.root = backbone, tasks, config, root_seed
        self.phi = nn.Parameter(start)
        self.adafactor = _adafactor(self.phi, config.outer_lr)
        stream = UnionStream if config.method == "multitask" else EpisodeStream
        self.stream = stream(tasks, config, root_seed)

    def run(self, steps: int) -> Tensor:
        count = self.config.items_per_step
        for step in range(steps):
            self.phi.grad = torch.zeros_like(self.phi)
            for index in range(step * count, step * count + count):
                seed = derive(self.root, "dropout", "upstream", index)
                with self.backbone.dropout(self.config.dropout, seed):
                    self.phi.grad += PLAIN[self.config.method](self, self.stream.episode(index))
            if self.config.method == "reptile":
                self.phi.grad /= count
            self.adafactor.step()
        return self.phi.detach()

    def loss(self, phi: Tensor, rows: Sequence[tuple[str, Example]]) -> Tensor:
        """Token-mean cross-entropy, as the Hugging Face model itself computes it."""
        model: Any = self.backbone.model
        tokenizer: Any = self.backbone._tokenizer
        texts = [
            (f" [{name}] {example.input}", f" {example.outputs[0]}") for name, example in rows
        ]
        sources = [tokenizer(source)["input_ids"] for source, _ in texts]
        targets = [tokenizer(target)["input_ids"] for _, target in texts]
        stop = tokenizer.eos_token_id
        sources = [ids if ids[-1] == stop else [*ids, stop] for ids in sources]
        targets = [ids if ids[-1] == stop else [*ids, stop] for ids in targets]
        wide = max([*map(len, sources), self.width])
        embedded, mask = [], []
        for ids in sources:
            padding = torch.zeros(wide - len(ids), dtype=torch.long)
            words, holes = [model.shared(torch.tensor(ids))], [model.shared(padding)]
            middle, end = (holes, []) if self.padded else ([], holes)
            embedded.append(torch.cat([*words, *middle, phi, *end]))
            hole = [0] * len(padding)
            middle, end = (hole, []) if self.padded else ([], hole)
            mask.append([1] * len(ids) + middle + [1] * len(phi) + end)
        tall = max(map(len, targets))
        labels = torch.tensor([ids + [-100] * (tall - len(ids)) for ids in targets])
        with sdpa_kernel(SDPBackend.MATH) if self.double else sdpa_kernel(_ANY):
            return model(
                inputs_embeds=torch.stack(embedded),
                attention_mask=torch.tensor(mask),
                labels=labels,
                use_cache=False,
            ).loss

    double = False
    padded = False
    """The prompt stands after the padding."""
    width = 0
    """Tokens to which inputs are padded at least."""

    def rows(self, episode: Episode, split: str, rows: Sequence[int]) -> list[tuple[str, Example]]:
        task = self.tasks[episode.item]
        return [(task.name, getattr(task, split)[row]) for row in rows]

    def slope(self, phi: Tensor, rows: Sequence[tuple[str, Example]]) -> Tensor:
        leaf = phi.detach().clone().requires_grad_()
        return torch.autograd.grad(self.loss(leaf, rows), leaf)[0]


_ANY = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _maml(loop: PlainLoop, episode: Episode) -> Tensor:
    loop.double = True
    module = _Phi(loop.phi.detach().clone())
    sgd = torch.optim.SGD(module.parameters(), lr=loop.config.inner_lr)
    with higher.innerloop_ctx(module, sgd, copy_initial_weights=False) as (inner, step):
        for batch in episode.support:
            support = loop.rows(episode, "train", batch)
            step.step(inner(lambda phi, rows=support: loop.loss(phi, rows)))
        query = loop.rows(episode, "dev", episode.query)
        inner(lambda phi: loop.loss(phi, query)).backward()
    assert module.phi.grad is not None
    return module.phi.grad


def _adapted(loop: PlainLoop, episode: Episode) -> Tensor:
    return _walk(loop, episode)[-1]


def _walk(loop: PlainLoop, episode: Episode) -> list[Tensor]:
    """φ and the slopes on the way to φ_k: [slope_1, …, slope_k, φ_k]."""
    phi = nn.Parameter(loop.phi.detach().clone())
    inner: Any = (
        _adafactor(phi, loop.config.inner_lr)
        if loop.config.inner_optimiser == "adafactor"
        else torch.optim.SGD([phi], loop.config.inner_lr)
    )
    slopes = []
    for batch in episode.support:
        phi.grad = loop.slope(phi, loop.rows(episode, "train", batch))
        slopes.append(phi.grad.clone())
        inner.step()
    return [*slopes, phi.detach()]


def _fomaml(loop: PlainLoop, episode: Episode) -> Tensor:
    phi = _adapted(loop, episode)
    return loop.slope(phi, loop.rows(episode, "dev", episode.query))


def _reptile(loop: PlainLoop, episode: Episode) -> Tensor:
    # the rows of all inner steps are drawn, and padded, together
    support = [row for batch in episode.support for row in batch]
    texts = [f" [{name}] {row.input}" for name, row in loop.rows(episode, "train", support)]
    if loop.padded:
        loop.width = 1 + max(map(len, texts))  # a byte is a token; the end mark
    return (loop.phi.detach() - _adapted(loop, episode)) / loop.config.inner_lr


def _path(loop: PlainLoop, episode: Episode) -> Tensor:
    *slopes, phi = _walk(loop, episode)
    total = loop.slope(phi, loop.rows(episode, "dev", episode.query))
    for slope in slopes:
        total = total + slope
    return total


def _multitask(loop: PlainLoop, episode: Episode) -> Tensor:
    everything = [
        (task.name, example) for task in loop.tasks for example in (*task.train, *task.dev)
    ]
    return loop.slope(loop.phi, [everything[row] for row in episode.support[0]])


PLAIN: dict[str, Callable[[PlainLoop, Episode], Tensor]] = {
    "maml": _maml,
    "fomaml": _fomaml,
    "reptile": _reptile,
    "multitask": _multitask,
    "path": _path,
}
