"""One run of the whole study: plan, search, replay, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpt.replay.similarity.compare import compute_pairs
from mpt.replay.similarity.pairs import pair_lines
from mpt.replay.similarity.prompts import prompt_tuner
from mpt.replay.similarity.ranking import save_rankings
from mpt.replay.staged import Manner, StagedRun
from mpt.replay.whole_study import (
    Stage,
    WholeRequest,
    has_similarity,
    job_of,
    replay_request,
    replay_stages,
    search_stage,
    searched_study,
)
from mpt.replay.whole_study_plan import is_done, plan_study_cost
from mpt.search.cost.plan import Rates
from mpt.search.cost.time_left import clock_text
from mpt.search.display.setting_display import CellDisplay, SettingDisplay
from mpt.search.job import DONE, INTERRUPTED, Execution
from mpt.search.run import set_results_aside

ReportWriter = Callable[[Path, Path, str, str | None], Sequence[str]]
"""(results directory, where the report goes, backbone of its tables, URL of the database if it is
not in the directory) → lines for people."""


@dataclass(frozen=True, kw_only=True)
class StudyManner(Manner):
    """How the study is run."""

    keep_prompts: bool = False
    """Keep every tuned prompt."""


class WholeStudy(StagedRun):
    """The study of a request."""

    def __init__(
        self,
        request: WholeRequest,
        execution: Execution,
        manner: StudyManner,
        report: ReportWriter,
    ) -> None:
        super().__init__(execution, manner)
        self._request, self._manner, self._report = request, manner, report

    def _document(self) -> dict[str, Any]:
        return {"report": str(self._manner.report)}

    def _run(self) -> int:
        began = time.perf_counter()
        if self._manner.fresh and not self._manner.dry_run:
            set_results_aside(job_of([], self._request, ""), self._say)
        search = search_stage(self._request)
        rates, planned = self._plan(search)
        if self._manner.dry_run:
            return DONE
        code = DONE
        if search is not None:
            after = "the replay of the best points follows"
            code = self._run_stages([search], "settings of every method", after, rates)
        if code != DONE:  # the best points are not known
            return code
        searched = None if search is None else searched_study(search)
        tuner = prompt_tuner(replay_request(self._request, searched), self._execution, self._say)
        rest = replay_stages(self._request, searched, tuner)
        for note in rest.notes:
            self._say(note)
        if rest.rankings:
            request = self._request
            save_rankings(request.results, request.store, rest.rankings)
        if any(stage.trials for stage in rest.stages):
            title = ", ".join(stage.name.replace("_", " ") for stage in rest.stages)
            code = self._run_stages(rest.stages, title, "the report follows", rates)
        if code != INTERRUPTED:  # what failed is shown as missing
            self._compare_tasks()
            request, out = self._request, self._manner.report
            for line in self._report(request.results, out, request.backbones[0], request.store):
                self._say(line)
            took = clock_text(time.perf_counter() - began)
            self._say(f"this call took {took} (planned: {clock_text(planned)})")
            self._say(f"next     {self._execution.next_step}")
        return code

    def _plan(self, search: Stage | None) -> tuple[Rates | None, float]:
        """Say what is left of all stages, and what it will cost."""
        request = self._request
        known = search is not None and is_done(job_of([search], request, "search"))
        rest = replay_stages(request, searched_study(search) if search and known else None)
        everything = [*([] if search is None else [search]), *rest.stages]
        job = job_of(everything, request, "the whole study")
        job = dataclasses.replace(job, keep_prompts=self._manner.keep_prompts)
        self._say(
            f"the whole study on {', '.join(request.backbones)}, results in {request.results}"
        )
        if search is not None and not known:
            self._say("what follows the search is planned with settings that were found before it")
        for line in (*job.partial, *(rest.notes if self._manner.dry_run else ())):
            self._say(line)
        return plan_study_cost(everything, job, self._execution, self._manner.planning, self._say)

    def _run_stages(
        self, stages: Sequence[Stage], title: str, after: str, rates: Rates | None
    ) -> int:
        """Run the job of some stages, all searches or none; return its exit code."""
        job = job_of(stages, self._request, title)
        job = dataclasses.replace(job, keep_prompts=self._manner.keep_prompts)
        display = SettingDisplay if stages[0].name == "search" else CellDisplay
        return self._compute(job, display, after, rates)

    def _compare_tasks(self) -> None:
        """Measure the pairs of Table 7, of kept prompts too if there are some."""
        if has_similarity(self._request):
            request = replay_request(self._request, None)
            for line in pair_lines(compute_pairs(request, prompts=self._manner.keep_prompts)):
                self._say(line)
