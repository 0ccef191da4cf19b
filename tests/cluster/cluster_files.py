"""Reads the two cluster files as Ray does, and knows which commands a node runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

import mpt

ROOT = Path(mpt.__file__).resolve().parents[1]
FILES = ("cluster.yaml", "cluster.local.yaml")

Config = dict[str, Any]


def read(name: str) -> Config:
    config = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(config, dict)
    return config


def prepared(config: Config) -> Config:
    """What `ray up` makes of a file before it touches any machine; raises where it refuses."""
    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def commands(config: Config, kind: str) -> list[str]:
    """Every command of a prepared configuration on a "head" or "worker" node, in order."""
    return [
        *config["initialization_commands"],
        *config[f"{kind}_setup_commands"],
        *config[f"{kind}_start_ray_commands"],
    ]
