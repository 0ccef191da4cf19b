"""The embedded tokenizer: byte-level BPE, so that every UTF-8 text has ids and none is unknown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTINELS = 16
SPECIALS = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(SENTINELS))]
_TEMPLATES = {"t5": "$A </s>", "bart": "<s> $A </s>", "gpt2": ""}


def train_tokenizer(
    texts: Sequence[str], vocab_size: int, family: str = "t5"
) -> PreTrainedTokenizerFast:
    """Train byte-level BPE on `texts` and number its pieces by how often the texts use them.

    The order of the ids matters: a prompt is initialised from the most frequent pieces, which by
    T5's convention are the lowest ids after the special ones.

    Args:
        texts: training text.
        vocab_size: pieces in all, the 256 bytes and the special ones included.
        family: model type; it decides the marks around a text. BART's `<s>` takes the place of
            the last sentinel, so that all other ids are the same for every family.

    Returns:
        A tokenizer that treats the start of a text like a word start, and puts `</s>` behind it
        for T5, `<s>` and `</s>` around it for BART, nothing for GPT-2.
    """
    specials = [*SPECIALS[:-1], "<s>"] if family == "bart" else SPECIALS
    pipeline = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pipeline
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    counts: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch(texts):
        counts.update(encoding.tokens)
    trained = tokenizer.get_vocab()
    by_use = sorted(trained, key=lambda piece: (-counts[piece], trained[piece]))
    vocab = {piece: i for i, piece in enumerate([*specials, *by_use])}
    numbered = Tokenizer(models.BPE(vocab=vocab, merges=_merges(tokenizer)))
    numbered.pre_tokenizer = pipeline
    numbered.decoder = decoders.ByteLevel()
    if single := _TEMPLATES[family]:
        numbered.post_processor = processors.TemplateProcessing(
            single=single,
            pair=f"{single} {single.replace('$A', '$B')}",
            special_tokens=[(mark, vocab[mark]) for mark in ("<s>", "</s>") if mark in single],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=numbered,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        **({"bos_token": "<s>"} if family == "bart" else {}),
        additional_special_tokens=[piece for piece in specials[3:] if piece != "<s>"],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    rules = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(first, second) for first, second in rules]
