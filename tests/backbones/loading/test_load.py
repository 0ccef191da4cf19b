from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import save_toy_t5

from mpt.backbones import Backbone, load_backbone
from mpt.backbones.load import packaged
from mpt.config import EMBEDDED_BACKBONES
from mpt.errors import DataError, UsageError


@pytest.fixture
def copy(toy_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(toy_checkpoint, tmp_path / "copy"))


def _edit_config(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def test_every_weight_is_frozen_and_the_model_evaluates(toy_backbone: Backbone) -> None:
    assert not any(weight.requires_grad for weight in toy_backbone.model.parameters())
    assert not toy_backbone.model.training


def test_a_weight_that_was_set_free_is_noticed(copy: Path) -> None:
    backbone = load_backbone(str(copy))
    next(iter(backbone.model.parameters())).requires_grad_(True)
    with pytest.raises(UsageError, match="is not frozen"):
        backbone.check_frozen()


def test_untied_embeddings_survive_loading(toy_checkpoint: Path, toy_backbone: Backbone) -> None:
    saved = load_file(toy_checkpoint / "model.safetensors")
    model = toy_backbone.model
    assert torch.equal(model.get_parameter("shared.weight"), saved["shared.weight"])
    assert torch.equal(model.get_parameter("lm_head.weight"), saved["lm_head.weight"])
    assert not torch.equal(saved["lm_head.weight"], saved["shared.weight"])


def test_an_untied_checkpoint_without_its_head_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="output head came out tied to the embeddings"):
        load_backbone(str(copy))


def test_a_config_as_the_hub_has_it_is_read_as_untied(copy: Path, toy_backbone: Backbone) -> None:
    # Hub checkpoints say tie_word_embeddings=false; what transformers 5 saves says it otherwise.
    config = json.loads((copy / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    states = torch.randn(3, toy_backbone.d_model, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_backbone(str(copy)).head(states), toy_backbone.head(states))


def test_a_tied_checkpoint_loads_and_scales_its_output(tmp_path: Path) -> None:
    backbone = load_backbone(str(save_toy_t5(tmp_path / "tied", tied=True)))
    states = torch.randn(3, backbone.d_model, generator=torch.Generator().manual_seed(0))
    # T5 1.0 divides the states by √d before its tied head.
    expected = states @ backbone.embeddings().T / backbone.d_model**0.5
    torch.testing.assert_close(backbone.head(states), expected, rtol=1e-5, atol=1e-5)


def test_the_digest_follows_the_content_not_the_place(copy: Path, toy_backbone: Backbone) -> None:
    assert load_backbone(str(copy)).digest == toy_backbone.digest


@pytest.mark.parametrize("part", ["weights", "config", "tokenizer", "dtype"])
def test_the_digest_changes_with_every_part(part: str, copy: Path, toy_backbone: Backbone) -> None:
    dtype = torch.float32
    if part == "weights":
        weights = load_file(copy / "model.safetensors")
        weights["shared.weight"][4, 2] += 1e-3
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    elif part == "config":
        _edit_config(copy, relative_attention_max_distance=64)
    elif part == "tokenizer":
        text = (copy / "tokenizer.json").read_text()
        assert '"add_prefix_space": false' in text
        (copy / "tokenizer.json").write_text(
            text.replace('"add_prefix_space": false', '"add_prefix_space": true', 1)
        )
    else:
        dtype = torch.bfloat16
    assert load_backbone(str(copy), dtype=dtype).digest != toy_backbone.digest


def test_a_name_that_is_neither_here_nor_cached_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"backbone no-one/nothing: no such path.*nor.*Hub") as e:
        load_backbone("no-one/nothing")
    with pytest.raises(UsageError, match="; the nearest known name is google/t5-large-lm-adapt:"):
        load_backbone("google/t5-large-lm-adpt")
    assert "\n" not in str(e.value)
    assert e.value.__cause__ is None


@pytest.mark.parametrize("name", ["/no/where", "./nowhere", "~/nowhere/at/all", "a/b/c"])
def test_an_absent_path_is_not_looked_for_on_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mpt.backbones.load.read_pretrained", lambda *_, **__: pytest.fail("asked the Hub")
    )
    with pytest.raises(UsageError, match="this path does not exist"):
        load_backbone(name)


def test_a_directory_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json there"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("config.json", "configuration"),
        ("tokenizer.json", "tokenizer"),
        ("model.safetensors", "weights"),
    ],
)
def test_a_spoilt_file_is_one_line_that_says_which(file: str, what: str, copy: Path) -> None:
    (copy / file).write_bytes((copy / file).read_bytes()[:50])
    with pytest.raises(DataError, match=f"its {what} cannot be read") as error:
        load_backbone(str(copy))
    assert "\n" not in str(error.value)


def test_remote_code_is_never_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('remote code was run')")
    _edit_config(copy, model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(DataError, match="its configuration cannot be read"):
        load_backbone(str(copy))


def test_another_architecture_is_refused_by_name(copy: Path) -> None:
    _edit_config(copy, model_type="bert")
    with pytest.raises(UsageError, match="architecture 'bert' is not supported; take"):
        load_backbone(str(copy))


def test_float16_and_unknown_positions_are_refused(toy_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="float16, but T5 activations overflow"):
        load_backbone(str(toy_checkpoint), dtype=torch.float16)
    with pytest.raises(UsageError, match="position is 'middle'"):
        load_backbone(str(toy_checkpoint), position="middle")


@pytest.mark.parametrize("name", EMBEDDED_BACKBONES)
def test_a_packaged_backbone_loads_by_its_name(name: str) -> None:
    backbone = load_backbone(name)
    family, folder = packaged(name)
    assert sum(weight.numel() for weight in backbone.model.parameters()) <= 1.5e6
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6e6
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    assert backbone.dtype == torch.float32


@pytest.mark.parametrize("name", EMBEDDED_BACKBONES)
def test_absent_packaged_weights_are_reported_with_the_command_that_makes_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpt.backbones.load.PACKAGED_WEIGHTS", tmp_path / "weights")
    family = packaged(name)[0]
    with pytest.raises(
        DataError, match=rf"weights of backbone {name} are missing.*train --family {family} --out"
    ):
        load_backbone(name)


@pytest.mark.parametrize("name", EMBEDDED_BACKBONES)
def test_words_of_all_packaged_backbones_have_one_scale(name: str) -> None:
    # They share the searched learning rates, which are steps in units of the embeddings.
    assert 0.8 <= load_backbone(name).embeddings().std() <= 1.25
