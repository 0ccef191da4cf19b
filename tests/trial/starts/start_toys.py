"""A soup whose members, mean and vocabulary start are the starts that toy targets choose from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from search_toys import SEEDS, VALIDATION
from torch import Tensor
from trial_toys import Bench

from mpt.config import UpstreamConfig
from mpt.gym.fewshot import Example, FewShotTask
from mpt.store.records import Point, Run
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import OpenStudy
from mpt.trial.starts import LEARNED
from mpt.trial.starts.choice import StartChoice
from mpt.upstream.engine import UpstreamRun
from mpt.upstream.soup import mean_prompt, members_of

SOUP = UpstreamConfig(method="multitask", outer_lr=0.5, start="drawn", soup=2)
TARGETS = len(VALIDATION) * len(SEEDS)


class Poison(tuple[Example, ...]):
    """Test rows that nobody may look at."""

    def _read(self, *_: object) -> Any:
        raise AssertionError("test rows were read")

    __iter__ = __len__ = __getitem__ = __bool__ = __contains__ = _read


def choosing(study: OpenStudy, how: str = "chosen", **changes: Any) -> OpenStudy:
    """Return a study whose targets choose their starts, or race them."""
    downstream = dataclasses.replace(study.config.downstream, start=how, **changes)
    config = dataclasses.replace(study.config, downstream=downstream)
    return dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))


def spec_of(study: OpenStudy, *rungs: int, config: UpstreamConfig = SOUP) -> TrialSpec:
    return TrialSpec(plan=study.plan, upstream=UpstreamSpec(config=config, rungs=rungs))


def starts_at(study: OpenStudy, steps: int) -> dict[str, Tensor]:
    """Return the learned starts of the soup, learned here."""
    own, prompts = study.config, []
    for member in members_of(SOUP, own.train_seed):
        settings = (member, own.prompt, own.upstream_text, own.train_seed)
        run = UpstreamRun(study.backbone, study.items, *settings)
        run.advance(steps)
        prompts.append(run.prompt.clone())
    names = [f"member {number}" for number in range(1, len(prompts) + 1)]
    return {LEARNED: mean_prompt(prompts), **dict(zip(names, prompts, strict=True))}


def never(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


def done(found: Bench, spec: TrialSpec) -> Point:
    """Run a trial of one rung to its end; return its point."""
    work = found.trial_of(spec)
    list(work.units())
    assert work.progress.problems == []
    points = [one for one in found.database.points() if one.upstream == work.key]
    return points[-1]


def poisoned(study: OpenStudy) -> OpenStudy:
    """Return a study whose test rows nobody may look at."""
    scored = {
        name: {seed: dataclasses.replace(task, test=Poison()) for seed, task in samples.items()}
        for name, samples in study.scored.items()
    }
    return dataclasses.replace(study, scored=scored)


def chosen_record(study: OpenStudy, found: Bench, point: str, steps: int = 2) -> Mapping[str, Any]:
    """Return what the targets of a study choose among the starts of the soup."""
    choice = StartChoice(study, starts_at(study, steps), found.store, point)
    while not choice.advance(0.0):
        continue
    assert choice.record is not None
    return choice.record


def targets_of(study: OpenStudy) -> list[FewShotTask]:
    """Return all few-shot samples that are scored."""
    return [one for samples in study.scored.values() for one in samples.values()]


def starts_of(runs: Iterable[Run], task: FewShotTask) -> set[str | None]:
    """Return the digests of the prompts that the runs of a target started from."""
    own = (task.name, task.seed)
    return {
        run.identity.init for run in runs if (run.identity.task, run.identity.data_seed) == own
    }
