"""Small records and a run that tests of the storage put and look for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mpt.records import Record, make_leaf
from mpt.upstream.engine import Cost


def leaf(number: int = 0) -> Record:
    identity = {"schema": 1, "task": "toy", "data_seed": 13, "lr": number / 10}
    return make_leaf(identity, {"dev": 0.5, "test": 0.25}, {"steps": 2}, {"time": "now"})


def leaf_path(results: Path, record: Record) -> Path:
    return results / "leaves" / record["key"][:2] / f"{record['key']}.json"


def toy_run() -> Any:
    cost = Cost(steps=2, examples=4, tokens=8, seconds=0.5)
    return SimpleNamespace(key="key", step_count=2, prompt=torch.ones(2, 3), cost=cost)
