"""The control of a search: what learning adds to the start that it set out from."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from search_toys import KNOWN_RATES, toy_job
from stored import compute

from mpt.config import UpstreamConfig
from mpt.metrics.control import added_to
from mpt.metrics.replicates import Replicates
from mpt.search.display.display import Display
from mpt.search.job import DONE, Execution, SearchJob
from mpt.search.look import peek
from mpt.search.run import run_search
from mpt.study.specs import UpstreamSpec, trials_of


def _rows(args: dict[int, float], tasks: int = 4, data_seeds: int = 1) -> Replicates:
    """Return scores whose ARG at each upstream seed is the given one."""
    base = np.full((tasks, data_seeds), 0.5)
    scores = {seed: base * (1 + arg / 100) for seed, arg in args.items()}
    return Replicates(name=str(args), scores=scores)


BASE = np.full((4, 1), 0.5)


def test_with_one_data_seed_it_is_the_paired_t_interval() -> None:
    start, own = {1: 3.0, 2: 8.0, 3: 1.0}, {1: 6.0, 2: 9.0, 3: 6.0, 4: 99.0}
    found = added_to(_rows(start), _rows(own), [_rows(own)], BASE, rng=np.random.default_rng(1))
    assert found is not None
    row = [own[seed] - start[seed] for seed in start]
    by_hand = stats.ttest_1samp(row, 0.0)
    assert found.seeds == 3
    assert found.mean == pytest.approx(3.0, abs=1e-9)
    assert found.p == pytest.approx(float(by_hand.pvalue), rel=1e-6)
    assert found.interval == pytest.approx(tuple(by_hand.confidence_interval(0.95)), rel=1e-6)


def test_what_both_share_by_seed_and_by_draw_cancels() -> None:
    rng = np.random.default_rng(3)
    base = rng.uniform(0.4, 0.6, size=(4, 5))
    noise = {seed: rng.normal(0, 0.1, size=(4, 5)) for seed in range(6)}
    start = Replicates(name="start", scores={s: base + n for s, n in noise.items()})
    # the same scores and 2 % of each task's baseline more: +2 points whatever is drawn with it
    lift = 0.02 * base
    own = Replicates(name="own", scores={s: base + n + lift for s, n in noise.items()})
    found = added_to(start, own, [own], base, rng=rng)
    assert found is not None
    assert found.interval == pytest.approx((2.0, 2.0), abs=1e-6)


def test_without_a_common_seed_nothing_is_said() -> None:
    assert (
        added_to(_rows({1: 3.0}), _rows({2: 3.0}), [], BASE, rng=np.random.default_rng(1)) is None
    )


@pytest.fixture(scope="module")
def job(toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: Any) -> SearchJob:
    """A finished search of two configurations with two upstream seeds and one fresh one."""
    made = toy_job(
        toy_checkpoint, toy_gym, tmp_path_factory.mktemp("control") / "results", rungs=(2,)
    )
    config = dataclasses.replace(made.plans[0].config, replicates=2, fresh_replicates=1)
    plan = dataclasses.replace(made.plans[0], config=config)
    trials = tuple(dataclasses.replace(trial, plan=plan) for trial in made.trials)
    made = dataclasses.replace(made, trials=trials, allocation="full")
    while missing := _missing(made):
        compute(dataclasses.replace(made, trials=missing))
    return made


def _missing(job: SearchJob) -> Any:
    with peek(job) as look:
        board = look.board
        return tuple(trial for n, trial in enumerate(board.trials) if not board.over(n))


def _run(job: SearchJob, command: str = "the control") -> tuple[dict[str, Any], list[str]]:
    file = io.StringIO()
    bodies: list[Any] = []
    console = Console(file=file, width=200, markup=False, soft_wrap=True)
    show = Display(job, console, as_json=True, sink=bodies.append)
    execution = Execution(signals=False, resume="again", next_step="rest", control_step=command)
    assert run_search(job, execution, display=show, rates=KNOWN_RATES) == DONE, file.getvalue()
    lines = [line for line in file.getvalue().splitlines() if line.startswith(("control", "next"))]
    return dict(bodies[-1]), lines


def test_it_is_named_where_it_is_missing_and_told_where_it_was_run(job: SearchJob) -> None:
    body, lines = _run(job)
    assert lines == ["control  not run: the control", "next     rest"]
    assert body["rankings"][0]["control"] is None

    _start(job, seeds=(None, 1042))
    body, lines = _run(job)
    found = body["rankings"][0]["control"]
    assert found["fresh"] is False  # the control was not run on the fresh seed
    assert found["added"]["seeds"] == 2
    assert "best minus start" in lines[0]
    assert "on 2 seeds that chose the best" in lines[0]

    _start(job, seeds=(2042,))
    body, lines = _run(job)
    (ranking,) = body["rankings"]
    assert ranking["control"]["fresh"] is True
    assert ranking["control"]["added"]["seeds"] == 1
    assert "on 1 fresh seed" in lines[0]
    args = {
        (one["settings"]["inner_lr"], one["settings"]["seed"]): one["arg"]
        for one in body["points"]
    }
    best = ranking["best"]["settings"]["inner_lr"]
    added = args[best, 2042] - ranking["control"]["arg"]
    assert ranking["control"]["added"]["mean"] == pytest.approx(added, abs=1e-9)


def _start(job: SearchJob, seeds: tuple[int | None, ...]) -> None:
    specs = [
        UpstreamSpec(
            config=UpstreamConfig(method="untrained", outer_lr=0.3, seed=seed), rungs=(1,)
        )
        for seed in seeds
    ]
    compute(dataclasses.replace(job, trials=trials_of(job.plans[0], specs)))


def test_where_no_command_would_run_it_nothing_is_said(job: SearchJob) -> None:
    _, lines = _run(job, command="")
    assert lines == ["next     rest"]
