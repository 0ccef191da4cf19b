from __future__ import annotations

import random
import sys

import pytest

from mpt.downstream.verdict import can_still_match
from mpt.metrics import task_metrics


@pytest.mark.parametrize(
    ("metric", "beginning", "answers", "possible"),
    [
        ("ACC", "posi", ("positive",), True),
        ("ACC", "POSI", ("positive",), True),
        ("ACC", "", ("positive",), True),
        ("ACC", "negat", ("positive",), False),
        ("ACC", "negat", ("positive", "Negative"), True),
        ("ACC", "positives", ("positive",), False),
        ("ACC", "caf\N{REPLACEMENT CHARACTER}", ("café",), True),
        ("ACC", "ὈΔΥΣΣΕΎΣ", ("ὀδυσσεύς ὁ",), True),
        ("EM", "the", ("river",), True),
        ("EM", "th", ("river",), True),
        ("EM", "an", ("river",), True),
        ("EM", "ant", ("river",), True),  # starts like an article: not worth ruling out
        ("EM", "x", ("river",), False),
        ("EM", "The riv", ("a river.",), True),
        ("EM", "the ! riv", ("river",), True),
        ("EM", "river b", ("river",), False),
        ("EM", "river", ("river",), True),
        ("EM", "river the", ("river",), True),
        ("EM", "big river b", ("river bank",), False),
        ("Rouge-L", "anything", ("river",), True),
        ("Classification-F1", "anything", ("river",), True),
    ],
)
def test_a_beginning_is_judged(
    metric: str, beginning: str, answers: tuple[str, ...], possible: bool
) -> None:
    assert can_still_match(metric, beginning, answers) is possible


@pytest.mark.parametrize("metric", ["ACC", "EM"])
def test_no_beginning_of_a_right_output_is_ever_ruled_out(metric: str) -> None:
    """Random outputs; whatever scores 1 must be possible at each of its beginnings."""
    rng = random.Random(0)
    pieces = ["a", "an", "the", "THE", "The", "river", "River", "theory", "x-y", "x", "y", "xy"]
    pieces += [".", "!", "“", "”", "é", "Σ", "ς", "aΣ", "1,000", "1000", "_", "'s"]
    right = 0
    for _ in range(20_000):
        answer, output = (
            "".join(
                rng.choice(pieces) + rng.choice(["", " ", "  "]) for _ in range(rng.randint(1, 3))
            ).strip()
            for _ in range(2)
        )
        if task_metrics.score(metric, [output], [(answer,)]) == 1:
            right += 1
            for end in range(len(output) + 1):
                beginning = output[:end].strip()
                assert can_still_match(metric, beginning, (answer,)), (beginning, output, answer)
    assert right > 100


def test_equal_lower_case_implies_equal_case_folding() -> None:
    """The reason why the rule for ACC may compare case-folded beginnings."""
    letters = [chr(code) for code in range(sys.maxunicode + 1)]
    assert all(letter.lower().casefold() == letter.casefold() for letter in letters)
