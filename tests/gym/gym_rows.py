"""Synthetic raw rows in the Hub schema of each of the 160 tasks.

``hub_schemas.json`` gives the fields and their types; what a type cannot say (options that match
an answer, rows that the original filters) is in `FITTED`. Texts hold what breaks careless code:
tabs, line ends of every kind, blanks at both ends, a literal backslash-n, other alphabets.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from mpt.gym.crossfit.tasks import TaskRow

Fields = dict[str, Any]

SCHEMAS: dict[str, Fields] = json.loads(
    (Path(__file__).parent / "hub_schemas.json").read_text(encoding="utf-8")
)
WORDS = [
    "the",
    "film",
    "was",
    "good",
    "and",
    "so",
    "bad",
    "no one",
    "in",
    "Paris",
    "saw",
    "red",
    "12",
]
ODD = (
    "\t",
    "\n",
    "\r",
    "\r\n",
    "  ",
    "\\n",
    "_comma_",
    "<mask>",
    "'",
    "é",
    "\u2028",
    "\x85",
    "日本",
)
NUMBERS = {"piqa": (0, 1), "paws": (0, 1), "app_reviews": (1, 5), "yelp_review_full": (0, 4)}
"""Classes of the tasks that write a number instead of a word."""


class Maker:
    """Makes rows of one task, the same ones every time."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.draw = random.Random(f"rows of {task}")
        # the 1.4.0 loader of squad stripped its texts, so blanks at the ends are not its schema
        self.plain_ends = task.startswith("squad")

    def text(self) -> str:
        words = [self.draw.choice(WORDS) for _ in range(self.draw.randint(2, 7))]
        words.insert(1, f"{self.draw.randrange(10**6)}")  # so that inputs differ
        if self.draw.random() < 0.4:
            words.insert(self.draw.randint(1, len(words) - 1), self.draw.choice(ODD))
        ends = (
            ["", ""]
            if self.plain_ends
            else self.draw.choices(["", " ", "\n", "'"], [9, 1, 1, 1], k=2)
        )
        return ends[0] + " ".join(words) + ends[1]

    def texts(self, count: int) -> list[str]:
        return [self.text() for _ in range(count)]

    def value(self, kind: Any, number: int, classes: int | None) -> Any:
        if isinstance(kind, list):
            return [self.value(kind[0], number, None) for _ in range(self.draw.randint(1, 4))]
        if isinstance(kind, dict):
            return {key: self.value(inner, number, None) for key, inner in kind.items()}
        if kind == "text":
            return self.text()
        if kind == "bool":
            return number % 2 == 0
        if kind == "float":
            return self.draw.choice([0.0, 1.0, 2.0, 2.5])
        word, low, high = kind.split()
        if word == "class":
            span = int(high) - int(low) + 1
            return int(low) + number % (min(span, classes) if classes else span)
        return self.draw.randint(int(low), int(high))

    def row(self, number: int, classes: int | None = None) -> Fields:
        """Return row `number`; only the first `classes` classes occur, if given."""
        row = {key: self.value(kind, number, classes) for key, kind in SCHEMAS[self.task].items()}
        if self.task in NUMBERS:
            low, high = NUMBERS[self.task]
            row["star" if self.task == "app_reviews" else "label"] = low + number % (
                high - low + 1
            )
        fit = FITTED.get(self.task)
        if fit is not None:
            row.update(fit(self, row, number))
        return row


def rows(task: TaskRow, split: str) -> Iterator[Fields]:
    """Return the rows of one split: enough for the published sample, one class less in a test."""
    maker = Maker(f"{task.name}")
    maker.draw = random.Random(f"{task.name} {split}")
    classes = len(task.label.words) if task.label else 5
    pool = split == task.splits.names[0]
    count = classes * 60 if task.per_label else 130
    if not pool:
        count = 300 if task.splits.keep_test < 0.1 else 60
    if task.splits.train_rows:
        count = task.splits.train_rows[1] + 60
    if task.splits.test_from > 0.9:
        count = 400
    if task.group:
        count *= 3
    fewer = classes - 1 if not pool and classes > 2 else None
    return (maker.row(number, fewer) for number in range(count))


class Deadly:
    """A source whose process dies, as one that the system kills for its memory does."""

    def key(self, task: TaskRow) -> str:
        return "deadly"

    def open(self, task: TaskRow) -> NoReturn:
        os._exit(9)


def _lettered(field: str, letters: str = "ABCD") -> Callable[[Maker, Fields, int], Fields]:
    """Options with letters of the data: three to five, sometimes 1, 2, 3 for A, B, C."""

    def fit(maker: Maker, row: Fields, number: int) -> Fields:
        count = maker.draw.randint(3, len(letters))
        names = list(("12345" if number % 5 == 0 else letters)[:count])
        return {
            "choices": {"label": names, "text": maker.texts(count)},
            field: maker.draw.choice(names),
        }

    return fit


