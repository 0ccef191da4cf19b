"""Leaves as one Parquet file: a row a downstream run, for whoever wants them in a data frame."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.errors import DataError, UsageError
from mpt.records import LeafStore

from .file import Exported, new_file

if TYPE_CHECKING:
    import pyarrow

_TEXTS = ("key", "task", "metric", "backbone", "data", "init", "status", "commit", "time", "node")
_WHOLE = ("data_seed", "shots", "train_seed", "best_step")
_NUMBERS = (
    "lr",
    "dev",
    "test",
    "cost_steps",
    "cost_examples",
    "cost_tokens",
    "cost_seconds",
)


def schema() -> pyarrow.Schema:
    """Return the columns.

    ``dev`` and ``test`` are fractions, null where the run diverged. ``curve_*`` are lists of equal
    length: step, dev score and training loss at each evaluation. ``identity`` and ``versions`` are
    JSON: everything that can change the run's number, and what it was computed with.
    """
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in _TEXTS),
            *((name, pa.int64()) for name in _WHOLE),
            *((name, pa.float64()) for name in _NUMBERS),
            ("curve_step", pa.list_(pa.int64())),
            ("curve_dev", pa.list_(pa.float64())),
            ("curve_loss", pa.list_(pa.float64())),
            ("identity", pa.string()),
            ("versions", pa.string()),
        ]
    )


def export_parquet(results: Path, out: Path) -> Exported:
    """Write every leaf of a results directory into a new Parquet file.

    Raises:
        UsageError: `results` is absent, or `out` exists or cannot be written.
        DataError: no leaf is recorded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not results.is_dir():
        raise UsageError(f"--results {str(results)!r} is not a directory")
    store = LeafStore(results, read_only=True)
    leaves = map(store.get, store.keys())
    rows = [_row(leaf) for leaf in leaves if leaf is not None]
    if not rows:
        more = f" ({store.problems[0]})" if store.problems else ""
        raise DataError(f"{results}: holds no leaf{more}; run a search into it first")
    with new_file(out) as path:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema()), path)
    return Exported(path=out, count=len(rows), what="leaves", problems=tuple(store.problems))


def _row(leaf: Mapping[str, Any]) -> dict[str, Any]:
    identity, result, origin = leaf["identity"], leaf["result"], leaf["provenance"]
    steps, devs, losses = zip(*result["curve"], strict=True) if result["curve"] else ((), (), ())
    machine = origin.get("machine") or {}
    flat = {
        **{name: leaf["cost"].get(name.removeprefix("cost_")) for name in _NUMBERS},
        **{name: identity.get(name) for name in (*_TEXTS, *_WHOLE)},
        **{name: result.get(name) for name in ("dev", "test", "best_step", "status")},
        "lr": identity.get("lr"),
        "key": leaf["key"],
        "commit": origin.get("commit"),
        "time": origin.get("time"),
        "node": machine.get("node"),
    }
    return flat | {
        "curve_step": list(steps),
        "curve_dev": list(devs),
        "curve_loss": list(losses),
        "identity": json.dumps(identity, sort_keys=True, ensure_ascii=False),
        "versions": json.dumps(origin.get("versions") or {}, sort_keys=True),
    }
