"""The scripts of `tune_jobs`, and `mpt` itself, as they are started."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from children import environment

import mpt
from mpt.cli import paper
from mpt.cli.main import COMMANDS, main
from mpt.gym.catalogue import load_catalogue
from mpt.study.presets import load_study
from mpt.study.spaces import load_space

ROOT = Path(mpt.__file__).resolve().parents[1]
JOBS = sorted((ROOT / "tune_jobs").glob("*.py"))
ENVIRONMENT = environment(ROOT)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_is_short_and_works_from_any_directory(job: Path, tmp_path: Path) -> None:
    assert len(job.read_text().splitlines()) <= 30
    done = subprocess.run(
        [sys.executable, str(job), "--help"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "--gpus-per-trial" in done.stdout
    first = {
        "beat_mtl": "A contest against multitask learning",
        "replay": "Replay best settings",
        "per_setting": "settings of every method",
        "paper": "The whole study",
        "real": "The whole study",
        "similarity": "Compare tasks by subspaces",
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
    assert "package 'mpt' is missing" in done.stderr
    assert "pip install" in done.stderr


def test_the_real_study_is_what_it_says() -> None:
    """Methods, baselines, seeds and tasks of `make real`, which is too long for a test to run."""
    defaults = runpy.run_path(str(ROOT / "tune_jobs" / "real.py"))["DEFAULTS"]
    flags = paper.parser_of().parse_args(defaults)
    asked = {"maml", "fomaml", "reptile", "multitask", "untrained", "zero_shot"}
    assert set(flags.methods) == asked
    assert (flags.backbones, flags.partitions) == (("smollm2",), ("random_to_random",))
    assert flags.allow_missing
    for method in asked - {"zero_shot"}:  # a space of its own each, at the model's scale
        assert load_space(method, "smollm2").grid()
    study, catalogue = load_study("smollm2"), load_catalogue(None)
    target = catalogue.partition("random_to_random").target
    assert len(study.data_seeds) >= 3
    assert len(study.target_seeds) >= 2
    assert (
        study.train_seed not in study.target_seeds
    )  # settings are reported on seeds that chose nothing
    assert len(set(study.validation) & set(catalogue.validation_tasks)) == 4
    assert set(study.target) <= set(target)


def test_the_command_line_is_there_before_torch_is_imported() -> None:
    # a bad flag or --help must not wait for it, and Ctrl-C at the start must not end in its import
    modules = "mpt.cli.main, mpt.cli.search, mpt.cli.per_setting, mpt.cli.replay"
    modules += ", mpt.cli.paper, mpt.cli.similarity, mpt.cli.beat_mtl"
    modules += ", analysis.report.report, analysis.contest.report"
    slow = {"torch", "ray", "optuna", "matplotlib"}
    code = f"import sys, {modules}; sys.exit(bool({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([name, "--help"])
    except SystemExit as end:  # argparse's own way
        code = int(end.code or 0)
    assert code == 0
    assert "usage: " in capsys.readouterr().out.lower()


def test_the_module_runs_the_same_commands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mpt", "search", "maml", "--nope"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: unrecognized arguments: --nope (see --help)\n"
    assert done.stdout == ""
