"""Searching and replaying from Python: in a script, in a notebook, on a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.api.jobs import places, search_job
from mpt.api.results import BestPoint, Results, cell_row, summary_row
from mpt.errors import MptError, UsageError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from mpt.api.study import Study
    from mpt.search.job import Execution, SearchJob
    from mpt.study.spaces import Space
    from mpt.study.specs import UpstreamSpec
    from mpt.study.study import StudyPlan


class SearchResult(Results):
    """What a search has found so far.

    Args:
        job: what was searched.
        exit_code: 0 done, 4 some trials failed, 75 interrupted.
        study: settings of the study.
    """

    def __init__(self, job: SearchJob, exit_code: int, study: Study) -> None:
        super().__init__(job.results, job.store)
        self._job, self.exit_code, self._study = job, exit_code, study

    @contextlib.contextmanager
    def _board(self) -> Iterator[Any]:
        from mpt.search.run import peek

        with _callers_process(), peek(self._job) as look:
            yield look

    def points(self, study: str | None = None) -> pd.DataFrame:
        """Return one row a point of this search, best first.

        Args:
            study: give another study of the same database instead (see `Results.points`).
        """
        if study is not None:
            return super().points(study)
        import pandas as pd

        from mpt.api.results import point_row
        from mpt.search.leaderboard import ranked

        with self._board() as look:
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

        rows = []
        with self._board() as look:
            for ranking in rankings(look.board, look.entries):
                for one in ranking.configurations:
                    rows.append(
                        {
                            **_searched(self._job, one.first.trial.upstream),
                            "steps": one.first.steps,
                            **summary_row(one.summary),
                        }
                    )
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

        with self._board() as look:
            order = ranked(look.entries)
            if not order or order[0].score is None or order[0].score.score <= BAD_SCORE:
                raise UsageError(f"no point in {self.results} has an ARG: there is no best one")
            first, record = order[0], next(iter(look.board.studies.values()))
            found = [one for one in rankings(look.board, look.entries) if len(one.seeds) > 1]
            if found:
                first = found[0].best.first
            key = look.board.point_key(first)
        gain = None if first.score is None else first.score.gain
        arg, low, high, how = None, None, None, "one upstream seed"
        if found:
            on = found[0].reported
            arg, how = on.arg, on.how
            low, high = on.expected or (None, None)
        elif gain is not None:
            arg, low, high = gain.arg_of_defined, gain.low, gain.high
        upstream = dataclasses.replace(first.trial.upstream, rungs=(first.steps,))
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
            upstream=upstream,
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


class ReplayResult(Results):
    """The cells of a replay.

    Args:
        job: what was replayed.
        exit_code: 0 done, 4 some trials failed, 75 interrupted.
    """

    def __init__(self, job: SearchJob, exit_code: int) -> None:
        super().__init__(job.results, job.store)
        self._job, self.exit_code = job, exit_code

    def table(self) -> pd.DataFrame:
        """Return one row a cell: method, partition, ARG and interval.

        With several upstream ``seeds`` ``arg`` is their mean, ``low`` and ``high`` bound the 95 %
        interval of the expected ARG, and ``new_run_*`` that of one more seed. With one the
        interval is over data seeds alone, and another seed may lie outside.
        """
        import pandas as pd

        from mpt.search.cells import cells_of
        from mpt.search.comparison import rankings
        from mpt.search.run import peek

        with _callers_process(), peek(self._job) as look:
            cells = cells_of(look.entries, rankings(look.board, look.entries))
            rows = [cell_row(cell, look.board.studies) for cell in cells]
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        from mpt.store.frames import html_of

        return html_of(self.table())


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
        **where: fields of `mpt.search.job.Execution`: `address`, `workers`, `gpus_per_trial`,
            `dashboard`, ….

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
    code = _run(job, _execution(where), fresh=fresh, quiet=quiet, cells=False)
    return SearchResult(job, code, study)


def replay(
    best: BestPoint | Sequence[BestPoint],
    *,
    partitions: str | Sequence[str] = "all",
    fine_tuning: bool = False,
    zero_shot: bool = False,
    replicates: int | None = None,
    upstream_seeds: Sequence[int] = (),
    results: str | Path | None = None,
    store: str | None = None,
    storage: str | None = None,
    quiet: bool = False,
    allow_missing: bool = False,
    smoke: bool = False,
    **where: Any,
) -> ReplayResult:
    """Score settings on the target tasks of partitions, beside plain prompt tuning.

    Args:
        best: one or more points of searches in one study.
        partitions: "all" of the gym's, or some.
        fine_tuning: score fine-tuning of all weights too, with the study's steps; once.
        zero_shot: score the model as it is too, without a prompt; once.
        replicates: upstream seeds of every cell; None: the one of the point.
        upstream_seeds: these upstream seeds in their place, e.g. others than those the points
            were chosen on.
        results: results directory; None: the search's own.
        store: URL of the database; None: the search's own, or ``mpt.db`` in `results`.
        storage: where checkpoints and prompts go; None: `results`.
        quiet: print nothing.
        allow_missing: go on where the gym lacks tasks; every result is labelled as partial.
        smoke: two target tasks a partition only; the numbers mean nothing.
        **where: fields of `mpt.search.job.Execution`.

    Raises:
        UsageError: a partition is unknown, or the points are of several studies.
        DataError: few-shot files are missing; all are listed.
    """
    from mpt.gym.catalogue import load_catalogue
    from mpt.replay.replay import in_rounds
    from mpt.search.job import SearchJob
    from mpt.search.replication import replicates_of
    from mpt.study.options import StudyOptions
    from mpt.study.specs import TrialSpec
    from mpt.study.study import gym_folder, plan_study

    points = [best] if isinstance(best, BestPoint) else list(best)
    studies = sorted({point.study for point in points})
    if len(studies) != 1:
        raise UsageError(
            f"best holds points of {len(studies)} studies ({', '.join(studies)}), but must hold "
            "those of one: their scores cannot be compared"
        )
    options = StudyOptions(replicates=replicates, upstream_seeds=tuple(upstream_seeds) or None)
    config = options.apply(points[0].config)
    seeds = () if options == StudyOptions() else config.seeds
    catalogue = load_catalogue(gym_folder(config.gym))
    names = catalogue.partition_names if partitions == "all" else _listed(partitions)
    cells: list[TrialSpec] = []
    for name in names:
        plan = plan_study(
            dataclasses.replace(config, partition=name),
            role="target",
            allow_missing=allow_missing,
            smoke_scored=2 if smoke else None,
        )
        specs = _specs(points, plan, fine_tuning=fine_tuning, zero_shot=zero_shot)
        cells += [TrialSpec(plan=plan, upstream=spec) for spec in specs]
    own = points[0].results if results is None else results
    job = SearchJob(
        trials=in_rounds(replicates_of(cell, seeds) for cell in cells),
        title="replay: the best points of a search",
        **places(own, store or points[0].store, storage),
    )
    code = _run(job, _execution(where), fresh=False, quiet=quiet, cells=True)
    return ReplayResult(job, code)


def _specs(
    points: Sequence[BestPoint], plan: StudyPlan, *, fine_tuning: bool, zero_shot: bool
) -> list[UpstreamSpec]:
    from mpt.replay.settings import load_replay_settings
    from mpt.study.specs import FINE_TUNING, UpstreamSpec, ZeroShotConfig

    specs = [point.upstream for point in points]
    if fine_tuning:
        specs.append(load_replay_settings(plan.config.downstream).own[FINE_TUNING])
    if zero_shot:
        specs.append(UpstreamSpec(config=ZeroShotConfig()))
    return specs


def _listed(partitions: str | Sequence[str]) -> tuple[str, ...]:
    return (partitions,) if isinstance(partitions, str) else tuple(partitions)


def _searched(job: SearchJob, upstream: UpstreamSpec) -> dict[str, Any]:
    """Return the settings that differ within a job, or the rates where it has one trial."""
    configs = [trial.upstream.config for trial in job.trials]
    if job.suggestions is not None:
        return dict(job.suggestions.space.settings(upstream))
    fields = dataclasses.fields(upstream.config)
    differ = [f.name for f in fields if len({getattr(c, f.name) for c in configs}) > 1]
    found = {name: getattr(upstream.config, name) for name in differ if name != "extra"}
    own = dict(getattr(upstream.config, "extra", ()))
    return {**found, **own} or {"outer_lr": getattr(upstream.config, "outer_lr", float("nan"))}


def _execution(where: dict[str, Any]) -> Execution:
    from mpt.search.job import Execution
    from mpt.upstream.registry import registered

    for name in where:
        if name not in Execution.__dataclass_fields__:
            known = ", ".join(Execution.__dataclass_fields__)
            raise UsageError(f"argument {name!r} is unknown; of where it runs there are {known}")
    own = {
        "resume": "the same call",
        "next_step": "result.best, result.points()",
        "signals": False,
        "methods": registered(),
    }
    return Execution(**{**own, **where})


def _run(job: SearchJob, execution: Execution, *, fresh: bool, quiet: bool, cells: bool) -> int:
    from rich.console import Console

    from mpt.search.display.display import Display
    from mpt.search.display.setting_display import CellDisplay
    from mpt.search.run import FAILED, peek, run_search

    console = Console(file=io.StringIO(), width=10_000) if quiet else None
    show = (CellDisplay if cells else Display)(job, console=console)
    with _callers_process():
        code = run_search(job, execution, fresh=fresh, display=show)
        if code == FAILED:
            with peek(job) as look:
                if not any(entry.record for entry in look.entries):
                    raise MptError(_failed(console))
    return code


def _failed(console: Console | None) -> str:
    """Return why no trial succeeded, as far as it was printed."""
    printed = console.file.getvalue() if console is not None else ""  # type: ignore[attr-defined]
    reasons = [line for line in printed.splitlines() if line.startswith("failed: ")]
    why = "; ".join(reasons) or "the lines above that begin with failed say why"
    return f"no trial succeeded: {why}; mend it, and the same call goes on"


@contextlib.contextmanager
def _callers_process() -> Iterator[None]:
    """Leave the caller's signal handlers and number of threads as they are."""
    import torch

    threads = torch.get_num_threads()
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) if main else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
