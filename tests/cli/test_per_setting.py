"""A search in every setting: its trials, validation tasks and rankings; one run with Ray."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from search_fixtures import local_ray
from search_toys import SEEDS, write_toy_gym
from stored import compute

import mpt
from mpt.cli import per_setting as per_setting_cli
from mpt.cli import replay as replay_cli
from mpt.cli.per_setting import parser_of, per_setting_job
from mpt.config import METHODS
from mpt.embedded.gym import ensure_embedded_gym
from mpt.errors import UsageError
from mpt.gym.catalogue import PARTITIONS, load_catalogue
from mpt.search.job import SearchJob
from mpt.store.database import open_results
from mpt.store.records import point_key
from mpt.study.validation import validation_of

ROOT = Path(mpt.__file__).resolve().parents[1]


def _job(*flags: str) -> tuple[SearchJob, list[str]]:
    return per_setting_job(parser_of().parse_args(list(flags)))


def test_every_method_is_searched_in_every_setting_on_tasks_outside_of_it() -> None:
    job, notes = _job()
    catalogue = load_catalogue(ensure_embedded_gym())
    assert len(job.plans) == 10
    for plan, partition, note in zip(job.plans, PARTITIONS, notes, strict=True):
        assert plan.config.partition == partition
        assert plan.role == "validation"
        assert plan.scored == validation_of(catalogue, partition).tasks
        assert not {*plan.scored} & {*plan.source, *catalogue.partition(partition).target}
        assert note == str(validation_of(catalogue, partition))
        here = [trial.method for trial in job.trials if trial.plan == plan]
        assert set(here) == set(METHODS)
        # the embedded grids: trajectories of three rungs, 6 of each meta method and 9 of multitask
        assert len(here) == 3 * 6 + 9
    assert len(job.points) == 10 * 3 * (3 * 6 + 9)


def test_settings_methods_and_draws_can_be_chosen() -> None:
    job, _ = _job(
        "--partitions", "qa_to_qa,cls_to_cls", "--methods", "reptile", "--num-samples", "3"
    )
    assert [plan.config.partition for plan in job.plans] == ["qa_to_qa", "cls_to_cls"]
    assert len(job.trials) == 6
    first, second = ({t.upstream for t in job.trials if t.plan == p} for p in job.plans)
    assert first == second  # draws depend on seed, method and space alone


def test_unknown_methods_are_listed() -> None:
    with pytest.raises(UsageError, match="method 'sgd' is unknown; known are maml, fomaml"):
        _job("--methods", "sgd")
    with pytest.raises(UsageError, match="partition 'rr' is unknown"):
        _job("--partitions", "rr")


def test_a_smoke_run_takes_two_settings_and_short_trajectories() -> None:
    job, _ = _job("--smoke")
    assert len(job.plans) == 2
    assert {trial.upstream.rungs for trial in job.trials} == {(1, 2)}
    assert all(partial.startswith("partial: smoke, 3 source") for partial in job.partial)


def test_a_preset_in_the_place_of_the_backbones_own_counts_in_every_setting() -> None:
    job, _ = _job("--preset", "paper", "--methods", "maml", "--partitions", "cls_to_cls")
    assert job.plans[0].config.prompt == mpt.Study(preset="paper").config.prompt
    assert job.plans[0].config.prompt != mpt.Study().config.prompt


def write_two_settings(folder: Path) -> Path:
    """Write the toy gym with a second setting."""
    gym = write_toy_gym(folder)
    more = ["[partitions.qa_to_qa]", 'source = ["s-one", "s_two"]', 'target = ["t-one"]']
    path = gym / "gym.toml"
    path.write_text(path.read_text() + "\n".join(more) + "\n")
    return gym


@pytest.mark.timeout(1800)  # for hangs only
def test_searches_in_two_settings_are_ranked_apart_and_their_best_replayed(
    toy_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search without Ray, the replay with it, and the replay again, which starts nothing."""
    results = tmp_path / "results"
    common = ["--gym", str(write_two_settings(tmp_path / "gym")), "--smoke"]
    common += ["--results", str(results)]
    search = ["--backbone", str(toy_checkpoint), "--methods", "maml", *common]
    job, notes = _job(*search)
    assert notes[1] == "qa_to_qa: validation on v-one, v_two (catalogue) and s-three (drawn); " + (
        "no other task is neither source nor target: 3 of 5"
    )
    compute(job)
    assert per_setting_cli.main(search) == 0
    shown = capsys.readouterr().out
    for setting in ("random_to_random", "qa_to_qa"):
        assert f"MAML on {setting}, backbone {toy_checkpoint}" in shown
    assert "its numbers mean nothing" in shown
    assert "best point of every setting and method" not in shown  # of a smoke run none is

    replay = ["--backbones", str(toy_checkpoint), "--methods", "maml,fine_tuning", *common]
    replay += ["--from", str(results), "--json"]
    monkeypatch.setattr("sys.argv", ["replay.py", *replay])
    with local_ray(1), pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(ROOT / "tune_jobs" / "replay.py"), run_name="__main__")
    first = capsys.readouterr()
    methods = [point["method"] for point in json.loads(first.out)["points"]]
    assert sorted(methods) == ["fine_tuning", "fine_tuning", "maml", "maml"]
    with open_results(results, read_only=True) as database:
        studies = [study for study in database.studies() if study.role == "target"]
        baselines = [database.points_of([point_key(study.key, "", 0)]) for study in studies]
        for study in studies:
            assert {seed for _, seed, _ in study.scored} == set(SEEDS)
            methods = [point.method for point in database.points(study.key)]
            assert sorted(methods) == ["fine_tuning", "maml", "prompt_tuning"]
    assert len(studies) == 2
    # one run of plain prompt tuning serves both settings
    assert len({point.runs for found in baselines for point in found.values()}) == 1
    assert replay_cli.main(replay) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["exit_code"] == 0
    assert "4 of 4 cells" in again.err
    assert "workers" not in again.err  # nothing was started
