"""Zero-shot as a baseline of a replay: named, planned, computed, told by the report."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console
from stored import compute

from analysis.results.reading import read_results
from analysis.tables.lookup import Lookup
from analysis.tables.main import main_table
from mpt.config import METHODS, OWN_METHODS, SMOLLM2
from mpt.errors import UsageError
from mpt.replay.replay import plan_replay
from mpt.replay.request import Request
from mpt.replay.settings import load_replay_settings, replayable
from mpt.replay.whole_study import WholeRequest, replay_stages, search_stage
from mpt.search.display.setting_display import CellDisplay
from mpt.search.job import DONE, Execution, SearchJob
from mpt.search.look import peek
from mpt.search.run import run_search
from mpt.search.watch.recorded import recorded
from mpt.store.database import open_results
from mpt.study.presets import load_study
from mpt.study.specs import ZeroShotConfig
from mpt.upstream.registry import Method, register

PARTITION = "nonpara_to_para"


def _job(results: Path = Path("/nonexistent"), *methods: str) -> SearchJob:
    request = Request(
        results=results,
        partitions=(PARTITION,),
        methods=methods or ("multitask", "zero_shot"),
        smoke=True,
    )
    return plan_replay(request).job


def test_zero_shot_is_replayed_where_it_is_named_once_whatever_the_upstream_seeds() -> None:
    request = Request(
        results=Path("/nonexistent"), partitions=(PARTITION,), methods=("zero_shot", "maml")
    )
    options = dataclasses.replace(request.options, upstream_seeds=(1042, 2042))
    replay = plan_replay(dataclasses.replace(request, options=options))
    assert [trial.method for trial in replay.job.trials] == ["zero_shot", "maml", "maml"]
    trial = replay.job.trials[0]
    assert (trial.upstream.config, trial.upstream.rungs) == (ZeroShotConfig(), (0,))
    assert trial.name == f"zero_shot-{PARTITION}"
    (note,) = (note for note in replay.notes if note.startswith("zero_shot"))
    assert note == "zero_shot, embedded: the model as it is, without a prompt (nothing to be set)"
    unnamed = plan_replay(Request(results=Path("/nonexistent"), partitions=(PARTITION,)))
    assert "zero_shot" not in {trial.method for trial in unnamed.job.trials}


def test_zero_shot_needs_no_search_and_is_in_none(tmp_path: Path) -> None:
    assert "zero_shot" in replayable()
    assert "zero_shot" not in (*METHODS, *OWN_METHODS)
    whole = WholeRequest(
        results=tmp_path, backbones=("embedded",), methods=("multitask", "zero_shot"), smoke=True
    )
    search = search_stage(whole)
    assert search is not None
    assert {trial.method for trial in search.trials} == {"multitask"}
    part = dataclasses.replace(whole, stages=("replay",), partitions=(PARTITION,))
    (stage,) = replay_stages(part, None).stages
    assert [trial.method for trial in stage.trials] == ["multitask", "zero_shot"]


def test_settings_of_zero_shot_and_a_method_of_its_name_are_refused(tmp_path: Path) -> None:
    for preset in ("embedded", SMOLLM2):
        assert (
            "zero_shot"
            not in load_replay_settings(load_study(preset).downstream, preset=preset).own
        )
    with pytest.raises(UsageError, match="method name 'zero_shot' is a built-in method's"):
        register("zero_shot", Method(outer_gradient=lambda *_: pytest.fail("called")))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SearchJob:
    """Multitask learning and zero-shot, computed."""
    job = _job(tmp_path_factory.mktemp("zero") / "results")
    compute(job)
    return job


def test_a_plan_counts_it_and_the_same_replay_again_has_nothing_left(
    job: SearchJob, tmp_path: Path
) -> None:
    empty = dataclasses.replace(job, results=tmp_path)
    with peek(empty) as look:
        bare = look.work.trials[1]
        seeds = len(job.plans[0].config.data_seeds)
        assert (bare.points, bare.runs.runs, bare.runs.steps) == (1, 2 * seeds, 0)
        assert bare.runs.rows > 0
        assert bare.runs.kind == "zero-shot, embedded"
    with peek(job) as look:
        assert look.work.points_there == look.work.points == 2
        assert look.work.trials[1].runs.runs == 0


def test_it_is_told_beside_the_others(job: SearchJob) -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, markup=False, soft_wrap=True)
    show = CellDisplay(job, console=console)
    assert run_search(job, Execution(signals=False), display=show) == DONE
    (line,) = (one for one in file.getvalue().splitlines() if one.lstrip().startswith("2"))
    assert "zero_shot" in file.getvalue(), line


def test_a_watcher_knows_it_from_its_record(job: SearchJob) -> None:
    with open_results(job.results, None, read_only=True) as database:
        found = recorded(database, database.studies(), job.results, None)
    assert found.problems == ()
    assert found.board is not None
    configs = {trial.upstream.config for trial in found.board.trials}
    assert ZeroShotConfig() in configs


def test_the_report_has_it_in_table_2(job: SearchJob) -> None:
    results = read_results(job.results)
    table = main_table(Lookup(results.main))
    (row,) = (row for row in table.rows if row[0].text == "zero-shot")
    cell = row[table.columns.index("NP→P")]
    runs = 2 * len(job.plans[0].config.data_seeds)  # of two tasks, one run a data seed
    assert (cell.done, cell.of) == (runs, runs)
    assert list(results.problems) == []
