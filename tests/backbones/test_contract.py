"""What every backbone must do, whatever its architecture and wherever the prompt stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_backbones import FAMILIES, HEADS
from toys import toy_task

from mpt.backbones import Backbone, Row, load_backbone
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.prompt_tuning import TuningRun, tune
from mpt.errors import UsageError
from mpt.gym.fewshot import Example

P = 4
Make = Callable[..., Backbone]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("contract")
    return {family: save(place / family) for family, save in FAMILIES.items()}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["prepend", "append"])
def position(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(family: str, position: str, checkpoints: dict[str, Path]) -> Make:
    def made(dtype: torch.dtype = torch.float32) -> Backbone:
        return load_backbone(str(checkpoints[family]), position=position, dtype=dtype)

    return made


@pytest.fixture
def backbone(make: Make) -> Backbone:
    return make()


@pytest.fixture
def backbone64(make: Make) -> Backbone:
    return make(torch.float64)


def _rows(backbone: Backbone) -> list[Row]:
    """Rows of very different input and target lengths."""
    examples = [
        Example("pab", ("x",)),
        Example("qa cab bbcca" * 2, ("y",)),
        Example("q", ("yyxx yx",)),
        Example("pcc aa", ("x y",)),
    ]
    return backbone.encode_rows("toy", examples, TextConfig())


def _prompts(backbone: Backbone, runs: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randn(runs, P, backbone.d_model, generator=generator, dtype=torch.float64)
    return prompts.to(torch.float64 if backbone.dtype == torch.float64 else torch.float32)


def _gradient(backbone: Backbone, prompts: Tensor, rows: list[Row], runs: list[int]) -> Tensor:
    leaf = prompts.clone().requires_grad_()
    loss = backbone.run_losses(leaf, backbone.collate(rows, runs)).sum()
    return torch.autograd.grad(loss, leaf)[0]


def test_frozen_weights_stay_bit_identical_after_tuning(backbone: Backbone) -> None:
    before = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    prompts = _prompts(backbone)
    runs = [TuningRun(toy_task(), lr, prompts[0]) for lr in (0.5, 0.2)]
    config = DownstreamConfig(steps=3, eval_every=2, max_generated=4, dropout=0.1)
    results = tune(backbone, runs, config, TextConfig(), 1)
    assert not torch.equal(results[0].prompt, prompts[0])
    for name, weight in backbone.model.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_only_the_prompt_gets_a_gradient(backbone: Backbone) -> None:
    prompts = _prompts(backbone).requires_grad_()
    backbone.run_losses(prompts, backbone.collate(_rows(backbone), [0, 1, 0, 1])).sum().backward()
    assert prompts.grad is not None
    assert bool((prompts.grad.abs().sum(2) > 0).all()), "a prompt token has no effect"
    assert all(weight.grad is None for weight in backbone.model.parameters())


def test_the_training_path_gives_an_output_the_probability_that_generation_gave_it(
    backbone64: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, rows, runs = _prompts(backbone64), _rows(backbone64), [0, 1, 0, 1]
    chosen: list[Tensor] = []
    head = backbone64.head

    def spy(states: Tensor) -> Tensor:
        chosen.append(head(states).log_softmax(-1).max(-1).values)
        return head(states)

    with monkeypatch.context() as patch:
        patch.setattr(backbone64, "head", spy)
        outputs = backbone64.generate_ids(prompts, backbone64.collate(rows, runs), 6)
    again = backbone64.collate(
        [(row[0], output) for row, output in zip(rows, outputs, strict=True)], runs
    )
    # With a gradient asked for, GPT-2 takes its cached path; without, the plain one.
    for asked in (False, True):
        nll, tokens = backbone64.row_losses(prompts.requires_grad_(asked), again)
        for place, count in enumerate(tokens.tolist()):
            expected = -torch.stack(chosen, 1)[place, :count].sum()
            torch.testing.assert_close(nll[place], expected, rtol=1e-11, atol=1e-12)


def test_another_prompt_changes_loss_and_output(backbone: Backbone) -> None:
    prompts, row = _prompts(backbone, 12), _rows(backbone)[1]
    batch = backbone.collate([row] * 12, list(range(12)))
    losses = backbone.row_losses(prompts, batch)[0]
    assert losses.unique().numel() == 12
    assert len({tuple(ids) for ids in backbone.generate_ids(prompts, batch, 6)}) > 1


# Padding adds exact zeros after the softmax; only the order of sums differs. T5's norms are
# float64 in a float64 model (see `T5`), so their float32 variance does not bound this.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_a_row_alone_equals_the_row_in_a_padded_batch(
    make: Make, dtype: torch.dtype, tolerance: float
) -> None:
    backbone = make(dtype)
    rows, runs = _rows(backbone), [0, 1, 1, 0]
    for asked in (False, True):
        prompts = _prompts(backbone).requires_grad_(asked)
        together, tokens = backbone.row_losses(prompts, backbone.collate(rows, runs))
        for place, run in enumerate(runs):
            alone = backbone.row_losses(prompts, backbone.collate([rows[place]], [run]))[0]
            torch.testing.assert_close(
                together[place] / tokens[place],
                alone[0] / tokens[place],
                rtol=tolerance,
                atol=tolerance,
            )


def test_packed_losses_gradients_and_outputs_equal_separate_ones(backbone64: Backbone) -> None:
    prompts, rows, runs = _prompts(backbone64), _rows(backbone64), [0, 1, 1, 0]
    packed = _gradient(backbone64, prompts, rows, runs)
    outputs = backbone64.generate_ids(prompts, backbone64.collate(rows, runs), 6)
    for run in (0, 1):
        own = [row for row, owner in zip(rows, runs, strict=True) if owner == run]
        alone = _gradient(backbone64, prompts[run : run + 1], own, [0] * len(own))
        torch.testing.assert_close(packed[run], alone[0], rtol=1e-10, atol=1e-12)
        written = backbone64.generate_ids(
            prompts[run : run + 1], backbone64.collate(own, [0] * len(own)), 6
        )
        assert written == [out for out, owner in zip(outputs, runs, strict=True) if owner == run]


def test_a_prompt_of_word_embeddings_reads_like_the_words(backbone64: Backbone) -> None:
    """The model's own input_ids path and ours agree: scale and place of the prompt are right."""
    words, target = _rows(backbone64)[0]
    soft = backbone64.word_ids("qrst")
    scale = getattr(backbone64._words, "embed_scale", 1.0)
    prompt = backbone64._words.weight.detach()[soft] * scale
    nll, _ = backbone64.row_losses(prompt[None], backbone64.collate([(words, target)], [0]))
    torch.testing.assert_close(prompt.float(), backbone64.embeddings()[soft])
    text = [*soft, *words] if backbone64.position == "prepend" else [*words, *soft]
    model = backbone64.model
    if hasattr(backbone64, "_prefix"):
        given = [*backbone64._prefix, *target[:-1]]
        logits = model(
            input_ids=torch.tensor([text]), decoder_input_ids=torch.tensor([given])
        ).logits[0, len(given) - len(target) :]
    else:
        logits = model(input_ids=torch.tensor([[*text, *target[:-1]]])).logits[0, len(text) - 1 :]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")
    torch.testing.assert_close(nll[0], expected, rtol=1e-11, atol=1e-12)


