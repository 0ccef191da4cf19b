"""The whole study: which cells belong to which stage, what it will cost, and one run of it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from job_scripts import run_script
from stored import Stored

from analysis.report import parts
from analysis.report.report import report_lines
from mpt.backbones import Backbone
from mpt.cli.paper import main
from mpt.config import EMBEDDED_BACKBONES, METHODS, UpstreamConfig
from mpt.errors import UsageError
from mpt.gym.fewshot import FewShotTask
from mpt.replay.replay import plan_replay
from mpt.replay.similarity import pilot
from mpt.replay.similarity.measure import CHOICES, Subspace, subspace
from mpt.replay.similarity.settings import load_similarity_settings
from mpt.replay.whole_study import (
    COMPARED,
    STAGES,
    Stage,
    WholeRequest,
    has_similarity,
    job_of,
    replay_request,
    replay_stages,
    search_stage,
    searched_study,
)
from mpt.replay.whole_study_plan import HEAD, stage_rows, table_lines
from mpt.search.cost.plan import Rates, RunRate, work_seconds
from mpt.search.look import open_plan, peek
from mpt.store.database import open_results
from mpt.store.records import BASELINE
from mpt.study.record import study_record

PILOT_TARGETS = load_similarity_settings("embedded").pilot.targets
NOWHERE = Path("/nonexistent/results")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank sources by lines, the n-th task at the angle n / 100: the model need not read it."""

    def ranked_by(_: Backbone, tasks: Iterable[FewShotTask], *__: object) -> dict[str, Subspace]:
        angles = {task.name: at / 100 for at, task in enumerate(tasks)}
        return {
            name: subspace(torch.tensor([[math.cos(at), math.sin(at)]]), 1.0)
            for name, at in angles.items()
        }

    monkeypatch.setattr(pilot, "task_subspaces", ranked_by)


def _stages(**changes: Any) -> dict[str, Stage]:
    request = WholeRequest(results=NOWHERE, **changes)
    search, rest = search_stage(request), replay_stages(request, None).stages
    return {stage.name: stage for stage in (*([search] if search else []), *rest)}


@pytest.mark.usefixtures("lines")
def test_the_stages_are_the_papers_tables_in_order() -> None:
    stages = _stages()
    assert tuple(stages) == tuple(STAGES)
    points = [len(trial.upstream.rungs) for trial in stages["search"].trials]
    assert sum(points) == 3 * 18 + 27  # three grids of 6 × 3, and of multitask 9 × 3
    assert len(stages["replay"].trials) == 10 * (len(METHODS) + 1)
    # the task's own size belongs to the replay, the four others to the sweeps of two methods
    assert len(stages["target_shots"].trials) == len(stages["source_shots"].trials) == 4 * 2
    assert [c.plan.source_set for c in stages["sources"].trials] == ["5", "11"]
    backbones = {c.plan.config.backbone for c in stages["backbones"].trials}
    assert backbones == set(EMBEDDED_BACKBONES[1:])  # the first one's cells are the replay's
    assert len(stages["backbones"].trials) == 2 * (len(METHODS) + 1)
    choices = [f"{how}5-{target}" for target in PILOT_TARGETS for how in CHOICES]
    assert [c.plan.source_set for c in stages["similarity"].trials] == choices


@pytest.mark.usefixtures("lines")
def test_every_cell_belongs_to_one_stage_and_one_job() -> None:
    stages = _stages()
    trials = [trial for stage in stages.values() for trial in stage.trials]
    assert len(set(trials)) == len(trials)
    job = job_of(list(stages.values()), WholeRequest(results=NOWHERE), "all")
    assert sorted(trial.name for trial in job.trials) == sorted(c.name for c in trials)


