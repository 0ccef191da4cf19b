"""What a trial asks Ray for: one CPU and its share of a GPU."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import ray
import torch
from drivers import run_rows
from ready_process import workers_from_a_copy
from search_toys import KNOWN_RATES

from mpt.search.job import DONE, FAILED, Execution, SearchJob
from mpt.search.run import run_search


@pytest.mark.timeout(3000)
def test_a_trial_has_the_share_of_a_gpu_that_was_asked_for(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray is told of a GPU; where there is none, a trial that has been given it says so."""
    monkeypatch.setattr(ray, "init", functools.partial(ray.init, num_gpus=1))
    execution = Execution(signals=False, max_failures=0, workers=1, gpus_per_trial=0.5)
    one = dataclasses.replace(job, trials=job.trials[:1])
    with workers_from_a_copy():
        code = run_search(one, execution, rates=KNOWN_RATES)
    if torch.cuda.is_available():
        assert code == DONE
        return
    assert code == FAILED
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3, "one of MAML, and plain tuning on two tasks"
    assert all("gave the trial a GPU, but its torch" in line for line in failed)
    assert run_rows(job.results) == {}
