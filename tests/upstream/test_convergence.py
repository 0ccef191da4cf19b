"""On the embedded model and gym every method learns something that held-out source items feel."""

from __future__ import annotations

import dataclasses

import pytest

from mpt.backbones import Backbone, load_backbone
from mpt.config import METHODS, PromptConfig, TextConfig, UpstreamConfig
from mpt.embedded.gym import ensure_embedded_gym
from mpt.gym.catalogue import load_catalogue
from mpt.gym.fewshot import FewShotTask, load_task
from mpt.upstream.engine import UpstreamRun

TEXT = TextConfig(max_input=96, max_target=24)
PROMPT = PromptConfig(length=20)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("embedded")


def _items(seed: int) -> list[FewShotTask]:
    gym = ensure_embedded_gym()
    catalogue = load_catalogue(gym)
    names = catalogue.partition("random_to_random").source
    return [load_task(gym, catalogue.task(name), seed) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_lowers_the_query_loss_of_held_out_source_items(
    method: str, backbone: Backbone
) -> None:
    """The held-out items are other few-shot samples of the source tasks: data seed 21, not 13."""
    config = UpstreamConfig(
        method=method, inner_lr=0.1, outer_lr=0.1, batch_size=8, items_per_step=2
    )
    run = UpstreamRun(backbone, _items(13), config, PROMPT, TEXT, 42)
    plain = dataclasses.replace(config, method="fomaml", inner_lr=1e-6)
    judge = UpstreamRun(backbone, _items(21), plain, PROMPT, TEXT, 7)

    def held_out() -> float:
        judge.prompt.copy_(run.prompt)
        count = len(judge._stream)  # every item once
        return sum(judge._gradients([judge._episode(n)])[1][0] for n in range(count)) / count

    before = held_out()
    run.advance(150)
    after = held_out()
    assert after < 0.95 * before, f"{method}: query loss {before:.3f} -> {after:.3f}"