def test_the_search_is_on_the_first_backbone_and_the_partition_of_the_paper() -> None:
    stage = _stages(stages=("search",), backbones=("embedded-gpt2", "embedded"))["search"]
    assert {c.plan.config.backbone for c in stage.trials} == {"embedded-gpt2"}
    assert {c.plan.config.partition for c in stage.trials} == {"random_to_random"}
    assert {c.plan.role for c in stage.trials} == {"validation"}
    assert {c.upstream.config.method for c in stage.trials} == set(METHODS)


def test_stages_can_be_left_out() -> None:
    stages = _stages(stages=("sources", "replay"))
    assert list(stages) == ["replay", "sources"]
    alone = _stages(stages=("sources",))
    # without the replay its cells of the whole source set belong to the sweep
    assert [c.plan.source_set for c in alone["sources"].trials] == ["5", "11", "all"]


@pytest.mark.usefixtures("lines")
def test_some_methods_have_the_stages_of_similarity_only_with_maml_among_them() -> None:
    """Its tables are of MAML alone: other methods beside it add nothing there."""
    of_all = _stages(stages=("similarity",))["similarity"].trials
    both = _stages(stages=("replay", "similarity"), methods=("maml", "multitask"))
    assert set(both["similarity"].trials) == set(of_all)
    request = WholeRequest(results=NOWHERE, methods=("multitask",))
    replays = replay_stages(request, None)
    assert "similarity" not in {stage.name for stage in replays.stages}
    assert any("similarity: left out" in note for note in replays.notes)
    assert not has_similarity(request)
    assert has_similarity(dataclasses.replace(request, methods=("multitask", "maml")))


def test_an_unknown_stage_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="stage replays is unknown; known are search, replay"):
        WholeRequest(results=NOWHERE, stages=("replays",))


def test_the_replay_takes_the_points_of_its_own_search_though_another_study_lies_beside_it(
    tmp_path: Path,
) -> None:
    request = WholeRequest(results=tmp_path, stages=("search", "replay"), smoke=True)
    search = search_stage(request)
    assert search is not None
    stored = Stored(tmp_path)
    own = stored.take(study_record(open_plan(search.trials[0].plan)))
    other = stored.take(dataclasses.replace(own, train_seed=43))
    for trial in search.trials:
        assert isinstance(trial.upstream.config, UpstreamConfig)
        stored.point(own, trial.upstream.config, 1, 1.0)
        stored.point(other, trial.upstream.config, 2, 9.0)
    assert searched_study(search) == own.key
    notes = replay_stages(request, searched_study(search)).notes
    assert [note.count(f"study {own.id}, ARG +1.00") for note in notes] == [1, 1, 1, 1, 0]
    with pytest.raises(UsageError, match="holds 2 studies of maml on embedded that cannot"):
        plan_replay(dataclasses.replace(replay_request(request, own.key), study=None))


@pytest.mark.usefixtures("lines")
def test_the_rows_of_the_plan_add_up_to_the_whole() -> None:
    stages = list(_stages(backbones=("embedded",), smoke=True).values())
    job = job_of(stages, WholeRequest(results=NOWHERE), "all")
    with peek(job) as look:
        work = look.work
    rates = Rates(steps={"any": 2.0}, runs={"any": RunRate(step_s=0.5, row_s=0.0)}, start_s=0)
    rows = stage_rows(stages, job, work, rates)
    assert [row[0] for row in rows] == [*STAGES, ""]
    assert sum(int(row[2]) for row in rows[:-1]) == work.points == len(job.points)
    assert sum(int(row[4]) for row in rows) == work.all_runs
    each, shared = work_seconds(work, rates)
    told = sum(_seconds(row[5]) for row in rows)
    # told in minutes
    assert told == pytest.approx(sum(each) + shared, abs=0.5 * len(rows) + 30 * len(rows))


def _seconds(text: str) -> float:
    value, unit = text.split()
    return float(value) * {"s": 1, "min": 60}[unit]


def test_lines_of_a_table_are_aligned() -> None:
    lines = table_lines([HEAD, ("a", "b", "1", "22", "333", "4 s")])
    assert lines[0].split() == " ".join(HEAD).split()
    assert lines[1] == "a      b         1    22        333        4 s"


