"""The best settings that searches have found, read from a results directory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.config import UpstreamConfig
from mpt.errors import DataError, UsageError
from mpt.records import LeafStore, PointStore
from mpt.study.spaces import Trajectory
from mpt.trial.objective import BAD_SCORE, PointScore, score_point
from mpt.trial.points import point_is_whole

if TYPE_CHECKING:
    from mpt.config import StudyConfig

COMMON = "random_to_random"
"""The setting whose best point serves those that were not searched, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """A setting to be replayed, and where it is from."""

    trajectory: Trajectory
    """With one rung."""
    origin: str
    """For people."""


class BestPoints:
    """The argmax over the point records of a results directory.

    A point counts if it is of a search (its scored tasks are validation tasks), on all source
    tasks at their own sample size, whole, and has an ARG. Equal scores keep the order of the keys.

    Args:
        results: results directory of one or more searches; nothing is written.
        searched_on: backbone whose best points serve those that were not searched, as T5-large's
            serve all in the paper; None: there is no such one.

    Raises:
        UsageError: there is no such directory.
    """

    def __init__(self, results: Path, searched_on: str | None = None) -> None:
        if not results.is_dir():
            raise UsageError(
                f"--from is {str(results)!r}, but must be the results directory of a search; run "
                "one first, or leave --from out"
            )
        self._results, self._searched_on = results, searched_on
        store = LeafStore(results, read_only=True)
        self._found: dict[tuple[str, str, str], list[tuple[PointScore, Mapping[str, Any]]]] = {}
        for point in PointStore(results, read_only=True).all():
            if _counts(point) and point_is_whole(point, store):
                score = score_point(point, store)
                if score.score > BAD_SCORE:
                    place = (point["method"], point["backbone"], point["partition"])
                    self._found.setdefault(place, []).append((score, point))

    def best(self, method: str, study: StudyConfig) -> Best | None:
        """Return the best point of a method for a study; None if there is none.

        That is the best one of the study's own partition if it was searched, and else that of
        random_to_random; on its own backbone, and else on `searched_on`.
        """
        backbones = [study.backbone]
        backbones += [] if self._searched_on in (None, study.backbone) else [self._searched_on]
        for backbone, partition in itertools.product(backbones, (study.partition, COMMON)):
            found = self._found.get((method, backbone, partition))
            if found:
                score, point = max(found, key=lambda entry: entry[0].score)
                return Best(
                    trajectory=Trajectory(config=_config(point), rungs=(int(point["steps"]),)),
                    origin=self._origin(len(found), partition, score, point, study),
                )
        return None

    def _origin(
        self,
        count: int,
        partition: str,
        score: PointScore,
        point: Mapping[str, Any],
        study: StudyConfig,
    ) -> str:
        text = f"best of {count} points on {partition} in {self._results}, ARG {score.score:+.2f}"
        if score.gain is not None and score.gain.low is not None and score.gain.high is not None:
            text += f" [{score.gain.low:+.2f}, {score.gain.high:+.2f}]"
        if point["partial"]:
            text += f"; {point['partial']}"
        if point["backbone"] != study.backbone:
            text += f"; searched on {point['backbone']}"
        length = point["identity"]["prompt"]["length"]
        if length != study.prompt.length:
            text += f"; searched with {length} prompt tokens, replayed with {study.prompt.length}"
        return text


def _counts(point: Mapping[str, Any]) -> bool:
    return (
        point["role"] == "validation"
        and point["status"] == "ok"
        and point["method"] == point["config"].get("method")
        and point["source_set"] == "all"
        and point["source_shots"] is None
        and point["target_shots"] is None
    )


def _config(point: Mapping[str, Any]) -> UpstreamConfig:
    try:
        return UpstreamConfig(**point["config"])
    except TypeError as error:
        raise DataError(
            f"point {point['key']}: its settings are not those of this program ({error})"
        ) from None