def _listed(options: str, answer: str, count: int, form: Callable[[int], Any]) -> Any:
    def fit(maker: Maker, row: Fields, number: int) -> Fields:
        return {options: maker.texts(count), answer: form(maker.draw.randrange(count))}

    return fit


def _indexed(answer: str, count: int, form: Callable[[int], Any]) -> Any:
    return lambda maker, row, number: {answer: form(maker.draw.randrange(count))}


def _acronym(maker: Maker, row: Fields, number: int) -> Fields:
    tokens = maker.texts(9)
    labels = [4, 0, 2, 2, 4, 1, 3, 4, 4]
    if number % 4 == 0:  # no short form, two long ones: filtered
        labels = [4, 0, 2, 4, 0, 4, 4, 4, 4]
    return {"tokens": tokens, "labels": labels}


def _aqua(maker: Maker, row: Fields, number: int) -> Fields:
    options = [f"{letter}){text}" for letter, text in zip("ABCDE", maker.texts(5), strict=True)]
    return {"options": options, "correct": maker.draw.choice("ABCDE")}


def _common_gen(maker: Maker, row: Fields, number: int) -> Fields:
    # the rows of a group do not follow each other
    return {"concept_set_idx": number % 130, "concepts": maker.texts(3)}


def _duorc(maker: Maker, row: Fields, number: int) -> Fields:
    answers = maker.texts(2)
    note = (
        "This article's plot summary may be too long or excessively detailed. Please help improve "
        "it by removing unnecessary details and making it more concise."
    )
    return {
        "answers": [answers[0], answers[1], answers[0]],
        "no_answer": number % 7 == 0,
        "plot": note + row["plot"] if number % 6 == 0 else row["plot"],
    }


def _empathetic(maker: Maker, row: Fields, number: int) -> Fields:
    extra = " hit:3_conv:6" if number % 9 == 0 else ""
    # pairs of rows have one input
    return {
        "prompt": f"prompt {number // 2}",
        "context": "afraid",
        "utterance": row["utterance"] + extra,
    }


def _freebase(maker: Maker, row: Fields, number: int) -> Fields:
    names = maker.texts(3)
    answers = [{"AnswersName": [[names[0], names[1]]]}, {"AnswersName": [[names[2]], [names[0]]]}]
    return {"Parses": {"Answers": answers}}


def _hatexplain(maker: Maker, row: Fields, number: int) -> Fields:
    vote = number % 3
    labels = [vote, (vote + 1) % 3, vote] if number % 8 else [0, 1, 2]
    return {"annotators": {"label": labels}, "post_tokens": maker.texts(4)}


def _hotpot(maker: Maker, row: Fields, number: int) -> Fields:
    titles = [f"title {number}", "other", "third"]
    return {
        "context": {
            "title": titles,
            "sentences": [maker.texts(2), maker.texts(1), maker.texts(3)],
        },
        "supporting_facts": {"title": [titles[2], titles[0], titles[0]]},
    }


def _kilt(maker: Maker, row: Fields, number: int) -> Fields:
    answers = maker.texts(2)
    if maker.task == "kilt_fever":
        answers = [("SUPPORTS", "REFUTES")[number % 2]] * 2
    output = [{"answer": a} for a in (*answers, answers[0])]
    return {"output": [*output, {"answer": ""}] if number % 3 == 0 else output}


def _lama(maker: Maker, row: Fields, number: int) -> Fields:
    subject = "[Y] the second" if number % 10 == 0 else row["sub_label"]
    return {"sub_label": subject, "template": f"[X] was born in [Y] . {number} [X]"}


def _limit(maker: Maker, row: Fields, number: int) -> Fields:
    entities = [{"entity": text, "start_index": 0} for text in maker.texts(1 + number % 3)]
    return {"motion": "no" if number % 5 == 0 else "yes", "motion_entities": entities}


def _math(maker: Maker, row: Fields, number: int) -> Fields:
    first = "" if number % 11 == 0 else f"rs . {number}"
    comma = "1 , 000" if number % 6 == 0 else "1000"  # shifts the later options
    options = f"a ) {first} , b ) 2 , c ) {comma} , d ) 40 , e ) none of these"
    return {"options": options, "correct": "a" if not first else maker.draw.choice("abcde")}


def _mocha(maker: Maker, row: Fields, number: int) -> Fields:
    return {"score": 1.0 + number % 5 if number % 6 else 2.5}


