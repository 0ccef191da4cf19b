from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peers
import pytest
import torch
from peers import agreement_table, gains, ratios
from search_toys import toy_study, write_toy_gym
from sides import process_tree
from sides.agreement import Runs, agreement, runs_of
from sides.peer_search import BASELINE, PARTS, Scorer, by_optuna
from sides.peer_work import Work, trajectories_of, work_of
from sides.process_tree import Taken, run_watched
from sides.turns import rotated

from mpt.backbones import load_backbone
from mpt.config import UpstreamConfig
from mpt.store.artifacts import Artifacts
from mpt.store.database import Database, open_results
from mpt.study.record import study_record
from mpt.study.specs import TrialSpec, UpstreamSpec, baseline_trials
from mpt.study.study import OpenStudy, open_study, plan_study
from mpt.trial.opening import open_trial
from mpt.trial.store import TrialStore

CONFIG = UpstreamConfig(inner_lr=0.1, outer_lr=0.3, average="polynomial", start="drawn")
TRAJECTORY = UpstreamSpec(config=CONFIG, rungs=(1, 3))


@pytest.fixture(scope="module")
def study(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    """In float64, where rounding flips no arg-max."""
    gym = write_toy_gym(tmp_path_factory.mktemp("peers") / "gym")
    study = open_study(plan_study(toy_study(toy_checkpoint, gym)))
    wide = load_backbone(str(toy_checkpoint), dtype=torch.float64)
    return dataclasses.replace(study, backbone=wide)


@pytest.fixture(scope="module")
def work(study: OpenStudy, toy_checkpoint: Path) -> Work:
    return work_of(study, toy_checkpoint, trajectories_of([TRAJECTORY], [42]), eval_batch=3)


@pytest.fixture(scope="module")
def theirs(work: Work) -> Runs:
    scorer = Scorer(work)
    return runs_of([scorer.trial(point) for point in (None, *work.points)])


@pytest.fixture(scope="module")
def ours(study: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What our trials store, without Ray."""
    results = tmp_path_factory.mktemp("results")
    with open_results(results) as database:
        _work_off(study, database, results)
    return runs_of(peers.our_search.trials(results, study.config.train_seed))


def _work_off(study: OpenStudy, database: Database, results: Path) -> None:
    store, files = TrialStore(database), Artifacts(str(results))
    store.add_study(study_record(study))
    own = TrialSpec(plan=study.plan, upstream=TRAJECTORY)
    for spec in (*baseline_trials(study.plan), own):
        for _ in open_trial([study], [spec], store, files).units():
            continue


def test_a_search_written_with_peft_and_higher_gives_our_numbers(theirs: Runs, ours: Runs) -> None:
    found = agreement(theirs, ours)
    # 2 tasks × 2 data seeds × 2 learning rates, for plain tuning and for 2 points
    assert (found["baseline"]["runs"], found["learned"]["runs"]) == (8, 16)
    for kind in found.values():
        assert kind["equal"] == kind["runs"], found
    assert len(set(theirs.values())) > 3  # they do not all score alike
    assert gains(theirs, (13, 21)) == pytest.approx(gains(ours, (13, 21)))


def test_a_run_that_differs_is_counted(theirs: Runs, ours: Runs) -> None:
    place = next(key for key in ours if key[0] != BASELINE)
    dev, test = ours[place]
    found = agreement(theirs, {**ours, place: (dev, test + 0.125)})
    assert found["learned"]["equal"] == 15
    assert found["learned"]["largest"] == pytest.approx(0.125)
    # a point has 8 runs
    assert found["learned"]["largest_of_points"] == pytest.approx(0.125 / 8)
    assert found["baseline"]["equal"] == 8
    words = agreement_table({"ray": found}, {"ray": {"a": None, "b": 1.0}})
    assert "15 of 16 runs as ours" in words
    assert "none" in words


def test_sides_that_did_other_runs_are_not_compared(theirs: Runs) -> None:
    fewer = dict(list(theirs.items())[1:])
    with pytest.raises(RuntimeError, match=r"the sides did not do the same runs: .*prompt tuning"):
        agreement(theirs, fewer)


def test_every_part_of_a_peers_trial_takes_time(work: Work) -> None:
    scorer = Scorer(dataclasses.replace(work, samples=work.samples[:1]))
    assert all(scorer.trial(work.points[0])["seconds"][part] > 0 for part in PARTS)
    plain = scorer.trial(None)
    assert plain["seconds"]["upstream"] == 0
    assert plain["point"] == BASELINE


def test_optunas_pool_does_every_trial_once(work: Work, theirs: Runs, tmp_path: Path) -> None:
    few = dataclasses.replace(work, points=work.points[:1], samples=work.samples[:1])
    torch.save(few, tmp_path / "work.pt")
    by_optuna(str(tmp_path / "work.pt"), 1, workers=1)
    found = runs_of(peers.our_search.saved_trials(tmp_path))
    assert found == {key: theirs[key] for key in found}
    assert len(found) == 2 * 2  # plain tuning and a point, two rates each


def test_a_commands_whole_tree_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process ends when its work was read: what one does after its last reading is lost."""
    tree = process_tree._tree

    def noted(root: int) -> Any:
        found = tree(root)
        for (pid, _), (_, seconds) in found.items():
            if seconds >= 0.5:
                (tmp_path / str(pid)).touch()
        return found

    monkeypatch.setattr(process_tree, "_tree", noted)
    burn = "import os, time\nwhile time.process_time() < 0.6: pass\n"
    burn += f"while not os.path.exists(f'{tmp_path}/{{os.getpid()}}'): time.sleep(0.01)"
    code = f"import subprocess, sys\n{burn}\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    found = run_watched([sys.executable, "-c", code], tmp_path / "log")
    assert found.code == 0
    # half a second of work at least; a command's own start and the waiting are little beside it
    assert 0.5 <= found.cpu["command"] < 3
    assert 0.5 <= found.cpu["workers"] < 3
    assert found.clock > found.cpu_s / 2


def test_a_command_that_fails_says_so(tmp_path: Path) -> None:
    found = run_watched(
        [sys.executable, "-c", "print('why'); raise SystemExit(3)"], tmp_path / "l"
    )
    assert found.code == 3
    assert (tmp_path / "l").read_text() == "why\n"


def test_ratios_are_formed_round_by_round() -> None:
    taken = {
        "ray": [Taken(8.0, {"workers": 6.0}, 0), Taken(9.0, {"workers": 12.0}, 0)],
        "ours": [Taken(2.0, {"command": 1.0, "workers": 1.0}, 0), Taken(3.0, {"command": 3.0}, 0)],
    }
    clock, cpu = ratios(taken).splitlines()
    assert clock.split() == ["ray", "/", "ours,", "clock", "3.50", "(4.00", "3.00)"]
    assert cpu.split() == ["ray", "/", "ours,", "CPU", "3.50", "(3.00", "4.00)"]


def test_sides_take_turns_in_another_order_every_round() -> None:
    orders = [rotated(["a", "b", "c"], number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize("flags", ["--rounds 0", "--tasks 0 --seeds 0"])
def test_counts_below_one_are_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        peers.main(flags.split())
    assert "must be whole numbers ≥ 1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_compares_all_sides_on_the_embedded_search(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(peers.__file__)), "--quick", "--trajectories", "1"]
    command += ["--rungs", "2", "--tasks", "2", "--json", str(tmp_path / "found.json")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=True)
    found = json.loads((tmp_path / "found.json").read_text())
    for words in ("ray / ours, clock", "optuna / ours, CPU", "load average", "ARG %"):
        assert words in shown.stdout
    # the peers' numbers are the same numbers, from the same code
    ray, optuna = found["agreement"]["ray"], found["agreement"]["optuna"]
    assert ray == optuna
    assert ray["baseline"]["runs"] == 4
    assert ray["baseline"]["equal"] >= 3  # float32: an arg-max may flip
    assert len(found["arg"]["ours"]) == 2
