"""Searching and replaying from Python: in a script, in a notebook, on a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.api.jobs import replay_job, search_job
from mpt.api.results import BestPoint, Results, cell_row, point_row, summary_row
from mpt.api.work import callers_process, carry_out, in_keywords
from mpt.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mpt.api.study import Study
    from mpt.replay.request import Request
    from mpt.search.job import SearchJob
    from mpt.study.spaces import Space
    from mpt.study.specs import UpstreamSpec


class _JobResult(Results):
    """What a job has come to so far; see `SearchResult`."""

    def __init__(
        self, job: SearchJob, exit_code: int, plan: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(job.results, job.store, expected=plan is None)
        self._job, self.exit_code, self.plan = job, exit_code, plan

    @contextlib.contextmanager
    def _look(self) -> Iterator[Any]:
        from mpt.search.look import peek

        with callers_process(), peek(self._job) as look:
            yield look


class SearchResult(_JobResult):
    """What a search has found so far.

    Args:
        job: what was searched.
        exit_code: 0 done, 4 some trials failed, 75 interrupted.
        study: settings of the study.
        plan: of a dry run; None: it was none.
    """

    def __init__(
        self, job: SearchJob, exit_code: int, study: Study, plan: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(job, exit_code, plan)
        self._study = study

    def points(self, study: str | None = None) -> pd.DataFrame:
        """Return one row a point of this search, best first.

        Args:
            study: give another study of the same database instead (see `Results.points`).
        """
        if study is not None:
            return super().points(study)
        import pandas as pd

        from mpt.search.leaderboard import ranked

        with self._look() as look:
            order = ranked(look.entries)
            study_id = next(iter(look.board.studies.values())).id
            rows = [point_row(e.record, e.score, study_id) for e in order if e.record is not None]
        frame = pd.DataFrame(rows)
        if not frame.empty:
            frame.insert(0, "rank", range(1, len(frame) + 1))
        return frame

    def configurations(self) -> pd.DataFrame:
        """Return one row a configuration, best first: its replicates over upstream seeds.

        ``arg`` is the mean over upstream seeds; ``expected_*`` and ``new_run_*`` bound 95 %
        intervals of the expected ARG and of one more upstream seed; ``tied`` marks what cannot be
        told from the best.
        """
        import pandas as pd

        from mpt.search.comparison import rankings

        with self._look() as look:
            rows = [
                {
                    **_searched(self._job, one.first.trial.upstream),
                    "steps": one.first.steps,
                    **summary_row(one.summary),
                }
                for ranking in rankings(look.board, look.entries)
                for one in ranking.configurations
            ]
        return pd.DataFrame(rows)

    @property
    def best(self) -> BestPoint:
        """The best configuration; its ARG is that of upstream seeds it was not chosen on.

        With one upstream seed there are none: then ARG and interval are those of its one run, and
        nothing shows how far another seed would be.

        Raises:
            UsageError: no point has an ARG.
        """
        from mpt.search.comparison import rankings
        from mpt.search.leaderboard import ranked
        from mpt.trial.score import BAD_SCORE

        with self._look() as look:
            order = ranked(look.entries)
            if not order or order[0].score is None or order[0].score.score <= BAD_SCORE:
                raise UsageError(f"no point in {self.results} has an ARG: there is no best one")
            first, record = order[0], next(iter(look.board.studies.values()))
            arg, interval, how = order[0].score.arg, order[0].score.interval, "one upstream seed"
            several = [one for one in rankings(look.board, look.entries) if len(one.seeds) > 1]
            if several:
                first, on = several[0].best.first, several[0].reported
                arg, interval, how = on.arg, on.expected, on.how
            key = look.board.point_key(first)
        low, high = interval or (None, None)
        return BestPoint(
            method=first.trial.method,
            settings=_searched(self._job, first.trial.upstream),
            steps=first.steps,
            arg=arg,
            low=low,
            high=high,
            how=how,
            study=record.id,
            point=key,
            config=self._study.config,
            upstream=dataclasses.replace(first.trial.upstream, rungs=(first.steps,)),
            results=self.results,
            store=self.store,
        )

    def _repr_html_(self) -> str:
        from mpt.store.frames import html_of

        frame = self.points()
        head = f"<p>{self._job.title}</p>"
        if frame.empty:
            return f"{head}<p>no point so far</p>"
        return head + html_of(frame.drop(columns=["study", "point"]).head(20))

    def __repr__(self) -> str:
        try:
            return f"SearchResult(best: {self.best})"
        except UsageError:
            return f"SearchResult(no point with an ARG in {self.results})"


class ReplayResult(_JobResult):
    """The cells of a replay.

    Args:
        job: what was replayed.
        exit_code: 0 done, 4 some trials failed, 75 interrupted.
        plan: of a dry run; None: it was none.
    """

    def table(self) -> pd.DataFrame:
        """Return one row a cell: method, partition, ARG and interval.

        With several upstream ``seeds`` ``arg`` is their mean, ``low`` and ``high`` bound the 95 %
        interval of the expected ARG, and ``new_run_*`` that of one more seed. With one the
        interval is over data seeds alone, and another seed may lie outside.
        """
        import pandas as pd

        from mpt.search.comparison import cells_of, rankings

        with self._look() as look:
            cells = cells_of(look.entries, rankings(look.board, look.entries))
            rows = [cell_row(cell, look.board.studies) for cell in cells]
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        from mpt.store.frames import html_of

        return html_of(self.table())


@in_keywords
def search(
    study: Study,
    space: Space,
    *,
    results: str | Path,
    searcher: Any = "grid",
    num_samples: int | None = None,
    scheduler: Any = "none",
    racing: bool = False,
    allocation: str = "race",
    store: str | None = None,
    storage: str | None = None,
    keep_prompts: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    dry_run: bool = False,
    **where: Any,
) -> SearchResult:
    """Search a space; a search that was made before goes on where it was.

    Args:
        study: what all points share; of a smoke study the first points are searched only.
        space: what is searched.
        results: results directory.
        searcher: "grid", "random", "optuna", or any `ray.tune.search.Searcher`.
        num_samples: trials of other searchers than "grid" (default: 16).
        scheduler: "none", "asha", or any `ray.tune.schedulers.TrialScheduler`.
        racing: stop trials that cannot reach the leader any more.
        allocation: who gets further upstream seeds where the study has several: "race", those
            that may be the best, or "full", all.
        store: URL of the database; None: ``mpt.db`` in `results`.
        storage: where checkpoints and prompts go, a directory or a URI; None: `results`.
        keep_prompts: keep every tuned prompt.
        fresh: move the results so far aside and start anew.
        quiet: print nothing.
        dry_run: say points, time and cost, and write nothing; the result has them as `plan`.
        **where: fields of `mpt.search.job.Execution`: `address`, `workers`, `gpus_per_trial`,
            `dashboard`, …; with `dry_run`, as the flags of these names, `price`, `plan_gpus` and
            `throughput` (TFLOP/s, or a text of two: "200,25").

    Raises:
        UsageError: an argument is wrong, or Ray cannot run a trial.
        DataError: few-shot files, backbone or database are broken.
        MptError: no trial succeeded.
    """
    job = search_job(
        study,
        space,
        results=results,
        searcher=searcher,
        num_samples=num_samples,
        scheduler=scheduler,
        racing=racing,
        allocation=allocation,
        store=store,
        storage=storage,
        keep_prompts=keep_prompts,
    )
    code, plan = carry_out(job, where, table="points", fresh=fresh, quiet=quiet, dry_run=dry_run)
    return SearchResult(job, code, study, plan)


@in_keywords
def replay(
    best: BestPoint | Sequence[BestPoint] | Request,
    *,
    partitions: str | Sequence[str] = "all",
    fine_tuning: bool = False,
    zero_shot: bool = False,
    replicates: int | None = None,
    upstream_seeds: Sequence[int] = (),
    results: str | Path | None = None,
    store: str | None = None,
    storage: str | None = None,
    allow_missing: bool = False,
    smoke: bool = False,
    quiet: bool = False,
    dry_run: bool = False,
    **where: Any,
) -> ReplayResult:
    """Score settings on the target tasks of partitions, beside plain prompt tuning.

    Args:
        best: one or more points of searches in one study; or a `mpt.ReplayRequest`, which has
            what the flags of ``mpt replay`` say (points of a database, a recipe, a sweep), and in
            whose place none of the keywords from `partitions` to `smoke` are given.
        partitions: "all" of the gym's, or some.
        fine_tuning: score fine-tuning of all weights too, with the study's steps; once.
        zero_shot: score the model as it is too, without a prompt; once.
        replicates: upstream seeds of every cell; None: the one of the point.
        upstream_seeds: these upstream seeds in their place, e.g. others than those the points
            were chosen on.
        results: results directory; None: the search's own.
        store: URL of the database; None: the search's own, or ``mpt.db`` in `results`.
        storage: where checkpoints and prompts go; None: `results`.
        allow_missing: go on where the gym lacks tasks; every result is labelled as partial.
        smoke: two target tasks a partition only; the numbers mean nothing.
        quiet: print nothing.
        dry_run: say cells, time and cost, and write nothing; the result has them as `plan`.
        **where: as in `mpt.search`.

    Raises:
        UsageError: a partition is unknown, the points are of several studies, or a keyword is
            given beside a request.
        DataError: few-shot files are missing; all are listed.
    """
    planned = replay_job(
        best,
        partitions=partitions,
        fine_tuning=fine_tuning,
        zero_shot=zero_shot,
        replicates=replicates,
        upstream_seeds=upstream_seeds,
        results=results,
        store=store,
        storage=storage,
        allow_missing=allow_missing,
        smoke=smoke,
    )
    code, plan = carry_out(
        planned.job, where, table="cells", notes=planned.notes, quiet=quiet, dry_run=dry_run
    )
    return ReplayResult(planned.job, code, plan)


def _searched(job: SearchJob, upstream: UpstreamSpec) -> dict[str, Any]:
    """Return the settings that differ within a job, or the rates where it has one trial."""
    configs = [trial.upstream.config for trial in job.trials]
    if job.suggestions is not None:
        return dict(job.suggestions.space.settings(upstream))
    fields = dataclasses.fields(upstream.config)
    differ = [f.name for f in fields if len({getattr(c, f.name) for c in configs}) > 1]
    searched = {name: getattr(upstream.config, name) for name in differ if name != "extra"}
    own = dict(getattr(upstream.config, "extra", ()))
    return {**searched, **own} or {"outer_lr": getattr(upstream.config, "outer_lr", float("nan"))}
