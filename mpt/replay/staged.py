"""A call that runs several jobs one after the other; the same call again goes on."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.search.display.display import make_console, print_document
from mpt.search.display.setting_display import SettingDisplay
from mpt.search.job import INTERRUPTED, Execution, SearchJob
from mpt.search.ray.session import one_ray
from mpt.search.run import run_search

if TYPE_CHECKING:
    from mpt.search.cost.plan import Rates
    from mpt.search.cost.planner import Planning


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How it is run; nothing here changes a result."""

    report: Path
    """Where the report goes."""
    planning: Planning
    """What the plan tells besides the work."""
    dry_run: bool = False
    """Only plan."""
    fresh: bool = False
    """Move the results so far aside first."""
    as_json: bool = False
    """The results as one JSON document on stdout; all else on stderr."""


class StagedRun(ABC):
    """One call."""

    def __init__(self, execution: Execution, manner: Manner) -> None:
        self._execution = execution
        self._console = make_console(stderr=manner.as_json)
        self._as_json = manner.as_json
        self._documents: list[Mapping[str, Any]] = []

    def run(self) -> int:
        """Run it, or as far as it gets; return the exit code (`run_search`)."""
        try:
            with one_ray():
                code = self._run()
        except KeyboardInterrupt:
            self._say(f"interrupted between two jobs; resume with: {self._execution.resume}")
            code = INTERRUPTED
        if self._as_json:
            print_document({"exit_code": code, **self._document(), "jobs": self._documents})
        return code

    @abstractmethod
    def _run(self) -> int:
        """Run the stages; return the exit code."""

    @abstractmethod
    def _document(self) -> dict[str, Any]:
        """Return what the JSON document tells besides the jobs."""

    def _compute(
        self, job: SearchJob, display: type[SettingDisplay], after: str, rates: Rates | None
    ) -> int:
        """Run a job; return its exit code."""
        self._say()
        show = display(job, as_json=self._as_json, sink=self._documents.append)
        execution = dataclasses.replace(self._execution, next_step=after)
        return run_search(job, execution, display=show, rates=rates)

    def _say(self, text: str = "") -> None:
        self._console.print(text)
