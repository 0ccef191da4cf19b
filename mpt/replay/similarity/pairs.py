"""Similarities of Table 7 in the database: one document a backbone, gym and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

KIND = "similarity_pairs"
"""Of the documents; readers know them by it."""
KINDS = ("similar", "dissimilar")
"""Pairs of tasks, compared on their inputs."""
PROMPT_KINDS = ("similar, prompts", "dissimilar, prompts")
"""The same pairs, compared on tuned prompts; they may be absent."""

Pairs = Mapping[str, Sequence[tuple[str, str, float]]]
"""Kind → (task, task, similarity), see `mpt.replay.similarity.measure.similarity`."""


def document_name(backbone: str, gym: str, *more: str, smoke: bool) -> str:
    """Return the name of a document: readable, and one for what it is of."""
    return ", ".join([backbone, PurePath(gym).name, *more, *(["smoke"] if smoke else [])])


def pair_lines(pairs: Pairs) -> list[str]:
    """Return one line a pair and one a mean, by kind."""
    lines = []
    for kind, triples in pairs.items():
        lines += [f"{kind}: {left} and {right} {value:.3f}" for left, right, value in triples]
        mean = sum(value for *_, value in triples) / len(triples)
        lines.append(f"{kind}: mean {mean:.3f}")
    return lines
