"""Upstream learning in float32 beside a bfloat16 baseline: what it changes, and what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from search_toys import toy_study
from torch import Tensor

from mpt.backbones import Backbone
from mpt.config import METHODS, StudyConfig, UpstreamConfig
from mpt.errors import UsageError
from mpt.search.cost.trial_memory import trial_memory
from mpt.study.options import StudyOptions
from mpt.study.presets import load_study
from mpt.study.recipes import recipe
from mpt.study.record import study_record
from mpt.study.specs import TrialSpec, UpstreamSpec
from mpt.study.study import OpenStudy, StudyPlan, open_study, plan_study
from mpt.trial.runs import baseline_packs, keys_of, upstream_key

RATE = recipe("paper").upstream["maml"].inner_lr


def _study(checkpoint: Path, gym: Path, precision: str, upstream: str | None) -> OpenStudy:
    config = toy_study(checkpoint, gym, precision=precision, upstream_precision=upstream)
    return open_study(plan_study(config))


def _inner_step(backbone: Backbone, prompt: Tensor) -> tuple[float, bool]:
    """Take one published inner step; return what the model sees of it.

    Returns:
        The share of the prompt's entries that are others after the step in the format in which the
        model reads them, and whether the loss is another.
    """
    batch = backbone.collate([([5, 6, 7, 8], [9, 10])] * 2, [0, 0])
    at = prompt.clone().requires_grad_()
    before = backbone.run_losses(at[None], batch).sum()
    (gradient,) = torch.autograd.grad(before, at)
    stepped = prompt - RATE * gradient
    with torch.no_grad():
        after = backbone.run_losses(stepped[None], batch).sum()
    seen, now = (p.to(backbone.dtype) for p in (prompt, stepped))
    return float((seen != now).float().mean()), bool(after != before.detach())


def test_the_published_inner_rate_is_lost_in_bfloat16_and_acts_in_float32(
    toy_checkpoint: Path, toy_gym: Path
) -> None:
    assert RATE == 3e-5
    study = _study(toy_checkpoint, toy_gym, "bfloat16", "float32")
    # entries of the size that tuned prompts have on a small model; T5-large's are 12 to 29
    generator = torch.Generator().manual_seed(0)
    prompt = 0.95 * torch.randn(20, study.backbone.d_model, generator=generator)
    coarse, _ = _inner_step(study.backbone, prompt)
    fine, acts = _inner_step(study.upstream_backbone("maml"), prompt)
    assert coarse < 0.01, f"{coarse:.3%} of the entries changed in bfloat16"
    assert fine > 0.5, f"{fine:.1%} of the entries changed in float32"
    assert acts


def test_methods_with_an_inner_loop_have_a_model_of_their_own(
    toy_checkpoint: Path, toy_gym: Path
) -> None:
    study = _study(toy_checkpoint, toy_gym, "bfloat16", "float32")
    assert study.backbone.dtype == torch.bfloat16
    own = [study.upstream_backbone(method) for method in ("maml", "fomaml", "reptile")]
    assert {model.dtype for model in own} == {torch.float32}
    assert own[0] is own[1] is own[2]  # loaded once
    assert study.upstream_backbone("multitask") is study.backbone
    plain = _study(toy_checkpoint, toy_gym, "bfloat16", None)
    assert plain.upstream_backbone("maml") is plain.backbone


def test_the_trajectory_and_the_study_are_others_and_the_baseline_is_the_same(
    toy_checkpoint: Path, toy_gym: Path
) -> None:
    mixed = _study(toy_checkpoint, toy_gym, "bfloat16", "float32")
    half = _study(toy_checkpoint, toy_gym, "bfloat16", None)
    whole = _study(toy_checkpoint, toy_gym, "float32", "float32")
    for method in METHODS:
        config = UpstreamConfig(method=method)
        same = upstream_key(mixed, config) == upstream_key(half, config)
        assert same == (method == "multitask")
    assert upstream_key(mixed, UpstreamConfig()) == upstream_key(whole, UpstreamConfig())
    assert keys_of(baseline_packs(mixed)) == keys_of(baseline_packs(half))
    assert study_record(mixed).protocol != study_record(half).protocol
    # said of a study that is in float32 anyway it is nothing new, and its key stays
    alone = _study(toy_checkpoint, toy_gym, "float32", None)
    assert study_record(whole).key == study_record(alone).key


def test_the_papers_recipe_and_its_search_have_it_and_another_format_replaces_both() -> None:
    assert recipe("paper").upstream_precision == "float32"
    preset = load_study("google/t5-large-lm-adapt")
    assert (preset.precision, preset.upstream_precision) == ("bfloat16", "float32")
    other = load_study("google/t5-large-lm-adapt", precision="bfloat16")
    assert (other.precision, other.upstream_precision) == ("bfloat16", None)
    assert StudyOptions(precision="bfloat16").apply(preset).upstream_precision is None
    assert StudyOptions(max_dev=4).apply(preset).upstream_precision == "float32"
    assert StudyOptions(upstream_precision="bfloat16").apply(preset).precision == "bfloat16"
    with pytest.raises(UsageError, match="upstream_precision is 'half'"):
        StudyConfig(upstream_precision="half")


def test_the_plan_counts_both_sets_of_weights(toy_checkpoint: Path) -> None:
    def weights(method: str, precision: str, upstream: str | None) -> int:
        config = StudyConfig(
            backbone=str(toy_checkpoint), precision=precision, upstream_precision=upstream
        )
        plan = StudyPlan(config=config, source=("s",), scored=("t",), partial=None)
        spec = UpstreamSpec(config=UpstreamConfig(method=method), rungs=(1,))
        return trial_memory(TrialSpec(plan=plan, upstream=spec), on_gpu=True).weights

    half = weights("fomaml", "bfloat16", None)
    assert weights("fomaml", "bfloat16", "float32") == 3 * half
    assert weights("multitask", "bfloat16", "float32") == half
    assert weights("fomaml", "float32", "float32") == 2 * half
