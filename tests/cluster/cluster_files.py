"""Reads the two cluster files as Ray does, and knows which commands a node runs."""

from __future__ import annotations

import copy
import tomllib
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


def project() -> Config:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def needed_parts() -> set[str]:
    """Files and folders of the checkout without which the project cannot be installed or run."""
    said = project()
    metadata, setuptools = said["project"], said["tool"]["setuptools"]
    folders = setuptools["package-dir"]
    elsewhere = tuple(folders)
    inside = {name.partition(".")[0] for name in setuptools["packages"] if name not in elsewhere}
    return {
        "pyproject.toml",
        "tune_jobs",
        metadata["readme"],
        *metadata["license-files"],
        *folders.values(),
        *inside,
    }
