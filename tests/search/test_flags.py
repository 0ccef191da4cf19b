from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpt.cli import flags as flags_module
from mpt.cli.flags import Parser, add_common, carry_out, execution_of, results_of
from mpt.errors import UsageError
from mpt.search import run as run_module
from mpt.search.job import Execution, SearchJob


def _parsed(*words: str) -> tuple[Parser, Any]:
    parser = Parser("a job")
    add_common(parser, "results/x")
    return parser, parser.parse_args(words)


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


def test_an_object_store_is_refused_with_what_is_needed_instead() -> None:
    with pytest.raises(UsageError, match=r"s3://bucket/x.*must be a directory.*EFS, NFS"):
        results_of(_parsed("--results", "s3://bucket/x")[1], "results/x")
    assert results_of(_parsed()[1], "results/x") == Path("results/x").absolute()
    assert results_of(_parsed("--smoke")[1], "results/x").name == "smoke"


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
