from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mpt.backbones import Backbone
from mpt.errors import DataError, UsageError
from mpt.prompts import (
    init_downstream,
    init_upstream,
    load_prompt,
    prompt_bytes,
    prompt_digest,
    prompt_from_bytes,
)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_row_i_is_the_mean_embedding_of_the_name_of_source_task_i(toy_backbone: Backbone) -> None:
    prompt = init_upstream(toy_backbone, ["ab-c_d", "zz"], 6, _rng())
    embeddings = toy_backbone.embeddings()
    # One token per letter in the toy tokenizer; "_" and "-" only separate.
    expected = torch.stack([embeddings[toy_backbone.word_ids(letter)[0]] for letter in "abcd"])
    assert prompt.shape == (6, toy_backbone.d_model)
    torch.testing.assert_close(prompt[0], expected.mean(0), rtol=1e-6, atol=1e-7)
    assert torch.equal(prompt[1], embeddings[toy_backbone.word_ids("z")[0]])


def test_the_other_rows_are_distinct_frequent_tokens_and_never_special(
    toy_backbone: Backbone,
) -> None:
    vocabulary = toy_backbone.embeddings()
    # 256 letters come after three special tokens; the last five rows belong to no token.
    prompt = init_upstream(toy_backbone, ["a"], 1 + 256, _rng())
    nearest = torch.cdist(prompt[1:], vocabulary).argmin(1)
    assert sorted(nearest.tolist()) == list(range(3, 259))
    assert torch.equal(prompt[1:], vocabulary[nearest])


def test_more_rows_than_tokens_are_filled_with_repetitions(toy_backbone: Backbone) -> None:
    assert init_upstream(toy_backbone, ["a"], 300, _rng()).shape[0] == 300


def test_a_task_with_five_data_seeds_gives_one_row(toy_backbone: Backbone) -> None:
    once = init_upstream(toy_backbone, ["a", "b"], 4, _rng())
    again = init_upstream(toy_backbone, ["a", "a", "b", "a"], 4, _rng())
    assert torch.equal(once, again)


def test_more_source_tasks_than_rows_leave_the_last_ones_out(toy_backbone: Backbone) -> None:
    prompt = init_upstream(toy_backbone, ["a", "b", "c"], 2, _rng())
    assert torch.equal(prompt, init_upstream(toy_backbone, ["a", "b"], 2, _rng()))


def test_plain_prompt_tuning_starts_from_its_own_tasks_name(toy_backbone: Backbone) -> None:
    prompt = init_downstream(toy_backbone, "qq", 3, _rng())
    assert torch.equal(prompt[0], toy_backbone.embeddings()[toy_backbone.word_ids("q")[0]])


def test_the_generator_decides_the_vocabulary_rows(toy_backbone: Backbone) -> None:
    same = [init_downstream(toy_backbone, "q", 5, _rng(1)) for _ in range(2)]
    other = init_downstream(toy_backbone, "q", 5, _rng(2))
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], other)


def test_an_initial_prompt_shares_no_memory_with_the_model(toy_backbone: Backbone) -> None:
    before = toy_backbone.embeddings().clone()
    init_downstream(toy_backbone, "q", 5, _rng()).zero_()
    assert torch.equal(toy_backbone.embeddings(), before)


def test_a_task_name_without_words_is_refused(toy_backbone: Backbone) -> None:
    with pytest.raises(UsageError, match=r"'-_-'.*at least one letter"):
        init_upstream(toy_backbone, ["-_-"], 2, _rng())


def test_the_digest_tells_value_shape_and_dtype_apart() -> None:
    prompt = torch.arange(6.0).reshape(2, 3)
    nudged = prompt.clone()
    nudged[1, 2] = torch.nextafter(nudged[1, 2], torch.tensor(9.0))
    variants = [prompt, nudged, prompt.reshape(3, 2), prompt.double()]
    assert len({prompt_digest(variant) for variant in variants}) == 4
    assert prompt_digest(prompt) == prompt_digest(prompt.t().contiguous().t())


def test_a_prompt_comes_back_bit_for_bit_with_its_metadata(tmp_path: Path) -> None:
    prompt = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    data = prompt_bytes(prompt.t().contiguous().t(), {"steps": "2500"})
    (tmp_path / "prompt.safetensors").write_bytes(data)
    for back, metadata in (
        prompt_from_bytes(data, "here"),
        load_prompt(tmp_path / "prompt.safetensors"),
    ):
        assert torch.equal(back, prompt)
        assert metadata == {"steps": "2500"}


def test_garbage_and_torn_and_absent_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    with pytest.raises(DataError, match=r"prompt\.safetensors: no readable prompt file"):
        load_prompt(path)
    path.write_bytes(prompt_bytes(torch.ones(8, 8), {}))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="no readable prompt"):
        load_prompt(path)
    path.write_bytes(b"garbage")
    with pytest.raises(DataError, match="no readable prompt"):
        load_prompt(path)


def test_a_file_with_another_tensor_is_no_prompt(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"holds \['weight'\]"):
        load_prompt(tmp_path / "a.safetensors")
    save_file({"prompt": torch.ones(2)}, tmp_path / "b.safetensors")
    with pytest.raises(DataError, match=r"must be float \[P, d\]"):
        load_prompt(tmp_path / "b.safetensors")
