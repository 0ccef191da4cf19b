"""The code of a card that runs a prompt: PEFT where it can, transformers alone where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .card import Published

AUTO = {"SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM", "CAUSAL_LM": "AutoModelForCausalLM"}
"""PEFT's word for a kind of model → the class of transformers that loads it."""
PROMPT = "prompt.safetensors"
"""The file of a prompt that PEFT cannot hold; its tensor is called "prompt" and is [P, d]."""
_LONGEST = 16
"""Tokens that the example writes."""


def usage(said: Published) -> str:
    """Return how a prompt is loaded and run, as Markdown."""
    if said.behind:
        return _behind(said)
    lines = [
        f"from transformers import {AUTO[said.task_type]}, AutoTokenizer",
        "from peft import PeftModel",
        "",
        *_model(said, "base"),
        'model = PeftModel.from_pretrained(base, "THIS_REPOSITORY")',
        "model.prompt_encoder.requires_grad_(True)  # to tune it on",
    ]
    return (
        f"{_block(lines)}\n\n"
        "The weights of the base model stay as they are; prompt tuning trains the prompt alone."
    )


def _behind(said: Published) -> str:
    seq2seq = said.task_type == "SEQ_2_SEQ_LM"
    first = ", forced_bos_token_id=begin[0] if begin else None" if seq2seq else ""
    lines = [
        "import torch",
        "from safetensors.torch import load_file",
        f"from transformers import {AUTO[said.task_type]}, AutoTokenizer",
        "",
        *_model(said, "model"),
        f'prompt = load_file("THIS_REPOSITORY/{PROMPT}")["prompt"]  # [P, d]',
        "",
        'text = " [TASK] YOUR INPUT"  # as in training: a blank, the task in brackets, the input',
        *_input(said),
        "words = model.get_encoder().get_input_embeddings()"
        if seq2seq
        else "words = model.get_input_embeddings()",
        "row = torch.cat([words(torch.tensor([ids])), prompt[None].to(model.dtype)], 1)",
        "mask = torch.ones(row.shape[:2], dtype=torch.long)",
        "with torch.no_grad():",
        "    written = model.generate(inputs_embeds=row, attention_mask=mask, do_sample=False,",
        f"                             max_new_tokens={_LONGEST}{first})",
        "print(tokenizer.decode(written[0], skip_special_tokens=True).strip())",
    ]
    return (
        "The prompt was trained behind the input: [input; prompt]. PEFT puts its virtual tokens "
        "before the input, so PEFT's PromptEmbedding cannot express it, and this folder is no "
        "adapter of PEFT; transformers alone runs it:\n\n"
        f"{_block(lines)}\n\n"
        "To tune it on, make `prompt` a parameter and minimise the loss of the target behind it; "
        "the weights of the base model stay as they are."
    )


def _model(said: Published, variable: str) -> list[str]:
    named = f'"{said.base_model}"'
    if not said.on_hub:
        named = f"BASE_MODEL  # {said.base_model}: a folder or an id of yours"
    return [
        f"name = {named}",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        f"{variable} = {AUTO[said.task_type]}.from_pretrained(name)",
    ]


def _input(said: Published) -> list[str]:
    plain = "ids = tokenizer(text, add_special_tokens=False).input_ids"
    if said.task_type == "SEQ_2_SEQ_LM":
        return [
            "config = model.config",
            'begin = [config.bos_token_id] if config.model_type == "bart" else []',
            plain,
            "ids = begin + ids + [config.eos_token_id]",
        ]
    if said.chat:
        return [
            'chat = [{"role": "user", "content": text.strip()}]',
            "text = tokenizer.apply_chat_template(chat, tokenize=False, "
            "add_generation_prompt=True)",
            plain,
        ]
    return [
        'begin = tokenizer("a").input_ids[:-1]  # what the tokenizer puts before a text, if any',
        plain,
        'end = tokenizer("\\n", add_special_tokens=False).input_ids',
        "ids = begin + ids + end",
    ]


def _block(lines: list[str]) -> str:
    code = "\n".join(lines)
    return f"```python\n{code}\n```"
