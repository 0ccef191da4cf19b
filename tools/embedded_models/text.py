"""The text that the embedded backbones are trained on: instructed examples and plain sentences."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from numpy.random import Generator

from mpt.embedded.world import lexicon
from mpt.embedded.world.draw import pick, several
from mpt.embedded.world.skills import SKILLS
from mpt.embedded.world.split import in_gym


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One row of `instructions.toml`."""

    name: str
    """Row name; also the skill's unless `skill` says otherwise."""
    weight: float
    """How often the row is drawn, relative to the others."""
    ask: list[str]
    """Ways to ask for the skill."""
    skill: str = ""
    """Name in `mpt.embedded.world.skills.SKILLS`."""
    classes: list[str] = field(default_factory=list)
    """Classes of the skill, if it has any."""
    labels: list[list[str]] = field(default_factory=list)
    """Sets of label words, each in the order of `classes`."""
    variants: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    """Options of the skill's generator; one is drawn."""
    short: dict[str, Any] = field(default_factory=dict)
    """Options that make the story shorter, for the first part of the curriculum."""

    def draw(self, rng: Generator, *, short: bool) -> tuple[str, str, str]:
        """Return (instruction, input, answer)."""
        options = {**pick(rng, self.variants), **(self.short if short else {})}
        text, answer = SKILLS[self.skill or self.name](rng, **options)
        ask = pick(rng, self.ask)
        if self.labels:
            words = pick(rng, self.labels)
            answer = words[self.classes.index(answer)]
            ask += ", " + " or ".join(several(rng, words, len(words)))
        return ask + ":", text, answer


def instructions() -> list[Instruction]:
    """Read `instructions.toml`."""
    rows = tomllib.loads(
        resources.files(__package__).joinpath("instructions.toml").read_text("utf8")
    )
    return [Instruction(name=name, **row) for name, row in rows.items()]


def tag(rng: Generator) -> str:
    """Return a meaningless name in brackets, like the task name before a gym example's input."""
    words = several(rng, (*lexicon.OBJECTS, *lexicon.PLACES, *lexicon.COLOURS, *lexicon.TOPICS), 3)
    return "[" + "-".join(words[: int(rng.integers(1, 4))]) + "]"


@dataclass
class Curriculum:
    """The mixture of rows at one part of training, without any input of the gym."""

    rows: list[Instruction]
    weights: list[float]
    short: float = 0.0
    """Share of the stories that are told in two sentences."""

    def draw(self, rng: Generator) -> tuple[str, str, str]:
        """Return (instruction, input, answer) of an example that is not the gym's."""
        while True:
            row = self.rows[int(rng.choice(len(self.rows), p=self.weights))]
            ask, text, answer = row.draw(rng, short=bool(rng.random() < self.short))
            if not in_gym(text):
                return ask, text, answer

    def instructed(self, rng: Generator) -> tuple[str, str]:
        """Return (source, target) of an instructed example; half of them carry a tag."""
        ask, text, answer = self.draw(rng)
        return (f"{ask} {tag(rng)} {text}" if rng.random() < 0.5 else f"{ask} {text}"), answer

    def plain(self, rng: Generator) -> str:
        """Return an input without instruction or answer, for span corruption."""
        return self.draw(rng)[1]


def curriculum(*, context: float, short: float) -> Curriculum:
    """Build the mixture.

    Args:
        context: factor on the weights of the skills that look words up in the input.
        short: share of two-sentence stories.
    """
    rows = instructions()
    looked_up = {"look_up", "look_up_choice", "colour_of", "job_question"}
    weights = [row.weight * (context if row.name in looked_up else 1.0) for row in rows]
    total = sum(weights)
    return Curriculum(rows, [w / total for w in weights], short)
