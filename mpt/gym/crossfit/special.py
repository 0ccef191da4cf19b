"""Fields that a template cannot say: one function a kind of task, each with its reason.

A function takes a raw row (after grouping) and returns the fields that it adds; None stands for
"this row has none", which a ``drop`` rule of the task's row then meets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpt.gym.crossfit.template import Row, RowError, get

Fields = dict[str, Any]


@dataclass(frozen=True)
class Code:
    """A function, the raw fields that it reads and the fields that it adds."""

    reads: tuple[str, ...]
    adds: tuple[str, ...]
    function: Callable[[Row], Fields]


def acronym(row: Row) -> Fields:
    """Reason: token spans. B-short is 1, I-short 3; B-long 0, I-long 2; one span of each."""
    tokens, labels = get(row, "tokens"), get(row, "labels")

    def span(begin: int, inside: int) -> str | None:
        if labels.count(begin) != 1:
            return None
        start = end = labels.index(begin)
        while end + 1 < len(labels) and labels[end + 1] == inside:
            end += 1
        return " ".join(tokens[start : end + 1])

    short, long = span(1, 3), span(0, 2)
    both = short is not None and long is not None
    return {"acronym": short if both else None, "long": long}


def aqua(row: Row) -> Fields:
    """Reason: letter and text share one string, "A)21" for option A."""
    options, right = get(row, "options"), get(row, "correct")
    texts = [option[2:] for option in options if option[:1] == right]
    if not texts:
        raise RowError(f"field 'correct' is {right!r}, but no option starts with it")
    return {
        "choices": "".join(f" ({option[:2]} {option[2:]}" for option in options),
        "answer": texts[0],
    }


def citation(row: Row) -> Fields:
    """Reason: the citation is a slice of a text by two other fields."""
    return {"cite": get(row, "string")[get(row, "citeStart") : get(row, "citeEnd")]}


def infobox(row: Row) -> Fields:
    """Reason: two parallel lists; a row whose lists differ in length has no infobox."""
    headers = get(row, "input_text.table.column_header")
    values = get(row, "input_text.table.content")
    if len(headers) != len(values):
        return {"infobox": None}
    cells = (
        f"{header}: {value.strip().replace(chr(10), ' ')} [n] "
        for header, value in zip(headers, values, strict=True)
    )
    return {"infobox": get(row, "input_text.context").strip() + " [SEP] " + "".join(cells)}


def lama_query(row: Row) -> Fields:
    """Reason: the template is in the row; [X] is filled first, for a subject may hold "[Y]"."""
    filled = get(row, "template").replace("[X]", get(row, "sub_label"))
    return {"query": filled.replace("[Y]", "[MASK]")}


def majority_vote(row: Row) -> Fields:
    """Reason: three annotators; the most frequent label, none where the two top counts tie."""
    counts = Counter(get(row, "annotators.label")).most_common(2)
    tie = len(counts) == 2 and counts[0][1] == counts[1][1]
    return {"vote": counts[0][0] if counts and not tie else None}


def math_options(row: Row) -> Fields:
    """Reason: five options in one string "a ) 1 , b ) 2 , …", cut at commas and by position.

    An option that itself contains a comma shifts the later ones, as in the published files.
    """
    parts = get(row, "options").split(",")
    if len(parts) < 5:
        raise RowError("field 'options' must have five parts between commas")
    options = [parts[0][4:-1], *(part[5:-1] for part in parts[1:4]), parts[4][5:]]
    right = get(row, "correct")
    if right not in tuple("abcde"):
        raise RowError(f"field 'correct' is {right!r}, but must be one of a, b, c, d, e")
    choices = (f" ({letter}) {text}" for letter, text in zip("ABCDE", options, strict=True))
    return {"choices": "".join(choices), "answer": options["abcde".index(right)]}


def quarel_answer(row: Row) -> Fields:
    """Reason: both answers stand inside the question, after "(A)" and "(B)"."""
    question, index = get(row, "question"), get(row, "answer_index")
    first, second = question.find("(A)"), question.find("(B)")
    if first < 0 or second < 0:
        raise RowError("field 'question' must hold (A) and (B)")
    answer = question[first + 4 : second] if index == 0 else question[second + 4 :]
    return {"answer": answer.removesuffix("or ").strip()}


def reading_level_text(row: Row) -> Fields:
    """Reason: a title that gives the label away, "Intermediate" and two blanks, is cut off."""
    return {"doc": get(row, "text").replace("\n", " ").removeprefix("Intermediate  ")}


def supporting_text(row: Row) -> Fields:
    """Reason: only paragraphs whose title is a supporting fact, their sentences run together."""
    titles, paragraphs = get(row, "context.title"), get(row, "context.sentences")
    wanted = set(get(row, "supporting_facts.title"))
    kept = (
        "".join(sentences) + " "
        for title, sentences in zip(titles, paragraphs, strict=True)
        if title in wanted
    )
    return {"ctx": "".join(kept).strip()}


def true_answers(row: Row) -> Fields:
    """Reason: any number of right candidates in one output, and a text for none."""
    pairs = zip(get(row, "answer"), get(row, "label"), strict=True)
    right = [answer for answer, label in pairs if label == 1]
    return {"true_answers": " [SEP] ".join(right) if right else "NO ANSWER!"}


def well_formed_band(row: Row) -> Fields:
    """Reason: a class from a rating; the rating is float32 in the data, so 0.6 is above 0.6.

    The original compares the widened float32 with the double; a mirror may have rounded it back.
    """
    rating = float(np.float32(get(row, "rating")))
    return {"band": 0 if rating < 0.4 else 1 if rating > 0.6 else None}


CODE: Mapping[str, Code] = {
    code.function.__name__: code
    for code in (
        Code(("tokens", "labels"), ("acronym", "long"), acronym),
        Code(("options", "correct"), ("choices", "answer"), aqua),
        Code(("string", "citeStart", "citeEnd"), ("cite",), citation),
        Code(("input_text",), ("infobox",), infobox),
        Code(("template", "sub_label"), ("query",), lama_query),
        Code(("annotators",), ("vote",), majority_vote),
        Code(("options", "correct"), ("choices", "answer"), math_options),
        Code(("question", "answer_index"), ("answer",), quarel_answer),
        Code(("text",), ("doc",), reading_level_text),
        Code(("context", "supporting_facts"), ("ctx",), supporting_text),
        Code(("answer", "label"), ("true_answers",), true_answers),
        Code(("rating",), ("band",), well_formed_band),
    )
}
"""Name in ``tasks.toml`` → code."""
