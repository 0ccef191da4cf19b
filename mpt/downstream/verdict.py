"""What the first differing token of a greedy output already tells about the example's score.

Teacher forcing shows greedy generation up to and with its first token that differs from the
target. Where a metric only asks whether the text equals a right answer, that beginning often rules
every right answer out, and nothing has to be generated. It does not always: other tokens can spell
the same text ("po·sitive" for "posi·tive"), another right answer may begin like this, and metrics
ignore letter case, articles or punctuation. These rules never rule out what could still match.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpt.metrics.task_metrics import normalise

_ARTICLES = ("a", "an", "the")


def can_still_match(metric: str, beginning: str, answers: Sequence[str]) -> bool:
    """Return whether an output that begins like this may equal a right answer under the metric.

    Args:
        metric: name of a metric; for one that exact match does not decide the answer is yes.
        beginning: decoded beginning of the output, without outer blanks; the last word, and its
            last character, may be unfinished.
        answers: right answers of the example.
    """
    known = beginning.rstrip("\N{REPLACEMENT CHARACTER}").strip()
    if metric == "ACC":
        # ACC compares lower case. Equal lower case implies equal case folding, and folding works
        # letter by letter, while lower() looks ahead (a sigma at the end of a word).
        return any(answer.casefold().startswith(known.casefold()) for answer in answers)
    if metric == "EM":
        return any(_may_continue_to(normalise(answer).split(), known) for answer in answers)
    return True


def _may_continue_to(answer: list[str], known: str) -> bool:
    """Return whether `known`, continued somehow, may normalise to these words.

    `normalise` works word by word, so the finished words of `known` must be the answer's first.
    """
    head, _, last = known.rpartition(" ")
    finished = normalise(head).split()
    if answer[: len(finished)] != finished:
        return False
    begun = normalise(last) if last.isascii() and last.isalnum() else ""
    article_like = any(a.startswith(last.lower()) or last.lower().startswith(a) for a in _ARTICLES)
    if not begun or article_like:
        return True  # punctuation or an article: normalising may remove it
    rest = answer[len(finished) :]
    return bool(rest) and rest[0].startswith(begun)
