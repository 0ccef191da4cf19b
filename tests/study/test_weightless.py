"""Digests made from files alone: the same as those of loaded weights, for every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_backbones import FAMILIES
from transformers import AutoModelForSeq2SeqLM

from mpt.backbones import load_backbone
from mpt.config import EMBEDDED_BACKBONES
from mpt.study.weightless import weightless

FORMATS = (torch.float32, torch.bfloat16, torch.float64)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_digest_is_that_of_the_loaded_weights_in_every_format(
    family: str, tied: bool, tmp_path: Path
) -> None:
    name = str(FAMILIES[family](tmp_path, tied=tied))
    digests = set()
    for dtype in FORMATS:
        loaded, known = (
            load_backbone(name, dtype=dtype, check=False),
            weightless(name, dtype, "append"),
        )
        assert known is not None
        assert known.digest == loaded.digest
        assert (known.dtype, known.d_model) == (loaded.dtype, loaded.d_model)
        digests.add(known.digest)
    assert len(digests) == len(FORMATS)


@pytest.mark.parametrize("name", EMBEDDED_BACKBONES)
def test_packaged_weights_have_it_too(name: str) -> None:
    known = weightless(name, torch.float32, "prepend")
    assert known is not None
    assert known.digest == load_backbone(name).digest


def test_shards_and_pickled_files_have_the_digest_of_one_file(
    toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    model = AutoModelForSeq2SeqLM.from_pretrained(toy_checkpoint)
    shards, bins = tmp_path / "shards", tmp_path / "bins"
    model.save_pretrained(shards, max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    bins.mkdir()
    torch.save(load_file(toy_checkpoint / "model.safetensors"), bins / "pytorch_model.bin")
    expected = load_backbone(str(toy_checkpoint), check=False).digest
    for folder in (shards, bins):
        for file in toy_checkpoint.glob("*.json"):
            if not (folder / file.name).exists():
                (folder / file.name).write_bytes(file.read_bytes())
        known = weightless(str(folder), torch.float32, "prepend")
        assert known is not None
        assert known.digest == expected


def test_nothing_can_be_computed_with_it(toy_checkpoint: Path) -> None:
    known = weightless(str(toy_checkpoint), torch.float32, "prepend")
    assert known is not None
    assert known.device == torch.device("meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        known.run_losses(torch.zeros(1, 2, known.d_model), known.collate([([5], [6])], [0])).item()


def test_weights_under_other_names_are_not_told(toy_checkpoint: Path, tmp_path: Path) -> None:
    for file in toy_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["head.weight"] = weights.pop("lm_head.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    told = weightless(str(tmp_path), torch.float32, "prepend")
    untied = load_backbone(str(toy_checkpoint), check=False).digest
    # an untied head is not to be taken for a tied one
    assert told is None or told.digest != untied


def test_weights_of_the_hub_that_were_not_fetched_are_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert weightless("nobody/nothing", torch.float32, "prepend") is None
