"""A search with a searcher that is written here and a scheduler of Tune's without a name here."""

from __future__ import annotations

import dataclasses
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import MedianStoppingRule
from ray.tune.search import Searcher
from rich.console import Console
from search_toys import KNOWN_RATES, bits, tpe_job

from mpt.search.display.display import Display
from mpt.search.job import DONE, Execution, SearchJob, Suggestions
from mpt.search.leaderboard import ranked
from mpt.search.look import peek
from mpt.search.run import run_search
from mpt.store.database import open_results

RATES = (0.3, 30.0, 1.0)


class Walk(Searcher):
    """Tries three outer rates, and then more and more above the best one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.best: dict[float, float] = {}
        self.heard: list[tuple[str, int, float]] = []
        self._rate: dict[str, float] = {}
        self.lock = threading.Lock()  # stands for what cannot be sent to workers

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        self.asked += 1
        if self.asked <= len(RATES):
            rate = RATES[self.asked - 1]
        else:
            best = max(self.best, key=lambda one: self.best[one])
            rate = best * 1.1 ** (self.asked - len(RATES))
        self._rate[trial_id] = rate
        return {"outer_lr": rate}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.heard.append((trial_id, result["rung_steps"], result["score"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        assert result is not None
        assert not error
        self.best[self._rate[trial_id]] = result["best"]

    def save(self, checkpoint_path: str) -> None:
        raise AssertionError("Tune saves nothing of a searcher")

    restore = save


def median_rule() -> MedianStoppingRule:
    return MedianStoppingRule(time_attr="rung_steps", grace_period=1, min_samples_required=1)


def own_job(checkpoint: Path, gym: Path, results: Path) -> SearchJob:
    job = tpe_job(checkpoint, gym, results, count=len(RATES) + 1, scheduler="none")
    assert job.suggestions is not None
    suggestions = dataclasses.replace(job.suggestions, searcher=Walk())
    return dataclasses.replace(job, suggestions=suggestions, scheduler=median_rule())


def again(job: SearchJob, **changes: Any) -> SearchJob:
    """The same search with a searcher and a scheduler that know nothing."""
    suggestions = dataclasses.replace(_of(job), searcher=Walk(), **changes)
    return dataclasses.replace(job, suggestions=suggestions, scheduler=median_rule())


def _of(job: SearchJob) -> Suggestions:
    assert job.suggestions is not None
    return job.suggestions


def searched(job: SearchJob) -> tuple[int, str]:
    """Run a search; return its code and what it printed."""
    file = io.StringIO()
    console = Console(file=file, width=100, markup=False, soft_wrap=True)
    execution = Execution(signals=False, resume="again", next_step="rest")
    code = run_search(job, execution, display=Display(job, console), rates=KNOWN_RATES)
    return code, file.getvalue()


@pytest.fixture(scope="module")
def done(
    one_worker: None, toy_checkpoint: Path, toy_gym: Path, tmp_path_factory: Any
) -> tuple[SearchJob, int, str]:
    job = own_job(toy_checkpoint, toy_gym, tmp_path_factory.mktemp("own") / "results")
    return job, *searched(job)


Done = tuple[SearchJob, int, str]


def _scores(job: SearchJob) -> dict[float, dict[int, float]]:
    """Return outer rate → rung → score, in the order of the trials."""
    with peek(job) as look:
        found: dict[float, dict[int, float]] = {}
        for entry in look.entries:
            if entry.score is not None:
                rate = entry.trial.upstream.config.outer_lr  # type: ignore[union-attr]
                found.setdefault(rate, {})[entry.steps] = entry.score.score
    return found


def test_every_suggestion_is_run_and_ranked(done: Done) -> None:
    job, code, text = done
    assert code == DONE, text
    walk = _of(job).searcher
    assert walk.asked == 4
    scores = _scores(job)
    assert list(scores) == [*RATES, 1.1 * max(RATES, key=lambda rate: walk.best[rate])]
    with peek(job) as look:
        order = ranked(look.entries)
    assert len(order) == sum(map(len, scores.values()))
    assert f"{len(order)}/12" in text
    best = order[0].trial.upstream.config.outer_lr  # type: ignore[union-attr]
    assert f"best     inner_lr 0.1, outer_lr {best:.4g}, steps {order[0].steps}" in text


def test_the_searcher_hears_of_its_own_trials_once_a_rung_and_of_their_best_score(
    done: Done,
) -> None:
    job, _, _ = done
    walk, scores = _of(job).searcher, _scores(job)
    assert walk.best == {rate: max(of.values()) for rate, of in scores.items()}
    heard = [(steps, score) for _, steps, score in walk.heard]
    # the last report of a trial comes at its end
    passed = [(n, s) for of in scores.values() for n, s in list(of.items())[:-1]]
    assert heard == passed


def test_the_scheduler_stops_by_its_own_rule_at_rungs(done: Done) -> None:
    """An independent statement of the median rule, over trials one after the other."""
    job, _, text = done
    expected: list[tuple[float, int]] = []
    before: list[dict[int, float]] = []
    for rate, scores in _scores(job).items():
        for steps in (2, 4, 8):
            if steps not in scores:
                break
            means = [
                np.mean([score for rung, score in other.items() if rung <= steps])
                for other in before
                if max(other) >= steps
            ]
            best = max(score for rung, score in scores.items() if rung <= steps)
            if means and steps < 8 and best < np.median(means):
                expected.append((rate, steps))
        before.append(scores)
    assert expected, "nobody fell behind: the test shows nothing"
    with open_results(job.results, read_only=True) as database:
        stops = database.stops()
    assert {stop.by for stop in stops} == {"MedianStoppingRule"}
    assert [stop.steps for stop in stops] == [steps for _, steps in expected]
    for rate, steps in expected:
        assert max(_scores(job)[rate]) == steps
        assert f"stopped  maml-inner0.1-outer{rate:g}-k1-b2-random_to_random: by Median" in text


def test_the_same_search_again_computes_nothing_and_tells_a_new_searcher_the_record(
    done: Done,
) -> None:
    job, _, _ = done
    before = bits(job.results)
    repeated = again(job)
    code, text = searched(repeated)
    assert code == DONE, text
    assert bits(job.results) == before
    assert _of(repeated).searcher.best == pytest.approx(_of(job).searcher.best)
    assert _scores(repeated) == _scores(job)


def test_a_search_that_is_extended_goes_on_from_the_record(done: Done) -> None:
    job, _, _ = done
    before = _scores(job)
    code, text = searched(again(job, count=len(RATES) + 2))
    assert code == DONE, text
    after = _scores(job)
    assert len(after) == len(before) + 1
    assert {rate: after[rate] for rate in before} == before


def test_tensorboard_shows_every_trial_under_its_name(done: Done) -> None:
    job, _, _ = done
    for rate in RATES:
        name = f"maml-inner0.1-outer{rate:g}-k1-b2-random_to_random"
        files = (job.results / "tensorboard" / name).glob("events.out.tfevents.*")
        content = b"".join(path.read_bytes() for path in files)
        assert b"ray/tune/arg" in content
        assert b"outer_lr" in content
