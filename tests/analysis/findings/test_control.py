"""What learning adds to its start: the untrained start as the control of learned ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_factory import Results, flat

from analysis.findings.finding import Finding
from analysis.findings.records import findings_of
from analysis.results.reading import read_results

QUESTION = "Is it the learning, or the start?"


def _put(results: Results, method: str, gains: tuple[float, ...], steps: int = 100) -> None:
    """Put gains in % on one task at upstream seeds 42, 1042, …"""
    for gain, seed in zip(gains, (None, 1042, 2042), strict=False):
        point = {
            "settings": {"outer_lr": 0.1, "seed": seed},
            "trajectory": f"{method}-{seed}",
            "steps": steps,
        }
        scores = flat({"a": 0.5 * (1 + gain / 100)})
        results.point(method, "cls_to_cls", scores, flat({"a": 0.5}), point=point)


def _found(root: Path) -> dict[str, Finding]:
    return {one.question: one for one in findings_of(read_results(root).main).findings}


@pytest.mark.parametrize(
    ("maml", "words", "told"),
    [
        (
            (20.0, 22.0, 21.0),
            "Of 1 learned start, 1 lies above the untrained one: MAML +10.3",
            True,
        ),
        (
            (9.0, 16.0, 8.0),
            "No learned start can be told from the untrained one: MAML +0.3",
            False,
        ),
        ((0.0, 2.0, 1.0), "Of 1 learned start, 1 lies below the untrained one: MAML −9.7", True),
    ],
)
def test_a_learned_start_is_held_against_the_start_it_set_out_from(
    maml: tuple[float, ...], words: str, told: bool, tmp_path: Path
) -> None:
    results = Results(tmp_path)
    _put(results, "maml", maml)
    _put(results, "untrained", (10.0, 11.0, 11.0), steps=1)
    found = _found(tmp_path)
    control = found[QUESTION]
    assert control.sentence.startswith(words)
    assert "with nothing learned the start has an ARG of +10.7 %" in control.sentence
    assert control.told is told
    # it is no learned start itself
    assert "MAML" in found["Does a learned start help?"].sentence
    assert "untrained" not in found["Does a learned start help?"].sentence


def test_without_the_control_it_is_said_to_be_missing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    _put(results, "maml", (20.0, 22.0))
    assert QUESTION not in _found(tmp_path)
    assert "the untrained start" in findings_of(read_results(tmp_path).main).not_run


@pytest.mark.parametrize(
    ("score", "words", "told"),
    [
        (0.0, "scores below plain prompt tuning: zero-shot has an ARG of −100.0 %", True),
        (0.6, "scores above plain prompt tuning: zero-shot has an ARG of +20.0 %", True),
        (0.5, "cannot be told from plain prompt tuning: zero-shot has an ARG of 0.0 %", False),
    ],
)
def test_the_model_as_it_is_is_told_where_it_was_run(
    score: float, words: str, told: bool, tmp_path: Path
) -> None:
    results = Results(tmp_path, lrs=(0.0,))  # nothing is tuned: one run, without a rate
    _put(results, "maml", (20.0, 22.0))
    bare = {"steps": 0, "settings": {}}
    results.point("zero_shot", "cls_to_cls", flat({"a": score}), flat({"a": 0.5}), point=bare)
    found = _found(tmp_path)
    one = found["What can the model do without a prompt?"]
    assert one.sentence.startswith(f"The model as it is {words}")
    assert one.told is told
    assert "zero-shot" not in found["Does a learned start help?"].sentence


def test_nothing_is_said_of_the_model_as_it_is_where_it_was_not_run(tmp_path: Path) -> None:
    _put(Results(tmp_path), "maml", (20.0, 22.0))
    assert "What can the model do without a prompt?" not in _found(tmp_path)
