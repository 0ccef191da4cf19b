from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mpt
from mpt.cli import search as cli
from mpt.config import StudyConfig
from mpt.errors import UsageError
from mpt.search import run as run_module
from mpt.search.job import Execution, SearchJob
from mpt.study.presets import load_study
from mpt.study.recipes import recipe

ROOT = Path(mpt.__file__).resolve().parents[1]
JOBS = sorted((ROOT / "tune_jobs").glob("*.py"))


class Called(Exception):
    """Carries what the command line asked for."""

    def __init__(self, job: SearchJob, execution: Execution, fresh: bool) -> None:
        self.job, self.execution, self.fresh = job, execution, fresh


@pytest.fixture
def parse(toy_gym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return a function from flags to what they ask for, on the toy gym."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tune_jobs/maml_rr.py"])

    def search(job: SearchJob, execution: Execution, *, fresh: bool, display: object) -> int:
        raise Called(job, execution, fresh)

    monkeypatch.setattr(run_module, "run_search", search)

    def call(*flags: str) -> Called:
        # the toy gym has the smoke preset's data seeds only
        with pytest.raises(Called) as caught:
            cli.main("maml", ["--smoke", "--gym", str(toy_gym), *flags])
        return caught.value

    return call


def test_the_flags_are_these_and_no_others() -> None:
    # Other people's scripts call them: adding is a decision, losing one is a break.
    actions = cli._parser("maml")._actions
    assert sorted(name for action in actions for name in action.option_strings) == [
        "--address",
        "--allow-missing",
        "--backbone",
        "--dry-run",
        "--fresh",
        "--gpus-per-trial",
        "--gym",
        "--help",
        "--json",
        "--keep-prompts",
        "--mlflow",
        "--num-samples",
        "--partition",
        "--plan-gpus",
        "--precision",
        "--price",
        "--racing",
        "--results",
        "--scheduler",
        "--searcher",
        "--simulate",
        "--simulate-seeds",
        "--simulate-workers",
        "--smoke",
        "--space",
        "--train-seed",
        "--wandb",
        "-h",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nope"], "unrecognized arguments: --nope"),
        (["--back", "x"], "unrecognized arguments: --back x"),  # no abbreviations
        (["--searcher", "tpe"], "argument --searcher: invalid choice: 'tpe'"),
        (["--num-samples", "0"], "--num-samples: is '0', but must be a whole number ≥ 1"),
        (["--num-samples", "2.5"], "--num-samples: is '2.5', but must be a whole number ≥ 1"),
        (["--num-samples", "4"], "--num-samples is for --searcher random and optuna"),
        (["--searcher", "optuna", "--num-samples", "10"], "space 'embedded' holds 9"),
        (["--scheduler", "pbt"], "argument --scheduler: invalid choice: 'pbt'"),
        (["--train-seed", "-1"], "--train-seed: is '-1', but must be a whole number ≥ 0"),
        (["--gpus-per-trial", "x"], "--gpus-per-trial: is 'x', but must be a number"),
        (["--gpus-per-trial", "nan"], "--gpus-per-trial: is 'nan', but must be a number"),
        (["--gpus-per-trial", "1.5"], "--gpus-per-trial is 1.5, but must be in [0, 1] or a whole"),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial is -1"),
        (["--space", "xx"], "space 'xx' is unknown; maml.toml holds paper, embedded"),
        (["--space", "wide"], "--searcher random or optuna with --num-samples N"),
        (["--partition", "yy"], "partition 'yy' is unknown; known are random_to_random"),
        (["--results", "s3://bucket/x"], "--results is 's3://bucket/x', but must be a directory"),
        (["--gym", "/nonexistent"], "gym '/nonexistent' is not a directory"),
    ],
)
def test_bad_flags_end_with_one_line_and_code_2(
    toy_gym: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    base = [] if "--gym" in flags else ["--gym", str(toy_gym)]
    assert cli.main("maml", ["--smoke", *base, *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert message in err


def test_missing_tasks_end_with_one_line_and_code_3(
    toy_gym: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # without --smoke the preset asks for five data seeds; the toy gym has two
    assert cli.main("maml", ["--gym", str(toy_gym), "--backbone", "embedded"]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "lack 5 tasks: s-one (no file s-one_4_42_train.tsv" in err


def test_smoke_has_a_results_directory_of_its_own(parse: object, tmp_path: Path) -> None:
    called = parse()  # type: ignore[operator]
    assert called.job.results == tmp_path / "results" / "smoke"
    assert called.job.plans[0].partial.startswith("partial: smoke")
    assert not called.fresh


def test_flags_reach_the_search(parse: object, tmp_path: Path) -> None:
    called = parse(  # type: ignore[operator]
        *("--results", "r", "--train-seed", "7", "--gpus-per-trial", "0.5", "--address", "auto"),
        "--fresh",
    )
    assert called.job.results == tmp_path / "r"
    assert called.job.plans[0].config.train_seed == 7
    assert called.execution.gpus_per_trial == 0.5
    assert called.execution.address == "auto"
    assert called.fresh


def test_the_embedded_backbone_takes_the_embedded_space_and_others_the_papers(
    parse: object,
) -> None:
    assert 'space "embedded"' in parse().job.title  # type: ignore[operator]
    assert 'space "paper"' in parse("--backbone", "x/y").job.title  # type: ignore[operator]


def test_a_random_search_takes_as_many_as_asked(parse: object) -> None:
    called = parse("--searcher", "random", "--space", "wide", "--num-samples", "1")  # type: ignore[operator]
    assert len(called.job.courses) == 1


def test_tpe_starts_from_the_first_point_and_chooses_as_many_as_asked(parse: object) -> None:
    called = parse("--searcher", "optuna", "--space", "wide", "--num-samples", "1")  # type: ignore[operator]
    (course,) = called.job.courses
    assert (course.trajectory.config.inner_lr, course.trajectory.config.outer_lr) == (3e-5, 0.5)
    assert called.job.search.count == 1
    assert course.trajectory.rungs == called.job.search.space.rungs == (1, 2)  # smoke
    # not more than a space holds, and not more than a smoke run takes
    assert parse("--searcher", "optuna").job.total == (2, 4)  # type: ignore[operator]


def test_who_may_stop_courses_is_asked_for_by_flags(parse: object) -> None:
    assert parse().job.stoppers == frozenset()  # type: ignore[operator]
    both = parse("--scheduler", "asha", "--racing")  # type: ignore[operator]
    assert both.job.stoppers == {"asha", "racing"}


def test_multitask_epochs_are_steps_of_the_files_at_hand(
    toy_gym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def study(backbone: str, **options: Any) -> StudyConfig:
        return dataclasses.replace(load_study(backbone, **options), data_seeds=(13, 21))

    monkeypatch.setattr(cli, "load_study", study)
    flags = cli._parser("multitask").parse_args(["--gym", str(toy_gym), "--space", "paper"])
    job = cli._job("multitask", flags)
    assert len(job.points) == 36
    # three source tasks, two data seeds, 8 train and 8 dev rows: 96 rows, 24 batches of 4
    assert job.courses[0].trajectory.config.batch_size == 4
    assert job.courses[0].trajectory.rungs == (120, 240, 480)


def test_the_commands_told_to_the_user_say_what_was_asked(parse: object, toy_gym: Path) -> None:
    execution = parse("--train-seed", "7", "--fresh", "--results", "a b").execution  # type: ignore[operator]
    head = f"python tune_jobs/maml_rr.py --gym {toy_gym}"
    # resuming must not start anew; the next step after a smoke run is the real size
    assert execution.resume == f"{head} --train-seed 7 --results 'a b' --smoke"
    assert execution.next_step == f"{head} --train-seed 7"


def test_the_next_step_leads_beyond_the_grid_and_then_to_more_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["j.py"])
    parser = cli._parser("maml")
    head = "python j.py --backbone x/y"

    def next_step(size: int | None, *words: str) -> str:
        return cli._next_step(parser, parser.parse_args(["--backbone", "x/y", *words]), size)

    assert next_step(9) == f"{head} --space wide --searcher optuna"
    drawn = ("--searcher", "optuna", "--num-samples", "8")
    assert next_step(None, *drawn) == f"{head} --searcher optuna --num-samples 16"
    assert next_step(9, *drawn) == f"{head} --searcher optuna --num-samples 9"
    assert next_step(8, *drawn) == f"{head} --space wide --searcher optuna"


def test_a_usage_error_of_the_search_is_one_line_too(
    parse: object,
    toy_gym: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise UsageError("results directory is in use")

    monkeypatch.setattr(run_module, "run_search", refuse)
    assert cli.main("maml", ["--smoke", "--gym", str(toy_gym)]) == 2
    assert capsys.readouterr().err == "error: results directory is in use\n"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_is_short_and_works_from_any_directory(job: Path, tmp_path: Path) -> None:
    assert len(job.read_text().splitlines()) <= 30
    done = subprocess.run(
        [sys.executable, str(job), "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "--gpus-per-trial" in done.stdout
    first = {
        "replay": "Replay best settings",
        "per_setting": "settings of every method",
        "paper": "The whole study",
        "similarity": "Compare tasks by the subspaces",
    }
    named = f"settings of {job.stem.removesuffix('_rr').upper()}"
    assert first.get(job.stem, named) in " ".join(done.stdout.split())


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_missing_package_is_one_clear_sentence(job: Path, tmp_path: Path) -> None:
    # `ray submit` copies this one file to the head's home, where nothing else may be
    copied = tmp_path / job.name
    copied.write_text(job.read_text())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(copied)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    package = "analysis" if job.stem == "paper" else "mpt"
    assert f"package '{package}' is missing" in done.stderr
    assert "pip install" in done.stderr


def test_the_command_line_is_there_before_torch_is_imported() -> None:
    # a bad flag or --help must not wait for it, and Ctrl-C at the start must not end in its import
    modules = "mpt.cli.search, mpt.cli.per_setting, mpt.cli.replay"
    modules += ", mpt.cli.paper, mpt.cli.similarity, analysis.report.report"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )


def test_a_search_has_the_number_format_of_the_replay_unless_another_is_asked_for(
    toy_gym: Path,
) -> None:
    def precision(*words: str) -> str:
        flags = cli._parser("maml").parse_args(["--smoke", "--gym", str(toy_gym), *words])
        return cli._job("maml", flags).plans[0].config.precision

    assert precision() == "float32"
    assert precision("--backbone", "x/y") == recipe("paper").precision["maml"] == "bfloat16"
    assert precision("--backbone", "x/y", "--precision", "float32") == "float32"
