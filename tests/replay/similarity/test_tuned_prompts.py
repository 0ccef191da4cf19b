"""Sources ranked by prompts: kept ones are taken, others are tuned first, and a plan says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from mpt.config import StudyConfig
from mpt.errors import DataError, UsageError
from mpt.prompts import prompt_bytes, prompt_from_bytes
from mpt.replay.request import Request
from mpt.replay.similarity.pilot import plan_pilot
from mpt.replay.similarity.prompts import _keep, tune_here
from mpt.store.artifacts import Artifacts
from mpt.store.database import open_results
from mpt.store.records import Run
from mpt.trial.files import keep_file
from mpt.trial.runs import RunPack, keys_of
from mpt.trial.store import TrialStore


@pytest.fixture
def smoke(tmp_path: Path) -> Request:
    return Request(results=tmp_path / "results", smoke=True)


def _planted(request: Request) -> Callable[[StudyConfig, Sequence[RunPack]], None]:
    """Return a tuner whose n-th prompt is a line at the angle n / 10 to the first axis."""

    def tuner(config: StudyConfig, packs: Sequence[RunPack]) -> None:
        files = Artifacts(str(request.results))
        with open_results(request.results) as database:
            store = TrialStore(database)
            for at, pack in enumerate(packs):
                (run,) = pack.runs  # at smoke size there is one learning rate
                store.add_runs(
                    [
                        Run(
                            identity=run.identity,
                            dev=0.5,
                            test=0.5,
                            best_step=1,
                            curve=(),
                            status="ok",
                        )
                    ]
                )
                prompt = torch.tensor([[math.cos(at / 10), math.sin(at / 10), 0.0]])
                data = prompt_bytes(prompt, {})
                keep_file(store, files, "prompt", run.key, 1, f"prompts/{run.key}", data)

    return tuner


def _refuses(config: StudyConfig, packs: Sequence[RunPack]) -> None:
    raise AssertionError("every prompt was kept")


def test_sources_are_ranked_by_the_cosines_of_the_prompts(smoke: Request) -> None:
    pilot = plan_pilot(smoke, tuner=_planted(smoke))
    (ranking,) = pilot.rankings
    assert ranking.by == "prompts"
    # the target is the first of the packs, the candidates follow in the partition's order
    expected = [math.cos(at / 10) for at in range(1, 11)]
    assert [value for _, value in ranking.ranked] == pytest.approx(expected, abs=1e-7)
    chosen = {trial.plan.source_set: set(trial.plan.source) for trial in pilot.job.trials}
    assert chosen[f"highest2-{ranking.target}"] == {name for name, _ in ranking.ranked[:2]}
    assert chosen[f"lowest2-{ranking.target}"] == {name for name, _ in ranking.ranked[-2:]}
    assert "by the similarity of tuned prompts, as in the paper (A.7)" in pilot.notes[1]
    # what was kept is not tuned again
    assert plan_pilot(smoke, tuner=_refuses) == pilot


def test_only_the_prompts_that_are_missing_are_tuned(smoke: Request) -> None:
    asked: list[int] = []

    def half(config: StudyConfig, packs: Sequence[RunPack]) -> None:
        asked.append(len(packs))
        _planted(smoke)(config, packs[:4])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_pilot(smoke, tuner=half)

    def rest(config: StudyConfig, packs: Sequence[RunPack]) -> None:
        asked.append(len(packs))
        _planted(smoke)(config, packs)

    plan_pilot(smoke, tuner=rest)
    assert asked == [11, 7]


def test_a_plan_without_prompts_says_that_its_sources_are_ranked_by_inputs(smoke: Request) -> None:
    pilot = plan_pilot(smoke)
    assert pilot.rankings == ()  # nothing that could be stored as a ranking by prompts
    assert "tuned first; to plan with, the ones below are ranked by inputs" in pilot.notes[1]
    assert not smoke.results.exists()
    by_inputs = plan_pilot(smoke, by="inputs")
    sources = [trial.plan.source for trial in by_inputs.job.trials]
    assert [trial.plan.source for trial in pilot.job.trials] == sources
    assert all(trial.plan.source_set.endswith("-by_inputs") for trial in by_inputs.job.trials)
    assert "the paper ranks them by tuned prompts (A.7)" in by_inputs.notes[1]
    with pytest.raises(UsageError, match="by is 'names', but must be one of prompts, inputs"):
        plan_pilot(smoke, by="names")


def test_a_prompt_is_tuned_under_the_keys_of_plain_prompt_tuning(smoke: Request) -> None:
    seen: list[tuple[StudyConfig, RunPack]] = []

    def first(config: StudyConfig, packs: Sequence[RunPack]) -> None:
        seen.append((config, packs[0]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_pilot(smoke, tuner=first)
    ((config, pack),) = seen
    tuned = tune_here(config, pack, "cpu")
    assert [run.key for run, _ in tuned] == keys_of([pack])
    (run, data), start = tuned[0], pack.runs[0].prompt
    assert data is not None
    prompt, meta = prompt_from_bytes(data, "x")
    assert meta == {"run": run.key}
    assert prompt.shape == start.shape
    assert run.best_step > 0
    assert not torch.equal(prompt, start)
    with (
        open_results(smoke.results) as database,
        pytest.raises(DataError, match=f"prompt tuning on {pack.task} diverged at every learning"),
    ):
        _keep([(run, None)], TrialStore(database), Artifacts(str(smoke.results)))
