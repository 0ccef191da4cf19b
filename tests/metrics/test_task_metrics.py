"""Metrics against closed forms and against plain formulas written here."""

from __future__ import annotations

import inspect
import math
import random
import sys

import pytest

from mpt.errors import DataError, UsageError
from mpt.metrics.task_metrics import GOLD_F1, METRICS, normalise, score

EXACT = 1e-12  # float64 sums of at most 50 terms


def test_the_published_names_and_ours_are_there_and_only_accuracies_need_a_match() -> None:
    assert set(METRICS) == {
        "ACC",
        "Classification-F1",
        "Matthew Correlation",
        "Pearson Correlation",
        "EM",
        "QA-F1",
        "Rouge-L",
        GOLD_F1,
    }
    assert {name for name, metric in METRICS.items() if metric.exact_match_decides} == {
        "ACC",
        "EM",
    }


def test_accuracy_ignores_case_and_takes_the_best_reference_but_keeps_articles() -> None:
    answers = [("Yes", "sure"), ("no",), ("the cat",), ("x",)]
    assert score("ACC", ["SURE", "yes", "cat", " x\n"], answers) == 0.5


def test_exact_match_drops_articles_punctuation_case_and_extra_blanks() -> None:
    assert normalise(" The  quick, brown-fox! an  A ") == "quick brownfox"
    answers = [("The cat.",), ("theory",), ("b", "U.S.")]
    assert score("EM", ["cat", "ory", "us"], answers) == pytest.approx(2 / 3, abs=EXACT)


def test_qa_f1_is_the_harmonic_mean_of_precision_and_recall_over_bags_of_words() -> None:
    # prediction: 4 words, answer: 3 words, common: big big → p = 2/4, r = 2/3
    expected = 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)
    assert score("QA-F1", ["big big red dog"], [("the big, big cat",)]) == pytest.approx(
        expected, abs=EXACT
    )


@pytest.mark.parametrize("metric", ["ACC", "EM", "QA-F1", "Rouge-L", "Classification-F1"])
def test_an_empty_prediction_is_wrong(metric: str) -> None:
    assert score(metric, [""], [("cat",)]) == 0.0


def test_an_answer_that_normalises_to_nothing_is_matched_by_em_only() -> None:
    assert score("EM", [""], [("the",)]) == 1.0
    assert score("QA-F1", [""], [("the",)]) == 0.0


def test_macro_f1_agrees_with_the_plain_formula_over_gold_and_predicted_labels() -> None:
    draw = random.Random(5)
    gold = [draw.choice("abc") for _ in range(50)]
    guess = [draw.choice(["a", "b", "c", "never gold"]) for _ in range(50)]
    parts = []
    for label in set(gold) | set(guess):
        hits = sum(g == p == label for g, p in zip(gold, guess, strict=True))
        size = gold.count(label) + guess.count(label)
        parts.append(2 * hits / size)
    found = score("Classification-F1", guess, [(g, "ignored") for g in gold])
    assert found == pytest.approx(sum(parts) / len(parts), abs=EXACT)


def test_matthews_agrees_with_the_closed_form_and_takes_other_texts_as_unacceptable() -> None:
    gold = ["acceptable"] * 4 + ["unacceptable"] * 4
    guess = ["acceptable", "acceptable", "acceptable", "?", "acceptable", "no", "", "unacceptable"]
    tp, fn, fp, tn = 3, 1, 1, 3
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    found = score("Matthew Correlation", guess, [(g,) for g in gold])
    assert found == pytest.approx(expected, abs=EXACT)
    assert score("Matthew Correlation", ["?"] * 8, [(g,) for g in gold]) == 0.0


