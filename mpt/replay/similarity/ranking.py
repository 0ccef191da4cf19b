"""Rankings of candidate tasks in the database, which a pilot's sources are chosen by.

A ranking decides what a pilot learns from, so it is computed once: where the last bits of a sum
differ, as they may on another machine, a resumed pilot goes on with the tasks it has chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpt.errors import DataError
from mpt.replay.similarity.pairs import document_name
from mpt.store.database import FILE, open_results

KIND = "similarity_ranking"
"""Of the documents; readers know them by it."""
RANK_BY = ("prompts", "inputs")
"""Tuned prompts, as in the paper's A.7, or input states of the frozen model."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How similar the candidates of a target task are to it."""

    backbone: str
    """As in the studies."""
    gym: str
    """The same."""
    smoke: bool
    """Whether it means nothing."""
    partition: str
    """Whose source tasks the candidates are."""
    target: str
    """What they are compared with."""
    about: str
    """Digest of all that the similarities depend on."""
    ranked: tuple[tuple[str, float], ...]
    """(candidate, similarity), the most similar first."""
    by: str = "inputs"
    """What is compared: one of `RANK_BY`."""

    @property
    def name(self) -> str:
        """Of its document: readable, and one for all that the similarities depend on."""
        more = (self.partition, self.target, self.about[:8])
        return document_name(self.backbone, self.gym, *more, smoke=self.smoke)


def save_rankings(results: Path, store: str | None, rankings: Sequence[Ranking]) -> None:
    """Store rankings; others stay."""
    with open_results(results, store) as database:
        for ranking in rankings:
            database.put_document(KIND, ranking.name, dataclasses.asdict(ranking))


def load_rankings(results: Path, store: str | None = None) -> tuple[Ranking, ...]:
    """Return the stored rankings; none if there are none, or no results yet.

    Raises:
        DataError: a document was changed, or holds something else.
    """
    if store is None and not (results / FILE).exists():
        return ()
    with open_results(results, store, read_only=True) as database:
        documents = database.documents(KIND)
        database_name = database.name
    try:
        return tuple(
            Ranking(**{**row, "ranked": tuple((str(n), float(v)) for n, v in row["ranked"])})
            for row in documents.values()
        )
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{database_name}: a {KIND} must hold a ranking of this program; compute it again "
            "with --fresh"
        ) from None
