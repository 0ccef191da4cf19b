"""Skills that words alone decide: mood, topic, tense, … Each returns (input, class or answer)."""

from __future__ import annotations

from numpy.random import Generator

from mpt.embedded.world import lexicon as lex
from mpt.embedded.world.draw import fill, lettered, pick, several


def sentiment(rng: Generator, domain: str, classes: int = 2) -> tuple[str, str]:
    """Draw a review sentence of a domain; class negative, positive or (of three) neutral."""
    mood = pick(rng, ("negative", "positive", "neutral")[:classes])
    words = {"negative": lex.BAD, "positive": lex.GOOD, "neutral": lex.PLAIN}[mood]
    one, two = several(rng, lex.REVIEWS[domain], 2)
    adjective, second = several(rng, words, 2)
    templates = (
        "the {one} was {adjective}.",
        "the {one} was {adjective} and the {two} was {second}.",
        "{name} said the {one} was really {adjective}.",
        "what a {adjective} {one}!",
        "on {day} we had a look, and the {one} was {adjective}.",
        "honestly, the {one} felt {adjective} and even {second}.",
        "I told {name} about the {adjective} {one} and the {second} {two}.",
    )
    text = fill(
        rng,
        templates,
        one=one,
        two=two,
        adjective=adjective,
        second=second,
        name=pick(rng, lex.NAMES),
        day=pick(rng, lex.DAYS),
    )
    return text, mood


def emotion(rng: Generator, manner: str) -> tuple[str, str]:
    """Draw a diary line, a tweet or a line of dialogue; class joy, anger, sadness or fear."""
    feeling = pick(rng, tuple(lex.EMOTIONS))
    one, two = several(rng, lex.EMOTIONS[feeling], 2)
    templates = {
        "diary": (
            "today {event} and I felt {one} all day.",
            "I was {one} and {two} when {event}.",
            "on {day} {event}, so I am {one}.",
        ),
        "tweet": (
            "@user {event} and I am so {one}!",
            "so {one} today, {event} @user #{two}",
            "@user {name} is {one} because {event}",
        ),
        "talk": (
            "{name}: {event}. I feel {one}.",
            "{name}: you look {one}. Is it because {event}?",
            "{name}: I am {one} and {two}, {event}.",
        ),
    }[manner]
    text = fill(
        rng,
        templates,
        one=one,
        two=two,
        event=pick(rng, lex.EVENTS),
        day=pick(rng, lex.DAYS),
        name=pick(rng, lex.NAMES),
    )
    return text, feeling


def topic(rng: Generator, topics: tuple[str, ...]) -> tuple[str, str]:
    """Draw a short news line about one of `topics`; the class is the topic."""
    subject = pick(rng, topics)
    a, b, c = several(rng, lex.TOPICS[subject], 3)
    templates = (
        "the {a} and the {b} were in the paper on {day}.",
        "{name} talked about the {a}, the {b} and the {c}.",
        "nobody in {month} expected the {a} or the {b}.",
        "a report on the {a} mentions the {b}.",
        "{name} and {friend} read about the {a} and a {c}.",
    )
    name, friend = several(rng, lex.NAMES, 2)
    text = fill(
        rng,
        templates,
        a=a,
        b=b,
        c=c,
        name=name,
        friend=friend,
        day=pick(rng, lex.DAYS),
        month=pick(rng, lex.MONTHS),
    )
    return text, subject


def trend(rng: Generator) -> tuple[str, str]:
    """Draw a sentence of market news; class positive (rise), negative (fall) or neutral."""
    mood = pick(rng, ("negative", "neutral", "positive"))
    company, figure, month = (
        pick(rng, lex.COMPANIES),
        pick(rng, lex.FIGURES),
        pick(rng, lex.MONTHS),
    )
    amount = int(rng.integers(2, 60))
    if mood == "neutral":
        templates = (
            "{company} {verb} its {figure} plan in {month}.",
            "in {month} {company} {verb} a report on {figure} of {amount} million.",
        )
    else:
        templates = (
            "{figure} of {company} {verb} by {amount} percent in {month}.",
            "in {month} {company} said that its {figure} {verb} to {amount} million.",
        )
    verb = pick(rng, {"negative": lex.FALL, "neutral": lex.FLAT, "positive": lex.RISE}[mood])
    text = fill(
        rng, templates, company=company, figure=figure, month=month, verb=verb, amount=str(amount)
    )
    return text, mood


def question_type(rng: Generator) -> tuple[str, str]:
    """Draw a question; class person, place, time or number (what it asks for)."""
    kind = pick(rng, ("person", "place", "time", "number"))
    base, past, _ = pick(rng, lex.VERBS)
    thing, name = pick(rng, lex.OBJECTS), pick(rng, lex.NAMES)
    templates = {
        "person": (
            "who {past} the {thing} on {day}?",
            "which man {past} the {thing} with {name}?",
            "whose sister {past} the {thing} in {month}?",
        ),
        "place": (
            "where did {name} {base} the {thing} on {day}?",
            "in which town did {name} {base} the {thing} in {month}?",
        ),
        "time": (
            "when did {name} {base} the {thing} with {friend}?",
            "at what hour will {name} {base} the {thing} for {friend}?",
        ),
        "number": (
            "how many times did {name} {base} the {thing} on {day}?",
            "how much did {name} pay to {base} the {thing} in {month}?",
        ),
    }[kind]
    text = fill(
        rng,
        templates,
        past=past,
        base=base,
        thing=thing,
        name=name,
        friend=pick(rng, lex.NAMES),
        day=pick(rng, lex.DAYS),
        month=pick(rng, lex.MONTHS),
    )
    return text, kind


