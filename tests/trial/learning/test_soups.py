"""A soup: the mean of several trajectories from one start, in one trial."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import bits
from torch import Tensor
from trial_toys import Bench, bench, through_a_folder

from mpt.config import UpstreamConfig
from mpt.errors import UsageError
from mpt.prompts import prompt_digest, prompt_from_bytes
from mpt.search.job import SearchJob
from mpt.search.remaining import remaining_work
from mpt.store.records import Point
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import OpenStudy
from mpt.trial.runs import member_keys, upstream_key
from mpt.upstream.engine import Diverged, UpstreamRun, trajectory_key
from mpt.upstream.soup import members_of

ONE = UpstreamConfig(method="multitask", outer_lr=0.3, average="polynomial", start="drawn")
SOUP = dataclasses.replace(ONE, soup=3)


def spec_of(study: OpenStudy, config: UpstreamConfig, *rungs: int) -> TrialSpec:
    return TrialSpec(plan=study.plan, upstream=UpstreamSpec(config=config, rungs=rungs))


def learned(found: Bench, study: OpenStudy, config: UpstreamConfig, *rungs: int) -> list[Point]:
    """Run a trial to its end; return its points."""
    work = found.trial_of(spec_of(study, config, *rungs), chunk_s=1e9)
    list(work.units())
    return [one for one in found.database.points() if one.upstream == work.key]


def by_hand(study: OpenStudy, config: UpstreamConfig, steps: int) -> UpstreamRun:
    own = study.config
    settings = (config, own.prompt, own.upstream_text, own.train_seed)
    run = UpstreamRun(study.backbone, study.items, *settings)
    run.advance(steps)
    return run


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Upstream steps of every call from now on."""
    taken: list[int] = []
    real = UpstreamRun.advance

    def counted(run: UpstreamRun, steps: int) -> None:
        taken.append(steps)
        real(run, steps)

    monkeypatch.setattr(UpstreamRun, "advance", counted)
    return taken


def test_it_is_the_mean_of_its_members_at_every_rung_and_costs_what_they_cost(
    one: Bench, study: OpenStudy
) -> None:
    points = learned(one, study, SOUP, 2, 3)
    assert [point.steps for point in points] == [2, 3]
    for point in points:
        runs = [by_hand(study, member, point.steps) for member in members_of(SOUP, 42)]
        prompts = [run.prompt for run in runs]
        assert point.prompt == prompt_digest((prompts[0] + prompts[1] + prompts[2]) / 3)
        assert point.cost.steps == 3 * point.steps
        assert point.cost.examples == sum(run.cost.examples for run in runs)
        assert point.cost.tokens == sum(run.cost.tokens for run in runs)
        assert len({prompt_digest(prompt) for prompt in prompts}) == 3
    assert points[0].settings["soup"] == 3


def test_a_soup_of_one_is_the_run_itself(study: OpenStudy) -> None:
    own = study.config
    settings = (own.prompt, own.upstream_text, own.train_seed)
    assert members_of(ONE, 42) == (ONE,)
    for config in (ONE, UpstreamConfig()):
        key = trajectory_key(study.backbone, study.items, config, *settings)
        assert upstream_key(study, dataclasses.replace(config, soup=1)) == key
    assert upstream_key(study, SOUP) not in member_keys(study, SOUP)


def test_members_have_one_start_and_seeds_of_their_own_whatever_the_size(study: OpenStudy) -> None:
    seven = members_of(dataclasses.replace(ONE, soup=3, seed=7), 42)
    assert seven[0] == dataclasses.replace(ONE, seed=7)
    assert len({member.seed for member in seven}) == 3
    starts = [by_hand(study, member, 0).prompt for member in seven]
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2])
    lone = dataclasses.replace(seven[1], start_seed=None)
    assert not torch.equal(starts[0], by_hand(study, lone, 0).prompt)
    larger = members_of(dataclasses.replace(ONE, soup=5, seed=7), 42)
    assert larger[:3] == seven
    # the study's seed and the same one said aloud are one soup
    aloud = dataclasses.replace(SOUP, seed=42)
    assert upstream_key(study, aloud) == upstream_key(study, SOUP)
    assert upstream_key(study, dataclasses.replace(SOUP, seed=43)) != upstream_key(study, SOUP)


