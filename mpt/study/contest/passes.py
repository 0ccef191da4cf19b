"""Row passes: the budget in which upstream methods are compared.

One row pass is one row (example and prompt) once forward and once backward. A Hessian-vector
product of a row is a backward pass through a forward and backward pass and counts as two; so do
the two gradients by which it is approximated. The records of points hold the examples that were
read, support and query, in a soup those of all members; passes follow from them::

    first order      passes = examples
    second order     passes = examples · (1 + 2 · k / (k + 1))     k support batches, one query

The outer step itself, and forward passes or races by which a target takes its start, are not among
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpt.study.choice import point_config
from mpt.upstream.registry import UPSTREAM_METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpt.config import UpstreamConfig
    from mpt.store.records import Point
    from mpt.study.specs import UpstreamSpec

HESSIAN = 2
"""Row passes that a Hessian-vector product of a row counts as."""
TOLERANCE = 0.02
"""Share of the budget by which budgets that count as equal may differ."""


def passes_of_example(config: UpstreamConfig) -> float:
    """Return the row passes for every example that a method reads."""
    if not UPSTREAM_METHODS[config.method].second_order:
        return 1.0
    return 1.0 + HESSIAN * config.inner_steps / (config.inner_steps + 1)


def planned_passes(spec: UpstreamSpec) -> float:
    """Return the row passes of a point if no file is shorter than a batch."""
    from mpt.config import UpstreamConfig

    config = spec.config
    assert isinstance(config, UpstreamConfig)
    method = UPSTREAM_METHODS[config.method]
    batches = (config.inner_steps if method.adapts else 1) + method.query
    examples = config.batch_size * batches * config.items_per_step * spec.rungs[-1] * config.soup
    return examples * passes_of_example(config)


def spent_passes(point: Point) -> float:
    """Return the row passes that a stored point has cost, by its record."""
    return point.cost.examples * passes_of_example(point_config(point))


def unequal(passes: Mapping[str, float], budget: float) -> list[str]:
    """Return one line for each budget that is not equal to the matched one within `TOLERANCE`."""
    return [
        f"{name} has {value:.0f} row passes, {100 * (value / budget - 1):+.1f} % of the matched "
        f"{budget:.0f}"
        for name, value in passes.items()
        if abs(value - budget) > TOLERANCE * budget
    ]
