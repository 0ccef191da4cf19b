"""Keys when options are added later: at its default, an option changes no key.

The key of an upstream trajectory alone is held to this by tests/upstream/test_engine.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from mpt.config import UpstreamConfig
from mpt.store.records import Point, point_key
from mpt.study.record import study_record
from mpt.study.specs import FineTuningConfig, MethodConfig, ZeroShotConfig
from mpt.study.study import OpenStudy
from mpt.trial.runs import (
    baseline_packs,
    fine_tuning_packs,
    keys_of,
    learned_packs,
    tuned_study,
    upstream_key,
    zero_shot_packs,
)

STEPS = 3
UPSTREAM = UpstreamConfig(inner_lr=0.3, outer_lr=0.1, batch_size=2)
PROMPT_RUNS = {"baseline runs", "learned runs"}
OF_STUDY = {"study", "maml point", "fine_tuning point", "zero_shot point"}
"""All points change with the study that they are of."""


def later(settings: Any, **options: int) -> Any:
    """Return settings of a class with one more option, whose default is 7."""
    kind = dataclasses.make_dataclass(
        f"Later{type(settings).__name__}",
        [("option", int, dataclasses.field(default=7))],
        bases=(type(settings),),
        frozen=True,
        kw_only=True,
    )
    own = {part.name: getattr(settings, part.name) for part in dataclasses.fields(settings)}
    return kind(**own, **options)


def keys(study: OpenStudy, upstream: UpstreamConfig) -> dict[str, Any]:
    """Return every kind of key that a study and a method's settings lead to."""
    tuning = FineTuningConfig(downstream=study.config.downstream)
    methods: tuple[MethodConfig, ...] = (upstream, tuning, ZeroShotConfig())
    prompt = torch.ones(study.config.prompt.length, study.backbone.d_model)
    record = study_record(study)
    return {
        "study": record.key,
        "baseline runs": keys_of(baseline_packs(study)),
        "learned runs": keys_of(learned_packs(study, prompt)),
        "fine_tuning runs": keys_of(fine_tuning_packs(tuned_study(study, tuning))),
        "zero_shot runs": keys_of(zero_shot_packs(study)),
        **{
            f"{config.method} point": point_key(record.key, upstream_key(study, config), STEPS)
            for config in methods
        },
    }


def with_part(study: OpenStudy, part: str, **options: int) -> OpenStudy:
    """Return a study one of whose parts has the later option; "study": the settings themselves."""
    own = study.config
    if part == "study":
        config = later(own, **options)
    else:
        config = dataclasses.replace(own, **{part: later(getattr(own, part), **options)})
    return dataclasses.replace(study, plan=dataclasses.replace(study.plan, config=config))


@pytest.mark.parametrize(
    ("part", "others"),
    [
        ("prompt", OF_STUDY | PROMPT_RUNS),
        ("text", OF_STUDY | PROMPT_RUNS | {"fine_tuning runs", "zero_shot runs"}),
        # the model as it is reads only how outputs are evaluated
        ("downstream", OF_STUDY | PROMPT_RUNS | {"fine_tuning runs"}),
        # what of it changes numbers is written into the study's record by name
        ("study", set()),
    ],
)
def test_an_option_of_a_study_at_its_default_changes_no_key(
    part: str, others: set[str], study: OpenStudy
) -> None:
    before = keys(study, UPSTREAM)
    assert keys(with_part(study, part), UPSTREAM) == before
    after = keys(with_part(study, part, option=8), UPSTREAM)
    assert {name for name in before if before[name] != after[name]} == others


def test_an_option_of_a_method_at_its_default_changes_no_key(study: OpenStudy) -> None:
    before = keys(study, UPSTREAM)
    assert keys(study, later(UPSTREAM)) == before
    after = keys(study, later(UPSTREAM, option=8))
    assert {name for name in before if before[name] != after[name]} == {"maml point"}


def test_a_field_that_records_get_later_changes_no_key_at_its_default(study: OpenStudy) -> None:
    record = study_record(study)
    identity = baseline_packs(study)[0].runs[0].identity
    point = Point(
        study=record.key,
        method="maml",
        settings=dataclasses.asdict(UPSTREAM),
        steps=STEPS,
        upstream=upstream_key(study, UPSTREAM),
        prompt="p",
        runs=(identity.key,),
    )
    for one in (record, identity, point):
        assert later(one).key == one.key
