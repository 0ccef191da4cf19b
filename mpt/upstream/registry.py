"""Method name → what makes it different. A new method is a file and a row here.

Its name stands in `mpt.config.OWN_METHODS` too. Its row in ``tests/upstream/test_conformance.py``
then holds it to what every method must do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mpt.gym.episodes import EpisodeStream
from mpt.gym.union import UnionStream
from mpt.upstream import fomaml, maml, multitask, path, reptile
from mpt.upstream.losses import ItemRows, UnionRows

if TYPE_CHECKING:
    from mpt.config import UpstreamConfig
    from mpt.gym.episodes import Episode
    from mpt.upstream.losses import EpisodeLoss

OuterGradient = Callable[
    ["EpisodeLoss", Tensor, "Episode", "UpstreamConfig"], tuple[Tensor, float]
]
"""(loss, prompt [P, d], episode, config) → (outer gradient [P, d], loss that is reported).

It must not change the prompt. The reported loss is that after adaptation on query rows where the
method has any, and that of its training rows otherwise.
"""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One upstream method."""

    outer_gradient: OuterGradient
    stream: type[EpisodeStream] | type[UnionStream] = EpisodeStream
    """Where episodes come from."""
    rows: type[ItemRows] = ItemRows
    """What the rows of an episode are."""
    query: bool = True
    """Whether an episode needs a query batch."""
    averages: bool = False
    """Whether the gradients of one outer step are averaged, and not summed (PROTOCOL row 3)."""
    second_order: bool = False
    """Whether `UpstreamConfig.second_order` means anything."""


UPSTREAM_METHODS: Mapping[str, Method] = {
    "maml": Method(outer_gradient=maml.outer_gradient, second_order=True),
    "fomaml": Method(outer_gradient=fomaml.outer_gradient),
    "reptile": Method(outer_gradient=reptile.outer_gradient, query=False, averages=True),
    "multitask": Method(
        outer_gradient=multitask.outer_gradient, stream=UnionStream, rows=UnionRows, query=False
    ),
    "path": Method(outer_gradient=path.outer_gradient),
}