def tense(rng: Generator) -> tuple[str, str]:
    """Draw a sentence; class past, present or future."""
    when = pick(rng, ("past", "present", "future"))
    base, past, third = pick(rng, lex.VERBS)
    verb = {"past": past, "present": third, "future": f"will {base}"}[when]
    templates = (
        "{name} {verb} the {thing} in the {place}.",
        "my friend {name} {verb} a {colour} {thing}.",
        "with {friend}, {name} {verb} the {thing}.",
    )
    name, friend = several(rng, lex.NAMES, 2)
    text = fill(
        rng,
        templates,
        name=name,
        friend=friend,
        verb=verb,
        thing=pick(rng, lex.OBJECTS),
        place=pick(rng, lex.PLACES),
        colour=pick(rng, lex.COLOURS),
    )
    return text, when


def spam(rng: Generator) -> tuple[str, str]:
    """Draw a text message; class spam or ham."""
    kind = pick(rng, ("ham", "spam"))
    one, two = several(rng, lex.SPAM if kind == "spam" else lex.HAM, 2)
    templates = ("hi {name}, {one}. {two}", "{one}, {two}! {name}", "{day}: {one}. From {name}.")
    text = fill(
        rng, templates, one=one, two=two, name=pick(rng, lex.NAMES), day=pick(rng, lex.DAYS)
    )
    return text, kind


def manners(rng: Generator) -> tuple[str, str]:
    """Draw a request; class polite or rude."""
    kind = pick(rng, ("polite", "rude"))
    phrase = pick(rng, lex.POLITE if kind == "polite" else lex.RUDE)
    templates = ("{name}, {phrase} {errand}.", "{phrase} {errand} before {day}, {name}.")
    text = fill(
        rng,
        templates,
        name=pick(rng, lex.NAMES),
        phrase=phrase,
        errand=pick(rng, lex.ERRANDS),
        day=pick(rng, lex.DAYS),
    )
    return text, kind


def agreement(rng: Generator) -> tuple[str, str]:
    """Draw a sentence whose verb does or does not agree with its subject; class good or bad."""
    base, _, third = pick(rng, lex.VERBS)
    plural = bool(rng.integers(2))
    kind = pick(rng, ("bad", "good"))
    verb = base if plural == (kind == "good") else third
    animal = pick(rng, ("teacher", "doctor", "farmer", "baker", "sailor", "painter", "judge"))
    subject = f"{pick(rng, lex.NUMBERS)} {animal}s" if plural else f"the {animal}"
    templates = ("{subject} {verb} the {thing}.", "every day {subject} {verb} a {colour} {thing}.")
    text = fill(
        rng,
        templates,
        subject=subject,
        verb=verb,
        thing=pick(rng, lex.OBJECTS),
        colour=pick(rng, lex.COLOURS),
    )
    return text, kind


def category_choice(rng: Generator) -> tuple[str, str]:
    """Ask which of three things belongs to a category; the answer is the thing."""
    kinds = several(rng, tuple(lex.CATEGORIES), 3)
    things = [pick(rng, lex.CATEGORIES[kind]) for kind in kinds]
    asked = {
        "animal": "an animal",
        "instrument": "an instrument",
        "furniture": "furniture",
        "clothing": "clothing",
        "drink": "a drink",
    }.get(kinds[0], f"a {kinds[0]}")
    return f"Which one is {asked}? {lettered(rng, things)}", things[0]


def odd_one_out(rng: Generator) -> tuple[str, str]:
    """Ask which of four things does not belong; the answer is the thing."""
    most, rare = several(rng, tuple(lex.CATEGORIES), 2)
    odd = pick(rng, lex.CATEGORIES[rare])
    things = [*several(rng, lex.CATEGORIES[most], 3), odd]
    return (
        f"Which one does not belong? {lettered(rng, things)}",
        odd,
    )


def opposite_choice(rng: Generator) -> tuple[str, str]:
    """Ask which of three words is the opposite of a word; the answer is the word."""
    pair = pick(rng, lex.OPPOSITES)
    word, answer = pair if rng.integers(2) else pair[::-1]
    wrong = [pick(rng, two) for two in several(rng, [p for p in lex.OPPOSITES if p != pair], 2)]
    return f"What is the opposite of {word}? {lettered(rng, [answer, *wrong])}", answer


def cause_choice(rng: Generator) -> tuple[str, str]:
    """Ask which of three reasons explains what somebody did; the answer is the reason."""
    row, *wrong = several(rng, lex.CAUSES, 3)
    location = pick(rng, lex.PLACES)
    text = f"{pick(rng, lex.NAMES)} {row[0]} in the {location}. Why? "
    return text + lettered(rng, [row[1], *(w[1] for w in wrong)]), row[1]


def fact(rng: Generator) -> tuple[str, str]:
    """Leave out the word that completes a known fact; the answer is the word."""
    thing, quality = pick(rng, lex.FACTS)
    templates = (
        "everybody knows that {thing} is [MASK].",
        "{name} says that {thing} is [MASK].",
        "on {day} {name} wrote: {thing} is [MASK].",
    )
    text = fill(rng, templates, thing=thing, name=pick(rng, lex.NAMES), day=pick(rng, lex.DAYS))
    return text, quality
