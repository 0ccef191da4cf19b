"""Drawing words: the few random choices from which every sentence of the small world is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return one of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


def several(rng: np.random.Generator, options: Sequence[T], n: int) -> list[T]:
    """Return `n` different ones of `options`, in random order."""
    return [options[i] for i in rng.permutation(len(options))[:n]]


def other(rng: np.random.Generator, options: Sequence[T], *taken: T) -> T:
    """Return one of `options` that is none of `taken`."""
    return pick(rng, [option for option in options if option not in taken])


def fill(rng: np.random.Generator, templates: Sequence[str], **words: str) -> str:
    """Return one template, filled in, with "a" or "an" as it must be and a capital first."""
    text = pick(rng, templates).format(**words)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return text[0].upper() + text[1:]


def lettered(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Return `(A) x (B) y (C) z` over the options in random order."""
    mixed = several(rng, options, len(options))
    return " ".join(f"({letter}) {word}" for letter, word in zip("ABCDE", mixed, strict=False))
