"""The glossary: one row a word, no word twice, and the words that the commands print."""

from __future__ import annotations

import re

from pages import ROOT

ROWS = re.findall(r"^\| (.+?) \| (.+) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)[1:]
WORDS = [word for words, _ in ROWS for word in words.split(", ")]


def test_no_word_is_explained_twice() -> None:
    assert len(ROWS) > 25
    assert len(set(WORDS)) == len(WORDS)


def test_the_words_for_what_is_stored_and_compared_are_there() -> None:
    stored = {"run", "point", "rung", "trial", "study", "checkpoint", "leaderboard"}
    assert stored <= set(WORDS)
