"""`tune_jobs/<method>_rr.py` and `mpt search METHOD`: from flags to what is searched."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpt.cli import search as cli
from mpt.cli.main import main
from mpt.config import UpstreamConfig
from mpt.errors import UsageError
from mpt.search import run as run_module
from mpt.search.job import Execution, SearchJob
from mpt.study.recipes import recipe


class Called(Exception):
    """Carries what the command line asked for."""

    def __init__(self, job: SearchJob, execution: Execution, fresh: bool) -> None:
        self.job, self.execution, self.fresh = job, execution, fresh


Parse = Callable[..., Called]


@pytest.fixture
def refused_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise what a search is asked to do, in place of doing it."""

    def search(job: SearchJob, execution: Execution, *, fresh: bool, display: object) -> int:
        raise Called(job, execution, fresh)

    monkeypatch.setattr(run_module, "run_search", search)


@pytest.fixture
def parse(
    refused_run: None, toy_gym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Parse:
    """Return a function from flags to what they ask for, on the toy gym."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tune_jobs/maml_rr.py"])

    def call(*flags: str) -> Called:
        # the toy gym has the smoke preset's data seeds only
        with pytest.raises(Called) as caught:
            cli.main("maml", ["--smoke", "--gym", str(toy_gym), *flags])
        return caught.value

    return call


def _job(method: str, *words: str, number: int = 0) -> SearchJob:
    return cli._job(method, cli.parser_of(method).parse_args(words), number)


def test_the_flags_are_these_and_no_others() -> None:
    # Other people's scripts call them: adding is a decision, losing one is a break.
    actions = cli.parser_of("maml")._actions
    assert sorted(name for action in actions for name in action.option_strings) == [
        "--address",
        "--allocation",
        "--allow-missing",
        "--backbone",
        "--dashboard",
        "--data-seeds",
        "--dry-run",
        "--eval-every",
        "--fresh",
        "--fresh-replicates",
        "--gpus-per-trial",
        "--gym",
        "--help",
        "--json",
        "--keep-prompts",
        "--max-dev",
        "--max-input",
        "--max-target",
        "--max-test",
        "--mlflow",
        "--num-samples",
        "--partition",
        "--plan-gpus",
        "--plugin",
        "--precision",
        "--preset",
        "--price",
        "--prompt-length",
        "--race-steps",
        "--racing",
        "--replace",
        "--replicates",
        "--results",
        "--scheduler",
        "--searcher",
        "--simulate",
        "--simulate-seeds",
        "--simulate-workers",
        "--smoke",
        "--space",
        "--starts",
        "--storage",
        "--store",
        "--study",
        "--template",
        "--throughput",
        "--train-seed",
        "--tuning-batch",
        "--tuning-lrs",
        "--tuning-start",
        "--tuning-steps",
        "--upstream-precision",
        "--upstream-seeds",
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
        (["--num-samples", "²"], "--num-samples: is '²', but must be a whole number ≥ 1"),
        (["--num-samples", "4"], "--num-samples is for --searcher random and optuna"),
        (["--searcher", "optuna", "--num-samples", "10"], "space 'embedded' holds 6"),
        (["--scheduler", "pbt"], "argument --scheduler: invalid choice: 'pbt'"),
        (["--train-seed", "-1"], "--train-seed: is '-1', but must be a whole number ≥ 0"),
        (["--gpus-per-trial", "x"], "--gpus-per-trial: is 'x', but must be a number"),
        (["--gpus-per-trial", "nan"], "--gpus-per-trial: is 'nan', but must be a number"),
        (["--gpus-per-trial", "1.5"], "--gpus-per-trial is 1.5, but must be in [0, 1]"),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial is -1"),
        (["--space", "xx"], "space 'xx' is unknown; maml.toml holds paper, embedded"),
        (["--space", "wide"], "--searcher random or optuna with --num-samples N"),
        (["--partition", "yy"], "partition 'yy' is unknown; known are random_to_random"),
        (["--results", "s3://bucket/x"], "--results is 's3://bucket/x', but must be a directory"),
        (["--gym", "/nonexistent"], "gym '/nonexistent' is not a directory"),
        (["--plugin", "none.py"], "--plugin is 'none.py', but there is no such file"),
        (["--simulate", "none"], "--simulate is 'none', but there is no such directory"),
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


def test_smoke_has_a_results_directory_of_its_own(parse: Parse, tmp_path: Path) -> None:
    called = parse()
    assert called.job.results == tmp_path / "results" / "smoke"
    assert called.job.plans[0].partial is not None
    assert called.job.plans[0].partial.startswith("partial: smoke")
    assert not called.fresh


def test_flags_reach_the_search(parse: Parse, tmp_path: Path) -> None:
    called = parse(
        *("--results", "r", "--train-seed", "7", "--gpus-per-trial", "0.5", "--address", "auto"),
        *("--store", "other.db", "--storage", "s3://bucket/mpt", "--fresh", "--keep-prompts"),
    )
    assert called.job.results == tmp_path / "r"
    assert called.job.url == f"sqlite:///{tmp_path / 'other.db'}"
    assert called.job.files == "s3://bucket/mpt"
    assert called.job.keep_prompts
    assert called.job.plans[0].config.train_seed == 7
    assert called.execution.gpus_per_trial == 0.5
    assert called.execution.address == "auto"
    assert called.fresh


def test_the_embedded_backbone_takes_the_embedded_space_and_others_the_papers(
    parse: Parse,
) -> None:
    assert 'space "embedded"' in parse().job.title
    assert 'space "paper"' in parse("--backbone", "x/y").job.title


def test_a_random_search_takes_as_many_as_asked(parse: Parse) -> None:
    called = parse("--searcher", "random", "--space", "wide", "--num-samples", "1")
    assert len(called.job.trials) == 1
    assert called.job.suggestions is None


def test_tpe_starts_from_the_first_point_and_chooses_as_many_as_asked(parse: Parse) -> None:
    called = parse("--searcher", "optuna", "--space", "wide", "--num-samples", "1")
    (trial,) = called.job.trials
    config, suggestions = trial.upstream.config, called.job.suggestions
    assert isinstance(config, UpstreamConfig)
    assert (config.inner_lr, config.outer_lr) == (3e-5, 0.5)
    assert suggestions is not None
    assert suggestions.count == 1
    assert trial.upstream.rungs == suggestions.space.rungs == (1, 2)  # smoke
    # not more than a space holds, and not more than a smoke run takes
    assert parse("--searcher", "optuna").job.total == (2, 4)


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_search_with_another_number_draws_with_another_seed_in_the_same_study(
    toy_gym: Path, searcher: str
) -> None:
    words = ("--gym", str(toy_gym), "--smoke", "--space", "wide", "--searcher", searcher)
    first, again, other = (
        _job("maml", *words, "--num-samples", "8", number=number) for number in (0, 0, 1)
    )
    assert first == again
    assert first.plans == other.plans
    if searcher == "random":
        assert first.trials != other.trials
    else:
        assert first.suggestions is not None
        assert other.suggestions is not None
        assert (first.suggestions.seed, other.suggestions.seed) == (42, 43)


def test_who_may_stop_trials_is_asked_for_by_flags(parse: Parse) -> None:
    assert parse().job.stoppers == frozenset()
    assert parse("--scheduler", "asha", "--racing").job.stoppers == {"asha", "racing"}


def test_multitask_epochs_are_steps_of_the_files_at_hand(toy_gym: Path) -> None:
    words = ("--gym", str(toy_gym), "--space", "paper", "--data-seeds", "13,21")
    job = _job("multitask", *words)
    assert len(job.points) == 36
    # three source tasks, two data seeds, 8 train and 8 dev rows: 96 rows, 24 batches of 4
    config = job.trials[0].upstream.config
    assert isinstance(config, UpstreamConfig)
    assert config.batch_size == 4
    assert job.trials[0].upstream.rungs == (120, 240, 480)


def test_a_search_has_the_number_format_of_the_replay_unless_another_is_asked_for(
    toy_gym: Path,
) -> None:
    def precision(*words: str) -> str:
        return _job("maml", "--smoke", "--gym", str(toy_gym), *words).plans[0].config.precision

    assert precision() == "float32"
    assert precision("--backbone", "x/y") == recipe("paper").precision["downstream"] == "bfloat16"
    assert precision("--backbone", "x/y", "--precision", "float32") == "float32"


@pytest.mark.parametrize(
    ("words", "both"),
    [
        ([], ("bfloat16", "float32")),  # the paper's
        (["--precision", "bfloat16"], ("bfloat16", None)),
        (["--upstream-precision", "bfloat16"], ("bfloat16", "bfloat16")),
        (
            ["--precision", "bfloat16", "--upstream-precision", "float32"],
            ("bfloat16", "float32"),
        ),
    ],
)
def test_the_number_format_upstream_is_asked_for_by_a_flag_of_its_own(
    words: list[str], both: tuple[str, str | None], toy_gym: Path
) -> None:
    job = _job("maml", "--smoke", "--gym", str(toy_gym), "--backbone", "x/y", *words)
    config = job.plans[0].config
    assert (config.precision, config.upstream_precision) == both


def test_the_commands_told_to_the_user_say_what_was_asked(parse: Parse, toy_gym: Path) -> None:
    execution = parse("--train-seed", "7", "--fresh", "--results", "a b").execution
    head = f"python tune_jobs/maml_rr.py --gym {toy_gym}"
    # resuming must not start anew; the next step after a smoke run is the real size
    assert execution.resume == f"{head} --train-seed 7 --results 'a b' --smoke"
    assert execution.next_step == f"{head} --train-seed 7"


def test_the_next_step_leads_beyond_the_grid_and_then_to_more_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["j.py"])
    parser = cli.parser_of("maml")

    def next_step(size: int | None, *words: str) -> str:
        return cli._next_step(parser, parser.parse_args(["--backbone", "x/y", *words]), size)

    wide = "python j.py --space wide --searcher optuna --backbone x/y"
    assert next_step(9) == wide
    drawn = ("--searcher", "optuna", "--num-samples", "8")
    head = "python j.py --searcher optuna --num-samples"
    assert next_step(None, *drawn) == f"{head} 16 --backbone x/y"
    assert next_step(9, *drawn) == f"{head} 9 --backbone x/y"
    assert next_step(8, *drawn) == wide
    embedded = cli._next_step(parser, parser.parse_args([]), 9)
    assert embedded == "python j.py --space embedded_wide --searcher optuna"


def test_a_usage_error_of_the_search_is_one_line_too(
    toy_gym: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise UsageError("results directory is in use")

    monkeypatch.setattr(run_module, "run_search", refuse)
    assert cli.main("maml", ["--smoke", "--gym", str(toy_gym)]) == 2
    assert capsys.readouterr().err == "error: results directory is in use\n"


def test_mpt_search_goes_on_as_mpt_search(
    refused_run: None, toy_gym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["search", "reptile", "--gym", str(toy_gym), "--smoke"]
    with pytest.raises(Called) as caught:
        main(words)
    assert caught.value.job.trials[0].method == "reptile"
    assert caught.value.execution.resume == shlex.join(["mpt", *words])


def test_mpt_search_asks_for_a_method_and_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search"]) == 2
    assert "usage: mpt search METHOD" in capsys.readouterr().out
    assert main(["search", "--help"]) == 0
    assert "usage: mpt search METHOD" in capsys.readouterr().out
    assert main(["search", "sgd"]) == 2
    error = capsys.readouterr().err
    assert "method is 'sgd', but must be one of maml, fomaml, reptile, multitask" in error
    assert error.count("\n") == 1
