"""Skills that compare or look up words of the input: stories, inference, paraphrase."""

from __future__ import annotations

from numpy.random import Generator

from mpt.embedded.world import lexicon as lex
from mpt.embedded.world.draw import fill, lettered, other, pick, several

# what a story tells of a person: (sentence, question about the thing, question about the person)
_RELATIONS = {
    "place": ("{name} is in the {thing}.", "Where is {name}?", "Who is in the {thing}?"),
    "owner": ("{name} has the {thing}.", "What does {name} have?", "Who has the {thing}?"),
    "drink": ("{name} drinks {thing}.", "What does {name} drink?", "Who drinks {thing}?"),
    "job": ("{name} is a {thing}.", "What is the job of {name}?", "Who is the {thing}?"),
    "animal": (
        "{name} likes the {thing}.",
        "Which animal does {name} like?",
        "Who likes the {thing}?",
    ),
}
_THINGS = {
    "place": lex.PLACES,
    "owner": lex.OBJECTS,
    "drink": lex.CATEGORIES["drink"],
    "job": tuple(job for job, _ in lex.JOBS),
    "animal": lex.CATEGORIES["animal"],
}


def _story(rng: Generator, relation: str, sentences: int) -> tuple[list[str], list[str], str]:
    names = several(rng, lex.NAMES, sentences)
    things = several(rng, _THINGS[relation], sentences)
    told = _RELATIONS[relation][0]
    lines = [told.format(name=n, thing=t) for n, t in zip(names, things, strict=True)]
    return names, things, " ".join(lines)


def look_up(
    rng: Generator, relation: str, ask: str = "thing", sentences: int = 3
) -> tuple[str, str]:
    """Tell who is where (or has what, …) and ask for one; the answer stands in the story."""
    names, things, story = _story(rng, relation, sentences)
    i = int(rng.integers(sentences))
    question = _RELATIONS[relation][1 if ask == "thing" else 2].format(
        name=names[i], thing=things[i]
    )
    return f"question: {question} context: {story}", things[i] if ask == "thing" else names[i]


def cloze(rng: Generator, relation: str, sentences: int = 3) -> tuple[str, str]:
    """Tell a story and repeat one of its sentences without the thing; the answer is the thing."""
    names, things, story = _story(rng, relation, sentences)
    i = int(rng.integers(sentences))
    return f"{story} {_RELATIONS[relation][0].format(name=names[i], thing='[MASK]')}", things[i]


def sentence_about(rng: Generator, relation: str, sentences: int = 3) -> tuple[str, str]:
    """Tell a story and ask for the sentence about one of its people."""
    names, things, story = _story(rng, relation, sentences)
    i = int(rng.integers(sentences))
    answer = _RELATIONS[relation][0].format(name=names[i], thing=things[i])
    return f"question: What about {names[i]}? context: {story}", answer


def look_up_choice(rng: Generator, relation: str, sentences: int = 3) -> tuple[str, str]:
    """The same question as `look_up`, with the things of the story as choices."""
    names, things, story = _story(rng, relation, sentences)
    i = int(rng.integers(sentences))
    question = _RELATIONS[relation][1].format(name=names[i], thing=things[i])
    return f"{question} {lettered(rng, things)} context: {story}", things[i]


def colour_of(rng: Generator, sentences: int = 3) -> tuple[str, str]:
    """Tell the colours of things and ask for one; the answer is the colour."""
    things = several(rng, lex.OBJECTS, sentences)
    colours = several(rng, lex.COLOURS, sentences)
    story = " ".join(f"The {t} is {c}." for t, c in zip(things, colours, strict=True))
    i = int(rng.integers(sentences))
    return f"question: What colour is the {things[i]}? context: {story}", colours[i]


def yes_no(rng: Generator, relation: str, sentences: int = 2) -> tuple[str, str]:
    """Ask whether one sentence of a story is so; class yes or no."""
    names, things, story = _story(rng, relation, sentences)
    i = int(rng.integers(sentences))
    answer = pick(rng, ("no", "yes"))
    thing = things[i] if answer == "yes" else things[i - 1]
    return f"question: {_claim(relation, names[i], thing)} context: {story}", answer


def _claim(relation: str, name: str, thing: str) -> str:
    return {
        "place": "Is {n} in the {t}?",
        "owner": "Does {n} have the {t}?",
        "drink": "Does {n} drink {t}?",
        "job": "Is {n} a {t}?",
        "animal": "Does {n} like the {t}?",
    }[relation].format(n=name, t=thing)


def inference(rng: Generator, relation: str, classes: int = 3) -> tuple[str, str]:
    """Give two premises and a hypothesis; class entailment, contradiction or neutral."""
    names, things, story = _story(rng, relation, 2)
    i = int(rng.integers(2))
    kind = pick(rng, ("entailment", "contradiction", "neutral")[:classes])
    name, thing = names[i], things[i]
    if kind == "contradiction":
        thing = other(rng, _THINGS[relation], *things)
    elif kind == "neutral":
        name = other(rng, lex.NAMES, *names)
    hypothesis = _RELATIONS[relation][0].format(name=name, thing=thing)
    return f"premise: {story} [SEP] hypothesis: {hypothesis}", kind


