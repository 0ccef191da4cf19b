from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM

from mpt.backbones import Backbone, Row, load_backbone
from mpt.backbones.encoder_decoder import T5
from mpt.config import TextConfig
from mpt.gym.fewshot import Example

P = 4
POSITIONS = ("prepend", "append")


@pytest.fixture(scope="module")
def backbones(toy_checkpoint: Path) -> dict[tuple[str, torch.dtype], Backbone]:
    return {
        (position, dtype): load_backbone(str(toy_checkpoint), position=position, dtype=dtype)
        for position in POSITIONS
        for dtype in (torch.float32, torch.float64)
    }


@pytest.fixture(scope="module")
def rows(toy_backbone: Backbone) -> list[Row]:
    """Rows of very different input and target lengths."""
    examples = [
        Example("pab", ("x",)),
        Example("qa cab bbcca" * 3, ("y",)),
        Example("q", ("yyxx yx",)),
        Example("pcc aa", ("x y",)),
    ]
    return toy_backbone.encode_rows("toy", examples, TextConfig())


def _prompts(backbone: Backbone, runs: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(runs, P, backbone.d_model, generator=generator, dtype=torch.float64).to(
        backbone.dtype
    )


# Padding adds exact zeros after the softmax, so only the order of sums differs. The toy's logits
# reach 30, which float32 holds to 2e-6, so the mean over tokens is compared to 1e-6 of its size or
# of 1, whichever is larger.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("position", POSITIONS)
def test_a_rows_loss_does_not_depend_on_its_batch(
    position: str,
    dtype: torch.dtype,
    tolerance: float,
    backbones: dict[tuple[str, torch.dtype], Backbone],
    rows: list[Row],
) -> None:
    backbone = backbones[position, dtype]
    prompts = _prompts(backbone)
    runs = [0, 1, 1, 0]
    together, _ = backbone.row_losses(prompts, backbone.collate(rows, runs))
    for place, run in enumerate(runs):
        alone, tokens = backbone.row_losses(prompts, backbone.collate([rows[place]], [run]))
        assert tokens.item() == len(rows[place][1])
        torch.testing.assert_close(
            together[place] / tokens[0], alone[0] / tokens[0], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("position", POSITIONS)
def test_a_rows_gradient_does_not_depend_on_its_batch(
    position: str, backbones: dict[tuple[str, torch.dtype], Backbone], rows: list[Row]
) -> None:
    backbone = backbones[position, torch.float64]
    prompts = _prompts(backbone, 1).requires_grad_()
    nll, _ = backbone.row_losses(prompts, backbone.collate(rows, [0] * 4))
    (together,) = torch.autograd.grad(nll[0], prompts)
    nll, _ = backbone.row_losses(prompts, backbone.collate(rows[:1], [0]))
    (alone,) = torch.autograd.grad(nll[0], prompts)
    torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_prompt_stands_where_the_layout_says(
    position: str, backbones: dict[tuple[str, torch.dtype], Backbone], rows: list[Row]
) -> None:
    """A prompt of word embeddings gives the loss of the same words in Hugging Face's own model."""
    backbone = backbones[position, torch.float32]
    words, target = rows[0]
    soft = backbone.word_ids("qrst")
    prompt = backbone.embeddings()[soft]
    nll, tokens = backbone.row_losses(prompt[None], backbone.collate(rows, [0] * 4))
    text = [*soft, *words] if position == "prepend" else [*words, *soft]
    model = AutoModelForSeq2SeqLM.from_pretrained(backbone.name).eval()
    loss = model(input_ids=torch.tensor([text]), labels=torch.tensor([target])).loss
    # Two float32 implementations of the same GELU and cross-entropy.
    torch.testing.assert_close(nll[0] / tokens[0], loss.detach(), rtol=1e-5, atol=0)


def test_float64_agrees_with_float32_to_float32s_precision(
    backbones: dict[tuple[str, torch.dtype], Backbone], rows: list[Row]
) -> None:
    single, double = (backbones["prepend", dtype] for dtype in (torch.float32, torch.float64))
    batch = single.collate(rows, [0, 1, 0, 1])
    expected = double.row_losses(_prompts(double), batch)[0]
    found = single.row_losses(_prompts(single), batch)[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_the_loss_of_a_run_is_the_token_mean_of_its_own_rows(
    toy_backbone: Backbone, rows: list[Row]
) -> None:
    prompts = _prompts(toy_backbone, 3)
    batch = toy_backbone.collate(rows, [0, 2, 2, 0])
    nll, tokens = toy_backbone.row_losses(prompts, batch)
    losses = toy_backbone.run_losses(prompts, batch)
    torch.testing.assert_close(losses[2], (nll[1] + nll[2]) / (tokens[1] + tokens[2]))
    assert losses[1] == 0


def test_only_a_rows_own_prompt_gets_its_gradient(toy_backbone: Backbone, rows: list[Row]) -> None:
    prompts = _prompts(toy_backbone, 3).requires_grad_()
    batch = toy_backbone.collate(rows, [0, 0, 2, 2])
    (gradient,) = torch.autograd.grad(toy_backbone.run_losses(prompts, batch)[0], prompts)
    assert gradient[0].abs().sum() > 0
    assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))


@pytest.mark.parametrize("position", POSITIONS)
def test_another_prompt_gives_another_output(
    position: str, backbones: dict[tuple[str, torch.dtype], Backbone], rows: list[Row]
) -> None:
    backbone = backbones[position, torch.float32]
    losses = backbone.row_losses(_prompts(backbone), backbone.collate([rows[0]] * 2, [0, 1]))[0]
    assert (losses[0] - losses[1]).abs() > 1e-3


def test_weights_stay_bit_identical_and_get_no_gradient(
    toy_backbone: Backbone, rows: list[Row]
) -> None:
    before = {name: weight.clone() for name, weight in toy_backbone.model.named_parameters()}
    prompts = _prompts(toy_backbone).requires_grad_()
    batch = toy_backbone.collate(rows, [0, 1, 0, 1])
    toy_backbone.run_losses(prompts, batch).sum().backward()
    toy_backbone.generate(prompts, batch, 4)
    assert prompts.grad is not None
    for name, weight in toy_backbone.model.named_parameters():
        assert weight.grad is None
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("position", POSITIONS)
def test_training_path_and_generation_path_give_a_sequence_the_same_probability(
    position: str, backbones: dict[tuple[str, torch.dtype], Backbone], rows: list[Row]
) -> None:
    backbone = backbones[position, torch.float64]
    prompts = _prompts(backbone)
    batch = backbone.collate(rows, [0, 1, 0, 1])
    log_probabilities: list[Tensor] = []
    head = backbone.head

    def spy(states: Tensor) -> Tensor:
        log_probabilities.append(head(states).log_softmax(-1).max(-1).values)
        return head(states)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "head", spy)
        outputs = backbone.generate_ids(prompts, batch, 6)
    generated = torch.stack(log_probabilities, 1)  # [B, new tokens]
    again = backbone.collate(
        [(row[0], output) for row, output in zip(rows, outputs, strict=True)], batch.run.tolist()
    )
    nll, tokens = backbone.row_losses(prompts, again)
    for place, count in enumerate(tokens.tolist()):
        expected = -generated[place, :count].sum()
        torch.testing.assert_close(nll[place], expected, rtol=1e-11, atol=1e-12)


