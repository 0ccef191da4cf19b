"""Outputs that go on from a teacher-forced pass are those that are generated from nothing."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor
from toys import byte_tokenizer, toy_task

from mpt.backbones import Backbone, Batch, Row, check
from mpt.backbones.check import _losses, settle_cache
from mpt.backbones.decoder_only import DecoderOnly
from mpt.backbones.families import family_of
from mpt.backbones.generation import BatchRead, Begun
from mpt.config import DownstreamConfig, TextConfig
from mpt.downstream.evaluation import Evaluator

P, WRITTEN = 3, 8
INPUTS = ([30] * 12, [60, 70], [90] * 5, [33, 44, 55], [35])
RUNS = (0, 2, 1, 0, 2)
KNOWN = (2, 0, 1, 3, 0)
"""Tokens of each row's target that the model writes of itself, if it writes more."""
PLACES_COUNTED = ("bloom", "mpt", "mistral-window", "gemma2-capped")
"""ALiBi without positions, or a window: rows may have no gap there."""


def _model(name: str, position: str, seed: int = 0) -> Backbone:
    model = tiny_models.build(name, seed=seed)
    backbone = family_of("tiny", model.config)("tiny", model, byte_tokenizer(), position)
    settle_cache(backbone)
    return backbone


def _prompts(backbone: Backbone) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return backbone.embeddings()[torch.randint(3, 200, (3, P), generator=generator)]


def _batch(backbone: Backbone, rows: list[Row]) -> Batch:
    return backbone.collate(rows, RUNS, [14] * 5 if backbone.padding_matters else None)


def _written(backbone: Backbone, prompts: Tensor) -> list[list[int]]:
    """Return every row's greedy output, each alone: 9 tokens, or as many as it has."""
    outputs = []
    for ids, run in zip(INPUTS, RUNS, strict=True):
        widths = [14] if backbone.padding_matters else None
        batch = backbone.collate([(ids, [1])], [run], widths)
        outputs += backbone.generate_ids(prompts, batch, WRITTEN + 1)
    return outputs


def _known(outputs: list[list[int]]) -> list[int]:
    return [max(0, min(n, len(output) - 2)) for n, output in zip(KNOWN, outputs, strict=True)]


def _begun(backbone: Backbone, prompts: Tensor, outputs: list[list[int]]) -> list[Begun] | None:
    """Return the rows after a pass with targets that the outputs leave after some tokens."""
    rows: list[Row] = []
    beginnings = _known(outputs)
    for ids, known, output in zip(INPUTS, beginnings, outputs, strict=True):
        other = 40 if output[known] != 40 else 41
        rows.append((ids, [*output[:known], other, 42, 1]))
    batch = _batch(backbone, rows)
    tokens, read = backbone.greedy_pass(prompts, batch, WRITTEN)
    assert torch.equal(tokens, backbone.greedy_tokens(prompts, batch))
    for own, known, output in zip(tokens.tolist(), beginnings, outputs, strict=True):
        assert own[: known + 1] == output[: known + 1]
    if read is None:
        return None
    return [read.row(n, output[: beginnings[n] + 1]) for n, output in enumerate(outputs)]


