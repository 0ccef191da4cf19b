"""Words that follow a number."""

from __future__ import annotations


def counted(number: int, word: str, plural: str = "") -> str:
    """Return a number with its word, as in "1 task" and "2 tasks".

    Args:
        number: how many.
        word: for one.
        plural: for all other numbers, where it is not the word with an s.
    """
    return f"{number} {word if number == 1 else plural or f'{word}s'}"
