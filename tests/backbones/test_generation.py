from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_backbones import FAMILIES, save_toy_gpt2
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from mpt.backbones import Backbone, Row, load_backbone
from mpt.backbones.generation import Generation
from mpt.backbones.load import quiet

RELEASED = Generation(beams=4, repetition_penalty=2.5, length_penalty=1.0)
NEW = 8


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    place = tmp_path_factory.mktemp("generation")
    return {
        family: load_backbone(str(save(place / family)), dtype=torch.float64)
        for family, save in FAMILIES.items()
    }


def _rows(backbone: Backbone) -> list[Row]:
    texts = ["pab", "qa cab bbcca qa", "q", "pcc aa", "qqq", "abc abc abc", "x", "zz top"]
    return [(backbone.encode_input(text, 40), [backbone.end_id]) for text in texts]


def _prompts(backbone: Backbone) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    shape = (2, 3, backbone.d_model)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _reference(backbone: Any, how: Generation, run: int, row: Row) -> list[int]:
    """The output of Hugging Face's own `generate` for one row."""
    settings = GenerationConfig(
        num_beams=how.beams,
        repetition_penalty=how.repetition_penalty,
        length_penalty=how.length_penalty,
        early_stopping=how.beams > 1,
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=backbone.end_id,
        pad_token_id=backbone.end_id,
        decoder_start_token_id=0,
        bos_token_id=None,
        use_cache=True,
    )
    batch = backbone.collate([row], [run])
    prompts = _prompts(backbone)
    if backbone.model.config.is_encoder_decoder:
        states, mask = backbone._encode(prompts, batch)
        options = {"encoder_outputs": BaseModelOutput(states), "attention_mask": mask}
    else:
        embedded = torch.cat([prompts[run][None], backbone._words(batch.input_ids)], 1)
        options = {
            "inputs_embeds": embedded,
            "attention_mask": torch.ones(embedded.shape[:2], dtype=torch.long),
        }
    with quiet(), torch.no_grad():
        found = backbone.model.generate(**options, generation_config=settings)[0].tolist()
    found = found[1:] if backbone.model.config.is_encoder_decoder else found
    return found[: found.index(backbone.end_id) + 1] if backbone.end_id in found else found


# Transformers announces for GPT-2 what holds here everywhere: only new tokens are penalised.
@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`:UserWarning")
# BART is left out: Hugging Face also penalises what its decoder was given, the start token "</s>"
# among it, and so hinders every output from ending.
@pytest.mark.parametrize("family", ["t5", "gpt2"])
@pytest.mark.parametrize(
    "how",
    [
        Generation(),
        Generation(repetition_penalty=2.5),
        Generation(beams=3),
        Generation(beams=2, length_penalty=0.2),
        RELEASED,
    ],
)
def test_outputs_are_those_of_hugging_face(
    family: str, how: Generation, backbones: dict[str, Backbone]
) -> None:
    backbone = backbones[family]
    rows = _rows(backbone)[:4]
    runs = [0, 1, 0, 1]
    found = backbone.generate_ids(_prompts(backbone), backbone.collate(rows, runs), NEW, how)
    expected = [_reference(backbone, how, run, row) for run, row in zip(runs, rows, strict=True)]
    assert found == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_beam_search_does_not_depend_on_the_batch(
    family: str, backbones: dict[str, Backbone]
) -> None:
    backbone = backbones[family]
    rows, runs = _rows(backbone), [0, 1] * 4
    prompts = _prompts(backbone)
    together = backbone.generate_ids(prompts, backbone.collate(rows, runs), NEW, RELEASED)
    alone = [
        backbone.generate_ids(prompts, backbone.collate([row], [run]), NEW, RELEASED)[0]
        for row, run in zip(rows, runs, strict=True)
    ]
    assert together == alone
    assert together != backbone.generate_ids(prompts, backbone.collate(rows, runs), NEW)


def test_a_repetition_penalty_hinders_repetition(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["gpt2"]
    batch = backbone.collate(_rows(backbone), [0, 1] * 4)
    strict = Generation(repetition_penalty=1e6)
    for ids in backbone.generate_ids(_prompts(backbone), batch, NEW, strict):
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_more_beams_find_outputs_at_least_as_probable(
    family: str, backbones: dict[str, Backbone]
) -> None:
    """With the whole tree in the beam, the best output of two tokens is really the best."""
    backbone = backbones[family]
    row, prompts = _rows(backbone)[0], _prompts(backbone)
    how = Generation(beams=backbone.vocabulary_size, length_penalty=0.0)
    (found,) = backbone.generate_ids(prompts, backbone.collate([row], [0]), 2, how)
    end, size = backbone.end_id, backbone.vocabulary_size
    first = backbone.collate([(row[0], [token]) for token in range(size)], [0] * size)
    nll = backbone.row_losses(prompts, first)[0]
    candidates: list[tuple[float, list[int]]] = [(float(nll[end]), [end])]
    for token in nll.argsort()[:5].tolist():
        pairs = [(row[0], [token, second]) for second in range(size)]
        if token != end:
            second = backbone.row_losses(prompts, backbone.collate(pairs, [0] * size))[0]
            candidates.append((float(second.min()), [token, int(second.argmin())]))
    assert found == min(candidates)[1]


def test_a_bare_prompt_can_be_continued(tmp_path: Path) -> None:
    backbone = load_backbone(str(save_toy_gpt2(tmp_path)))
    row = (backbone.encode_input("", 1), [backbone.end_id])
    assert row[0] == backbone.word_ids("\n")
    batch = backbone.collate([row], [0])
    assert len(backbone.generate_ids(_prompts(backbone)[:1].float(), batch, 3)[0]) >= 1
