"""The part of a confirmation that a report speaks of."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields

from mpt.errors import UsageError

_FLAGS = {"tuning_steps": "budgets"}
"""Fields whose flag has another name."""


@dataclass(frozen=True, kw_only=True)
class ContestPart:
    """Names and numbers that a report is restricted to; none: all that there is."""

    backbones: tuple[str, ...] = ()
    tuning_steps: tuple[int, ...] = ()
    """Downstream budgets."""
    partitions: tuple[str, ...] = ()
    upstream_seeds: tuple[int, ...] = ()
    contestants: tuple[str, ...] = ()

    def takes(self, **values: str | int) -> bool:
        """Return whether the report speaks of this: a field's name → a value of it."""
        chosen = {name: getattr(self, name) for name in values}
        return all(not some or values[name] in some for name, some in chosen.items())

    def told(self, **known: Collection[str | int]) -> list[str]:
        """Return what is left out, one line a field that restricts anything.

        Args:
            known: field → all that the results hold of it.

        Raises:
            UsageError: they do not hold something that is asked for.
        """
        lines = []
        for field in fields(self):
            some = dict.fromkeys(getattr(self, field.name))
            every, flag = known[field.name], _FLAGS.get(field.name, field.name)
            for value in some:
                if value not in every:
                    raise UsageError(
                        f"--{flag.replace('_', '-')} names {value}, of which the results hold no "
                        f"confirmatory point; they hold {_listed(sorted(every))}"
                    )
            if some and len(some) < len(every):
                what = flag.replace("_", " ")
                lines.append(f"{len(some)} of {len(every)} {what} ({_listed(some)})")
        return lines


def _listed(values: Iterable[str | int]) -> str:
    return ", ".join(map(str, values))


WHOLE = ContestPart()
"""No restriction."""
