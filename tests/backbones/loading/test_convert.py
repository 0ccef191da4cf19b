"""Checkpoints that are not safetensors: pickled weights, GGUF, and the packaged SmolLM2."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from safetensors.torch import load_file
from toys import save_toy_t5

from mpt.backbones import convert, load_backbone
from mpt.backbones.base import Backbone
from mpt.backbones.load import pretrained_source
from mpt.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "backbones"


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    return save_toy_t5(tmp_path / "safe")


@pytest.fixture
def pickled(safe: Path, tmp_path: Path) -> Path:
    """The same checkpoint as the Hub has old ones: one pickled file, tied names in it twice."""
    folder = Path(shutil.copytree(safe, tmp_path / "pickled"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_load_as_the_same_model_and_are_converted_once_with_a_notice(
    safe: Path, pickled: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = load_backbone(str(pickled))
    assert "pytorch_model.bin is a pickle; it is rewritten once as safetensors in" in caplog.text
    assert first.digest == load_backbone(str(safe)).digest
    (folder,) = [path for path in cache.iterdir() if path.is_dir()]
    written = (folder / "model.safetensors").stat().st_mtime_ns
    caplog.clear()
    assert load_backbone(str(pickled)).digest == first.digest
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert caplog.text == ""


def test_other_weights_in_the_same_place_are_converted_anew(pickled: Path) -> None:
    before = load_backbone(str(pickled)).digest
    weights = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    weights["shared.weight"][3] += 1
    torch.save(weights, pickled / "pytorch_model.bin")
    assert load_backbone(str(pickled)).digest != before


def test_pickled_code_is_refused_and_not_run(pickled: Path, tmp_path: Path, cache: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
            return os.mkdir, (str(tmp_path / "was-run"),)

    with (pickled / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"shared.weight": Evil()}, file)
    with pytest.raises(DataError, match=r"pytorch_model\.bin cannot be converted") as error:
        load_backbone(str(pickled))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "was-run").exists()
    assert not any(path.is_dir() for path in cache.iterdir())


def test_sharded_pickled_and_sharded_safe_checkpoints_are_one_model(
    safe: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(safe))
    sharded = tmp_path / "sharded"
    shutil.copytree(safe, sharded)
    (sharded / "model.safetensors").unlink()
    model: Any = backbone.model
    model.save_pretrained(sharded, max_shard_size="20KB")
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    assert load_backbone(str(sharded)).digest == backbone.digest
    for shard in shards:
        torch.save(
            load_file(sharded / shard),
            sharded / shard.replace("model-", "pytorch_model-").replace("safetensors", "bin"),
        )
        (sharded / shard).unlink()
    (sharded / "model.safetensors.index.json").unlink()
    table = {
        key: shard.replace("model-", "pytorch_model-").replace("safetensors", "bin")
        for key, shard in index["weight_map"].items()
    }
    (sharded / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": index["metadata"], "weight_map": table})
    )
    assert load_backbone(str(sharded)).digest == backbone.digest


def test_a_cache_that_cannot_be_written_is_one_line_with_the_cure(
    pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("MPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot write the converted.*set MPT_CACHE"):
        load_backbone(str(pickled))


def _load(imported: str, path: str, cache: str, start: Any, found: Any) -> None:
    os.environ["MPT_CACHE"] = cache
    torch.set_num_threads(1)
    load_backbone(imported)
    start.wait()
    found.put(load_backbone(path).digest)


@pytest.mark.timeout(1800)  # for hangs only
def test_two_processes_at_once_convert_one_checkpoint(
    safe: Path, pickled: Path, cache: Path
) -> None:
    """This one, and one that has imported as much when both begin."""
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(2, timeout=1700), context.Queue()
    given = (str(safe), str(pickled), str(cache.parent), start, found)
    other = context.Process(target=_load, args=given)
    other.start()
    start.wait()
    digest = load_backbone(str(pickled)).digest
    assert found.get(timeout=1700) == digest
    other.join()
    left = [path for path in cache.iterdir() if path.suffix != ".lock"]
    assert len(left) == 1  # the conversion itself, and no draft


def _write_gguf(file: Path, model: Any, vocabulary: Sequence[str], merges: Sequence[str]) -> None:
    """Write a tiny Llama as GGUF, its matrices in float16."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(vocabulary))
    writer.add_token_merges(list(merges))
    writer.add_token_types([1] * len(vocabulary))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    heads, grouped = config.num_attention_heads, config.num_key_value_heads
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight":
            continue  # tied: no output matrix in the file
        array = weight
        if "q_proj" in key or "k_proj" in key:  # GGUF has rotary pairs side by side
            n = heads if "q_proj" in key else grouped
            array = weight.view(n, 2, weight.shape[0] // n // 2, -1).swapaxes(1, 2)
            array = array.reshape(weight.shape)
        name = names.get_name(key, try_suffixes=(".weight",))
        half = array.half() if array.dim() > 1 else array.float()
        assert name is not None
        writer.add_tensor(name, half.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_model(tmp_path: Path) -> tuple[Path, Any]:
    pytest.importorskip("gguf")
    model = tiny_models.build("llama-tied")
    for weight in model.parameters():
        weight.data = weight.data.half().float()
    tokenizer = tiny_models.byte_tokenizer()
    numbers = tokenizer.get_vocab()
    words = sorted(numbers, key=lambda word: numbers[word])
    words[-1] = "ab"  # a vocabulary of pairs has one at least
    folder = tmp_path / "gguf"
    folder.mkdir()
    _write_gguf(folder / "tiny.gguf", model, words, ["a b"])
    return folder, model


def test_a_gguf_file_and_its_folder_load_as_the_model_that_was_written(
    gguf_model: tuple[Path, Any],
) -> None:
    folder, model = gguf_model
    backbone = load_backbone(str(folder), position="append")
    assert load_backbone(str(folder / "tiny.gguf")).digest == backbone.digest
    loaded = backbone.model.state_dict()
    for key, weight in model.state_dict().items():
        assert torch.equal(loaded[key], weight), key
    config: Any = backbone.model.config
    assert not hasattr(config, "quantization_config")
    assert config.tie_word_embeddings
    assert backbone.word_ids("q")


def _in_pages_of(backbone: Backbone, folder: Path) -> list[bool]:
    """Return for each weight whether it lies in the pages of a file below a folder."""
    pages = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, *_, name = line.split(maxsplit=5)
        if name.startswith(str(folder)) and name.endswith(".safetensors"):
            pages.append(range(*(int(end, 16) for end in where.split("-"))))
    return [any(w.data_ptr() in own for own in pages) for w in backbone.model.parameters()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_share_the_pages_of_a_converted_file(
    gguf_model: tuple[Path, Any], pickled: Path, cache: Path
) -> None:
    """A process has no copy of its own in float32; in another format it has to have one."""
    for source in (gguf_model[0], pickled):
        mapped = _in_pages_of(load_backbone(str(source)), cache)
        assert len(mapped) > 10
        assert all(mapped)
        narrow = load_backbone(str(source), dtype=torch.bfloat16)
        assert not any(_in_pages_of(narrow, cache))


def test_two_gguf_files_in_a_folder_and_a_torn_one_are_refused(
    gguf_model: tuple[Path, Any],
) -> None:
    folder, _ = gguf_model
    shutil.copy(folder / "tiny.gguf", folder / "other.gguf")
    with pytest.raises(DataError, match=r"2 GGUF files there, but a folder must hold one; name"):
        load_backbone(str(folder))
    torn = folder / "other.gguf"
    torn.write_bytes(torn.read_bytes()[:200])
    with pytest.raises(DataError, match=r"other\.gguf cannot be converted") as error:
        load_backbone(str(torn))
    assert "\n" not in str(error.value)


def test_without_its_packages_smollm2_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mpt.backbones.convert.util.find_spec", lambda _: None)
    with pytest.raises(UsageError) as error:
        load_backbone("smollm2")
    assert convert.INSTALL_SMOLLM2 in str(error.value)
    assert "\n" not in str(error.value)


def test_gguf_without_its_package_is_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("mpt.backbones.convert.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install gguf=="):
        pretrained_source(str(tmp_path / "x.gguf"))
