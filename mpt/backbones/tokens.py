"""What a tokenizer adds to words: begin and end marks, and the template of a chat.

Tokenizers differ in the marks that they put around a text; here they are read off the tokenizer
itself, so that no architecture needs a list of its own.
"""

from __future__ import annotations

import json
from typing import Any

from mpt.errors import DataError, UsageError

_PROBE = "a"
_CONTENT = "\x00content\x00"
"""Stands for the content while a chat template is rendered; no template has such a character."""


def words(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of `text` without any mark."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def marks(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that the tokenizer puts before and after every text."""
    plain = words(tokenizer, _PROBE)
    marked = list(tokenizer(_PROBE, verbose=False)["input_ids"])
    for start in range(len(marked) - len(plain) + 1):
        if marked[start : start + len(plain)] == plain:
            return marked[:start], marked[start + len(plain) :]
    return [], []


def end_token(name: str, config: Any, tokenizer: Any) -> int:
    """Return the token that ends an output.

    Chat models list several; the tokenizer's own is taken among them, since it is what the
    template closes an answer with.

    Raises:
        DataError: neither the configuration nor the tokenizer names one.
    """
    told = getattr(config, "eos_token_id", None)
    own = getattr(tokenizer, "eos_token_id", None)
    if isinstance(told, (list, tuple)):
        told = own if own in told else next(iter(told), None)
    end = own if told is None else told
    if end is None:
        raise DataError(
            f"backbone {name}: eos_token_id is absent, but its config.json or its tokenizer must "
            "name the token that ends an output"
        )
    return int(end)


def padding_token(config: Any, end: int, vocabulary: int) -> int:
    """Return a token that may stand in padding; it is masked, so any of the matrix will do."""
    pad = getattr(config, "pad_token_id", None)
    return int(pad) if isinstance(pad, int) and 0 <= pad < vocabulary else end


def identity(tokenizer: Any) -> bytes:
    """Return everything that decides what the tokenizer does with a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        text = backend.to_str()
    else:  # a tokenizer in plain Python, such as ByT5's
        parts = [type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.special_tokens_map]
        text = json.dumps(parts, sort_keys=True, default=str)
    template = getattr(tokenizer, "chat_template", None)
    return str(text).encode() + (str(template).encode() if template else b"")


def chat_ids(name: str, tokenizer: Any, content: str, max_tokens: int) -> list[int]:
    """Return the tokens of a chat in which a user says `content` and the answer comes next.

    The content is cut so that the whole, template included, has at most `max_tokens` tokens; the
    template itself is never cut.

    Raises:
        UsageError: the tokenizer has no chat template, or it alone is longer than `max_tokens`.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(
            f'backbone {name}: text.template is "chat", but its tokenizer has no chat template; '
            'use "plain"'
        )
    line = tokenizer.apply_chat_template(
        [{"role": "user", "content": _CONTENT}], tokenize=False, add_generation_prompt=True
    )
    before, _, after = line.partition(_CONTENT)
    own = words(tokenizer, content)
    keep = len(own)
    while True:
        kept = content if keep == len(own) else tokenizer.decode(own[:keep])
        ids = words(tokenizer, before + kept + after)
        if len(ids) <= max_tokens:
            return ids
        if keep == 0:
            raise UsageError(
                f"text.max_input is {max_tokens}, but the chat template of backbone {name} alone "
                f"takes {len(ids)} tokens; raise max_input"
            )
        keep = max(0, keep - (len(ids) - max_tokens))
