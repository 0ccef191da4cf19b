"""Which settings tell the courses of a job apart, and how they are written in a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpt.study.study import shots_text

if TYPE_CHECKING:
    from mpt.search.job import Course, SearchJob

_STUDY: dict[str, Callable[[Course], Any]] = {
    "method": lambda course: course.trajectory.config.method,
    "partition": lambda course: course.plan.config.partition,
    "backbone": lambda course: course.plan.config.backbone.rstrip("/").rpartition("/")[2],
    "sources": lambda course: course.plan.source_set,
    "source_shots": lambda course: shots_text(course.plan.source_shots),
    "target_shots": lambda course: shots_text(course.plan.target_shots),
}
"""What may differ between the studies of a job."""

_SETTINGS = ("inner_lr", "outer_lr", "inner_steps", "batch_size", "items_per_step")
"""What may differ between trajectories."""

_UNUSED = {"multitask": ("inner_lr", "inner_steps")}
"""Settings that a method does not read."""


class Columns:
    """The columns that tell courses apart; the learning rates always, where they are read.

    Args:
        job: whose courses.
        settings: have columns for settings of trajectories, too.
    """

    def __init__(self, job: SearchJob, *, settings: bool = True) -> None:
        searched = [] if job.search is None else [one.name for one in job.search.space.domains]
        self.names: list[str] = []
        self._widths: list[int] = []
        for name in (*_STUDY, *(_SETTINGS if settings else ())):
            values = [_value(course, name) for course in job.courses]
            different = len(set(values)) > 1 or name in searched
            if different or (name.endswith("_lr") and set(values) != {None}):
                self.names.append(name)
                self._widths.append(max(12, *(len(word) + 2 for word in (name, *_texts(values)))))

    def of(self, course: Course) -> list[str]:
        """Return a course's values, in the order of `names`."""
        return _texts([_value(course, name) for name in self.names])

    def line(self, words: Sequence[str]) -> str:
        """Return one word a column, flush right."""
        pairs = zip(words, self._widths, strict=True)
        return "".join(f"{word:>{width}}" for word, width in pairs)


def _value(course: Course, name: str) -> Any:
    config = course.trajectory.config
    if name in _UNUSED.get(config.method, ()):
        return None
    return _STUDY[name](course) if name in _STUDY else getattr(config, name, None)


def _texts(values: Sequence[Any]) -> list[str]:
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
