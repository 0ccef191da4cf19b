from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import packing
import packing_cells
import pytest
import torch
from packing_cells import Count, Setting, compiled, counted, make_runs, packed_rate, recipe
from torch import nn

from mpt.backbones import Backbone
from mpt.downstream.prompt_tuning import tune

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow  # the cells of a toy: `test_gpu`; their table: below
def test_the_command_prints_and_writes_a_row_for_every_pack(
    toy_checkpoint: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "packing.py")]
    command += ["--backbone", str(toy_checkpoint), "--runs", "1", "3", "--rounds", "2"]
    command += ["--batch", "2", "--input-length", "16", "--run-steps", "3", "--profile", "3"]
    command += ["--json", str(tmp_path / "found.json")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=True)
    found = json.loads((tmp_path / "found.json").read_text())
    plain, *packs = found["cells"]
    assert [cell["runs"] for cell in found["cells"]] == [None, 1, 3]
    assert plain["ratio"] == {"median": 1, "low": 1, "high": 1}
    for cell in packs:
        assert 0 < cell["rate"]["low"] <= cell["rate"]["median"] <= cell["rate"]["high"]
        assert 0 < cell["useful"] <= 1
        assert cell["efficiency"] > 0
        assert isinstance(cell["bytes"], int), cell["bytes"]
    assert found["shares"].keys() == {"3"}
    lines = [line.split()[0] for line in shown.stdout.splitlines() if line.strip()]
    assert {"plain", "1", "3"} <= set(lines)


def test_efficiency_is_the_share_of_the_matrix_rate_that_a_pack_reaches(setting: Setting) -> None:
    """Two runs of four steps (one warms up) of 40 FLOP, at 3 and 5 steps a second."""
    assert setting.steps(2) == 3
    count = Count(flops=2 * 4 * 40, rows=10, useful=30, padded=60)
    rates = {None: [1.0, 1.0], 2: [3.0, 5.0]}
    plain, pack = packing.cells_of(setting, rates, {2: count}, [1000.0, 1000.0], {2: 7})
    assert plain.efficiency is None
    assert pack.flops == 40
    assert pack.efficiency == pytest.approx(40 * 4 / 1000)
    assert (pack.useful, pack.bytes, pack.ratio.median) == (0.5, 7, 4.0)
    rows = [line.split() for line in packing._table([plain, pack]).splitlines()]
    assert [row[0] for row in rows] == ["runs", "plain", "2"]
    assert rows[2][-5:] == ["0.50", "0.00", "16.0%", "0", "MB"]


@pytest.mark.parametrize("runs", [1, 3])
def test_a_rate_is_run_steps_over_time(
    runs: int, toy_backbone: Backbone, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a clock that ticks once a step, a pack of R runs makes R run-steps a tick.
    ticks = itertools.count()
    monkeypatch.setattr(packing_cells, "now", lambda _: next(ticks))
    assert packed_rate(toy_backbone, setting, runs) == runs


def test_tokens_are_counted_with_and_without_padding(
    toy_backbone: Backbone, setting: Setting
) -> None:
    found = counted(toy_backbone, setting, 5)
    steps = setting.steps(5) + 1
    assert found.rows == 5 * setting.batch * steps
    # The least there can be is the prompt, two tokens of input and two of target.
    assert found.rows * (setting.prompt + 4) <= found.useful <= found.padded
    assert found.padded <= found.rows * (setting.prompt + setting.input_length + 3)


def test_runs_of_a_task_share_its_rows_and_differ_in_their_rate(
    toy_backbone: Backbone, setting: Setting
) -> None:
    runs = make_runs(toy_backbone, setting, 6)
    assert [run.lr for run in runs] == [0.5, 0.4, 0.3, 0.2, 0.5, 0.4]
    assert [run.task.seed for run in runs] == [0, 0, 0, 0, 1, 1]
    assert runs[0].task.train != runs[4].task.train
    _, text = recipe(setting, 1)
    lengths = [len(row[0]) for row in toy_backbone.encode_rows("t", runs[0].task.train, text)]
    assert max(lengths) <= setting.input_length


def test_only_training_passes_are_compiled_and_only_while_switched_on(
    toy_backbone: Backbone, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[nn.Module] = []

    def stand_in(module: Any, **_: object) -> None:
        def call(*arguments: object, **named: object) -> object:
            calls.append(module)
            return module._call_impl(*arguments, **named)

        module._compiled_call_impl = call

    monkeypatch.setattr(nn.Module, "compile", stand_in)
    config, text = recipe(setting, 3)
    runs = make_runs(toy_backbone, setting, 1)
    with compiled(toy_backbone, "default") as turn:
        eager = tune(toy_backbone, runs, config, text, 0)[0]
        assert not calls
        turn(True)
        fast = tune(toy_backbone, runs, config, text, 0)[0]
    # encoder and decoder once a step; evaluation is not among them
    assert len(calls) == 2 * 3
    assert len(set(calls)) == 2
    assert torch.equal(eager.prompt, fast.prompt)
    assert "row_losses" not in vars(toy_backbone)
    tune(toy_backbone, runs, config, text, 0)
    assert len(calls) == 2 * 3


def test_a_cell_takes_at_least_three_steps(setting: Setting) -> None:
    assert setting.steps(1) == 4
    assert setting.steps(32) == 3
    assert dataclasses.replace(setting, run_steps=100).steps(32) == 4
