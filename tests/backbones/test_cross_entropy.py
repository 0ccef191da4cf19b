from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mpt.backbones import Backbone, cross_entropy
from mpt.backbones.cross_entropy import greedy_choice, token_losses
from mpt.config import TextConfig
from mpt.gym.fewshot import Example

N, D, V = 23, 8, 50


@pytest.fixture
def chunks_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "LOGITS_AT_ONCE", 5 * V + 7)


def _problem(dtype: torch.dtype) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(D, V, dtype=dtype)
    nn.init.normal_(head.weight, generator=generator)
    states = torch.randn(N, D, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(V, (N,), generator=generator)
    return head, states, targets, torch.rand(N, generator=generator, dtype=dtype)


def _whole(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(head(states), targets, reduction="none")


# Each token's arithmetic is the same; only the size of the matrix products differs.
@pytest.mark.usefixtures("chunks_of_five")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("closed_form", [True, False])
def test_chunked_losses_and_gradients_are_those_of_the_whole(
    closed_form: bool, dtype: torch.dtype, tolerance: float
) -> None:
    head, states, targets, weights = _problem(dtype)
    head.requires_grad_(not closed_form)
    whole = _whole(head, states, targets)
    found = token_losses(head, states, targets, V, closed_form=closed_form)
    torch.testing.assert_close(found, whole, rtol=tolerance, atol=tolerance)
    wanted = [states, *head.parameters()] if not closed_form else [states]
    expected = torch.autograd.grad((whole * weights).sum(), wanted)
    for gradient, known in zip(
        torch.autograd.grad((found * weights).sum(), wanted), expected, strict=True
    ):
        torch.testing.assert_close(gradient, known, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("chunks_of_five")
def test_the_second_derivative_is_right_or_refused_never_wrong() -> None:
    head, states, targets, weights = _problem(torch.float64)
    direction = torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def product(losses: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad((losses * weights).sum(), states, create_graph=True)
        return torch.autograd.grad((slope * direction).sum(), states)[0]

    expected = product(_whole(head, states, targets))
    assert expected.abs().max() > 1e-3
    found = product(token_losses(head, states, targets, V, closed_form=False))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(RuntimeError, match=r"inside `Backbone\.second_order\(\)`"):
        product(token_losses(head, states, targets, V, closed_form=True))


@pytest.mark.usefixtures("chunks_of_five")
@pytest.mark.parametrize("closed_form", [True, False])
def test_no_more_logits_than_allowed_are_ever_held(closed_form: bool) -> None:
    head, states, targets, _ = _problem(torch.float32)
    most, kept = 0, 0

    def spy(part: Tensor) -> Tensor:
        nonlocal most
        logits: Tensor = head(part)
        most = max(most, logits.numel())
        return logits

    def pack(saved: Tensor) -> Tensor:
        nonlocal kept
        if saved.data_ptr() != head.weight.data_ptr():
            kept = max(kept, saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        losses = token_losses(spy, states, targets, V, closed_form=closed_form)
    losses.sum().backward()
    greedy = greedy_choice(spy, states, V)
    assert most == 5 * V
    # What waits for the backward pass has the states' size, or that of one chunk.
    assert kept <= max(N * D, 5 * V)
    assert torch.equal(greedy, head(states).argmax(-1))


@pytest.mark.parametrize("twice", [False, True])
def test_a_backbone_gives_the_same_losses_in_chunks(
    twice: bool, toy_backbone64: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also inside `second_order`, where the losses can be differentiated again."""
    examples = [Example("pab", ("x y x y" * 3,)), Example("q", ("y",)), Example("pc", ("xy" * 9,))]
    rows = toy_backbone64.encode_rows("toy", examples, TextConfig())
    batch = toy_backbone64.collate(rows, [0] * 3)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randn(1, 3, toy_backbone64.d_model, generator=generator, dtype=torch.float64)
    whole = toy_backbone64.row_losses(prompts.requires_grad_(), batch)[0]
    monkeypatch.setattr(cross_entropy, "LOGITS_AT_ONCE", 7 * toy_backbone64.vocabulary_size)
    (expected,) = torch.autograd.grad(whole.sum(), prompts)
    if twice:
        with toy_backbone64.second_order():
            found = toy_backbone64.row_losses(prompts, batch)[0]
            (slope,) = torch.autograd.grad(found.sum(), prompts, create_graph=True)
            (again,) = torch.autograd.grad(slope.square().sum(), prompts)
        assert again.abs().max() > 0
    else:
        found = toy_backbone64.row_losses(prompts, batch)[0]
        (slope,) = torch.autograd.grad(found.sum(), prompts)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-12)
