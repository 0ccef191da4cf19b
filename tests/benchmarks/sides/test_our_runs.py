from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from search_toys import toy_study, write_toy_gym
from sides import our_runs

from mpt.study.study import open_study, plan_study


def test_what_is_measured_once_for_a_gpu_is_in_no_run(
    toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock counts its readings; what limits take shows in it the first time only."""
    readings = [0.0]

    def read(device: str) -> float:
        readings[0] += 1.0
        return readings[0]

    known: list[Any] = []
    limits = our_runs.pack_limits

    def measured(*arguments: Any) -> Any:
        readings[0] += 0.0 if known else 1e9
        known.append(limits(*arguments))
        return known[-1]

    monkeypatch.setattr(our_runs, "clock_now", read)
    monkeypatch.setattr(our_runs, "pack_limits", measured)
    gym = write_toy_gym(tmp_path / "gym")
    study = open_study(plan_study(toy_study(toy_checkpoint, gym), smoke_sources=1))
    trial = our_runs.plain_tuning(study, tmp_path / "results")
    assert 0 < sum(trial["clock"].values()) < 1e9
    assert len(known) > 1  # and the queue asks again
