"""The seven metrics of the few-shot gym, as the published ``metrics.py`` has them, and one more.

Each metric takes stripped predictions [N] and the right answers of each example, and returns a
fraction (Matthews and Pearson: in [−1, 1]), higher is better. scikit-learn, SciPy and the `rouge`
package do the arithmetic. Where the original is undefined, the rule here is:

- an empty prediction is an ordinary prediction: wrong, but for EM where the normalised answer is
  empty too;
- Pearson: a prediction that is not a finite number counts as the mean of the gold values, the
  guess that carries no information; predictions or gold values that are all the same (to
  1e-9 of the largest) score 0;
- Matthews: only one class in predictions or gold values scores 0;
- ROUGE-L: a prediction or reference without any word scores 0.
"""

from __future__ import annotations

import math
import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

# scikit-learn, SciPy and rouge are imported where they are used: together they take seconds, and
# commands that only list tasks import this file.
from mpt.errors import DataError, UsageError

Answers = Sequence[tuple[str, ...]]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Metric:
    """One metric of the gym."""

    name: str
    """As published."""
    exact_match_decides: bool
    """Whether "the prediction equals a right answer" alone makes the example's score 1, so that
    only the other predictions have to be generated."""
    compute: Callable[[Sequence[str], Answers], float]
    """(stripped predictions [N], answers [N]) → score."""


def score(metric: str, predictions: Sequence[str], examples_outputs: Answers) -> float:
    """Score predictions against the right answers.

    Args:
        metric: a key of `METRICS`.
        predictions: generated texts [N]; blanks around them are dropped.
        examples_outputs: right answers of each example [N], each at least one.

    Returns:
        The score as a fraction, not in percent.

    Raises:
        UsageError: the metric is unknown, lengths differ, there is no example, or one of them has
            no answer.
        DataError: Pearson Correlation meets a right answer that is not a number.
    """
    if metric not in METRICS:
        raise UsageError(f"metric {metric!r} is unknown; known are {', '.join(METRICS)}")
    if len(predictions) != len(examples_outputs) or not predictions:
        raise UsageError(
            f"{metric}: {len(predictions)} predictions for {len(examples_outputs)} examples; "
            "the numbers must be equal and at least 1"
        )
    if not all(examples_outputs):
        raise UsageError(f"{metric}: an example has no right answer; each needs at least one")
    return METRICS[metric].compute([p.strip() for p in predictions], examples_outputs)


def normalise(text: str) -> str:
    """Lower-case, drop punctuation, the articles a, an, the, and extra blanks (SQuAD's rule)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _mean_of_best(per_pair: Callable[[str, str], float]) -> Callable[..., float]:
    """Average over examples of the best score over an example's right answers."""

    def compute(predictions: Sequence[str], answers: Answers) -> float:
        best = [
            max(per_pair(prediction, answer) for answer in right)
            for prediction, right in zip(predictions, answers, strict=True)
        ]
        return math.fsum(best) / len(best)

    return compute


def _same(prediction: str, answer: str) -> float:
    return float(prediction.lower() == answer.lower())


def _same_normalised(prediction: str, answer: str) -> float:
    return float(normalise(prediction) == normalise(answer))


def _token_f1(prediction: str, answer: str) -> float:
    """2pr/(p+r) over the bags of normalised words; no common word scores 0, two empty bags too."""
    predicted, right = normalise(prediction).split(), normalise(answer).split()
    common = (Counter(predicted) & Counter(right)).total()
    return 2 * common / (len(predicted) + len(right)) if common else 0.0


def _rouge_l(prediction: str, answer: str) -> float:
    from rouge import Rouge

    if not _has_word(prediction) or not _has_word(answer):
        return 0.0
    with _recursion(len(prediction.split()) + len(answer.split())):
        return float(Rouge(["rouge-l"]).get_scores(prediction, answer, avg=True)["rouge-l"]["f"])


def _has_word(text: str) -> bool:
    return bool(text.translate(_PUNCTUATION).strip())


@contextmanager
def _recursion(depth: int) -> Iterator[None]:
    """Let the `rouge` package, which recurses once a word, recurse `depth` levels further."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 2 * depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _macro_f1(predictions: Sequence[str], answers: Answers) -> float:
    """Macro F1 over the label words that occur as gold (first answer) or as prediction."""
    from sklearn.metrics import f1_score

    gold = [right[0] for right in answers]
    return float(f1_score(gold, predictions, average="macro", zero_division=0))


def _gold_f1(predictions: Sequence[str], answers: Answers) -> float:
    """Macro F1 over the label words that occur as gold; another word is merely wrong."""
    from sklearn.metrics import f1_score

    gold = [right[0] for right in answers]
    labels = sorted(set(gold))
    return float(f1_score(gold, predictions, labels=labels, average="macro", zero_division=0))


def _matthews(predictions: Sequence[str], answers: Answers) -> float:
    """Matthews correlation of "is 'acceptable'" (glue-cola, the one task that uses it)."""
    from sklearn.metrics import matthews_corrcoef

    gold = [right[0] == "acceptable" for right in answers]
    guessed = [prediction == "acceptable" for prediction in predictions]
    if len(set(gold)) < 2 or len(set(guessed)) < 2:
        return 0.0
    return float(matthews_corrcoef(gold, guessed))


def _pearson(predictions: Sequence[str], answers: Answers) -> float:
    from scipy.stats import pearsonr

    gold = [_number(right[0]) for right in answers]
    for value, right in zip(gold, answers, strict=True):
        if value is None:
            raise DataError(f"Pearson Correlation: right answer {right[0]!r} is not a number")
    values = [value for value in gold if value is not None]
    mean = math.fsum(values) / len(values)
    guessed = [mean if n is None else n for n in map(_number, predictions)]
    if _constant(values) or _constant(guessed):
        return 0.0
    return float(pearsonr(values, guessed).statistic)


def _constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= 1e-9 * max(map(abs, values))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


GOLD_F1 = "Classification-F1 over gold labels"
"""What a search may score classification by: a stray word does not count as one more class."""

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("ACC", True, _mean_of_best(_same)),
            Metric("Classification-F1", False, _macro_f1),
            Metric("Matthew Correlation", False, _matthews),
            Metric("Pearson Correlation", False, _pearson),
            Metric("EM", True, _mean_of_best(_same_normalised)),
            Metric("QA-F1", False, _mean_of_best(_token_f1)),
            Metric("Rouge-L", False, _mean_of_best(_rouge_l)),
            Metric(GOLD_F1, False, _gold_f1),
        )
    }
)
"""Published name → metric; the last one is ours."""