def _multirc(maker: Maker, row: Fields, number: int) -> Fields:
    question = number % 130
    label = 0 if question % 9 == 0 else (number // 130) % 2
    return {"idx": {"paragraph": 0, "question": question, "answer": number}, "label": label}


def _onestop(maker: Maker, row: Fields, number: int) -> Fields:
    return {"text": f"Intermediate  {row['text']}"} if number % 3 == 1 else {}


def _proto(maker: Maker, row: Fields, number: int) -> Fields:
    raw = {f"{text} {at}": at for at, text in enumerate(maker.texts(3))}
    return {"answers": {"raw": raw}}


def _quarel(maker: Maker, row: Fields, number: int) -> Fields:
    end = "or " if number % 4 == 0 else ""
    first, second = maker.texts(2)
    return {
        "question": f"{row['question']} (A) {first} or (B) {second} {end}",
        "answer_index": number % 2,
    }


def _rating(maker: Maker, row: Fields, number: int) -> Fields:
    # float32 values as the Hub gives them, widened; 0.4 and 0.5 are filtered
    values = (0.0, 0.20000000298023224, 0.4000000059604645, 0.5, 0.6000000238418579, 1.0)
    return {"rating": values[number % 6]}


def _scicite(maker: Maker, row: Fields, number: int) -> Fields:
    return {"citeStart": 2, "citeEnd": 2 + number % 5}


def _sciq(maker: Maker, row: Fields, number: int) -> Fields:
    return {"support": ""} if number % 5 == 0 else {}


def _scitail(maker: Maker, row: Fields, number: int) -> Fields:
    return {"gold_label": ("entailment", "neutral")[number % 2]}


def _tweet(maker: Maker, row: Fields, number: int) -> Fields:
    return {"text": " \t\n "} if number % 13 == 0 else {}


def _wiki_bio(maker: Maker, row: Fields, number: int) -> Fields:
    count = 3 if number % 7 == 0 else 2
    table = {"column_header": ["name", "born"], "content": maker.texts(count)}
    return {"input_text": {"table": table, "context": maker.text()}}


def _circa(maker: Maker, row: Fields, number: int) -> Fields:
    return {"goldstandard2": -1} if number % 11 == 0 else {}


def _some_class(value: int) -> Callable[[Maker, Fields, int], Fields]:
    return lambda maker, row, number: {"label": value} if maker.draw.random() < 0.1 else {}


FITTED: dict[str, Callable[[Maker, Fields, int], Fields]] = {
    "acronym_identification": _acronym,
    "ai2_arc": _lettered("answerKey"),
    "aqua_rat": _aqua,
    "circa": _circa,
    "codah": _listed("candidate_answers", "correct_answer_idx", 4, int),
    "common_gen": _common_gen,
    "commonsense_qa": _lettered("answerKey", "ABCDE"),
    "cosmos_qa": _indexed("label", 4, int),
    "definite_pronoun_resolution": _listed("candidates", "label", 2, int),
    "dream": lambda maker, row, number: {"choice": maker.texts(3)},
    "duorc": _duorc,
    "empathetic_dialogues": _empathetic,
    "freebase_qa": _freebase,
    "google_wellformed_query": _rating,
    "hate_speech18": _some_class(3),
    "hatexplain": _hatexplain,
    "health_fact": _some_class(-1),
    "hellaswag": _listed("endings", "label", 4, str),
    "hotpot_qa": _hotpot,
    "lama-google_re": _lama,
    "lama-trex": _lama,
    "limit": _limit,
    "math_qa": _math,
    "mocha": _mocha,
    "onestop_english": _onestop,
    "openbookqa": lambda maker, row, number: {
        "choices": {"text": maker.texts(4), "label": list("ABCD")},
        "answerKey": "ABCD"[number % 4],
    },
    "proto_qa": _proto,
    "qasc": _lettered("answerKey"),
    "quail": _listed("answers", "correct_answer_id", 4, int),
    "quarel": _quarel,
    "quartz-no_knowledge": _lettered("answerKey"),
    "quartz-with_knowledge": _lettered("answerKey"),
    "race-high": _listed("options", "answer", 4, "ABCD".__getitem__),
    "race-middle": _listed("options", "answer", 4, "ABCD".__getitem__),
    "scicite": _scicite,
    "sciq": _sciq,
    "scitail": _scitail,
    "social_i_qa": _indexed("label", 3, lambda at: f"{at + 1}\n"),
    "superglue-copa": _indexed("label", 2, int),
    "superglue-multirc": _multirc,
    "swag": _indexed("label", 4, int),
    "wiki_bio": _wiki_bio,
    "wino_grande": lambda maker, row, number: {"answer": "123"[maker.draw.randrange(3)]},
    "wiqa": lambda maker, row, number: {
        "choices": {"text": maker.texts(3), "label": list("ABC")},
        "answer_label_as_choice": "ABC"[number % 3],
    },
    **{name: _kilt for name in SCHEMAS if name.startswith("kilt_")},
    **{name: _tweet for name in SCHEMAS if name.startswith("tweet_eval-")},
}
"""Task → what its schema cannot say."""
