"""Similarities of Table 7 in the database: one document a backbone, gym and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from mpt.store.database import open_results

KIND = "similarity_pairs"
"""Of the documents; readers know them by it."""
KINDS = ("similar", "dissimilar")
"""Pairs of tasks, compared on their inputs."""
PROMPT_KINDS = ("similar, prompts", "dissimilar, prompts")
"""The same pairs, compared on tuned prompts; they may be absent."""

Pairs = Mapping[str, Sequence[tuple[str, str, float]]]
"""Kind → (task, task, similarity), see `mpt.replay.similarity.measure.compare_pairs`."""


def document_name(backbone: str, gym: str, *more: str, smoke: bool) -> str:
    """Return the name of a document: readable, and one for what it is of."""
    return ", ".join([backbone, PurePath(gym).name, *more, *(["smoke"] if smoke else [])])


def save_pairs(
    results: Path,
    store: str | None,
    pairs: Pairs,
    *,
    backbone: str,
    gym: str,
    smoke: bool,
    about: str,
) -> None:
    """Store similarities, in the place of older ones of the same backbone, gym and size.

    Args:
        results: results directory.
        store: URL of its database; None: the one inside it.
        pairs: the similarities.
        backbone: that read the tasks, as studies name it.
        gym: as studies name it.
        smoke: whether they mean nothing.
        about: what they were computed on, one line for readers.
    """
    kinds = (*KINDS, *(kind for kind in PROMPT_KINDS if kind in pairs))
    body = {
        "backbone": backbone,
        "gym": gym,
        "smoke": smoke,
        "pairs": {kind: [list(pair) for pair in pairs.get(kind, ())] for kind in kinds},
        "about": about,
    }
    with open_results(results, store) as database:
        database.put_document(KIND, document_name(backbone, gym, smoke=smoke), body)


def pair_lines(pairs: Pairs) -> list[str]:
    """Return one line a pair and one a mean, by kind."""
    lines = []
    for kind, triples in pairs.items():
        lines += [f"{kind}: {left} and {right} {value:.3f}" for left, right, value in triples]
        mean = sum(value for *_, value in triples) / len(triples)
        lines.append(f"{kind}: mean {mean:.3f}")
    return lines
