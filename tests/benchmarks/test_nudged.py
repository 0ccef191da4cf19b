"""What the benchmark of rounding finds, and the method that stands for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.nudged import (
    NUDGED,
    VERSIONS,
    Answer,
    compared,
    execution_of,
    job_of,
    lines_of,
    main,
    measure,
    nudged_maml,
)
from mpt.api.methods import upstream_method
from mpt.config import known_methods

POINTS = [(inner, outer, 12) for inner in (0.1, 1.0, 10.0) for outer in (0.03, 0.1, 0.3)]


def _answer(noise: float, seed: int, step: float = 5.0) -> Answer:
    """Return points whose ARGs are 0, step, 2 · step …, with normal noise of every run."""
    rng, baseline = np.random.default_rng(seed), np.full((4, 5), 0.5)
    rows = {
        point: {
            one: baseline * (1 + (step * place + rng.normal(0, noise)) / 100) for one in (1, 2, 3)
        }
        for place, point in enumerate(POINTS)
    }
    return compared(rows, baseline)


def test_answers_that_are_the_same_are_found_to_be() -> None:
    same = _answer(1.0, 7)
    found = measure([same, same, _answer(1.0, 8)])
    assert found["nudged"]["mean change of a run"] == 0
    assert found["nudged"]["rank correlation"] == 1
    assert found["nudged"]["each winner in the other's tie set"] == [True, True]
    assert 0.3 < found["sd between upstream seeds"] < 2
    assert found["float64"]["rank correlation"] > 0.9
    assert (
        0.5 < found["float64"]["mean change of a run"] < 2
    )  # E |difference| of two normals: 1.13
    assert any("nudged" in line for line in lines_of(found))


def test_answers_of_chance_are_found_to_differ() -> None:
    found = measure([_answer(8.0, 1, 0.0), _answer(8.0, 2, 0.0), _answer(8.0, 3, 0.0)])
    assert abs(found["nudged"]["rank correlation"]) < 0.8
    assert found["nudged"]["mean change of a run"] > 4


def test_the_three_searches_differ_in_method_and_precision_alone(tmp_path: Path) -> None:
    upstream_method(nudged_maml, name=NUDGED)
    jobs = [job_of(name, tmp_path, 3) for name in VERSIONS]
    assert len({job.trials[0].plan for job in jobs[:2]}) == 1  # one baseline
    assert [job.trials[0].method for job in jobs] == ["maml", "nudged_maml", "maml"]
    assert [job.trials[0].plan.config.precision for job in jobs] == ["float32"] * 2 + ["float64"]
    assert {len(job.trials) for job in jobs} == {6}


def test_who_is_interrupted_is_told_the_command_that_goes_on() -> None:
    upstream_method(nudged_maml, name=NUDGED)
    execution = execution_of(["--seeds", "2", "--results", "my results"])
    assert execution.resume == "python benchmarks/nudged.py --seeds 2 --results 'my results'"
    assert set(execution.methods) == {NUDGED}


def test_its_import_registers_no_method() -> None:
    assert NUDGED not in known_methods()


@pytest.mark.slow
def test_the_command_runs_all_three_and_says_how_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", str(tmp_path), "--smoke", "--seeds", "2"]) == 0
    shown = capsys.readouterr().out
    assert "nudged, against as it is" in shown
    assert "float64, against as it is" in shown
