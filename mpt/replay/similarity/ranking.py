"""Rankings of candidate tasks on disk: ``rankings.json`` beside the records, written by a job.

A ranking decides what a pilot learns from, so it is computed once: where the last bits of a sum
differ, as they may on another machine, a resumed pilot goes on with the tasks it has chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpt.errors import DataError
from mpt.storage import Disk, seal, unseal

FILE = "rankings.json"


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How similar the candidates of a target task are to it."""

    backbone: str
    """As in the point records."""
    gym: str
    """The same."""
    partition: str
    """Whose source tasks the candidates are."""
    target: str
    """What they are compared with."""
    about: str
    """Digest of all that the similarities depend on."""
    ranked: tuple[tuple[str, float], ...]
    """(candidate, similarity), the most similar first."""

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What it is a ranking of."""
        return self.backbone, self.gym, self.partition, self.target


def save_rankings(results: Path, rankings: Sequence[Ranking]) -> None:
    """Write rankings into a results directory, in place of older ones of the same targets."""
    kept = {ranking.place: ranking for ranking in (*load_rankings(results), *rankings)}
    body = {"rankings": [dataclasses.asdict(kept[place]) for place in sorted(kept)]}
    disk = Disk(results)
    disk.prepare()
    disk.write(results / FILE, seal(body))


def load_rankings(results: Path) -> tuple[Ranking, ...]:
    """Return the rankings of a results directory; none if there are none.

    Raises:
        DataError: the file is torn, changed, or holds something else.
    """
    path = results / FILE
    if not path.exists():
        return ()
    body = unseal(path)
    try:
        return tuple(
            Ranking(**{**row, "ranked": tuple((str(n), float(v)) for n, v in row["ranked"])})
            for row in body["rankings"]
        )
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: must hold rankings of this program; move it away") from None
