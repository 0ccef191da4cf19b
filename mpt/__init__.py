"""mpt: hyperparameter search for meta prompt tuning.

    import mpt

    study = mpt.Study(backbone="embedded", partition="random_to_random")
    space = mpt.Space("maml", inner_lr=mpt.loguniform(1e-2, 10), outer_lr=[0.03, 0.1],
                      steps=[25, 50])
    result = mpt.search(study, space, results="runs/maml", searcher="optuna", num_samples=8)
    result.best, result.points()
    mpt.replay(result.best, partitions="all").table()

Importing this is cheap: torch and Ray are imported when they are needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpt.api.methods import load_plugin, upstream_method
    from mpt.api.results import BestPoint, Results, load_results
    from mpt.api.running import ReplayResult, SearchResult, replay, search
    from mpt.api.spaces import loguniform, uniform
    from mpt.api.spaces import make_space as Space
    from mpt.api.study import Study
    from mpt.errors import DataError, MptError, StorageError, UsageError
    from mpt.replay.request import Request as ReplayRequest
    from mpt.study.spaces import load_space
    from mpt.upstream.one_episode import adapt, query_gradient

_WHERE = {
    "Study": "mpt.api.study:Study",
    "Space": "mpt.api.spaces:make_space",
    "uniform": "mpt.api.spaces:uniform",
    "loguniform": "mpt.api.spaces:loguniform",
    "load_space": "mpt.study.spaces:load_space",
    "upstream_method": "mpt.api.methods:upstream_method",
    "adapt": "mpt.upstream.one_episode:adapt",
    "query_gradient": "mpt.upstream.one_episode:query_gradient",
    "load_plugin": "mpt.api.methods:load_plugin",
    "search": "mpt.api.running:search",
    "replay": "mpt.api.running:replay",
    "ReplayRequest": "mpt.replay.request:Request",
    "SearchResult": "mpt.api.running:SearchResult",
    "ReplayResult": "mpt.api.running:ReplayResult",
    "BestPoint": "mpt.api.results:BestPoint",
    "Results": "mpt.api.results:Results",
    "load_results": "mpt.api.results:load_results",
    "MptError": "mpt.errors:MptError",
    "UsageError": "mpt.errors:UsageError",
    "DataError": "mpt.errors:DataError",
    "StorageError": "mpt.errors:StorageError",
}

__all__ = [
    "BestPoint",
    "DataError",
    "MptError",
    "ReplayRequest",
    "ReplayResult",
    "Results",
    "SearchResult",
    "Space",
    "StorageError",
    "Study",
    "UsageError",
    "adapt",
    "load_plugin",
    "load_results",
    "load_space",
    "loguniform",
    "query_gradient",
    "replay",
    "search",
    "uniform",
    "upstream_method",
]


def __getattr__(name: str) -> Any:
    # `mpt.search` and `mpt.replay` are functions here, and packages to import from
    if name not in _WHERE:
        raise AttributeError(f"module 'mpt' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
