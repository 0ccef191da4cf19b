from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.optimization import Adafactor as HuggingFaceAdafactor

from mpt.optim import Adafactor

LRS = [0.5, 0.3, 1e-2]


def _gradients(step: int, like: Tensor) -> Tensor:
    """Gradients of very different size per run, so that clipping acts on some runs only."""
    generator = torch.Generator().manual_seed(step)
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    size = torch.tensor([1.0, 1e-4, 30.0 if step % 7 == 0 else 0.1], dtype=torch.float64)
    return (noise * size[:, None, None]).to(like.dtype)


def _reference(prompt: Tensor, lr: float) -> tuple[torch.nn.Parameter, HuggingFaceAdafactor]:
    parameter = torch.nn.Parameter(prompt.clone())
    settings: dict[str, Any] = {
        "scale_parameter": False,
        "relative_step": False,
        "warmup_init": False,
    }
    settings |= {"clip_threshold": 1.0, "decay_rate": -0.8, "weight_decay": 1e-5, "beta1": None}
    return parameter, HuggingFaceAdafactor([parameter], lr=lr, **settings)


# Rounding differs where sums are taken in another order: a few ulps a step on entries of size
# 1 to 30, over 60 steps of size up to 0.5.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_every_step_equals_hugging_faces_adafactor_run_by_run(
    dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    start = 10 * torch.randn(3, 5, 4, generator=generator, dtype=dtype)
    stack = start.clone()
    ours = Adafactor(stack, LRS)
    reference = [_reference(prompt, lr) for prompt, lr in zip(start, LRS, strict=True)]
    for step in range(60):
        grads = _gradients(step, stack)
        ours.step(grads)
        for (parameter, optimiser), grad in zip(reference, grads, strict=True):
            parameter.grad = grad.clone()
            optimiser.step()
        expected = torch.stack([parameter.detach() for parameter, _ in reference])
        error = ((ours.prompts - expected).norm() / expected.norm()).item()
        assert error <= tolerance, f"step {step}: relative difference {error:.1e}"
    assert (stack - start).abs().max() > 1


def test_steps_change_the_given_stack_in_place() -> None:
    stack = torch.zeros(1, 2, 3)
    Adafactor(stack, [0.1]).step(torch.ones(1, 2, 3))
    # First step: the update is g over its own size, rms 1, so exactly lr.
    torch.testing.assert_close(stack, torch.full((1, 2, 3), -0.1), rtol=1e-6, atol=0)


def test_a_run_does_not_notice_what_it_is_packed_with() -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(3, 5, 4, generator=generator)
    together, alone = Adafactor(start.clone(), LRS), Adafactor(start[1:2].clone(), LRS[1:2])
    for step in range(50):
        grads = _gradients(step, start)
        grads[2] = torch.nan  # a diverging neighbour
        together.step(grads)
        alone.step(grads[1:2])
    assert torch.equal(together.prompts[1], alone.prompts[0])


def test_kept_runs_go_on_as_if_nothing_had_happened() -> None:
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(3, 5, 4, generator=generator)
    whole, cut = Adafactor(start.clone(), LRS), Adafactor(start.clone(), LRS)
    for step in range(10):
        whole.step(_gradients(step, start))
        grads = _gradients(step, start)
        cut.step(grads[[2, 0]] if step >= 5 else grads)
        if step == 4:
            cut.keep([2, 0])
    assert torch.equal(cut.prompts, whole.prompts[[2, 0]])


def test_a_run_that_enters_later_starts_at_its_first_step() -> None:
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(3, 5, 4, generator=generator)
    late, alone = Adafactor(start[:2].clone(), LRS[:2]), Adafactor(start[2:].clone(), LRS[2:])
    undisturbed = Adafactor(start[:2].clone(), LRS[:2])
    for step in range(10):
        grads = _gradients(step, start)
        if step == 4:
            late.add(start[2:], LRS[2:])
        if step >= 4:
            alone.step(grads[2:])
        late.step(grads if step >= 4 else grads[:2])
        undisturbed.step(grads[:2])
    assert torch.equal(late.prompts, torch.cat([undisturbed.prompts, alone.prompts]))
    late.keep([])
    late.add(start[1:2], LRS[1:2])
    late.step(_gradients(0, start)[1:2])
    assert late.prompts.shape == (1, 5, 4)


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    stack = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(3))
    whole = Adafactor(stack.clone(), LRS)
    for step in range(4):
        whole.step(_gradients(step, stack))
    resumed = Adafactor(whole.prompts.clone(), [9.0] * 3)
    resumed.load_state_dict(whole.state_dict())
    for step in range(4, 8):
        whole.step(_gradients(step, stack))
        resumed.step(_gradients(step, stack))
    assert torch.equal(resumed.prompts, whole.prompts)


def test_a_state_of_another_shape_is_refused_and_changes_nothing() -> None:
    small, large = Adafactor(torch.ones(1, 2, 3), [0.1]), Adafactor(torch.ones(1, 4, 3), [0.1])
    large.step(torch.ones(1, 4, 3))
    with pytest.raises(ValueError, match="'row' must have the shape"):
        small.load_state_dict(large.state_dict())
    assert small.state_dict()["steps"].item() == 0


@pytest.mark.parametrize(
    ("prompts", "lrs"),
    [
        (torch.ones(2, 3), [0.1, 0.1]),
        (torch.ones(2, 3, 4), [0.1]),
        (torch.ones(1, 3, 4, requires_grad=True), [0.1]),
    ],
)
def test_a_stack_that_does_not_fit_its_learning_rates_is_refused(
    prompts: Tensor, lrs: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"must be a detached \[R, P, d\]"):
        Adafactor(prompts, lrs)