def test_it_takes_over_members_that_are_there_and_plans_only_the_others(
    one: Bench, study: OpenStudy, job: SearchJob, steps_taken: list[int]
) -> None:
    learned(one, study, ONE, 4)
    assert sum(steps_taken) == 4
    spec = spec_of(study, dataclasses.replace(SOUP, soup=2), 4)
    left = remaining_work([spec], lambda _: study, one.store, one.files).trials[0]
    assert left.steps == 2  # of the two members one has none: the mean
    list(one.trial_of(spec).units())
    assert sum(steps_taken) == 8
    learned(one, study, SOUP, 4)
    assert sum(steps_taken) == 12
    done = remaining_work([spec], lambda _: study, one.store, one.files).trials[0]
    assert (done.steps, done.points, done.begin) == (0, 0, 4)


def test_a_soup_killed_after_any_unit_ends_with_the_same_bits(
    one: Bench, job: SearchJob, study: OpenStudy, tmp_path: Path, steps_taken: list[int]
) -> None:
    spec = spec_of(study, dataclasses.replace(SOUP, soup=2), 2, 4)
    count = sum(1 for _ in one.trial_of(spec).units())
    assert sum(steps_taken) == 8
    expected = bits(job.results)
    for stop in range(1, count, 3):
        place = tmp_path / str(stop)
        with bench(job, study, results=place) as found:
            killed = found.trial_of(spec)
            for _ in range(stop):
                killed.unit()
            state = through_a_folder(killed.state())
            killed.unit()  # it lived on for a moment
            steps_taken.clear()
            after = found.trial_of(spec)
            after.load_state(state)
            list(after.units())
            assert after.progress.problems == []
        assert sum(steps_taken) <= 9 - min(stop, 8)  # what was in the checkpoint is not done again
        assert bits(place) == expected


def test_budgets_that_are_meant_to_match_do_in_what_was_recorded(
    one: Bench, study: OpenStudy
) -> None:
    """Rows that went forward and backward: of one run, of soups, and of path."""
    multitask = dataclasses.replace(ONE, batch_size=6, items_per_step=1)
    path = UpstreamConfig(method="path", inner_lr=0.5, inner_steps=2, batch_size=2)
    plans = [
        (multitask, 8),
        (dataclasses.replace(multitask, soup=2), 4),
        (dataclasses.replace(multitask, soup=4), 2),
        (dataclasses.replace(path, items_per_step=1, soup=2), 4),
    ]
    spent = [learned(one, study, config, steps)[0].cost.examples for config, steps in plans]
    assert spent[0] == 48
    assert max(spent) <= 1.02 * min(spent), spent


def test_a_member_that_diverges_is_named_and_the_soup_has_no_later_rung(
    one: Bench, study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = UpstreamRun.advance
    second = member_keys(study, SOUP)[1]

    def diverging(run: UpstreamRun, steps: int) -> None:
        if run.key == second and run.step_count + steps > 2:
            raise Diverged(run.step_count + 1, "loss of s-one is nan")
        real(run, steps)

    monkeypatch.setattr(UpstreamRun, "advance", diverging)
    good, bad, later = learned(one, study, SOUP, 2, 4, 6)
    assert [good.status, bad.status, later.status] == ["ok", "diverged", "diverged"]
    assert bad.note.endswith("at step 3: loss of s-one is nan (member 2 of 3)")
    assert bad.cost.steps == 4 + 2 + 2  # the first member was at the rung already


def test_members_are_kept_at_their_rungs_and_the_mean_is_a_file_of_its_own(
    one: Bench, study: OpenStudy
) -> None:
    (point,) = learned(one, study, SOUP, 2)
    prompts: list[Tensor] = []
    for key in (*member_keys(study, SOUP), point.upstream):
        rung = one.store.rung(key, 2)
        assert rung is not None
        prompt, about = prompt_from_bytes(one.files.read(rung.uri, rung.digest), rung.uri)
        assert about["upstream"] == key
        prompts.append(prompt)
    assert torch.equal(prompts[-1], (prompts[0] + prompts[1] + prompts[2]) / 3)


def test_one_trajectory_is_no_soup(study: OpenStudy) -> None:
    with pytest.raises(UsageError, match="soup is 3, but must be 1 in one trajectory"):
        by_hand(study, SOUP, 1)


def test_names_tell_soups_apart() -> None:
    names: list[Any] = [UpstreamSpec(config=config).name for config in (ONE, *members_of(SOUP, 1))]
    names.append(UpstreamSpec(config=SOUP).name)
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert names[-1] == f"{names[0]}-soup3"