@pytest.mark.parametrize(
    ("position", "kept"),
    [
        ("prepend", True),
        ("append", False),
        pytest.param("prepend", False, marks=pytest.mark.slow),
        pytest.param("append", True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", tiny_models.CAUSAL)
def test_a_causal_model_goes_on_from_keys_and_values(name: str, position: str, kept: bool) -> None:
    backbone = _model(name, position)
    prompts = _prompts(backbone)
    outputs = _written(backbone, prompts)
    assert sum(map(len, outputs)) > 5 * 4
    with backbone.fixed(prompts if kept else prompts.clone()):
        begun = _begun(backbone, prompts, outputs)
    if name in PLACES_COUNTED:
        assert begun is None
        return
    assert begun is not None
    lines = [P + len(ids) + known for ids, known in zip(INPUTS, _known(outputs), strict=True)]
    assert [len(row.mask) for row in begun] == lines
    assert [row.memory.shape[3] for row in begun] == lines
    _check_continued(backbone, begun, outputs)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "gemma", "cohere", "opt"])
def test_whole_rows_without_a_prompt_go_on_too(name: str, trained: bool) -> None:
    """As in fine-tuning and zero-shot. Few tokens of tiny models change when a key does, so the
    losses of what comes next are compared."""
    frozen = _model(name, "prepend")
    backbone = frozen.trainable_copy() if trained else frozen
    none, batch = (
        _prompts(backbone)[:, :0],
        _batch(backbone, [(i, [40, 50, 60, 1]) for i in INPUTS]),
    )
    with torch.no_grad():
        expected = _losses(backbone, none, batch)
        continued = check._continued(backbone, none, batch)
        torch.testing.assert_close(continued, expected.double(), rtol=1e-5, atol=1e-5)
        _, read = backbone.read_targets(none, batch, 4)
        assert read is not None
        row = read.row(0, [40, 50])
        spoilt = Begun(row.written, row.memory.roll(1, 4), row.mask)
        states = [
            backbone.head(backbone.resume_decoding([one]).next_states(None))
            for one in (row, spoilt)
        ]
        assert (states[0] - states[1]).abs().max() > 1e-3  # the comparison would see it


@pytest.mark.parametrize("position", ["prepend", "append", "append_padded"])
@pytest.mark.parametrize("name", tiny_models.SEQ2SEQ)
def test_an_encoder_is_not_run_again(
    name: str, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone: Any = _model(name, position)
    prompts = _prompts(backbone)
    outputs = _written(backbone, prompts)
    begun = _begun(backbone, prompts, outputs)
    assert begun is not None
    monkeypatch.setattr(backbone, "_encode", None)
    _check_continued(backbone, begun, outputs)


def _check_continued(backbone: Backbone, begun: list[Begun], outputs: list[list[int]]) -> None:
    for limit in (WRITTEN, 4):
        ended = [output == [1] for output in outputs]  # nobody would go on with these
        continued = backbone.continue_ids(begun, limit)
        for own, output, skipped in zip(continued, outputs, ended, strict=True):
            assert skipped or own == output[:limit]
        assert not all(ended)


def test_nothing_goes_on_where_there_may_be_no_positions() -> None:
    """All rows take the steps of the shortest beginning, also those that need fewer."""
    backbone = _model("gpt2", "prepend")
    prompts, batch = _prompts(backbone), _batch(backbone, [(ids, [40, 1]) for ids in INPUTS])
    most = 64 - P - 12 - 2
    assert backbone.greedy_pass(prompts, batch, most)[1] is not None
    assert backbone.greedy_pass(prompts, batch, most + 1)[1] is None
    assert backbone.greedy_pass(prompts, batch)[1] is None  # nothing is to be written


@pytest.mark.parametrize("position", ["prepend", "append"])
def test_a_model_whose_rows_do_not_go_on_exactly_does_not(position: str) -> None:
    """`settle_cache` finds out: these keys and values are out of order."""
    backbone = _model("llama-grouped", position)
    assert isinstance(backbone, DecoderOnly)
    assert backbone.input_cache is not None
    plain = backbone._targets_read

    class Wrong(BatchRead):
        def __init__(self, read: BatchRead):
            self._read = read

        def row(self, index: int, written: list[int]) -> Begun:
            row = self._read.row(index, written)
            return Begun(row.written, row.memory.roll(1, 4), row.mask)

    def read(prompts: Tensor, batch: Batch, keep: bool) -> Any:
        states, whole = plain(prompts, batch, keep)
        return states, None if whole is None else Wrong(whole)

    backbone._targets_read = read  # type: ignore[method-assign]
    settle_cache(backbone)
    assert backbone.input_cache is None


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "bloom", "t5"])
@pytest.mark.parametrize("max_tokens", [40, 4000])
def test_an_evaluation_reads_no_input_twice(
    name: str, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun is written on whenever it is as large as a pass; scores stay the same."""
    backbone = _model(name, "prepend", seed=1)
    task = toy_task(labels=("x", "y"), metric="Rouge-L", test=12)
    prompts = _prompts(backbone)
    config = DownstreamConfig(max_generated=6)
    evaluator = Evaluator(backbone, [task], "test", config, TextConfig(), max_tokens)
    rows: dict[str, list[int]] = {"continue_ids": [], "generate_ids": []}
    for method, sizes in rows.items():
        _count(monkeypatch, backbone, method, sizes)
    scores = evaluator.scores(prompts, [0, 0, 0])
    again, unused = ("generate_ids", "continue_ids")[:: 1 if name == "bloom" else -1]
    assert not rows[unused]
    assert (len(rows[again]) > 1) == (max_tokens == 40)
    monkeypatch.setattr(backbone, "read_targets", _nothing_kept(backbone))
    assert evaluator.scores(prompts, [0, 0, 0]) == scores
    assert sum(rows["generate_ids"]) > 0


def _count(
    monkeypatch: pytest.MonkeyPatch, backbone: Backbone, method: str, sizes: list[int]
) -> None:
    plain = getattr(backbone, method)

    def counted(*given: Any) -> Any:
        written = plain(*given)
        sizes.append(len(written))
        return written

    monkeypatch.setattr(backbone, method, counted)


def _nothing_kept(backbone: Backbone) -> Any:
    return lambda prompts, batch, _: (backbone.target_states(prompts, batch), None)


def test_what_was_begun_is_written_on_in_full_passes() -> None:
    """A row that no pass would hold any more waits for the next one."""
    backbone = _model("gpt2", "prepend", seed=1)
    task = toy_task(labels=("x", "y"), metric="Rouge-L", test=40)
    evaluator = Evaluator(
        backbone, [task], "test", DownstreamConfig(max_generated=6), TextConfig(), 200
    )
    begun: list[tuple[int, int]] = []
    plain = backbone.continue_ids

    def spy(rows: Any, limit: int) -> list[list[int]]:
        begun.append((len(rows), max(len(row.mask) for row in rows)))
        return plain(rows, limit)

    backbone.continue_ids = spy  # type: ignore[method-assign, assignment]
    evaluator.scores(_prompts(backbone), [0, 0, 0])
    assert sum(rows for rows, _ in begun) > 20
    assert all(rows * longest <= 200 for rows, longest in begun)
    assert all((rows + 1) * longest > 200 for rows, longest in begun[:-1])


def test_memory_that_runs_out_is_first_freed_of_what_was_begun() -> None:
    """Then the same pass is tried again, and the limit stays."""
    backbone = _model("gpt2", "prepend", seed=1)
    task = toy_task(labels=("x", "y"), metric="Rouge-L", test=40)
    evaluator = Evaluator(
        backbone, [task], "test", DownstreamConfig(max_generated=6), TextConfig(), 200
    )
    expected = evaluator.scores(_prompts(backbone), [0, 0, 0])
    held: list[int] = [0]
    failures: list[int] = []
    passes, rest = backbone.greedy_pass, backbone.continue_ids

    def reading(prompts: Tensor, batch: Batch, limit: int) -> Any:
        if held[0]:
            failures.append(held[0])
            raise MemoryError
        tokens, read = passes(prompts, batch, limit)
        held[0] += 1
        return tokens, read

    def writing(rows: Any, limit: int) -> list[list[int]]:
        held[0] = 0
        return rest(rows, limit)

    backbone.greedy_pass = reading  # type: ignore[method-assign, assignment]
    backbone.continue_ids = writing  # type: ignore[method-assign, assignment]
    assert evaluator.scores(_prompts(backbone), [0, 0, 0]) == expected
    assert failures
    assert evaluator.max_tokens == 200
