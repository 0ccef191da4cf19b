from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_backbones import save_toy_bart

from mpt.backbones import load_backbone
from mpt.errors import DataError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_toy_bart(tmp_path)


def test_the_decoder_starts_with_the_configured_token_and_the_begin_mark(checkpoint: Path) -> None:
    """Hugging Face's own shift of ``<s> target </s>``, without the loss on ``<s>``."""
    backbone: Any = load_backbone(str(checkpoint), dtype=torch.float64)
    begin, end = backbone.model.config.bos_token_id, backbone.end_id
    words, target = backbone.encode_input("abc", 9), backbone.encode_target("xy", 9)
    assert words == [begin, *backbone.word_ids("abc"), end]
    labels = torch.tensor([[begin, *target]])
    logits = backbone.model(input_ids=torch.tensor([words]), labels=labels).logits[0, 1:]
    expected = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
    none = torch.zeros(1, 0, backbone.d_model, dtype=torch.float64)
    found = backbone.row_losses(none, backbone.collate([(words, target)], [0]))[0][0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", [None, 10**6])
def test_a_missing_or_impossible_start_token_is_refused(
    start: int | None, checkpoint: Path
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"decoder_start_token_id": start}))
    with pytest.raises(DataError, match=rf"decoder_start_token_id is {start}, but its config"):
        load_backbone(str(checkpoint))
