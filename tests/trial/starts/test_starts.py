"""The start that a target chooses by its own rows, and what becomes of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from search_toys import SEEDS, VALIDATION, bits
from start_toys import (
    SOUP,
    TARGETS,
    Poison,
    choosing,
    chosen_record,
    done,
    never,
    poisoned,
    spec_of,
    starts_at,
    starts_of,
)
from trial_toys import Bench, bench, through_a_folder

from mpt.config import UpstreamConfig
from mpt.gym.fewshot import FewShotTask
from mpt.prompts import prompt_digest
from mpt.search.job import SearchJob
from mpt.search.remaining import remaining_work
from mpt.study.record import run_recipe, study_record
from mpt.study.specs import FineTuningConfig
from mpt.study.study import OpenStudy
from mpt.trial.runs import baseline_packs, keys_of, upstream_key, vocabulary_start
from mpt.trial.starts import VOCABULARY
from mpt.trial.starts import choice as choice_module
from mpt.trial.starts.losses import lowest, own_rows, start_loss
from mpt.upstream.soup import members_of


def test_every_target_is_tuned_from_the_start_with_the_lowest_loss_on_its_own_rows(
    study: OpenStudy, job: SearchJob
) -> None:
    study = choosing(study, max_dev=5)
    with bench(job, study) as found:
        point = done(found, spec_of(study, 3))
        runs = list(found.database.runs(point.runs).values())
    learned, backbone = starts_at(study, 3), study.backbone
    for task in (one for samples in study.scored.values() for one in samples.values()):
        prompts = {**learned, VOCABULARY: vocabulary_start(study, task, 42)}
        losses = {}
        for name, prompt in prompts.items():
            total = count = 0.0
            for row in backbone.encode_rows(
                task.name, [*task.train, *task.dev[:5]], study.config.text
            ):  # one by one, and not in batches
                loss, tokens = backbone.row_losses(prompt[None], backbone.collate([row], [0]))
                total, count = total + float(loss), count + int(tokens)
            losses[name] = total / count
            assert start_loss(study, task, prompt)[0] == pytest.approx(losses[name], rel=1e-5)
        best = min(losses, key=lambda name: losses[name])
        assert point.provenance["starts"]["taken"][task.name][str(task.seed)] == best
        assert starts_of(runs, task) == {prompt_digest(prompts[best])}


def test_the_point_says_what_was_taken_and_what_choosing_cost(
    study: OpenStudy, job: SearchJob
) -> None:
    study = choosing(study)
    with bench(job, study) as found:
        point = done(found, spec_of(study, 2))
    told = point.provenance["starts"]
    names = [name for seeds in told["taken"].values() for name in seeds.values()]
    assert len(names) == TARGETS
    assert point.note.startswith("starts taken: ")
    assert sum(int(part.split()[-1]) for part in point.note.split(", ")) == TARGETS
    # 8 train and 8 dev rows, for the soup, its two members and the vocabulary start
    assert told["forward rows"] == TARGETS * 4 * 16
    assert told["forward tokens"] > told["forward rows"]
    assert told["seconds"] > 0
    assert point.prompt is None


@pytest.mark.parametrize("how", ["chosen", "raced"])
def test_choosing_never_reads_test_rows(study: OpenStudy, one: Bench, how: str) -> None:
    with pytest.raises(AssertionError, match="test rows were read"):
        list(Poison())
    whole = choosing(study, how)
    blind = chosen_record(poisoned(whole), one, "a")
    assert blind["taken"] == chosen_record(whole, one, "b")["taken"]


def test_runs_are_shared_with_the_studies_that_have_the_same_starts(
    study: OpenStudy, job: SearchJob
) -> None:
    other = choosing(study)
    assert run_recipe(other.config) == run_recipe(study.config)
    assert study_record(other).key != study_record(study).key
    assert keys_of(baseline_packs(other)) == keys_of(baseline_packs(study))
    own = FineTuningConfig(downstream=study.config.downstream)
    tuned = FineTuningConfig(downstream=other.config.downstream)
    assert upstream_key(other, tuned) == upstream_key(study, own)
    with bench(job, study, other) as found:
        found.run_baseline(study)
        for config in (SOUP, *members_of(SOUP, 42)):
            done(found, spec_of(study, 2, config=config))
        there = found.stored
        found.store.brought.clear()
        point = done(found, spec_of(other, 2))
        assert found.store.brought == []
        assert (found.stored, len(point.runs)) == (there, 2 * TARGETS)


def test_the_plan_counts_the_rows_by_which_targets_will_choose(
    study: OpenStudy, job: SearchJob
) -> None:
    """And for a soup runs of its own: its members may be chosen."""
    own = sum(
        len(own_rows(study, t)) for by_seed in study.scored.values() for t in by_seed.values()
    )
    single = dataclasses.replace(SOUP, soup=1)
    studies = {one.plan: one for one in (study, choosing(study))}

    def planned(config: UpstreamConfig) -> list[tuple[int, int]]:
        specs = [spec_of(one, 2, config=config) for one in studies.values()]
        work = remaining_work(specs, studies.__getitem__, found.store, found.files)
        return [(trial.runs.runs, trial.runs.rows) for trial in work.trials]

    with bench(job, choosing(study)) as found:
        learned, chosen = planned(single)
        assert chosen == (0, 2 * own)  # from the learned prompt or the plain start: runs of others
        learned, chosen = planned(SOUP)
        assert chosen == (learned[0], learned[1] + 4 * own)
        done(found, spec_of(choosing(study), 2))
        assert planned(SOUP)[1] == (0, 0)


def test_a_trial_killed_after_any_unit_keeps_to_the_stored_choice(
    study: OpenStudy, job: SearchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = choosing(study)
    spec = spec_of(study, 2)
    with bench(job, study) as found:
        count = sum(1 for _ in found.trial_of(spec).units())
        assert remaining_work([spec], lambda _: study, found.store, found.files).runs_there == 8
    expected = bits(job.results)
    for stop in range(2, count, 2):
        place = tmp_path / str(stop)
        with bench(job, study, results=place) as found:
            killed = found.trial_of(spec)
            for _ in range(stop):
                killed.unit()
            state = through_a_folder(killed.state())
            made = found.database.documents("start choice")
            after = found.trial_of(spec)
            after.load_state(state)
            with monkeypatch.context() as patch:
                if made:
                    patch.setattr(choice_module, "start_loss", never)
                list(after.units())
        assert bits(place) == expected


def test_a_member_whose_file_is_gone_is_learned_again_before_anybody_chooses(
    study: OpenStudy, job: SearchJob
) -> None:
    study = choosing(study)
    with bench(job, study) as found:
        first = done(found, spec_of(study, 2))
        twin = choosing(study, max_dev=3)
        found.database.add_study(study_record(twin))
        for artifact in found.database.artifacts("rung")[:2]:
            Path(artifact.uri).unlink()
    with bench(job, twin) as found:
        work = found.trial_of(spec_of(twin, 2))
        list(work.units())
        assert len(work.progress.problems) >= 1
        assert all("computed again" in text for text in work.progress.problems)
        points = [point for point in found.database.points() if point.upstream == first.upstream]
        assert len(points) == 2


def test_a_start_without_a_finite_loss_is_not_taken_and_the_first_of_equal_ones_is() -> None:
    assert lowest({"a": math.nan, "b": 2.0, "c": 1.0, "d": 1.0}) == "c"
    assert lowest({"a": math.nan, "b": math.inf}) == "a"


def test_the_rows_are_those_that_the_recipe_reads(study: OpenStudy) -> None:
    task: FewShotTask = study.scored[VALIDATION[0]][SEEDS[0]]
    assert own_rows(study, task) == [*task.train, *task.dev]
    assert own_rows(choosing(study, max_dev=2), task) == [*task.train, *task.dev[:2]]