def test_greedy_matches_are_exactly_the_rows_that_generation_gets_right(
    backbone64: Backbone,
) -> None:
    prompts, rows = _prompts(backbone64), _rows(backbone64)
    outputs = backbone64.generate_ids(prompts, backbone64.collate(rows, [0, 1, 0, 1]), 6)
    right = [(row[0], output) for row, output in zip(rows, outputs, strict=True)]
    wrong = [(ids, [*output[:-1], (output[-1] + 1) % 200]) for ids, output in right]
    assert backbone64.greedy_matches(prompts, backbone64.collate(right, [0, 1, 0, 1])).all()
    assert not backbone64.greedy_matches(prompts, backbone64.collate(wrong, [0, 1, 0, 1])).any()


def test_gradients_can_be_differentiated_again_where_asked(backbone64: Backbone) -> None:
    """H·v by double backward against the central difference of the gradient."""
    rows, prompts = _rows(backbone64), _prompts(backbone64, 1)
    direction = _prompts(backbone64, 1, seed=9)
    direction /= direction.norm()
    leaf = prompts.clone().requires_grad_()
    with backbone64.second_order():
        loss = backbone64.run_losses(leaf, backbone64.collate(rows, [0] * 4))[0]
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
        exact = torch.autograd.grad((slope * direction).sum(), leaf)[0]
    step = 1e-5
    up, down = (
        _gradient(backbone64, prompts + s * direction, rows, [0] * 4) for s in (step, -step)
    )
    # Error of the difference: step² ≈ 1e-10 and rounding 1e-16/1e-5 ≈ 1e-11, of entries near 1.
    torch.testing.assert_close(exact, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_on_a_bfloat16_model_prompts_and_gradients_stay_float32(make: Make) -> None:
    backbone = make(torch.bfloat16)
    task = toy_task()
    config = DownstreamConfig(steps=2, eval_every=2, max_generated=4)
    prompt = _prompts(backbone)[0]
    (result,) = tune(backbone, [TuningRun(task, 0.3, prompt)], config, TextConfig(), 1)
    gradient = _gradient(backbone, prompt[None], _rows(backbone), [0] * 4)
    assert backbone.dtype == torch.bfloat16
    assert result.status == "ok"
    assert result.prompt.dtype == gradient.dtype == torch.float32
    assert bool(gradient.isfinite().all())
    # A float32 master keeps what bfloat16 could not hold.
    assert not torch.equal(result.prompt, result.prompt.bfloat16().float())


def test_embeddings_of_an_untied_checkpoint_survive_loading(family: str, tmp_path: Path) -> None:
    saved = load_file(FAMILIES[family](tmp_path, tied=False) / "model.safetensors")
    words, head = (saved[name] for name in HEADS[family])
    assert not torch.equal(words, head)
    backbone = load_backbone(str(tmp_path))
    assert torch.equal(backbone.model.get_parameter(HEADS[family][0]), words)
    assert torch.equal(backbone.model.get_parameter(HEADS[family][1]), head)
    ids = torch.tensor([5, 6])
    scale = getattr(backbone._words, "embed_scale", 1.0)
    assert torch.equal(backbone._words(ids), words[ids] * scale)


def test_dropout_is_drawn_from_its_seed_and_leaves_no_trace(backbone: Backbone) -> None:
    prompts = _prompts(backbone).requires_grad_()
    batch = backbone.collate(_rows(backbone), [0, 1, 0, 1])

    def losses(rate: float, seed: int) -> list[float]:
        with backbone.dropout(rate, seed):
            found: list[float] = backbone.row_losses(prompts, batch)[0].tolist()
        return found

    plain = losses(0.0, 1)
    assert losses(0.3, 1) == losses(0.3, 1) != losses(0.3, 2)
    assert losses(0.0, 1) == plain == backbone.row_losses(prompts, batch)[0].tolist()


def test_too_long_a_line_is_refused_where_positions_are_learned(
    family: str, backbone: Backbone
) -> None:
    long = [([5] * 70, [6, 1])]
    if family == "t5":
        assert backbone.row_losses(_prompts(backbone), backbone.collate(long, [0]))[0].isfinite()
    else:
        with pytest.raises(UsageError, match=r"backbone .* has 64 positions; shorten the prompt"):
            backbone.row_losses(_prompts(backbone), backbone.collate(long, [0]))
