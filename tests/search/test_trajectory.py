from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from search_toys import SEEDS, SOURCES, VALIDATION, bits, computed, toy_job, with_rungs

from mpt.config import UpstreamConfig
from mpt.records import LeafStore, PointStore
from mpt.search.job import SearchJob
from mpt.search.standing import Standings, ranked
from mpt.study.spaces import Trajectory
from mpt.study.study import Study
from mpt.trial import trajectory as trajectory_module
from mpt.trial.leaf_work import compute_leaves
from mpt.trial.objective import BAD_SCORE, baseline_packs, score_point
from mpt.trial.trajectory import TrajectoryWork
from mpt.upstream.engine import Diverged, UpstreamRun

LEAVES = len(VALIDATION) * len(SEEDS) * 2  # two learning rates


def run(study: Study, job: SearchJob, order: tuple[int, ...] = (0, 1)) -> None:
    """Run trajectories one after the other."""
    for index in order:
        work = TrajectoryWork(study, job.courses[index].trajectory, job.results, job.chunk_s)
        with work.hold():
            list(work.units())


def test_a_search_records_every_point_and_the_baseline_once(study: Study, job: SearchJob) -> None:
    run(study, job)
    assert len(PointStore(job.results).all()) == 6
    # six points and one shared baseline; nothing was computed twice
    assert len(list(LeafStore(job.results).keys())) == 7 * LEAVES
    assert len(computed(job.results)) == len(set(computed(job.results))) == 7 * LEAVES
    for entry in Standings(job, lambda _: study).entries():
        assert entry.score is not None
        assert (entry.score.leaves, entry.score.of) == (LEAVES, LEAVES)
        assert entry.score.gain is not None


def test_neither_order_nor_chunks_nor_interleaving_changes_a_bit(
    study: Study, job: SearchJob, tmp_path: Path
) -> None:
    run(study, job)
    expected = bits(job.results)
    backward = dataclasses.replace(job, results=tmp_path / "backward", chunk_s=1e9)
    run(study, backward, order=(1, 0))
    assert bits(backward.results) == expected
    # two workers: their units alternate, and they share the baseline's packs
    both = dataclasses.replace(job, results=tmp_path / "both")
    works = [TrajectoryWork(study, course.trajectory, both.results, 0) for course in both.courses]
    for _ in itertools.zip_longest(*(work.units() for work in works)):
        pass
    assert bits(both.results) == expected
    assert len(computed(both.results)) == 7 * LEAVES


def test_a_rung_is_the_end_of_the_shorter_run(
    study: Study, job: SearchJob, tmp_path: Path
) -> None:
    run(study, job)
    whole = bits(job.results)
    for rung in (2, 4):
        short = with_rungs(job, (rung,), results=tmp_path / str(rung))
        run(study, short)
        part = bits(short.results)
        assert len(part) == 2 + 3 * LEAVES
        assert part.items() <= whole.items()


def test_growing_the_rungs_computes_only_what_is_missing(
    study: Study, job: SearchJob, tmp_path: Path
) -> None:
    small = with_rungs(job, (4,))
    run(study, small)
    before = len(computed(job.results))
    run(study, job)  # a rung before and one behind
    assert len(computed(job.results)) == before + 4 * LEAVES
    undisturbed = dataclasses.replace(job, results=tmp_path / "undisturbed")
    run(study, undisturbed)
    assert bits(job.results) == bits(undisturbed.results)


def test_a_finished_trajectory_needs_no_unit_and_no_model_pass(
    study: Study, job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study, job)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(trajectory_module.LeafWork, "advance", never)
    monkeypatch.setattr(UpstreamRun, "advance", never)
    work = TrajectoryWork(study, job.courses[0].trajectory, job.results)
    assert work.unit().done
    assert set(work.progress.rung_scores) == {"2", "4", "6"}


