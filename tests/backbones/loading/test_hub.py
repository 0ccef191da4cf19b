"""Checkpoints of the Hub as its cache has them, with nothing to ask: revisions and no waiting."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import save_toy_t5

from mpt.backbones import load, load_backbone
from mpt.errors import UsageError

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds two commits of ``lab/toy``: the old one pickled, the new one safe."""
    place = tmp_path / "hub" / "models--lab--toy"
    for seed, commit in enumerate((OLD, NEW)):
        save_toy_t5(place / "snapshots" / commit, seed=seed)
    old = place / "snapshots" / OLD
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    (place / "refs").mkdir()
    for name, commit in (("main", NEW), ("v1", OLD)):
        (place / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("MPT_CACHE", str(tmp_path / "cache"))
    return place


def test_a_cached_checkpoint_loads_offline_at_its_revision(hub: Path, tmp_path: Path) -> None:
    newest = load_backbone(str(hub / "snapshots" / NEW)).digest
    oldest = load_backbone(str(save_toy_t5(tmp_path / "old", seed=0))).digest
    assert load_backbone("lab/toy").digest == newest
    for revision in ("v1", OLD):  # a branch and a commit; its weights are a pickle
        assert load_backbone(f"lab/toy@{revision}").digest == oldest != newest
    with pytest.raises(UsageError, match=r"backbone lab/toy@v9: no such path.*nor.*Hub"):
        load_backbone("lab/toy@v9")


def test_a_hub_that_does_not_answer_is_not_waited_for(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(hub / "snapshots" / NEW)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(load, "getproxies", dict)
    knocks: list[tuple[Any, float]] = []

    def refuse(address: Any, timeout: float) -> None:
        knocks.append((address, timeout))
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    load._knock.cache_clear()
    assert load_backbone("lab/toy@v1").d_model == 16  # cached: not even asked for
    assert knocks == []
    with pytest.raises(UsageError, match="no such path") as error:
        load_backbone("lab/toy")
    assert knocks == [(("huggingface.co", 443), 3.0)]
    assert "\n" not in str(error.value)
    load._knock.cache_clear()


def test_behind_a_proxy_nobody_knocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(load, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("knocked"))
    assert load._hub_answers()
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert not load._hub_answers()
