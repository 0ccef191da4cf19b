"""One call of a contest: plan, search, freeze, confirm, report; the same call again goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.errors import UsageError
from mpt.replay.contest.plan import budget_lines, plan_contest
from mpt.replay.contest.stages import (
    ContestRequest,
    choose,
    confirmation_job,
    expected_entries,
    search_job,
)
from mpt.search.display.display import make_console, print_document
from mpt.search.display.setting_display import CellDisplay, SettingDisplay
from mpt.search.job import DONE, INTERRUPTED, Execution, SearchJob
from mpt.search.ray.session import one_ray
from mpt.search.run import run_search, set_results_aside
from mpt.store.database import open_results
from mpt.study.contest.frozen import Frozen, freeze, keep, read_frozen

if TYPE_CHECKING:
    from mpt.search.cost.plan import Rates
    from mpt.search.cost.planner import Planning

STAGES = ("search", "freeze", "confirm", "report")
"""In the order of a run."""

ContestReport = Callable[[Path, str | None, Path, Path], Mapping[str, Any]]
"""(results directory, URL of the database if it is not in there, file of frozen settings, folder
of the report) → ``lines`` for people, and what else stands in the JSON document."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a contest is run; nothing here changes a result."""

    stages: tuple[str, ...]
    """Some of `STAGES`."""
    frozen: Path
    """The file of frozen settings."""
    report: Path
    """Folder of the report."""
    planning: Planning
    """What the plan tells besides the work."""
    dry_run: bool = False
    """Only plan."""
    fresh: bool = False
    """Move the results so far aside first."""
    as_json: bool = False
    """The results as one JSON document on stdout; all else on stderr."""

    def __post_init__(self) -> None:
        for name in self.stages:
            if name not in STAGES:
                raise UsageError(f"stage {name!r} is unknown; known are {', '.join(STAGES)}")


class ContestRun:
    """One call.

    Args:
        request: the contest.
        execution: where it runs.
        manner: how.
        report: writes the report.
    """

    def __init__(
        self,
        request: ContestRequest,
        execution: Execution,
        manner: Manner,
        report: ContestReport,
    ) -> None:
        self._request, self._execution, self._manner = request, execution, manner
        self._write = report
        self._console = make_console(stderr=manner.as_json)
        self._documents: list[Mapping[str, Any]] = []
        self._reported: Mapping[str, Any] = {}

    def run(self) -> int:
        """Run it, or as far as it gets; return the exit code (`run_search`)."""
        try:
            with one_ray():
                code = self._run()
        except KeyboardInterrupt:
            self._say(f"interrupted between two stages; resume with: {self._execution.resume}")
            code = INTERRUPTED
        if self._manner.as_json:
            own = {name: value for name, value in self._reported.items() if name != "lines"}
            frozen = str(self._manner.frozen)
            print_document(
                {"exit_code": code, "frozen": frozen, "report": own, "jobs": self._documents}
            )
        return code

    def _run(self) -> int:
        manner = self._manner
        for line in budget_lines(self._request.contest):
            self._say(line)
        jobs = self._jobs()
        if manner.fresh and not manner.dry_run and jobs:
            set_results_aside(next(iter(jobs.values())), self._say)
        rates: Rates | None = None
        if jobs:
            rates = plan_contest(jobs, self._execution, manner.planning, self._say)
        if manner.dry_run:
            return DONE
        if "search" in jobs:
            code = self._compute(jobs["search"], SettingDisplay, "settings are frozen", rates)
            if code != DONE:
                return code
        if "freeze" in manner.stages:
            self._freeze()
        if "confirm" in manner.stages:
            code = self._confirm(rates)
            if code != DONE:
                return code
        if "report" in manner.stages:
            where = self._request.results, self._request.store
            self._reported = self._write(*where, manner.frozen, manner.report)
            for line in self._reported["lines"]:
                self._say(line)
        return DONE

    def _jobs(self) -> dict[str, SearchJob]:
        """Return the jobs to be planned; the confirmation with what is frozen, if it is."""
        jobs = {}
        if "search" in self._manner.stages:
            jobs["search"] = self._search()
        if "confirm" in self._manner.stages:
            if self._manner.frozen.exists() and not self._manner.fresh:
                jobs["confirm"] = self._confirmation(read_frozen(self._manner.frozen))
            elif jobs or self._manner.dry_run:
                self._say("confirm  is planned with the first point of every contestant")
                entries = expected_entries(self._request.contest)
                jobs["confirm"] = confirmation_job(self._request, entries)
        return jobs

    def _search(self) -> SearchJob:
        """Return the job of the search.

        Raises:
            UsageError: a race is no shorter than the search's tuning.
        """
        contest, job = self._request.contest, search_job(self._request)
        cure = (
            "choose settings with a smaller number"
            if contest.searched
            else "every contestant has one point, so leave the search out: --stages "
            "freeze,confirm,report"
        )
        contest.check_races(job.plans[0].config.downstream.steps, cure)
        return job

    def _freeze(self) -> None:
        frozen = choose(self._request)
        new = freeze(frozen, self._manner.frozen)
        self._say(f"frozen   {self._manner.frozen} ({'written' if new else 'as it was'})")
        for name, entry in frozen.entries.items():
            spec = entry.upstream
            said = f"{spec.name}, {spec.rungs[0]} steps"
            arg = "" if entry.arg is None else f", ARG {entry.arg:+.2f} % in the search"
            self._say(f"         {name}: {said}{arg}")

    def _confirm(self, rates: Rates | None) -> int:
        request, path = self._request, self._manner.frozen
        job = self._confirmation(read_frozen(path))
        with open_results(request.results, request.store, read_only=False) as database:
            keep(database, path)
        return self._compute(job, CellDisplay, "the report follows", rates)

    def _confirmation(self, frozen: Frozen) -> SearchJob:
        """Return the job of frozen settings.

        Raises:
            UsageError: they are of another contest, or were chosen on upstream seeds of the
                confirmation.
        """
        contest, smoke = self._request.contest, self._request.smoke
        if (frozen.contest, frozen.smoke) != (contest.name, smoke):
            size = " at smoke size" if frozen.smoke else ""
            raise UsageError(
                f"{self._manner.frozen} is of contest {frozen.contest!r}{size}, but must be of "
                f"{contest.name!r}; name its file with --frozen"
            )
        both = [seed for seed in contest.upstream_seeds if seed in frozen.search_seeds]
        if both:
            raise UsageError(
                f"upstream seed {both[0]} is one that the frozen settings were chosen on; take it "
                "out of --upstream-seeds"
            )
        names = [one.name for one in contest.contestants if one.name in frozen.entries]
        return confirmation_job(self._request, {name: frozen.entries[name] for name in names})

    def _compute(
        self,
        job: SearchJob,
        display: type[SettingDisplay],
        after: str,
        rates: Rates | None,
    ) -> int:
        self._say()
        show = display(job, as_json=self._manner.as_json, sink=self._documents.append)
        execution = dataclasses.replace(self._execution, next_step=after)
        return run_search(job, execution, display=show, rates=rates)

    def _say(self, text: str = "") -> None:
        self._console.print(text)


def stages_from(names: Sequence[str]) -> tuple[str, ...]:
    """Return stages in the order of a run; none named: all."""
    unknown = [name for name in names if name not in STAGES]
    return tuple(names) if unknown else tuple(s for s in STAGES if not names or s in names)
