"""Marks, chat templates, and tokenizers that come as SentencePiece models or in plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tokenizers.processors import TemplateProcessing
from toys import byte_tokenizer, save_toy_t5
from transformers import ByT5Tokenizer

from mpt.backbones import Backbone, load_backbone
from mpt.backbones import tokens as marks_of
from mpt.backbones.families import family_of
from mpt.config import TextConfig
from mpt.errors import DataError, UsageError
from mpt.gym.fewshot import Example

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
EXAMPLES = [Example("a line of text", ("yes",))]


def _causal(tokenizer: Any) -> Backbone:
    model = tiny_models.build("llama-tied")
    return family_of("tiny", model.config)("tiny", model, tokenizer, "append")


def _chatty() -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_plain_text_is_the_default_and_reads_as_before() -> None:
    backbone = _causal(_chatty())
    ((source, target),) = backbone.encode_rows("task", EXAMPLES, TextConfig())
    assert backbone.decode(source) == "[task] a line of text"
    assert source == backbone.word_ids(" [task] a line of text\n")
    assert target == [*backbone.word_ids(" yes"), backbone.end_id]


def test_the_chat_template_is_written_around_the_input_and_the_answer_is_bare() -> None:
    backbone = _causal(_chatty())
    ((source, target),) = backbone.encode_rows("task", EXAMPLES, TextConfig(template="chat"))
    assert source == backbone.word_ids("<user>[task] a line of text</><assistant>")
    assert target == [*backbone.word_ids("yes"), backbone.end_id]


def test_a_long_chat_is_cut_in_its_content_only() -> None:
    backbone = _causal(_chatty())
    text = TextConfig(template="chat", max_input=len("<user></><assistant>") + 5)
    ((source, _),) = backbone.encode_rows("task", EXAMPLES, text)
    assert source == backbone.word_ids("<user>[task</><assistant>")
    with pytest.raises(UsageError, match="chat template of backbone tiny alone takes 20 tokens"):
        backbone.encode_rows("task", EXAMPLES, TextConfig(template="chat", max_input=10))


def test_a_chat_without_a_template_and_with_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its tokenizer has no chat template"):
        _causal(byte_tokenizer()).encode_rows("task", EXAMPLES, TextConfig(template="chat"))
    t5 = load_backbone(str(save_toy_t5(tmp_path)))
    with pytest.raises(UsageError, match="only decoder-only models answer in a chat template"):
        t5.encode_rows("task", EXAMPLES, TextConfig(template="chat"))
    with pytest.raises(UsageError, match='template is \'poem\', but must be "plain" or "chat"'):
        TextConfig(template="poem")


def test_the_template_is_a_part_of_the_digest() -> None:
    assert _causal(_chatty()).digest != _causal(byte_tokenizer()).digest


def test_a_begin_mark_of_the_tokenizer_stands_before_every_input() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<unk> $A", special_tokens=[("<unk>", 2)]
    )
    backbone = _causal(tokenizer)
    assert marks_of.marks(tokenizer) == ([2], [])
    assert backbone.encode_input("ab", 9) == [2, *backbone.word_ids("ab\n")]
    assert backbone.encode_input("abcdef", 4) == [2, *backbone.word_ids("ab\n")]


def test_of_several_end_tokens_the_tokenizers_own_is_taken() -> None:
    tokenizer = byte_tokenizer()
    config: Any = tiny_models.build("llama-tied").config
    config.eos_token_id = [7, 1]
    assert marks_of.end_token("tiny", config, tokenizer) == 1
    config.eos_token_id = [7, 8]
    assert marks_of.end_token("tiny", config, tokenizer) == 7
    config.eos_token_id, tokenizer.eos_token = None, None
    with pytest.raises(DataError, match="eos_token_id is absent"):
        marks_of.end_token("tiny", config, tokenizer)


def test_a_t5_with_only_a_sentencepiece_model_loads(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    path = save_toy_t5(tmp_path / "t5")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"some words of line {n} and yes or no" for n in range(200)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines),
        model_prefix=str(path / "spiece"),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (path / "spiece.vocab").unlink()
    backbone = load_backbone(str(path))
    own = sentencepiece.SentencePieceProcessor(model_file=str(path / "spiece.model"))
    assert backbone.word_ids("some words or yes") == own.encode("some words or yes")
    assert backbone.decode(backbone.encode_target(" yes or no", 9)) == "yes or no"


def test_a_tokenizer_in_plain_python_has_an_identity(tmp_path: Path) -> None:
    path = save_toy_t5(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    ByT5Tokenizer(extra_ids=0).save_pretrained(path)
    backbone = load_backbone(str(path))
    assert backbone.decode(backbone.encode_target("né", 9)) == "né"
    assert len(backbone.digest) == 64
