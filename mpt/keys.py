"""Keys: the name of a run, a point or a study follows from what it is.

A key is the SHA-256 of the schema version, the kind of thing, and *what differs from the
documented defaults*. So an option that is added later, with a default that changes nothing, leaves
every key as it is; and a default must never be changed without raising `SCHEMA`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 1
"""Version of the keys and of the database's tables."""


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no blanks, NaN refused (`ValueError`)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def key_of(kind: str, identity: Mapping[str, Any]) -> str:
    """Return the key of a thing.

    Args:
        kind: "run", "point", "study", …; things of different kinds never share a key.
        identity: what it is; entries at their default are left out by the caller (`changed`).
    """
    return digest({"schema": SCHEMA, "kind": kind, **identity})


def changed(settings: Any) -> dict[str, Any]:
    """Return the fields of a settings object that differ from their defaults, fit for JSON.

    Args:
        settings: an instance of a dataclass, all of whose fields have defaults, or are kept
            always (a field without a default has nothing to differ from).

    Returns:
        Field → value; tuples become lists, whole floats stay floats, nested settings become
        tables of what differs in them.
    """
    differing: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            differing[field.name] = _plain(value)
            continue
        if type(value) is not type(default) or value != default:
            differing[field.name] = _plain(value)
    return differing


def flat(tree: Mapping[str, Any], joint: str = ".") -> dict[str, Any]:
    """Return nested settings as one level: {"a": {"b": 1}} → {"a.b": 1}.

    Args:
        tree: tables of settings.
        joint: between the names of two levels.
    """
    level: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            inner = flat(value, joint)
            level |= {f"{name}{joint}{below}": entry for below, entry in inner.items()}
        else:
            level[name] = value
    return level


def tupled(value: Any) -> Any:
    """Return a list, as JSON and TOML have it, as a tuple; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return changed(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
