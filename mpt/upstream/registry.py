"""Method name → what makes it different.

The built-in methods are rows here; others come through `register` (`mpt.upstream_method`, an entry
point of the group "mpt.methods", or a plugin file). ``mpt.testing`` holds each to what every
method must do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpt.config import METHODS, OWN_METHODS, UpstreamConfig, register_method_name
from mpt.errors import UsageError
from mpt.gym.episodes import EpisodeStream
from mpt.gym.union import UnionStream
from mpt.upstream.losses import ItemRows, UnionRows
from mpt.upstream.methods import fomaml, maml, multitask, path, reptile, untrained
from mpt.upstream.one_episode import OnStacks, OuterGradient


@dataclass(frozen=True, kw_only=True)
class Method:
    """One upstream method."""

    outer_gradient: OuterGradient
    """Of one episode; episodes share passes if it is `OnStacks`."""
    stream: type[EpisodeStream] | type[UnionStream] = EpisodeStream
    """Where episodes come from."""
    rows: type[ItemRows] = ItemRows
    """What the rows of an episode are."""
    query: bool = True
    """Whether an episode needs a query batch."""
    averages: bool = False
    """Whether the gradients of one outer step are averaged, and not summed (recipe row 3)."""
    second_order: bool = False
    """Whether `UpstreamConfig.second_order` means anything."""
    adapts: bool = True
    """Whether it has an inner loop, so that `inner_lr` and `inner_steps` mean anything."""
    learns: bool = True
    """Whether its steps move the prompt; the control has steps that read and do nothing."""
    settings: tuple[tuple[str, float], ...] = ()
    """Its own settings with their defaults; they stand in `UpstreamConfig.extra`."""
    version: str = ""
    """Digest of its source; part of every key, so that a changed method has results of its own."""


UPSTREAM_METHODS: dict[str, Method] = {
    "maml": Method(outer_gradient=maml.outer_gradient, second_order=True),
    "fomaml": Method(outer_gradient=fomaml.outer_gradient),
    "reptile": Method(outer_gradient=reptile.outer_gradient, query=False, averages=True),
    "multitask": Method(
        outer_gradient=multitask.outer_gradient,
        stream=UnionStream,
        rows=UnionRows,
        query=False,
        adapts=False,
    ),
    "path": Method(outer_gradient=path.outer_gradient),
    "untrained": Method(
        outer_gradient=untrained.outer_gradient, query=False, adapts=False, learns=False
    ),
}


def register(name: str, method: Method) -> None:
    """Add an upstream method, or replace one that was registered under the same name.

    Args:
        name: letters, digits and "_"; not that of a built-in method.
        method: what makes it different.

    Raises:
        UsageError: the name is not allowed.
    """
    if not name.isidentifier():
        raise UsageError(f"method name is {name!r}, but must be letters, digits and _")
    if name in (*METHODS, *OWN_METHODS, "prompt_tuning", "fine_tuning", "zero_shot"):
        raise UsageError(f"method name {name!r} is a built-in method's; take another")
    register_method_name(name, adapts=method.adapts)
    UPSTREAM_METHODS[name] = method


def config_of(method: str, settings: Mapping[str, Any]) -> UpstreamConfig:
    """Return the settings of a method; its own ones, with their defaults, go to `extra`.

    Raises:
        UsageError: a value is not allowed.
    """
    own = dict(UPSTREAM_METHODS[method].settings) if method in UPSTREAM_METHODS else {}
    extra = {name: float(settings.get(name, value)) for name, value in own.items()}
    common = {name: value for name, value in settings.items() if name not in own}
    return UpstreamConfig(method=method, extra=tuple(sorted(extra.items())), **common)


def episodes_a_pass(config: UpstreamConfig) -> int:
    """Return how many episodes of an outer step share passes, at most."""
    method = UPSTREAM_METHODS.get(config.method)
    if method is None or not isinstance(method.outer_gradient, OnStacks):
        return 1
    return min(config.items_per_pass, config.items_per_step)


def registered() -> dict[str, Method]:
    """Return the methods that are not built in."""
    built_in = (*METHODS, *OWN_METHODS)
    return {name: one for name, one in UPSTREAM_METHODS.items() if name not in built_in}
