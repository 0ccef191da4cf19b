"""What values of settings may be: rules, each with its words for a message.

A rule is (a function that says whether a value keeps it, what it demands in words).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeGuard

from mpt.errors import UsageError

Rule = tuple[Callable[[Any], bool], str]
"""(whether a value keeps it, its words after "must be")."""


def broken(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> str:
    """Return a clause for every value that breaks its rule, with "; " between; empty if none does.

    Args:
        values: name → value; one that is not there is None.
        rules: name → what its value must be.
    """
    clauses = []
    for name, (holds, rule) in rules.items():
        value = values.get(name)
        try:
            fine = holds(value)
        except TypeError:
            fine = False
        if not fine:
            clauses.append(f"{name} is {value!r}, but must be {rule}")
    return "; ".join(clauses)


def check(owner: object, **rules: Rule) -> None:
    """Raise one `UsageError` that names every field of `owner` that breaks its rule."""
    if faults := broken({field: getattr(owner, field) for field in rules}, rules):
        raise UsageError(f"{type(owner).__name__}: {faults}")


def is_int(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def exchanges(pairs: Any) -> bool:
    """Return whether a value is pairs of names, no name of which stands twice."""
    names = [name for old, new in pairs for name in (old, new)]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def at_least(low: int) -> Rule:
    """Return the rule of whole numbers from `low` on."""
    return (lambda value: is_int(value) and value >= low), f"a whole number ≥ {low}"


def one_of(words: Collection[str]) -> Rule:
    """Return the rule of names that are among these."""
    return (lambda value: value in words), f"one of {', '.join(words)}"


def optional(rule: Rule) -> Rule:
    """Return the rule of what keeps this one or is None."""
    holds, words = rule
    return (lambda value: value is None or holds(value)), f"{words} or None"


POSITIVE: Rule = ((lambda value: is_number(value) and value > 0), "a finite number > 0")
NOT_NEGATIVE: Rule = ((lambda value: is_number(value) and value >= 0), "a finite number ≥ 0")
EPOCH_ORDER: Rule = ((lambda o: o in ("reshuffled", "repeated")), '"reshuffled" or "repeated"')
ANSWERS: Rule = ((lambda a: a in ("first", "random")), '"first" or "random"')
OPTIONAL_COUNT = optional(at_least(1))
OPTIONAL_SEED = optional(at_least(0))
SWITCH: Rule = ((lambda on: isinstance(on, bool)), "true or false")
DIFFERENT_TASKS: Rule = ((lambda v: len(set(v)) == len(v)), "different tasks")
SEEDS: Rule = (
    (lambda v: len(set(v)) == len(v) and all(is_int(n) and n >= 0 for n in v)),
    "distinct whole numbers ≥ 0",
)
RATE: Rule = ((lambda value: is_number(value) and 0 <= value < 1), "a number in [0, 1)")
