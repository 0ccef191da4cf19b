"""A replay on several upstream seeds: what is run, and what its cells say together."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from stored import compute

from mpt.cli.replay import main
from mpt.config import METHODS, UpstreamConfig
from mpt.metrics.replicates import Replicates, args_of, compare, prior_of
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request
from mpt.search.comparison import seed_of, tables_of
from mpt.search.display.setting_display import CellDisplay
from mpt.search.job import DONE, Execution, SearchJob
from mpt.search.look import Look, peek
from mpt.search.replication import with_first_seed
from mpt.search.run import run_search
from mpt.store.database import FILE
from mpt.study.options import StudyOptions
from mpt.study.specs import TrialSpec

PARTITION = "nonpara_to_para"
SEEDS = (1042, 7)
"""Not the train seed, which is 42, and not in order."""


def _job(results: Path = Path("/nonexistent"), **options: Any) -> SearchJob:
    request = Request(
        results=results, partitions=(PARTITION,), smoke=True, options=StudyOptions(**options)
    )
    return plan_replay(request).job


def _own_seeds(job: SearchJob) -> list[int | None]:
    """Return what the trials' own configurations say, which is in the keys of their points."""
    return [getattr(trial.upstream.config, "seed", None) for trial in job.trials]


def test_all_cells_are_run_with_the_first_seed_and_then_with_the_next_fine_tuning_once() -> None:
    job = _job(upstream_seeds=SEEDS)
    found = [(trial.method, seed_of(trial)) for trial in job.trials]
    first = [*((method, SEEDS[0]) for method in METHODS), ("fine_tuning", 42)]
    assert found == [*first, *((method, SEEDS[1]) for method in METHODS)]
    assert _own_seeds(job) == [1042, 1042, 1042, 1042, None, 7, 7, 7, 7]
    assert "2 upstream seeds a cell" in job.title


def test_the_driver_takes_a_replays_seeds_as_they_are_the_train_seed_among_them() -> None:
    job = _job(upstream_seeds=(1042, 42))
    assert _own_seeds(job) == [1042] * 4 + [None] * 5
    assert with_first_seed(job).trials == job.trials


def test_replicates_are_the_train_seed_and_its_successors() -> None:
    job = _job(replicates=3)
    assert {seed_of(t) for t in job.trials if t.method == "maml"} == {42, 1042, 2042}
    assert _own_seeds(job)[:5] == [None] * 5


def test_one_seed_is_what_a_replay_has_always_been() -> None:
    """Though the embedded study's preset has three: they are those of a search."""
    default = _job()
    assert len(default.trials) == len(METHODS) + 1
    assert _own_seeds(default) == [None] * 5
    assert "upstream seed" not in default.title
    one = _job(replicates=1)
    assert [t.upstream for t in one.trials] == [t.upstream for t in default.trials]


def test_fresh_replicates_are_of_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fresh-replicates", "2", "--smoke"]) == 2
    error = capsys.readouterr().err
    assert "--fresh-replicates is for a search" in error
    assert "--upstream-seeds" in error


# --- a tiny replay from end to end ---


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SearchJob:
    """MAML and multitask learning on two upstream seeds, computed."""
    job = _job(tmp_path_factory.mktemp("replay") / "results", upstream_seeds=SEEDS)
    few = tuple(trial for trial in job.trials if trial.method in ("maml", "multitask"))
    job = dataclasses.replace(job, trials=few)
    compute(job)
    return job


@pytest.fixture
def look(job: SearchJob) -> Iterator[Look]:
    with peek(job) as found:
        yield found


def _shown(job: SearchJob) -> tuple[str, dict[str, Any]]:
    """Run a job whose points are all there; return what it prints, and its document."""
    file, bodies = io.StringIO(), list[Any]()
    console = Console(file=file, width=120, markup=False, soft_wrap=True)
    show = CellDisplay(job, console=console, as_json=True, sink=bodies.append)
    assert run_search(job, Execution(signals=False), display=show) == DONE
    return file.getvalue(), bodies[-1]


def _expected(look: Look, method: str) -> tuple[Replicates, np.ndarray]:
    """Return one method's test scores by seed, and the baseline's, from the stored runs."""
    entries = [entry for entry in look.entries if entry.trial.method == method]
    plan = entries[0].trial.plan
    baseline, tables = tables_of(look.board, plan, entries)
    seeds = [seed_of(entry.trial) for entry in entries]
    return Replicates(name=method, scores=dict(zip(seeds, tables, strict=True))), baseline


