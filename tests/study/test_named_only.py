"""A study that names what others compute: the same keys, and no copy of the model in memory."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import toy_job, toy_study
from tiny_models import save

from mpt.config import METHODS, UpstreamConfig
from mpt.search.job import Execution
from mpt.search.look import open_plan, plan_search
from mpt.study import study as studies
from mpt.study.specs import FineTuningConfig
from mpt.study.study import OpenStudy, open_study, plan_study
from mpt.trial.runs import baseline_packs, fine_tuning_packs, keys_of, tuned_study, upstream_key


def _keys(study: OpenStudy) -> list[str]:
    """Return the keys of all trajectories, of the baseline, of fine-tuning and of its runs."""
    tuning = FineTuningConfig(downstream=study.config.downstream)
    keys = [upstream_key(study, UpstreamConfig(method=method)) for method in METHODS]
    return [
        *keys,
        *keys_of(baseline_packs(study)),
        upstream_key(study, tuning),
        *keys_of(fine_tuning_packs(tuned_study(study, tuning))),
    ]


def _forget() -> None:
    open_plan.cache_clear()
    studies.release_weights()
    studies._digest.cache_clear()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The number formats that weights are loaded in from now on."""
    import mpt.backbones

    _forget()
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
    monkeypatch.setattr(studies, "_weightless", lambda *_, **__: None)
    config = toy_study(toy_checkpoint, toy_gym, precision="bfloat16", upstream_precision="float32")
    driver = open_study(plan_study(config), computes=False)
    assert driver.upstream_backbone("maml").device == torch.device("cpu")
    assert loaded == [torch.bfloat16, torch.float32]


# Embeddings that are scaled (Pegasus, in a module of their own; Gemma, by a buffer), tied or not.
@pytest.mark.parametrize("name", ["t5-v1.1", "pegasus", "llama-grouped", "llama-tied", "gemma"])
def test_it_knows_the_words_of_every_kind_of_model_and_nothing_else(
    name: str, toy_gym: Path, tmp_path: Path
) -> None:
    config = toy_study(save(name, tmp_path), toy_gym, precision="bfloat16")
    plan = plan_study(config)
    _forget()
    driver, worker = open_study(plan, computes=False), open_study(plan)
    assert torch.equal(driver.backbone.embeddings(), worker.backbone.embeddings())
    assert _keys(driver) == _keys(worker)
    weights = [one for one in driver.backbone.model.parameters() if not one.is_meta]
    assert [one.shape for one in weights] == [driver.backbone.embeddings().shape]


def test_a_driver_holds_no_weights_once_it_has_measured(
    toy_checkpoint: Path, toy_gym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mpt.backbones

    _forget()
    models: list[weakref.ref[Any]] = []
    load = mpt.backbones.load_backbone

    def watched(*given: Any, **options: Any) -> Any:
        backbone = load(*given, **options)
        models.append(weakref.ref(backbone.model))
        return backbone

    monkeypatch.setattr(mpt.backbones, "load_backbone", watched)
    job = toy_job(toy_checkpoint, toy_gym, tmp_path / "results")
    assert plan_search(job, Execution(workers=1)) == 0
    assert len(models) == 1  # for the digest, and to measure
    assert models[0]() is None
    again = open_plan(job.plans[0])
    assert _keys(again)
    assert len(models) == 1  # the digest is known