def test_greedy_matches_are_exactly_the_rows_that_generation_gets_right(
    toy_backbone: Backbone, rows: list[Row]
) -> None:
    prompts = _prompts(toy_backbone, 20, seed=3)
    batch = toy_backbone.collate(rows * 20, [run for run in range(20) for _ in rows])
    outputs = toy_backbone.generate_ids(prompts, batch, 12)
    expected = [output == row[1] for output, row in zip(outputs, rows * 20, strict=True)]
    assert toy_backbone.greedy_matches(prompts, batch).tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_generation_stops_when_every_row_has_ended(
    toy_backbone: Backbone, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0
    head = toy_backbone.head

    def spy(states: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return head(states)

    monkeypatch.setattr(toy_backbone, "head", spy)
    prompts = _prompts(toy_backbone)
    outputs = toy_backbone.generate_ids(prompts, toy_backbone.collate(rows, [0, 1, 0, 1]), 50)
    assert passes == max(map(len, outputs)) < 50
    assert all(output[-1] == toy_backbone.end_id for output in outputs)


def test_generation_ends_at_the_given_length(toy_backbone: Backbone, rows: list[Row]) -> None:
    batch = toy_backbone.collate(rows, [0] * 4)
    assert all(
        len(ids) == 1 for ids in toy_backbone.generate_ids(_prompts(toy_backbone), batch, 1)
    )


def test_packed_generation_equals_generation_one_by_one(
    toy_backbone: Backbone, rows: list[Row]
) -> None:
    prompts = _prompts(toy_backbone, 2, seed=5)
    together = toy_backbone.generate(prompts, toy_backbone.collate(rows, [0, 1, 1, 0]), 8)
    alone = [
        toy_backbone.generate(prompts[run : run + 1], toy_backbone.collate([row], [0]), 8)[0]
        for row, run in zip(rows, [0, 1, 1, 0], strict=True)
    ]
    assert together == alone


def test_texts_are_cut_and_always_end_with_the_end_mark(toy_backbone: Backbone) -> None:
    whole = toy_backbone.word_ids(" [toy] pabc")
    assert toy_backbone.encode_input(" [toy] pabc", 100) == [*whole, toy_backbone.end_id]
    assert toy_backbone.encode_input(" [toy] pabc", 5) == [*whole[:4], toy_backbone.end_id]
    assert toy_backbone.encode_target("", 5) == [toy_backbone.end_id]


def test_rows_of_a_task_are_its_rendered_texts_one_by_one(toy_backbone: Backbone) -> None:
    examples = [Example("pab", ("x", "y")), Example("q" * 30, ("naïve",))]
    rows = toy_backbone.encode_rows("toy", examples, TextConfig(max_input=20, max_target=4))
    assert rows == [
        (toy_backbone.encode_input(" [toy] pab", 20), toy_backbone.encode_target(" x", 4)),
        (
            toy_backbone.encode_input(f" [toy] {'q' * 30}", 20),
            toy_backbone.encode_target(" naïve", 4),
        ),
    ]
    assert toy_backbone.encode_rows("toy", [], TextConfig()) == []


@pytest.mark.parametrize("text", ["x", "two  words", "naïve 漢字 🙂", ""])
def test_decoding_gives_back_the_text_without_outer_blanks(
    text: str, toy_backbone: Backbone
) -> None:
    ids = toy_backbone.encode_target(f" {text}", 64)
    assert toy_backbone.decode([*ids, 40, 41]) == text


def test_second_order_gradients_equal_finite_differences(
    toy_backbone64: Backbone, rows: list[Row]
) -> None:
    """H·v by double backward against the central difference of the gradient."""
    prompt = _prompts(toy_backbone64, 1).requires_grad_()
    batch = toy_backbone64.collate(rows, [0] * 4)
    direction = _prompts(toy_backbone64, 1, seed=9)
    direction /= direction.norm()

    def slope(at: Tensor, graph: bool = False) -> Tensor:
        loss = toy_backbone64.run_losses(at, batch)[0]
        return torch.autograd.grad(loss, at, create_graph=graph)[0]

    with toy_backbone64.second_order():
        exact = torch.autograd.grad((slope(prompt, graph=True) * direction).sum(), prompt)[0]
    step = 1e-5
    up, down = ((prompt.detach() + s * direction).requires_grad_() for s in (step, -step))
    difference = (slope(up) - slope(down)) / (2 * step)
    # Error of the difference: step² ≈ 1e-10 and rounding 1e-16/1e-5 ≈ 1e-11, of entries near 1.
    torch.testing.assert_close(exact, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alike", [False, True], ids=["padded", "of one length"])
@pytest.mark.parametrize("position", POSITIONS)
def test_attention_that_is_differentiated_twice_has_torchs_bits(
    position: str,
    alike: bool,
    dtype: torch.dtype,
    dropout: float,
    backbones: dict[tuple[str, torch.dtype], Backbone],
    rows: list[Row],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loss, gradient and Hessian-vector product, with and without masks."""
    backbone = backbones[position, dtype]
    if alike:  # no mask is made
        rows = [rows[1]] * 2
    batch, prompt = backbone.collate(rows, [0] * len(rows)), _prompts(backbone, 1)
    products: list[Tensor] = []
    multiply = Tensor.add_

    def add_(scores: Tensor, *arguments: Any, **named: Any) -> Tensor:
        products.append(scores)
        return torch.as_tensor(multiply(scores, *arguments, **named))

    def derivatives() -> list[Tensor]:
        leaf = prompt.clone().requires_grad_()
        with backbone.second_order(), backbone.dropout(dropout, 1):
            loss = backbone.run_losses(leaf, batch)[0]
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (product,) = torch.autograd.grad(slope, leaf, slope.detach())
        return [loss.detach(), slope.detach(), product]

    monkeypatch.setattr(Tensor, "add_", add_)
    plain = derivatives()
    config: Any = backbone.model.config
    layers = 3 * config.num_layers  # of self-attention twice, of cross-attention
    assert len(products) == (0 if dropout else layers)  # with dropout torch's own serves
    monkeypatch.setattr(T5, "second_order", Backbone.second_order)
    for own, of_torch in zip(plain, derivatives(), strict=True):
        assert torch.equal(own, of_torch)
    assert len(products) == (0 if dropout else layers)


def test_attention_is_as_before_after_second_order(toy_backbone: Backbone) -> None:
    model: Any = toy_backbone.model
    encoder = model.get_encoder().config

    def fails() -> None:
        assert encoder._attn_implementation != "sdpa"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), toy_backbone.second_order():
        fails()
    assert encoder._attn_implementation == "sdpa"


def test_without_asking_for_it_fused_attention_refuses_second_order(
    toy_backbone: Backbone, rows: list[Row]
) -> None:
    # If a later torch learns it, `second_order` can go.
    prompt = _prompts(toy_backbone, 1).requires_grad_()
    loss = toy_backbone.run_losses(prompt, toy_backbone.collate(rows, [0] * 4))[0]
    (slope,) = torch.autograd.grad(loss, prompt, create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError), match="attention"):
        torch.autograd.grad(slope.sum(), prompt)


def test_dropout_is_drawn_from_its_seed_and_leaves_no_trace(
    toy_backbone: Backbone, rows: list[Row]
) -> None:
    prompts, batch = _prompts(toy_backbone), toy_backbone.collate(rows, [0, 1, 0, 1])

    def losses(rate: float, seed: int) -> list[float]:
        with toy_backbone.dropout(rate, seed):
            found: list[float] = toy_backbone.row_losses(prompts, batch)[0].tolist()
        return found

    plain = toy_backbone.row_losses(prompts, batch)[0].tolist()
    state = torch.get_rng_state()
    assert losses(0.3, 1) == losses(0.3, 1)
    assert losses(0.3, 1) != losses(0.3, 2)
    assert losses(0.3, 1) != losses(0.1, 1)
    assert losses(0.0, 1) == plain
    assert torch.equal(torch.get_rng_state(), state)
    assert not toy_backbone.model.training
    assert toy_backbone.row_losses(prompts, batch)[0].tolist() == plain


def test_an_error_inside_dropout_leaves_no_trace_either(
    toy_backbone: Backbone, rows: list[Row]
) -> None:
    prompts, batch = _prompts(toy_backbone), toy_backbone.collate(rows, [0, 1, 0, 1])
    plain = toy_backbone.row_losses(prompts, batch)[0]
    with pytest.raises(KeyboardInterrupt), toy_backbone.dropout(0.5, 1):
        raise KeyboardInterrupt
    assert torch.equal(toy_backbone.row_losses(prompts, batch)[0], plain)


def test_a_model_is_searched_for_its_dropout_once_and_a_copy_has_its_own(
    toy_checkpoint: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(toy_checkpoint))
    prompts, walks = _prompts(backbone), list[nn.Module]()
    modules = nn.Module.modules

    def walked(model: nn.Module) -> Iterator[nn.Module]:
        walks.append(model)
        return modules(model)

    monkeypatch.setattr(nn.Module, "modules", walked)

    def losses(of: Backbone) -> list[float]:
        with of.dropout(0.3, 1), torch.no_grad():
            seen: list[float] = of.row_losses(prompts, of.collate(rows, [0, 1, 0, 1]))[0].tolist()
        return seen

    first = losses(backbone)
    assert walks == [backbone.model]
    assert losses(backbone) == first
    assert walks == [backbone.model]
    copied = backbone.trainable_copy()
    walks.clear()
    assert losses(copied) == losses(backbone) == first
    assert walks == [copied.model]


def test_prompts_stay_float32_on_a_bfloat16_model(toy_checkpoint: Path, rows: list[Row]) -> None:
    backbone = load_backbone(str(toy_checkpoint), dtype=torch.bfloat16)
    prompts = torch.randn(1, P, backbone.d_model, generator=torch.Generator().manual_seed(0))
    prompts.requires_grad_()
    loss = backbone.run_losses(prompts, backbone.collate(rows, [0] * 4))[0]
    loss.backward()
    assert loss.dtype == torch.float32
    assert prompts.grad is not None
    assert prompts.grad.dtype == torch.float32
    assert backbone.embeddings().dtype == torch.float32
