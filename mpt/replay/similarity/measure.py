"""How alike two tasks are: the angle between the subspaces their inputs span in the backbone.

A task's representation matrix R [n, d] has one row a sample; with R = W Σ Vᵀ its subspace is that
of the first k right singular vectors U = V[:, :k] (left ones of Rᵀ, as Saha et al. 2021, GPM,
write it), k being the smallest number with

    Σ_{i ≤ k} σ_i² ≥ threshold · Σ_i σ_i²,

and the similarity of two tasks (Lin et al. 2022, TRGP; the paper's A.6) is

    sim(a, b) = ‖U_aᵀ U_b‖_F / √k.

The paper gives neither layer nor threshold nor number of samples: `SimilarityConfig` has them,
with defaults of ours. It is silent too on which k is meant where k_a ≠ k_b. Here it is the smaller
one: ‖U_aᵀ U_b‖_F² is the sum of cos² over the min(k_a, k_b) principal angles, so that sim is their
root mean square cosine. It is symmetric, lies in [0, 1], is 0 for orthogonal subspaces, and is 1
exactly where the smaller subspace lies within the larger.

For tuned prompts (A.7) the prompt [P, d] itself is R.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mpt.backbones.rows import length_groups
from mpt.errors import DataError, UsageError
from mpt.gym.fewshot import Example, FewShotTask
from mpt.rules import at_least, check
from mpt.seeds import numpy_generator

if TYPE_CHECKING:
    from mpt.backbones import Backbone
    from mpt.config import TextConfig

MAX_TOKENS = 8192
"""Padded tokens of a forward pass; the states do not depend on it beyond rounding."""

CHOICES = ("highest", "random", "lowest")
"""How `select_sources` chooses (Table 8)."""


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig:
    """What the paper leaves open about the representation matrix of a task."""

    layer: int = -1
    """Which of `Backbone.input_states`: 0 is the embeddings, -1 what leaves the last layer."""
    threshold: float = 0.95
    """Share of the energy Σσ² that the subspace must hold, in (0, 1]."""
    samples: int = 64
    """Rows n of the matrix, drawn without replacement from train and dev of one data seed. At 16
    examples a class every task of the gym has as many: 2 classes × 16 × 2, or 32 × 2."""
    states: str = "tokens"
    """"tokens": every token of a sample is a row; "mean": a sample's row is the mean over them. On
    the embedded model means share so much of one direction that k is 1 to 5 at 0.95 and unrelated
    tasks reach 0.88; with tokens they reach 0.68 and related ones 0.88."""
    named: bool = False
    """Whether inputs carry the task's name, as they do in training. Without it, tasks are compared
    by what they ask and not by what they are called."""

    def __post_init__(self) -> None:
        check(
            self,
            threshold=((lambda share: 0 < share <= 1), "a number in (0, 1]"),
            samples=at_least(1),
            states=((lambda kind: kind in ("tokens", "mean")), '"tokens" or "mean"'),
        )


Subspace = Tensor
"""U: orthonormal columns [d, k], float64, that span the subspace of a task or prompt."""


def subspace(matrix: Tensor, threshold: float) -> Subspace:
    """Return the smallest subspace of singular vectors that holds the energy `threshold`.

    Args:
        matrix: R [n, d], one representation a row; for a tuned prompt, the prompt.
        threshold: share of Σσ² in (0, 1].

    Raises:
        DataError: the matrix is all zero, or holds a number that is not finite.
    """
    wide = matrix.detach().cpu().double()
    if not bool(wide.isfinite().all()):
        raise DataError("matrix holds a number that is not finite; was the run a diverged one?")
    # The scale does not change the subspace, and squares of extreme numbers leave float64.
    largest = wide.abs().max()
    if largest == 0:
        raise DataError("matrix is all zero, so it spans no subspace")
    _, sigma, right = torch.linalg.svd(wide / largest, full_matrices=False)
    share = sigma.square().cumsum(0) / sigma.square().sum()
    # Rounding must not cost a vector more where the energy is exactly the threshold.
    enough = share >= threshold - 1e-12
    k = int(enough.nonzero()[0]) + 1
    return right[:k].T.contiguous()


def similarity(a: Subspace, b: Subspace) -> float:
    """Return ‖U_aᵀ U_b‖_F / √min(k_a, k_b) ∈ [0, 1] of subspaces of one width (see above)."""
    cosines = torch.linalg.matrix_norm(a.T @ b)
    return min(1.0, float(cosines) / math.sqrt(min(a.shape[1], b.shape[1])))


def task_matrix(
    backbone: Backbone,
    task: FewShotTask,
    config: SimilarityConfig,
    text: TextConfig,
    root_seed: int,
) -> Tensor:
    """Return the representation matrix R of a task: [n, d], or [tokens, d] of n samples.

    The states are those of the inputs alone: no prompt and no target is read, and no test row. For
    T5 and BART they are the encoder's, for GPT-2 those of the whole model. A task with fewer than
    `config.samples` rows in train and dev gives all it has.

    Args:
        backbone: the frozen model.
        task: one few-shot sample.
        config: layer, samples, kind of states.
        text: input length.
        root_seed: root of the draw of samples, which depends on task name and data seed alone.
    """
    pool = [*task.train, *task.dev]
    rng = numpy_generator(root_seed, "similarity", task.name, task.seed)
    chosen = sorted(rng.permutation(len(pool))[: config.samples])
    rows = _encode(backbone, task.name, [pool[row] for row in chosen], config.named, text)
    table = backbone.table(rows)
    parts: dict[int, Tensor] = {}
    for group in length_groups(table.input_lengths, MAX_TOKENS):
        batch = table.batch(group, [0] * len(group))
        layers = backbone.input_states(batch)
        if not -len(layers) <= config.layer < len(layers):
            raise UsageError(
                f"layer is {config.layer}, but backbone {backbone.name} has the layers 0 "
                f"(embeddings) to {len(layers) - 1}"
            )
        states = layers[config.layer].double().cpu()
        for index, row in enumerate(group):
            own = states[index, : table.input_lengths[row]]
            parts[row] = own.mean(0, keepdim=True) if config.states == "mean" else own
    return torch.cat([parts[row] for row in range(len(rows))])


def _encode(
    backbone: Backbone, name: str, examples: Sequence[Example], named: bool, text: TextConfig
) -> list[tuple[list[int], list[int]]]:
    """Return the rows of the inputs; the blank before them is the one that `render` writes."""
    if named:
        return backbone.encode_rows(name, examples, text)
    end = [backbone.end_id]  # a table needs a target; it is not read
    return [(backbone.encode_input(f" {e.input}", text.max_input), end) for e in examples]


def task_subspaces(
    backbone: Backbone,
    tasks: Iterable[FewShotTask],
    config: SimilarityConfig,
    text: TextConfig,
    root_seed: int,
) -> dict[str, Subspace]:
    """Return the subspace of each task by its name; each task is given at one data seed."""
    return {
        task.name: subspace(task_matrix(backbone, task, config, text, root_seed), config.threshold)
        for task in tasks
    }


def rank_sources(
    target: str, candidates: Sequence[str], subspaces: Mapping[str, Subspace]
) -> list[tuple[str, float]]:
    """Return (candidate, similarity to the target), the most similar first; ties by name."""
    ranked = [(name, similarity(subspaces[target], subspaces[name])) for name in candidates]
    return sorted(ranked, key=lambda pair: (-pair[1], pair[0]))


def select_sources(
    ranking: Sequence[tuple[str, float]], how: str, count: int = 5, *, target: str, root_seed: int
) -> list[str]:
    """Return `count` source tasks of a ranking (Table 8: highest, random or lowest five).

    Args:
        ranking: what `rank_sources` gave.
        how: "highest" and "lowest" in similarity, or "random", drawn from the whole ranking.
        count: number of tasks.
        target: the ranking's target; the draw depends on it, the root seed and the names.
        root_seed: root of the random draw.
    """
    names = [name for name, _ in ranking]
    if how == "random":
        rng = numpy_generator(root_seed, "similarity", "random sources", target)
        return sorted(sorted(names)[row] for row in rng.permutation(len(names))[:count])
    return names[:count] if how == "highest" else names[::-1][:count]