@pytest.mark.parametrize(
    "change",
    [
        {"inner_lr": 0.2},
        {"outer_lr": 0.2},
        {"inner_steps": 2},
        {"batch_size": 3},
        {"items_per_step": 1},
        {"dropout": 0.1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_searched_setting_changes_the_result(
    study: Study, job: SearchJob, tmp_path: Path, change: dict[str, float]
) -> None:
    base = UpstreamConfig(inner_lr=0.1, outer_lr=0.3)
    prompts = []
    for number, config in enumerate((base, dataclasses.replace(base, **change))):  # type: ignore[arg-type]
        results = tmp_path / str(number)
        work = TrajectoryWork(study, Trajectory(config=config, rungs=(3,)), results)
        list(work.units())
        (point,) = PointStore(results).all()
        prompts.append(point["prompt"])
    assert prompts[0] != prompts[1]


@pytest.mark.parametrize("part", ["train_seed", "downstream", "text", "prompt", "data_seeds"])
def test_every_part_of_a_study_has_points_of_its_own(
    toy_checkpoint: Path, toy_gym: Path, study: Study, part: str
) -> None:
    config = study.config
    changed: dict[str, Any] = {
        "train_seed": 7,
        "downstream": dataclasses.replace(config.downstream, lrs=(0.5,)),
        "text": dataclasses.replace(config.text, max_input=25),
        "prompt": dataclasses.replace(config.prompt, length=4),
        "data_seeds": SEEDS[:1],
    }
    other = toy_job(toy_checkpoint, toy_gym, Path("unused"), **{part: changed[part]}).plans[0]
    moved = dataclasses.replace(
        study,
        plan=other,
        items=study.items[:1] if part == "data_seeds" else study.items,
    )
    config_of = UpstreamConfig()
    keys = [one.trajectory_key(config_of) for one in (study, moved)]
    identities = [
        trajectory_module.point_identity(one, key, 5)
        for one, key in zip((study, moved), keys, strict=True)
    ]
    assert identities[0] != identities[1]


def test_a_named_choice_of_sources_has_points_of_its_own_that_name_them(study: Study) -> None:
    """Two choices may come to the same tasks, and share everything but the point."""
    named = [
        dataclasses.replace(study, plan=dataclasses.replace(study.plan, source_set=name))
        for name in ("all", "highest2", "random2")
    ]
    keys = {one.trajectory_key(UpstreamConfig()) for one in named}
    points = [trajectory_module.point_identity(one, "t", 5) for one in named]
    assert len(keys) == 1
    assert [point.get("source_set") for point in points] == [None, "highest2", "random2"]
    labels = trajectory_module.point_labels(named[1], "maml")
    assert labels["source_tasks"] == list(SOURCES)


# --- faults ----------------------------------------------------------------------------------


def test_divergence_gives_every_later_rung_a_finite_bad_score(
    study: Study, job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = UpstreamRun.advance

    def diverging(self: UpstreamRun, n_steps: int) -> None:
        if self.step_count + n_steps > 3:
            raise Diverged(self.step_count + 1, "query loss of s-one is nan")
        real(self, n_steps)

    monkeypatch.setattr(UpstreamRun, "advance", diverging)
    work = TrajectoryWork(study, job.courses[0].trajectory, job.results, 0)
    landed = [rung for progress in work.units() for rung in progress.landed]
    assert landed == [2, 4, 6]
    assert work.progress.rung_scores["4"] == work.progress.rung_scores["6"] == BAD_SCORE
    assert work.progress.rung_scores["2"] > BAD_SCORE
    # it is a result: the next session does not try again
    monkeypatch.setattr(UpstreamRun, "advance", lambda *_: pytest.fail("tried again"))
    again = TrajectoryWork(study, job.courses[0].trajectory, job.results)
    assert again.unit().done
    entries = [Standings(job, lambda _: study).entry(0, rung) for rung in (2, 4, 6)]
    assert [entry.record["status"] for entry in entries if entry.record] == [
        "ok",
        "diverged",
        "diverged",
    ]
    assert entries[1].score is not None
    assert "diverged at step 4: query loss of s-one is nan" in entries[1].score.note
    assert ranked(entries)[0].steps == 2


def test_a_truly_diverging_trajectory_is_recorded(study: Study, tmp_path: Path) -> None:
    config = UpstreamConfig(inner_lr=1e38, outer_lr=1e30)
    work = TrajectoryWork(study, Trajectory(config=config, rungs=(3,)), tmp_path)
    list(work.units())
    (point,) = PointStore(tmp_path).all()
    assert point["status"] == "diverged"
    assert score_point(point, LeafStore(tmp_path)).score == BAD_SCORE


def test_a_pack_whose_runs_diverge_is_kept_with_nan_as_null(
    toy_checkpoint: Path, toy_gym: Path, study: Study, tmp_path: Path
) -> None:
    wild = dataclasses.replace(study.config.downstream, lrs=(1e38,))
    plan = toy_job(toy_checkpoint, toy_gym, tmp_path, downstream=wild).plans[0]
    wild_study = dataclasses.replace(study, plan=plan)
    (pack, _) = baseline_packs(wild_study)
    store = LeafStore(tmp_path)
    assert compute_leaves(wild_study, [pack], store) == 2
    leaf = store.get(pack.runs[0].key)
    assert leaf is not None
    assert leaf["result"]["status"] == "diverged"
    assert leaf["result"]["dev"] is None
    assert compute_leaves(wild_study, [pack], store) == 0  # it is a result, not a gap


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_checkpoint_cut_in_half_falls_back_and_the_result_is_the_same(
    study: Study, job: SearchJob, tmp_path: Path
) -> None:
    undisturbed = dataclasses.replace(job, results=tmp_path / "undisturbed")
    run(study, undisturbed, order=(0,))
    work = TrajectoryWork(study, job.courses[0].trajectory, job.results, 0)
    for progress in work.units():
        if progress.steps == 3:
            break
    work.close()
    newest = max((job.results / "trajectories" / work.key).glob("checkpoint-*"), key=_mtime)
    _cut(newest)
    again = TrajectoryWork(study, job.courses[0].trajectory, job.results, 0)
    list(again.units())
    problems = again.progress.problems
    assert len(problems) == 1
    assert f"{newest}: its checksum does not fit" in problems[0]
    assert "going on from step 2" in problems[0]
    assert bits(job.results) == bits(undisturbed.results)


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_broken_rung_point_and_leaf_files_are_named_and_made_anew(
    study: Study, job: SearchJob
) -> None:
    run(study, job, order=(0,))
    expected = bits(job.results)
    before = len(computed(job.results))
    rung = next(job.results.glob("trajectories/*/rung-4.safetensors"))
    points = {point["steps"]: point for point in PointStore(job.results).all()}
    leaf_key = points[4]["leaves"]["v-one"]["13"][0][1]
    leaf = job.results / "leaves" / leaf_key[:2] / f"{leaf_key}.json"
    point = job.results / "points" / f"{points[6]['key']}.json"
    for path in (rung, point):
        _cut(path)
    leaf.write_text("garbage")
    work = TrajectoryWork(study, job.courses[0].trajectory, job.results, 0)
    list(work.units())
    text = "\n".join(work.progress.problems)
    for path in (rung, point, leaf):
        assert str(path) in text
    # a leaf that is made anew rides without its companions: the same up to float32 rounding
    found = bits(job.results)
    assert {key for key in expected if found[key] != expected[key]} <= {leaf_key}
    for one, other in zip(
        found[leaf_key][1]["curve"], expected[leaf_key][1]["curve"], strict=True
    ):
        assert one == pytest.approx(other, rel=1e-5)
    # of all leaves the one that was broken was computed again
    assert computed(job.results)[before:] == [leaf_key]
    assert leaf.with_name(leaf.name + ".bad").read_text() == "garbage"


def _is_held(lock: Path) -> bool:
    """Return whether another process would have to wait for a lock."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom mpt.storage import exclusive\n"
        "with exclusive(Path(sys.argv[1]), 0.2): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(lock)], capture_output=True, check=False
    )
    assert done.returncode == 0 or b"TimeoutError" in done.stderr
    return done.returncode != 0


def test_a_course_is_worked_on_by_one_process_at_a_time(study: Study, job: SearchJob) -> None:
    work = TrajectoryWork(study, job.courses[0].trajectory, job.results)
    with work.hold():
        (lock,) = (job.results / "locks").iterdir()
        assert _is_held(lock)
    assert not _is_held(lock)


def test_a_trajectory_is_held_while_it_learns_and_not_while_its_leaves_are_tuned(
    study: Study, job: SearchJob
) -> None:
    work = TrajectoryWork(study, job.courses[0].trajectory, job.results)
    lock = job.results / "trajectories" / work.key / "lock"
    held: dict[str, bool] = {}
    for done in work.units():
        if done.steps == 2 and "learning" not in held:
            held["learning"] = _is_held(lock)
        if done.steps == 6 and done.leaves > 0 and "tuning" not in held and done.tuning:
            held["tuning"] = _is_held(lock)
    assert held == {"learning": True, "tuning": False}


def test_courses_on_one_trajectory_learn_it_once_and_tune_side_by_side(
    study: Study, job: SearchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two settings with the same sources; their units alternate as on two workers."""
    config = dataclasses.replace(study.config, partition="another")
    plan = dataclasses.replace(study.plan, config=config, scored=VALIDATION[:1])
    scored = {VALIDATION[0]: study.scored[VALIDATION[0]]}
    twin = dataclasses.replace(study, plan=plan, scored=scored)
    trajectory = dataclasses.replace(job.courses[0].trajectory, rungs=(4,))
    for one in (study, twin):
        list(TrajectoryWork(one, trajectory, tmp_path / "alone").units())
    advanced: list[int] = []
    step = UpstreamRun.advance

    def counted(run: UpstreamRun, steps: int) -> None:
        advanced.append(steps)
        step(run, steps)

    monkeypatch.setattr(UpstreamRun, "advance", counted)
    works = [TrajectoryWork(one, trajectory, job.results, 0) for one in (study, twin)]
    with works[0].hold(), works[1].hold():
        for _ in itertools.zip_longest(*(work.units() for work in works)):
            pass
    assert sum(advanced) == 4
    assert bits(job.results) == bits(tmp_path / "alone")


# --- SIGKILL at many points --------------------------------------------------------------------


def test_a_trajectory_killed_anywhere_ends_with_the_same_bits_and_computes_nothing_twice(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path
) -> None:
    """Each round kills the process at one more point, inside file writes and inside packs."""
    helper = Path(__file__).with_name("kill_points.py")
    done = subprocess.run(
        [sys.executable, str(helper), str(toy_checkpoint), str(toy_gym), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(trajectory_module.__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout.splitlines()[-1])
    assert sum(one["kills"] for one in rounds) >= 20
    expected = bits(tmp_path / "undisturbed")
    for one in rounds:
        results = Path(one["results"])
        assert bits(results) == expected
        assert len(computed(results)) == len(set(computed(results)))
        assert one["rewritten"] == []
