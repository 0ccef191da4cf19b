"""The cluster files: accepted by Ray, at this project's versions, closed to the outside."""

from __future__ import annotations

import re
import shlex

import jsonschema
import pytest
from cluster_files import FILES, ROOT, commands, needed_parts, prepared, project, read

from mpt.cli.search import parser_of
from mpt.search.ray.gauges import GAUGES

NODES = [(name, kind) for name in FILES for kind in ("head", "worker")]


def pins() -> dict[str, str]:
    """Package → version in pyproject.toml."""
    wanted = project()["project"]["dependencies"]
    rows = (re.fullmatch(r"([\w-]+)(?:\[.*\])?==(\S+)", row) for row in wanted)
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
    assert needed_parts() >= {"pyproject.toml", "README.md", "LICENSE", "mpt", "analysis"}
    for part in needed_parts():
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


def test_aws_workers_get_a_role_for_the_bucket_and_the_head_keeps_rays_own() -> None:
    config = prepared(read("cluster.yaml"))
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    (worker,) = types.values()
    assert worker["node_config"]["IamInstanceProfile"]["Arn"].startswith("arn:aws:iam::")
    # Ray gives the head a role that may start machines, unless the file names another
    assert "IamInstanceProfile" not in head["node_config"]


@pytest.mark.parametrize("name", FILES)
def test_no_node_mounts_anything(name: str) -> None:
    text = (ROOT / name).read_text().lower()
    assert not re.findall(r"\bmount -|mountpoint|nfs|\befs\b|/mnt/", text)


def submitted(name: str) -> list[list[str]]:
    """The flags of every job that a file's text shows; a line may go on after a backslash."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    shown = re.findall(r"tune_jobs/maml_rr\.py (?:-- )?(--[^\n…]*)", text)
    return [shlex.split(words.strip().removesuffix("'"), comments=True) for words in shown]


@pytest.mark.parametrize("name", [*FILES, "docs/cluster.md", "README.md"])
def test_what_is_shown_to_be_submitted_is_understood_and_puts_files_into_a_bucket(
    name: str,
) -> None:
    on_a_cluster = [words for words in submitted(name) if "--address" in words]
    assert on_a_cluster
    for words in on_a_cluster:
        flags = parser_of("maml").parse_args(words)
        assert flags.address == "auto"
        assert flags.storage == "s3://BUCKET/mpt"


def test_the_gauges_are_documented_by_their_names_and_no_others() -> None:
    named = re.findall(r"`ray_(mpt_\w+)`", (ROOT / "docs" / "cluster.md").read_text())
    assert sorted(named) == sorted(GAUGES)


def test_both_files_install_the_same_way() -> None:
    aws, own = (set(prepared(read(name))["worker_setup_commands"]) for name in FILES)
    differ = {line for line in own - aws if "python3.11 -m venv" not in line}
    assert not differ
    assert read("cluster.yaml")["file_mounts"] == read("cluster.local.yaml")["file_mounts"]


@pytest.mark.parametrize(("name", "kind"), NODES)
def test_weights_go_to_shared_storage_where_there_is_some(name: str, kind: str) -> None:
    lines = commands(prepared(read(name)), kind)
    place = next(i for i, line in enumerate(lines) if "HF_HOME=~/shared/huggingface" in line)
    start = next(i for i, line in enumerate(lines) if "ray start" in line)
    assert place < start  # Ray's workers have what its shell has