def test_bad_flags_are_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, said in (
        (["--stages", "x"], "stage x is unknown"),
        (["--backbones", "a,a"], "must be different names"),
        (["--backbones", "./absent"], "./absent"),
        (["--results", "s3://bucket"], "must be a directory"),
    ):
        assert main(flags, report=report_lines) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert said in error


# --- one run at smoke size: the part of `make miniature` that a test can wait for ---


@dataclass(frozen=True)
class Ran:
    """A run of the whole study, and what it was asked for."""

    flags: tuple[str, ...]
    methods: tuple[str, ...]
    backbones: tuple[str, ...]
    results: Path
    said: str


FEWER = {"methods": "maml,multitask", "backbones": "embedded,embedded-gpt2"}
"""Of every table at least a row; the others differ in method, backbone or data alone."""


@pytest.fixture(scope="module", params=[FEWER, pytest.param({}, marks=pytest.mark.slow)])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All stages: a part of methods, partitions and backbones; in the slow suite all of them."""
    results = tmp_path_factory.mktemp("miniature") / "results"
    flags = ["--smoke", "--results", str(results)]
    if request.param:
        flags += ["--partitions", COMPARED]
        flags += [word for key, names in request.param.items() for word in (f"--{key}", names)]
    methods, backbones = (
        tuple(request.param[key].split(",")) if request.param else all_of
        for key, all_of in (("methods", METHODS), ("backbones", EMBEDDED_BACKBONES))
    )
    return Ran(tuple(flags), methods, backbones, results, run_script("paper.py", *flags))


@pytest.mark.timeout(3600)  # for hangs only
def test_the_miniature_runs_from_the_search_to_the_report(ran: Ran) -> None:
    plan, _, run = ran.said.partition(f"{', '.join(ran.methods).upper()} search")
    assert run
    firsts = [line.split(maxsplit=1)[0] for line in plan.splitlines() if line.strip()]
    assert [first for first in firsts if first in STAGES] == list(STAGES)
    assert "estimate" in plan
    assert "best of 4 points on random_to_random" in run  # the search's, not the file's
    assert "searched on embedded" in run
    tables = ran.results / "report" / "tables"
    for number in range(1, 12):
        assert (tables / f"table-{number}.csv").is_file()
    assert (ran.results / "report" / "index.html").is_file()


@pytest.mark.timeout(3600)  # for hangs only
def test_every_table_of_the_miniature_has_its_cells(ran: Ran) -> None:
    tables = ran.results / "report" / "tables"

    def filled(number: int) -> str:
        return (tables / f"table-{number}.md").read_text()

    for number in (2, 3, 4, 5, 6, 7, 8):
        assert re.search(r"\d\.\d", filled(number)), filled(number)
    for name in ran.backbones:
        assert f"| {name} |" in filled(5)


@pytest.mark.timeout(3600)  # for hangs only
def test_the_same_command_again_computes_nothing_and_writes_the_report(
    ran: Ran, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are drawn once, by the first run: they are most of a report's time."""
    monkeypatch.setattr(parts, "all_figures", lambda *_: [])
    results = ran.results
    with open_results(results, read_only=True) as database:
        points, files = database.points(), database.artifacts()
    index = results / "report" / "index.html"
    index.unlink()
    assert main([*ran.flags, "--json"], report=report_lines) == 0
    again = capsys.readouterr()
    assert "nothing is left to compute" in again.err
    with open_results(results, read_only=True) as database:
        assert (database.points(), database.artifacts()) == (points, files)
    assert index.is_file()
    document = json.loads(again.out)
    assert document["exit_code"] == 0
    assert document["report"] == str(results / "report")
    methods = [point for point in points if point.method != BASELINE]
    searched = 4 * len(ran.methods)
    assert [len(job["points"]) for job in document["jobs"]] == [searched, len(methods) - searched]
