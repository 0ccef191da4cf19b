"""What a trial says of its method: whether it learns upstream, what it tunes, by which recipe."""

from __future__ import annotations

import dataclasses

from mpt.config import StudyConfig, UpstreamConfig
from mpt.study.specs import (
    FineTuningConfig,
    MethodConfig,
    PromptTuningConfig,
    TrialSpec,
    UpstreamSpec,
    ZeroShotConfig,
    settings_of,
)
from mpt.study.study import StudyPlan

STUDY = StudyConfig()
OWN = dataclasses.replace(STUDY.downstream, steps=7, lrs=(1e-4,))
LEARNED = UpstreamConfig(method="fomaml", seed=1042)
UNLEARNED: tuple[MethodConfig, ...] = (
    PromptTuningConfig(),
    FineTuningConfig(downstream=OWN),
    ZeroShotConfig(),
)


def _trial(config: MethodConfig) -> TrialSpec:
    plan = StudyPlan(config=STUDY, source=("a",), scored=("b",), role="target", partial=None)
    return TrialSpec(plan=plan, upstream=UpstreamSpec(config=config))


def test_only_upstream_methods_learn_upstream() -> None:
    assert _trial(LEARNED).learned == LEARNED
    assert [_trial(config).learned for config in UNLEARNED] == [None] * 3


def test_every_method_says_what_its_runs_tune_and_no_record_has_it_among_the_settings() -> None:
    tuned = {config.method: _trial(config).upstream.tuned for config in (LEARNED, *UNLEARNED)}
    assert tuned == {
        "fomaml": "prompt",
        "prompt_tuning": "prompt",
        "fine_tuning": "weights",
        "zero_shot": "nothing",
    }
    assert not any("tuned" in settings_of(config) for config in (LEARNED, *UNLEARNED))


def test_the_recipe_is_the_studys_but_in_fine_tuning() -> None:
    recipes = [_trial(config).downstream for config in (LEARNED, *UNLEARNED)]
    assert recipes == [STUDY.downstream, STUDY.downstream, OWN, STUDY.downstream]


def test_replicates_are_one_cell_without_their_seeds_and_other_settings_are_kept() -> None:
    one, other = _trial(LEARNED), _trial(dataclasses.replace(LEARNED, seed=2042))
    assert one != other
    assert one.without_seed() == other.without_seed()
    assert one.without_seed().learned == UpstreamConfig(method="fomaml")
    lower = _trial(dataclasses.replace(LEARNED, outer_lr=0.1))
    assert one.without_seed() != lower.without_seed()
    assert all(_trial(config).without_seed() == _trial(config) for config in UNLEARNED)
