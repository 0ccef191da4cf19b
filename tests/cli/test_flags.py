"""The flags that every job has: what they mean, and that a shown command means the same again."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from mpt.arguments import names, number, rates, seeds, whole
from mpt.cli import flags as flags_module
from mpt.cli.flags import (
    OPTIONS,
    Parser,
    add_backbone,
    add_common,
    carry_out,
    command_of,
    execution_of,
    exit_code,
    options_of,
    places,
    results_of,
)
from mpt.cli.main import COMMANDS
from mpt.cli.search import parser_of
from mpt.errors import DataError, Interrupted, UsageError
from mpt.search import look as look_module
from mpt.search import run as run_module
from mpt.search.cost.planner import Planning
from mpt.search.job import Execution, SearchJob
from mpt.study.presets import load_study


def _parsed(*words: str) -> tuple[Parser, Any]:
    parser = Parser("a job")
    add_common(parser, "results/x")
    add_backbone(parser)
    return parser, parser.parse_args(words)


def test_numbers_and_lists_are_read_as_they_are_typed() -> None:
    assert whole(1)("3") == whole(0)("+3") == 3
    assert number("-2.5e-3") == -2.5e-3
    assert names("a, b") == ("a", "b")
    assert rates("0.1,3e-5") == (0.1, 3e-5)
    assert seeds("13,0") == (13, 0)


@pytest.mark.parametrize(
    ("read", "text", "rule"),
    [
        (whole(1), "0", "must be a whole number ≥ 1"),
        (whole(0), "++5", "must be a whole number ≥ 0"),
        (whole(0), "", "must be a whole number ≥ 0"),
        (whole(0), "9" * 5000, "must be a whole number ≥ 0"),  # Python reads 4300 digits
        (number, "inf", "must be a number"),
        (number, "1,5", "must be a number"),
        (names, "a,,b", "must be different names, like a,b"),
        (names, "a,a", "must be different names, like a,b"),
        (rates, "0.1,", "must be a number"),
        (seeds, "13,-1", "must be a whole number ≥ 0"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_rule(read: Any, text: str, rule: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=rule):
        read(text)


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_tracker_that_is_asked_for_and_not_installed_is_refused_at_once(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flags_module, "find_spec", lambda _: None)
    parser, flags = _parsed(f"--{package}", "somewhere")
    with pytest.raises(UsageError, match=f"--{package} needs the package '{package}'"):
        execution_of(parser, flags, "")
    monkeypatch.setattr(flags_module, "find_spec", lambda _: object())
    assert getattr(execution_of(parser, flags, ""), package) == "somewhere"
    parser, flags = _parsed()
    assert getattr(execution_of(parser, flags, ""), package) is None


def test_a_bucket_as_results_is_refused_with_the_flags_that_take_one() -> None:
    with pytest.raises(
        UsageError, match=r"s3://bucket/x.*must be a directory.*--storage.*--store"
    ):
        results_of(_parsed("--results", "s3://bucket/x")[1], "results/x")


def test_places_are_absolute_and_a_smoke_run_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def found(*words: str) -> dict[str, Any]:
        return places(_parsed(*words)[1], "results/x")

    assert found() == {"results": tmp_path / "results/x", "store": None, "storage": None}
    assert found("--smoke")["results"] == tmp_path / "results/smoke"
    assert found("--smoke", "--results", "r")["results"] == tmp_path / "r"
    assert found("--storage", "~/files")["storage"] == str(tmp_path / "home/files")
    assert found("--storage", "s3://bucket/mpt")["storage"] == "s3://bucket/mpt"
    assert found("--store", "postgresql://h/n")["store"] == "postgresql://h/n"


def test_every_value_of_the_study_can_be_replaced_and_the_others_stay() -> None:
    typed = {
        "prompt_length": "7",
        "tuning_steps": "40",
        "tuning_lrs": "0.25,0.125",
        "tuning_start": "raced",
        "race_steps": "5",
        "tuning_batch": "3",
        "eval_every": "20",
        "max_input": "33",
        "max_target": "5",
        "template": "chat",
        "max_dev": "6",
        "max_test": "9",
        "replace": "a=b,c=d",
        "data_seeds": "13,21",
        "replicates": "4",
        "upstream_seeds": "7,8",
        "fresh_replicates": "0",
        "starts": "2",
        "upstream_precision": "bfloat16",
    }
    assert set(typed) == set(OPTIONS)
    words = [word for name, text in typed.items() for word in (_flag(name), text)]
    preset = load_study("embedded")
    changed = options_of(_parsed(*words)[1]).apply(preset)
    assert changed.prompt.length == 7
    down = changed.downstream
    assert (down.steps, down.lrs, down.batch_size, down.eval_every) == (40, (0.25, 0.125), 3, 20)
    assert (down.max_dev, down.max_test) == (6, 9)
    assert (down.start, down.race_steps) == ("raced", 5)
    text = changed.text
    assert (text.max_input, text.max_target, text.template) == (33, 5, "chat")
    assert changed.data_seeds == (13, 21)
    assert changed.replaced == (("a", "b"), ("c", "d"))
    assert (changed.starts, changed.start_seeds) == (2, (42, 1042))
    assert (changed.replicates, changed.seeds, changed.fresh_seeds) == (4, (7, 8), ())
    assert (changed.precision, changed.upstream_precision) == ("float32", "bfloat16")
    assert options_of(_parsed()[1]).apply(preset) == preset


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize(
    "words",
    [
        ["--replace", "a=b,c=d"],
        ["--tuning-lrs", "0.123456789,3e-05", "--gpus-per-trial", "0.333333333"],
        ["--results", "a b", "--storage", "s3://b/m?endpoint_override=h:1&scheme=http"],
        ["--searcher", "optuna", "--num-samples", "1", "--train-seed", "0"],
        ["--dry-run", "--price", "0", "--plan-gpus", "1000000", "--json"],
        ["--data-seeds", "13,21", "--scheduler", "asha", "--racing", "--keep-prompts"],
    ],
)
def test_a_shown_command_means_the_same_when_it_is_typed(words: list[str]) -> None:
    """Rates with many digits too: a search that goes on has to be the same one."""
    Parser.command = ("mpt", "search", "maml")
    parser = parser_of("maml")
    flags = parser.parse_args(words)
    shown = shlex.split(command_of(parser, flags))
    assert shown[:3] == ["mpt", "search", "maml"]
    assert parser.parse_args(shown[3:]) == flags


def test_a_shown_command_goes_on_and_never_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["j.py"])
    parser, flags = _parsed("--fresh", "--smoke", "--gpus-per-trial", "0.5")
    assert command_of(parser, flags) == "python j.py --gpus-per-trial 0.5 --smoke"
    assert command_of(parser, flags, smoke=False) == "python j.py --gpus-per-trial 0.5"


def test_tuned_prompts_are_kept_where_the_flag_says_so(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def run(job: SearchJob, *_: object, **__: object) -> int:
        seen.append(job.keep_prompts)
        return 0

    monkeypatch.setattr(run_module, "run_search", run)
    for words in ((), ("--keep-prompts",)):
        assert carry_out(job, Execution(), _parsed(*words)[1]) == 0
    assert seen == [False, True]


def test_a_dry_run_plans_with_price_and_gpus_and_runs_nothing(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Planning] = []

    def plan(job: SearchJob, execution: Execution, show: object, planning: Planning) -> int:
        seen.append(planning)
        return 0

    def run(*_: object, **__: object) -> int:
        raise AssertionError("nothing may run")

    monkeypatch.setattr(look_module, "plan_search", plan)
    monkeypatch.setattr(run_module, "run_search", run)
    words = ("--dry-run", "--price", "2.5", "--plan-gpus", "8")
    assert carry_out(job, Execution(), _parsed(*words)[1], notes=["a note"]) == 0
    assert seen == [Planning(price=2.5, gpus=8)]
    assert "a note" in capsys.readouterr().out


def test_a_plan_of_a_stated_throughput_is_one_document_too(
    job: SearchJob, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--dry-run", "--throughput", "200", "--plan-gpus", "8", "--json")
    assert carry_out(job, Execution(), _parsed(*words)[1]) == 0
    out, err = capsys.readouterr()
    body = json.loads(out)
    assert body["plan"]
    assert all(line in err for line in body["plan"])


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("u"), 2), (DataError("d"), 3), (Interrupted("i"), 75), (KeyboardInterrupt(), 75)],
)
def test_errors_are_one_line_with_a_code_of_their_own(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert exit_code(work) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("interrupted" if code == 75 and not str(error) else "error: ")


@pytest.mark.parametrize(
    ("command", "name"),
    [(("mpt", name), f"mpt {name}") for name in COMMANDS] + [((), "python maml_rr.py")],
)
def test_what_was_interrupted_is_said_alike_of_all_commands(
    command: tuple[str, ...], name: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Right of a report as of a search that had not begun: neither "goes on" nor "starts"."""

    def work() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Parser, "command", command)
    monkeypatch.setattr("sys.argv", ["tune_jobs/maml_rr.py"])
    assert exit_code(work) == 75
    said = f"interrupted: {name} has not finished; run it again: what is stored stays done\n"
    assert capsys.readouterr().err == said


def test_a_fault_in_the_program_keeps_its_traceback() -> None:
    def work() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exit_code(work)


def test_a_signal_of_an_earlier_call_does_not_end_a_later_one(
    monkeypatch: pytest.MonkeyPatch, job: SearchJob
) -> None:
    """Python drops what a handler raises in a finaliser; it is remembered for that call alone."""
    monkeypatch.setattr(run_module, "run_search", lambda *_, **__: 0)

    def work(signalled: bool) -> int:
        if signalled:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        return carry_out(job, Execution(), _parsed()[1])

    old = signal.getsignal(signal.SIGTERM)
    try:
        assert exit_code(lambda: work(signalled=True)) == 75
        assert exit_code(lambda: work(signalled=False)) == 0
    finally:
        signal.signal(signal.SIGTERM, old)
