from __future__ import annotations

import pytest
from toys import toy_task

from mpt.backbones import Backbone
from tools.embedded_models.inner_steps import inner_step


def test_a_short_inner_step_grows_with_its_rate_and_leaves_nothing_to_the_second_order(
    toy_backbone: Backbone,
) -> None:
    tasks = [toy_task("toy-one", 13), toy_task("toy-two", 13)]
    small, double, large = (inner_step(toy_backbone, tasks, r, 3) for r in (0.5, 1.0, 1e2))
    assert double.length == pytest.approx(2 * small.length, rel=1e-6)
    # a step of 1e-4 of the prompt: the second-order term is as small
    assert small.cosine == pytest.approx(1.0, abs=1e-3)
    assert large.cosine < 0.99
    # to first order the query loss falls by rate · ⟨g_S, g_Q⟩
    assert double.gain == pytest.approx(2 * small.gain, rel=0.2)
