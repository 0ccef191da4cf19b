"""A study that names what others compute: the same keys, and one copy of the model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import toy_study

from mpt.config import METHODS, UpstreamConfig
from mpt.search.run import open_plan
from mpt.study import study as studies
from mpt.study.specs import FineTuningConfig
from mpt.study.study import Study, open_study, plan_study
from mpt.trial.runs import fine_tuning_packs, keys_of, tuned_study, upstream_key


def _keys(study: Study) -> list[str]:
    """Return the keys of all trajectories, of fine-tuning and of its runs."""
    tuning = FineTuningConfig(downstream=study.config.downstream)
    keys = [upstream_key(study, UpstreamConfig(method=method)) for method in METHODS]
    return [
        *keys,
        upstream_key(study, tuning),
        *keys_of(fine_tuning_packs(tuned_study(study, tuning))),
    ]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The number formats that weights are loaded in from now on."""
    import mpt.backbones

    studies._backbone.cache_clear()
    found: list[torch.dtype] = []
    load = mpt.backbones.load_backbone

    def watched(*given: Any, dtype: torch.dtype, **options: Any) -> Any:
        found.append(dtype)
        return load(*given, dtype=dtype, **options)

    monkeypatch.setattr(mpt.backbones, "load_backbone", watched)
    return found


def test_a_driver_names_runs_as_workers_do_and_loads_the_baseline_alone(
    toy_checkpoint: Path, toy_gym: Path, loaded: list[torch.dtype]
) -> None:
    config = toy_study(toy_checkpoint, toy_gym, precision="bfloat16", upstream_precision="float32")
    plan = plan_study(config)
    open_plan.cache_clear()
    driver = open_plan(plan)
    named = _keys(driver)
    assert loaded == [torch.bfloat16]
    worker = open_study(plan)
    assert _keys(worker) == named
    assert loaded == [torch.bfloat16, torch.float32]
    assert worker.upstream_backbone("maml").device == torch.device("cpu")
    assert driver.upstream_backbone("maml").device == torch.device("meta")


def test_where_the_files_do_not_tell_the_weights_are_loaded(
    toy_checkpoint: Path,
    toy_gym: Path,
    loaded: list[torch.dtype],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(studies, "_weightless", lambda *_: None)
    config = toy_study(toy_checkpoint, toy_gym, precision="bfloat16", upstream_precision="float32")
    driver = open_study(plan_study(config), computes=False)
    assert driver.upstream_backbone("maml").device == torch.device("cpu")
    assert loaded == [torch.bfloat16, torch.float32]
