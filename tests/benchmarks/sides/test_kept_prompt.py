from __future__ import annotations

from typing import Any

import pytest
from sides import kept_prompt
from sides.kept_prompt import Size

from mpt.backbones import load_backbone


def test_both_sides_are_timed_on_the_same_rows_and_have_to_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = load_backbone("embedded-gpt2", position="prepend")
    size = Size(prompt=20, length=5, runs=2, rows=3, batch=4)
    prompts, batches = kept_prompt._drawn(backbone, size)
    assert prompts.shape == (2, 20, backbone.d_model)
    assert [batch.run.tolist() for batch in batches] == [[0, 1, 0, 1], [0, 1]]
    ticks = iter(range(100))
    monkeypatch.setattr(kept_prompt, "now", lambda _: float(next(ticks)))
    found = kept_prompt.seconds(backbone, size, 2)
    kinds = ("trained", "teacher-forced", "generated")
    assert found == dict.fromkeys(kinds, (1.0, 1.0))
    plain = backbone.greedy_tokens
    tokens = iter(range(1000))
    monkeypatch.setattr(backbone, "greedy_tokens", lambda *given: plain(*given) + next(tokens))
    with pytest.raises(SystemExit, match=r"embedded-gpt2, teacher-forced, .*: the choices differ"):
        kept_prompt.seconds(backbone, size, 1)


def test_of_appended_prompts_one_side_reads_from_the_cache_and_the_other_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone: Any = load_backbone("embedded-gpt2", position="append")
    read: list[bool] = []
    plain = backbone.greedy_tokens

    def tokens(*given: Any) -> Any:
        read.append(backbone.input_cache is not None)
        return plain(*given)

    monkeypatch.setattr(backbone, "greedy_tokens", tokens)
    kept_prompt.seconds(backbone, Size(prompt=3, length=5, runs=1, rows=2, batch=2), 2)
    assert read == [False, True, False, True]
    assert backbone.input_cache is not None
