"""One call of a contest: plan, search, freeze, confirm, report; the same call again goes on."""

from __future__ import annotations

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
from mpt.replay.staged import Manner, StagedRun
from mpt.search.display.setting_display import CellDisplay, SettingDisplay
from mpt.search.job import DONE, Execution, SearchJob
from mpt.search.run import set_results_aside
from mpt.store.database import open_results
from mpt.study.contest.frozen import Frozen, freeze, keep, read_frozen
from mpt.study.contest.part import WHOLE, ContestPart

if TYPE_CHECKING:
    from mpt.search.cost.plan import Rates

STAGES = ("search", "freeze", "confirm", "report")
"""In the order of a run."""

ContestReport = Callable[[Path, str | None, Path, Path, ContestPart], Mapping[str, Any]]
"""(results directory, URL of the database if it is not in there, file of frozen settings, folder
of the report, what it speaks of) → ``lines`` for people, and what else stands in the JSON
document."""


@dataclass(frozen=True, kw_only=True)
class ContestManner(Manner):
    """How a contest is run."""

    stages: tuple[str, ...]
    """Some of `STAGES`."""
    frozen: Path
    """The file of frozen settings."""
    part: ContestPart = WHOLE
    """What of the confirmation the report speaks of."""


class ContestRun(StagedRun):
    """One call."""

    def __init__(
        self,
        request: ContestRequest,
        execution: Execution,
        manner: ContestManner,
        report: ContestReport,
    ) -> None:
        super().__init__(execution, manner)
        self._request, self._manner, self._write = request, manner, report
        self._reported: Mapping[str, Any] = {}

    def _document(self) -> dict[str, Any]:
        own = {name: value for name, value in self._reported.items() if name != "lines"}
        return {"frozen": str(self._manner.frozen), "report": own}

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
            self._reported = self._write(*where, manner.frozen, manner.report, manner.part)
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
        """Return the job of frozen settings, if they are of this contest and of other seeds."""
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


def stages_from(names: Sequence[str]) -> tuple[str, ...]:
    """Return stages in the order of a run; none named: all.

    Raises:
        UsageError: one is unknown.
    """
    for name in names:
        if name not in STAGES:
            raise UsageError(f"stage {name!r} is unknown; known are {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if not names or stage in names)