def paraphrase(rng: Generator, kind: str) -> tuple[str, str]:
    """Give two sentences; class same or different. `kind` is what a different one changes."""
    answer = pick(rng, ("different", "same"))
    name, second = several(rng, lex.NAMES, 2)
    thing, location = pick(rng, lex.OBJECTS), pick(rng, lex.PLACES)
    one, two = several(rng, pick(rng, lex.SYNONYMS), 2)
    changed = answer == "different"
    stranger = other(rng, lex.NAMES, name, second)
    seen = other(rng, lex.OBJECTS, thing) if changed else thing
    other_location = other(rng, lex.PLACES, location) if changed else location
    first_text = f"{name} {one} the {thing} in the {location}."
    if kind == "who":
        second_text = f"In the {location} {second if changed else name} {two} the {thing}."
    elif kind == "what":
        second_text = f"In the {location} {name} {two} the {seen}."
    elif kind == "where":
        second_text = f"In the {other_location} {name} {two} the {thing}."
    elif kind == "question":
        first_text = f"Where did {name} see the {thing}?"
        second_text = f"In which place was the {seen} seen by {name}?"
    else:
        first_text = f"{name} met {second} in the {location}."
        second_text = f"{stranger if changed else second} was met by {name} in the {location}."
    return f"sentence 1: {first_text} [SEP] sentence 2: {second_text}", answer


def job_question(rng: Generator) -> tuple[str, str]:
    """Tell the jobs of two people and ask who does what a job does; the answer is the name."""
    names = several(rng, lex.NAMES, 2)
    jobs = several(rng, lex.JOBS, 2)
    story = " ".join(f"{n} is a {j[0]}." for n, j in zip(names, jobs, strict=True))
    i = int(rng.integers(2))
    return f"question: Who {jobs[i][1]}? context: {story}", names[i]


# --- answers that are written out ---------------------------------------------------------------


def first_sentence(rng: Generator) -> tuple[str, str]:
    """Repeat the first of two sentences (a summary by its lead)."""
    _, _, story = _story(rng, pick(rng, ("place", "owner", "animal")), 2)
    return story, story.split(". ")[0] + "."


def last_sentence(rng: Generator) -> tuple[str, str]:
    """Repeat the last of two sentences."""
    _, _, story = _story(rng, pick(rng, ("place", "owner", "job")), 2)
    return story, story.split(". ")[1]


def list_names(rng: Generator) -> tuple[str, str]:
    """List the people of a story in order, separated by blanks."""
    names, _, story = _story(rng, pick(rng, ("place", "owner", "drink")), 3)
    return story, " ".join(names)


def list_things(rng: Generator, relation: str) -> tuple[str, str]:
    """List the things (places, …) of a story in order, separated by blanks."""
    _, things, story = _story(rng, relation, 3)
    return story, " ".join(things)


def find_word(rng: Generator, kind: str) -> tuple[str, str]:
    """Find the one word of a kind (colour, name, number, day) in a sentence."""
    words = {
        "colour": pick(rng, lex.COLOURS),
        "name": pick(rng, lex.NAMES),
        "number": pick(rng, lex.NUMBERS),
        "day": pick(rng, lex.DAYS),
    }
    templates = (
        "on {day} {name} sold {number} {colour} {thing}s in the {place}.",
        "{name} saw {number} {colour} {thing}s in the {place} on {day}.",
        "in the {place} {name} left {number} {colour} {thing}s last {day}.",
    )
    text = fill(
        rng,
        templates,
        **words,
        thing=pick(rng, lex.CATEGORIES["tool"]),
        place=pick(rng, lex.PLACES),
    )
    return text, words[kind]


def data_to_text(rng: Generator) -> tuple[str, str]:
    """Write a sentence from fields."""
    name, location, thing = pick(rng, lex.NAMES), pick(rng, lex.PLACES), pick(rng, lex.OBJECTS)
    text = f"name: {name} ; object: {thing} ; place: {location}"
    return text, f"{name} has the {thing} in the {location}."


def past_form(rng: Generator) -> tuple[str, str]:
    """Give the past form of the verb that stands in brackets."""
    base, past, _ = pick(rng, lex.VERBS)
    templates = (
        "yesterday {name} [{base}] the {thing}.",
        "on {day} {name} [{base}] a {colour} {thing}.",
    )
    text = fill(
        rng,
        templates,
        base=base,
        name=pick(rng, lex.NAMES),
        thing=pick(rng, lex.OBJECTS),
        day=pick(rng, lex.DAYS),
        colour=pick(rng, lex.COLOURS),
    )
    return text, past


def opposite_word(rng: Generator) -> tuple[str, str]:
    """Give the opposite of the adjective that stands in brackets."""
    pair = pick(rng, lex.OPPOSITES)
    word, answer = pair if rng.integers(2) else pair[::-1]
    name, day, thing = pick(rng, lex.NAMES), pick(rng, lex.DAYS), pick(rng, lex.OBJECTS)
    text = f"{name} said on {day}: the {thing} is [{word}]."
    return text, answer


def reply(rng: Generator) -> tuple[str, str]:
    """Answer somebody's feeling kindly, by name."""
    feeling = pick(rng, tuple(lex.EMOTIONS))
    word, name = pick(rng, lex.EMOTIONS[feeling]), pick(rng, lex.NAMES)
    templates = ("{name}: I am {word} because {event}.", "{name}: {event} and now I feel {word}.")
    text = fill(rng, templates, name=name, word=word, event=pick(rng, lex.EVENTS))
    return text, f"{lex.REPLIES[feeling]}, {name}."


def title(rng: Generator) -> tuple[str, str]:
    """Give the title of a news line: its topic and the person in it."""
    subject = pick(rng, tuple(lex.TOPICS))
    a, b = several(rng, lex.TOPICS[subject], 2)
    name = pick(rng, lex.NAMES)
    templates = (
        "{name} wrote about the {a} and the {b} on {day}.",
        "on {day} {name} saw the {a} and a {b}.",
    )
    return fill(
        rng, templates, name=name, a=a, b=b, day=pick(rng, lex.DAYS)
    ), f"{name} on {subject}"
