"""The command line of a contest: which one, and which part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpt.cli.beat_mtl import contest_of, frozen_of, main, parser_of
from mpt.replay.contest.run import STAGES, stages_from
from mpt.study.contest.definition import Contest, load_contest
from mpt.study.spaces import SPACES


def _contest(*words: str) -> Contest:
    return contest_of(parser_of().parse_args(list(words)))


def test_without_flags_it_is_the_full_contest_and_smoke_has_its_own() -> None:
    assert _contest() == load_contest("full")
    assert _contest("--contest", "reduced") == load_contest("reduced")
    assert _contest("--smoke") == load_contest("smoke")


def test_flags_replace_what_a_contest_is_confirmed_on() -> None:
    found = _contest(
        *("--partitions", "qa_to_qa", "--budgets", "10,50", "--backbones", "embedded-gpt2"),
        *("--upstream-seeds", "1,2", "--search-seeds", "3", "--contestants", "path,multitask"),
    )
    assert (found.partitions, found.tuning_steps) == (("qa_to_qa",), (10, 50))
    assert (found.backbones, found.upstream_seeds) == (("embedded-gpt2",), (1, 2))
    assert (found.search_seeds, found.name) == ((3,), "full")
    assert [one.name for one in found.contestants] == ["path", "multitask"]


def test_stages_are_run_in_their_order() -> None:
    assert stages_from(()) == STAGES
    assert stages_from(("confirm", "search")) == ("search", "confirm")


def test_settings_are_frozen_in_the_repository_but_those_of_a_smoke_run() -> None:
    def path(*words: str) -> Path:
        return frozen_of(parser_of().parse_args(list(words)), Path("/r"), "c")

    assert path() == SPACES.parent / "docs" / "beat_mtl" / "frozen-c.toml"
    assert path("--smoke") == Path("/r/frozen-c.toml")
    assert path("--frozen", "/x/y.toml") == Path("/x/y.toml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--smoke", "--contest", "full"], "a smoke run has a contest of its own"),
        (["--contest", "none"], "contest 'none' is unknown; beat_mtl.toml holds full"),
        (["--smoke", "--stages", "run"], "stage 'run' is unknown; known are search, freeze"),
        (["--contestants", "path,fomaml"], "multitask among them"),
        (["--upstream-seeds", "7,42"], "upstream seed 42 is one that settings are chosen on"),
        (["--smoke", "--backbones", "smollm2"], "backbone smollm2 needs --gym DIR"),
        (["--smoke", "--partitions", "x_to_y", "--dry-run"], "x_to_y"),
        (["--smoke", "--budgets", "0", "--dry-run"], "steps is 0, but must be a whole number"),
    ],
)
def test_bad_flags_are_one_line_and_code_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--results", str(tmp_path)], report=lambda *_: {}) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