def test_cells_hold_mean_and_moderated_intervals_over_both_seeds(
    job: SearchJob, look: Look
) -> None:
    _, body = _shown(job)
    rows, baseline = {}, np.empty(0)
    for method in ("maml", "multitask"):
        rows[method], baseline = _expected(look, method)
    prior = prior_of([args_of(one, baseline) for one in rows.values()])
    assert [cell["method"] for cell in body["cells"]] == list(rows)
    for cell in body["cells"]:
        own = rows[cell["method"]]
        args = args_of(own, baseline)
        assert cell["seeds"] == list(SEEDS) == list(args)
        assert cell["of_seeds"] == 2
        assert cell["arg"] == pytest.approx(sum(args.values()) / 2, abs=1e-9)
        again = compare([own], baseline, rng=np.random.default_rng(3), prior=prior)
        summary = again.summaries[own.name]
        assert summary.expected is not None
        width = summary.expected[1] - summary.expected[0]  # another draw moves it by a little
        assert cell["interval"] == pytest.approx(summary.expected, abs=0.05 * width)
        low, high = cell["summary"]["new_run"]
        assert low < cell["interval"][0] < cell["interval"][1] < high
        assert len(set(cell["points"])) == 2
        assert cell["settings"]["seed"] is None


def test_the_table_has_one_line_a_cell_and_says_what_its_intervals_are_over(
    job: SearchJob,
) -> None:
    text, body = _shown(job)
    assert "2 of 2 cells" in text
    lines = [line.split() for line in text.splitlines() if line.strip().startswith(METHODS)]
    assert [line[:4] for line in lines] == [
        [cell["method"], "2", "2", f"{cell['arg']:+.2f}"] for cell in body["cells"]
    ]
    assert "seeds    1042, 7 for every cell" in text
    assert "intervals are over upstream seeds and data seeds" in text
    assert "another upstream seed" not in text


def test_seeds_that_a_preset_names_are_averaged_like_those_of_a_request(job: SearchJob) -> None:
    def of_preset(trial: TrialSpec) -> TrialSpec:
        config = dataclasses.replace(trial.plan.config, upstream_seeds=(), target_seeds=SEEDS)
        return dataclasses.replace(trial, plan=dataclasses.replace(trial.plan, config=config))

    preset = dataclasses.replace(job, trials=tuple(map(of_preset, job.trials)))
    assert SEEDS[1] not in preset.trials[0].plan.config.seeds
    assert _shown(preset)[1]["cells"] == _shown(job)[1]["cells"]


def test_one_seed_alone_says_so_and_has_the_interval_of_data_seeds(job: SearchJob) -> None:
    trials = tuple(trial for trial in job.trials if seed_of(trial) == SEEDS[0])
    text, body = _shown(dataclasses.replace(job, trials=trials))
    assert "seeds  " not in text
    assert [(cell["seeds"], cell["summary"]) for cell in body["cells"]] == 2 * [([1042], None)]
    points = {point["method"]: point for point in body["points"]}
    for cell in body["cells"]:
        assert (cell["arg"], cell["interval"]) == (
            points[cell["method"]]["arg"],
            points[cell["method"]]["interval"],
        )


def test_the_same_again_computes_nothing_and_one_more_seed_only_its_own_runs(
    job: SearchJob,
) -> None:
    file = job.results / FILE
    before = file.read_bytes()
    _shown(job)
    assert file.read_bytes() == before
    more = _job(job.results, upstream_seeds=(*SEEDS, 42))
    wanted = [trial for trial in more.trials if trial.method == "maml"]
    with peek(dataclasses.replace(more, trials=tuple(wanted))) as look:
        there = [seed_of(e.trial) for e in look.entries if e.score is not None]
        assert there == list(SEEDS)
        assert look.work.points_there == 2
        assert look.work.all_runs - look.work.all_there == _runs_of(wanted[2])


def _runs_of(trial: TrialSpec) -> int:
    config = trial.plan.config
    assert isinstance(trial.upstream.config, UpstreamConfig)
    return len(trial.plan.scored) * len(config.data_seeds) * len(config.downstream.lrs)
