"""The cluster files: accepted by Ray, at this project's versions, closed to the outside."""

from __future__ import annotations

import re
import tomllib

import jsonschema
import pytest
from cluster_files import FILES, ROOT, commands, prepared, read

NODES = [(name, kind) for name in FILES for kind in ("head", "worker")]


def pins() -> dict[str, str]:
    """Package → version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = (re.fullmatch(r"([\w-]+)(?:\[.*\])?==(\S+)", row) for row in project["dependencies"])
    return {row[1]: row[2] for row in rows if row is not None}


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepared(read(name))
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("name", FILES)
def test_ray_refuses_the_file_with_a_misspelt_key(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        prepared({**read(name), "idle_timeout_minuts": 5})


@pytest.mark.parametrize(("name", "kind"), NODES)
def test_every_node_installs_the_pinned_torch_and_then_this_project(name: str, kind: str) -> None:
    config = prepared(read(name))
    installs = [line for line in commands(config, kind) if "pip install" in line]
    assert installs[0].endswith(f" torch=={pins()['torch']}")
    # The project's own pins say the rest, Ray's among them.
    folder = re.search(r"--editable ~/(\S+)$", installs[1])
    assert folder is not None
    mounts = config["file_mounts"]
    for part in ("pyproject.toml", "README.md", "LICENSE", "mpt", "search_spaces", "tune_jobs"):
        assert mounts[f"~/{folder[1]}/{part}"] == part
        assert (ROOT / part).exists()
    # A job starts in the home directory: a folder "mpt" there would hide the package.
    assert folder[1] not in ("mpt", "analysis", "tune_jobs", "tests")


@pytest.mark.parametrize(("name", "kind"), NODES)
def test_no_node_gets_a_version_that_is_not_pinned(name: str, kind: str) -> None:
    text = "\n".join(commands(prepared(read(name)), kind))
    assert "latest" not in text
    assert "3.0.0.dev0" not in text  # Ray's own default is a nightly build
    named = re.findall(r"^.*pip install.* ([a-z0-9-]+)==(\S+)$", text, re.MULTILINE)
    assert named
    assert all(pins().get(package, version) == version for package, version in named)
    without = [
        line
        for line in text.splitlines()
        if "pip install" in line and "==" not in line and "--editable" not in line
    ]
    assert not without


@pytest.mark.parametrize(("name", "kind"), NODES)
def test_every_node_has_the_token_and_asks_for_it(name: str, kind: str) -> None:
    config = prepared(read(name))
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    lines = commands(config, kind)
    secret = next(i for i, line in enumerate(lines) if "chmod 600 ~/.ray/auth_token" in line)
    mode = next(i for i, line in enumerate(lines) if "RAY_AUTH_MODE=token" in line)
    start = next(i for i, line in enumerate(lines) if "ray start" in line)
    assert secret < start
    assert mode < start


@pytest.mark.parametrize("name", FILES)
def test_the_dashboard_listens_on_the_heads_loopback_only(name: str) -> None:
    head = commands(prepared(read(name)), "head")
    hosts = re.findall(r"--dashboard-host[= ](\S+)", "\n".join(head))
    assert hosts == ["127.0.0.1"]


def test_ray_stop_runs_only_on_machines_that_are_the_clusters_own() -> None:
    def stops(name: str, kind: str) -> bool:
        return any("ray stop" in line for line in commands(prepared(read(name)), kind))

    assert not any(stops("cluster.local.yaml", kind) for kind in ("head", "worker"))
    assert all(stops("cluster.yaml", kind) for kind in ("head", "worker"))


def test_the_aws_head_runs_no_trials_and_the_workers_have_gpus_and_come_and_go() -> None:
    config = prepared(read("cluster.yaml"))
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    (worker,) = types.values()
    assert head["resources"] == {"CPU": 0}
    assert worker["resources"]["GPU"] >= 1
    assert worker["min_workers"] == 0
    assert worker["max_workers"] == config["max_workers"] > 0
    assert config["idle_timeout_minutes"] > 0
    assert worker["node_config"]["ImageId"] == head["node_config"]["ImageId"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_every_aws_node_mounts_the_results_at_one_path_before_ray_starts(kind: str) -> None:
    lines = commands(prepared(read("cluster.yaml")), kind)
    mount = next(i for i, line in enumerate(lines) if "mount -t nfs4" in line)
    start = next(i for i, line in enumerate(lines) if "ray start" in line)
    assert lines[mount].endswith(" /mnt/mpt)")
    assert mount < start


def test_both_files_install_the_same_way() -> None:
    aws, own = (set(prepared(read(name))["worker_setup_commands"]) for name in FILES)
    differ = {line for line in own - aws if "python3.11 -m venv" not in line}
    assert not differ
    assert read("cluster.yaml")["file_mounts"] == read("cluster.local.yaml")["file_mounts"]
