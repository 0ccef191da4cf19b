"""The code of a card that runs a prompt: PEFT where it can, transformers alone where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..tables.render import environment

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
    template = environment(Path(__file__).parent / "templates", html=False).get_template(
        "usage.md.j2"
    )
    return template.render(said=said, auto=AUTO[said.task_type], file=PROMPT, longest=_LONGEST)
