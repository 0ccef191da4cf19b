from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import peers_real
import pytest
import torch
from peers_real import (
    MEASURES,
    PARTS,
    Trial,
    agreements,
    compared,
    flags_of,
    ratio_table,
    score_table,
    seconds_line,
    side_trial,
)
from search_toys import toy_study, write_toy_gym
from sides.agreement import Runs, runs_of
from sides.our_runs import plain_tuning
from sides.peer_search import BASELINE, Scorer
from sides.peer_work import work_of
from sides.real_plan import OURS, SIDES, plan_of
from toy_backbones import save_toy_gpt2

from mpt.backbones import load_backbone
from mpt.backbones.load import PACKAGED_WEIGHTS
from mpt.store.database import FILE
from mpt.study.study import StudyPlan, open_study, plan_study


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> StudyPlan:
    folder = tmp_path_factory.mktemp("peers-real")
    gym = write_toy_gym(folder / "gym")
    return plan_study(toy_study(save_toy_gpt2(folder / "gpt2"), gym), smoke_sources=1)


@pytest.fixture(scope="module")
def trials(plan: StudyPlan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    folders = {side: tmp_path_factory.mktemp(side) for side in SIDES}
    return {side: side_trial(side, plan, folders[side], eval_batch=3) for side in SIDES}


@pytest.fixture(scope="module")
def runs(trials: dict[str, Trial]) -> dict[str, Runs]:
    return {side: runs_of([trial]) for side, trial in trials.items()}


def test_all_sides_do_the_same_runs(runs: dict[str, Runs]) -> None:
    # 2 tasks × 2 data seeds × 2 learning rates
    assert {agreed["runs"] for agreed in agreements(runs).values()} == {8}
    assert {key[0] for own in runs.values() for key in own} == {BASELINE}


def test_a_side_that_did_other_runs_is_refused(runs: dict[str, Runs]) -> None:
    fewer = dict(list(runs["append"].items())[1:])
    with pytest.raises(RuntimeError, match=r"the sides did not do the same runs: .*prompt tuning"):
        agreements({**runs, "append": fewer})


def test_pefts_runs_are_ours_with_the_prompt_before_the_input(tmp_path: Path) -> None:
    """In float64, where rounding flips no arg-max, and of a model that knows what it is asked."""
    words = ["--backbone", "embedded-gpt2", "--tasks", "4", "--quick", "--lrs", "0.3", "0.1"]
    plan = plan_of(flags_of(words), "embedded-gpt2")
    assert plan.config.downstream.lrs == (0.3, 0.1)
    wide = load_backbone("embedded-gpt2", dtype=torch.float64)
    study = dataclasses.replace(open_study(plan), backbone=wide)
    theirs = Scorer(work_of(study, PACKAGED_WEIGHTS / "gpt2", (), 48)).trial(None)
    ours = plain_tuning(study, tmp_path)
    agreed = agreements({"peft": runs_of([theirs]), "prepend": runs_of([ours])})["peft"]
    assert agreed["equal"] == agreed["runs"] == 8
    assert len(set(runs_of([theirs]).values())) > 2  # they do not all score alike


def test_pefts_runs_of_a_t5_are_ours() -> None:
    words = "--backbone embedded --tasks 4 --quick --lrs 0.3 0.1 --dtype float64 --rounds 1"
    found = compared(flags_of([*words.split(), "--one-process"]))
    assert set(found["ratios"]) == {"peft / prepend"}
    agreed = found["agreement"]["peft"]
    assert agreed["equal"] == agreed["runs"] == 8
    assert len(set(runs_of(found["trials"]["peft"]).values())) > 2  # they do not all score alike


def test_a_random_t5_is_measured_by_the_papers_recipe() -> None:
    words = "--backbone t5-tiny-random --tasks 1 --quick --lrs 0.3 --rounds 1 --one-process"
    found = compared(flags_of(words.split()))
    assert found["agreement"]["peft"]["runs"] == 1
    # "joy" and the end mark
    assert (found["downstream"]["steps"], found["downstream"]["max_generated"]) == (2, 2)
    for seconds in found["seconds_of_a_run"].values():
        assert all(own > 0 for measure in MEASURES for own in seconds[measure])


def test_our_sides_differ_in_the_position_of_the_prompt(plan: StudyPlan, tmp_path: Path) -> None:
    positions = {}
    for side in ("prepend", "append"):
        side_trial(side, plan, tmp_path / side, eval_batch=3)
        with contextlib.closing(sqlite3.connect(tmp_path / side / FILE)) as connection:
            recipes = connection.execute("SELECT body FROM recipe").fetchall()
        (positions[side],) = {json.loads(body)["prompt"].get("position") for (body,) in recipes}
    assert positions == {"prepend": None, "append": "append"}  # None: the default


def test_only_the_padded_peer_generates_from_inputs_padded_on_the_left(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _told_scorers(monkeypatch)
    for side in ("peft", "peft-padded"):
        side_trial(side, plan, tmp_path, eval_batch=3)
    assert told == [(False, "cpu"), "warm", (True, "cpu"), "warm"]


def _told_scorers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let scorers do nothing; return the list of what they are told: padding and device."""
    told: list[Any] = []

    class Told:
        def __init__(self, work: Any, *, left_padded: bool, device: str):
            told.append((left_padded, device))

        def warm_up(self) -> None:
            told.append("warm")

        def trial(self, point: None) -> Trial:
            return {}

    monkeypatch.setattr(peers_real, "Scorer", Told)
    return told


def test_every_side_works_on_the_device(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, opened = _told_scorers(monkeypatch), []

    def noted(own: StudyPlan, device: str) -> Any:
        opened.append(device)
        return open_study(own)

    monkeypatch.setattr(peers_real, "open_study", noted)
    monkeypatch.setattr(peers_real, "plain_tuning", lambda study, folder: {})
    for side in ("peft", *OURS):
        side_trial(side, plan, tmp_path, 3, "cuda")
    assert opened == ["cuda"] * 3
    assert told[0] == (False, "cuda")


def test_a_side_in_a_process_of_its_own_is_told_the_device(
    plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def run(script: str, side: str, folder: Path, *options: str) -> None:
        told.extend(options)
        (folder / "trial.json").write_text("{}")

    monkeypatch.setattr(peers_real, "run_side", run)
    flags = flags_of(["--threads", "3"])
    flags.device = "cuda"  # this machine may have none
    assert peers_real._done("peft", plan, tmp_path, flags) == {}
    assert told == ["--threads", "3", "--eval-batch", "48", "--device", "cuda"]


def test_every_part_of_every_side_takes_time(trials: dict[str, Trial]) -> None:
    for trial in trials.values():
        for measure in MEASURES:
            assert all(trial[measure][part] > 0 for part in PARTS)


def _trial(cpu: float, clock: float) -> Trial:
    rows = [["task", seed, 0.1, 0.5, 0.25] for seed in (13, 21)]
    seconds = [{"training": own, "dev": 0.5, "test": 1.5, "rest": 0.0} for own in (cpu, clock)]
    return {
        "point": BASELINE,
        "runs": rows,
        **dict(zip(MEASURES, seconds, strict=True)),
    }


def test_ratios_are_those_of_a_run_round_by_round() -> None:
    peer, ours = [_trial(14.0, 22.0), _trial(6.0, 30.0)], [_trial(2.0, 4.0), _trial(2.0, 2.0)]
    assert peers_real.ratios({"peft": peer, "append": ours}) == {
        "peft / append": {"seconds": [4.0, 2.0], "clock": [4.0, 8.0]}
    }
    cpu, clock = ratio_table({"peft": peer, "append": ours}).splitlines()
    assert cpu.split() == ["peft", "/", "append", "CPU", "3.00", "(4.00", "2.00)"]
    assert clock.split() == ["peft", "/", "append", "clock", "6.00", "(4.00", "8.00)"]
    line = seconds_line({**peer[0], "seconds": {**peer[0]["seconds"], "rest": 2.0}})
    assert "a run:   9.00 CPU s (training 7.00, dev 0.25, test 0.75, rest 1.00)" in line
    assert line.endswith("12.00 s by the clock")
    line = seconds_line(peer[0], "cuda")
    assert "8.00 CPU s, " in line
    assert line.endswith("by the clock (training 11.00, dev 0.25, test 0.75, rest 0.00)")


def test_scores_are_shown_with_the_runs_that_are_equal(runs: dict[str, Runs]) -> None:
    key = next(iter(runs["prepend"]))
    dev, test = runs["prepend"][key]
    other = {**runs["prepend"], key: (dev, test + 0.125)}
    lines = score_table({"append": other, "prepend": runs["prepend"]}).splitlines()
    assert "7 of 8 runs equal, largest difference 0.125" in lines[0]
    assert "8 of 8 runs equal, largest difference 0" in lines[1]


def test_a_gym_with_fewer_tasks_is_refused() -> None:
    with pytest.raises(
        SystemExit, match=r"--tasks is 99, but embedded has 9 of the study's tasks"
    ):
        peers_real.main(["--backbone", "embedded-gpt2", "--tasks", "99"])


@pytest.mark.parametrize("flags", ["--rounds 0", "--steps 0 --seeds 0"])
def test_counts_below_one_are_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        peers_real.main(flags.split())
    assert "must be whole numbers ≥ 1" in capsys.readouterr().err


def test_a_gpu_that_is_not_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        peers_real.main(["--device", "cuda"])
    assert "--device is cuda, but torch finds no CUDA device here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_compares_all_sides_on_the_embedded_gpt2(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(peers_real.__file__)), "--quick", "--tasks", "2"]
    command += ["--backbone", "embedded-gpt2", "--rounds", "1", "--json", str(tmp_path / "a.json")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=True)
    told = json.loads((tmp_path / "a.json").read_text())
    for words in ("peft / append", "peft-padded / prepend", "load average", "runs equal"):
        assert words in shown.stdout
    assert {agreed["runs"] for agreed in told["agreement"].values()} == {2}
    assert set(told["ratios"]) == {
        f"{peer} / {ours}" for peer in ("peft", "peft-padded") for ours in ("prepend", "append")
    }