def test_pearson_agrees_with_the_plain_formula() -> None:
    gold, guess = [1.0, 2.0, 3.0, 5.0], [2.0, 1.0, 4.0, 4.5]
    mean_g, mean_p = sum(gold) / 4, sum(guess) / 4
    products = [(g - mean_g) * (p - mean_p) for g, p in zip(gold, guess, strict=True)]
    norm = math.sqrt(sum((g - mean_g) ** 2 for g in gold) * sum((p - mean_p) ** 2 for p in guess))
    found = score("Pearson Correlation", [str(p) for p in guess], [(str(g),) for g in gold])
    assert found == pytest.approx(sum(products) / norm, abs=EXACT)


@pytest.mark.parametrize("garbage", ["five stars", "", "nan", "inf", "1e999"])
def test_pearson_counts_what_is_not_a_finite_number_as_the_gold_mean(garbage: str) -> None:
    answers = [("1",), ("2",), ("6",)]
    assert score("Pearson Correlation", ["1", "2", garbage], answers) == score(
        "Pearson Correlation", ["1", "2", "3"], answers
    )


@pytest.mark.parametrize("guess", [["4", "4", "4"], ["x", "x", "x"], ["3", "3", "x"]])
def test_pearson_without_variance_is_zero(guess: list[str]) -> None:
    assert score("Pearson Correlation", guess, [("1",), ("2",), ("6",)]) == 0.0
    assert score("Pearson Correlation", ["1", "2", "3"], [("4",)] * 3) == 0.0


def test_pearson_survives_absurdly_large_predictions() -> None:
    found = score("Pearson Correlation", ["1e308", "-1e308", "5"], [("1",), ("2",), ("6",)])
    assert -1.0 <= found <= 1.0


def test_pearson_names_a_right_answer_that_is_not_a_number() -> None:
    with pytest.raises(DataError, match="'good' is not a number"):
        score("Pearson Correlation", ["1"], [("good",)])


def test_rouge_l_is_the_f_value_of_the_longest_common_subsequence() -> None:
    # reference: 4 different words, prediction: 3, common subsequence: a c d → p = 1, r = 3/4
    expected = 2 * 1 * 0.75 / 1.75
    found = score("Rouge-L", ["a c d"], [("x y", "a b c d")])
    assert found == pytest.approx(expected, abs=1e-7)  # the package adds 1e-8 to p + r


@pytest.mark.parametrize("prediction", ["", "...", ". .", "?!"])
def test_rouge_l_without_a_word_is_zero(prediction: str) -> None:
    assert score("Rouge-L", [prediction], [("a cat",)]) == 0.0
    assert score("Rouge-L", ["a cat"], [(prediction or ".",)]) == 0.0


def test_rouge_l_takes_texts_longer_than_the_recursion_limit() -> None:
    words = " ".join(f"w{n}" for n in range(300))
    before = sys.getrecursionlimit()
    low = len(inspect.stack()) + 200  # room for the import of the package, not for 300 words
    sys.setrecursionlimit(low)
    try:
        assert score("Rouge-L", [words], [(words + " end",)]) == pytest.approx(1.0, abs=1e-2)
        assert sys.getrecursionlimit() == low
    finally:
        sys.setrecursionlimit(before)


def test_wrong_calls_are_named() -> None:
    with pytest.raises(UsageError, match="'BLEU' is unknown; known are ACC"):
        score("BLEU", ["a"], [("a",)])
    with pytest.raises(UsageError, match="2 predictions for 1 examples"):
        score("ACC", ["a", "b"], [("a",)])
    with pytest.raises(UsageError, match="at least 1"):
        score("ACC", [], [])
    with pytest.raises(UsageError, match="no right answer"):
        score("EM", ["a"], [()])


def test_a_stray_word_is_one_more_class_as_published_and_merely_wrong_over_gold_labels() -> None:
    """By hand: 4 rows, one stray word. F1: a = 2/3 (p 1, r 1/2), b = 1, stray = 0."""
    answers, said = [("a",), ("a",), ("b",), ("b",)], ["a", "stray", "b", "b"]
    assert score("Classification-F1", said, answers) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert score(GOLD_F1, said, answers) == pytest.approx((2 / 3 + 1) / 2)
