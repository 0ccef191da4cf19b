"""What preflight says of nodes: by what they report, and on a real cluster of raylets."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import preflight_cluster
import pytest
from ray_processes import run_ray_script

from mpt.errors import UsageError
from mpt.search.ray import preflight
from mpt.search.ray.preflight import Sight, Sign, check_cluster, look, signed, versions
from mpt.store.artifacts import Artifacts

FINE = Sight(versions=versions(), storage=None, gpus=0)
NODES = [
    {
        "NodeID": f"{number}" * 40,
        "NodeManagerHostname": host,
        "NodeManagerAddress": f"10.0.0.{number}",
        "Alive": number < 4,
        "Resources": {"CPU": 1.0, "GPU": 2.0} if number == 3 else {"CPU": 1.0},
    }
    for number, host in ((1, "one"), (2, "two"), (3, "three"), (4, "dead"))
]


def verdict(
    monkeypatch: pytest.MonkeyPatch, answers: Mapping[int, Sight | str], **options: Any
) -> str:
    """Run the check over three nodes that answer so, the others being fine."""
    import ray

    def ask(nodes: Iterable[str], *_: Any) -> dict[str, Sight | str]:
        return {node: answers.get(int(node[0]), FINE) for node in nodes}

    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    monkeypatch.setattr(preflight, "_ask", ask)
    with pytest.raises(UsageError) as caught:
        check_cluster(None, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_all_unfit_nodes_are_named_at_once_and_those_with_the_same_fault_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = dataclasses.replace(FINE, versions={**versions(), "torch": "2.12.0"})
    text = verdict(monkeypatch, {1: older, 2: "is lost", 3: older})
    assert text.startswith("3 of 3 nodes of the cluster are not fit for this search: ")
    torch = versions()["torch"]
    assert f"[1] one (10.0.0.1), three (10.0.0.3): torch is 2.12.0, but {torch} with the" in text
    assert "pip install -e ." in text
    assert text.endswith("[2] two (10.0.0.2): is lost")


def test_a_node_that_lacks_a_package_is_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: version for name, version in versions().items() if name != "transformers"}
    text = verdict(monkeypatch, {2: dataclasses.replace(FINE, versions=few)})
    assert "two (10.0.0.2): transformers is missing, but" in text


def test_a_gpu_that_ray_counts_and_torch_does_not_see_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = dataclasses.replace(FINE, gpus=1)
    text = verdict(monkeypatch, {3: one}, gpus=1.0)
    assert "1 of 3" in text
    assert "three (10.0.0.3): Ray counts 2 GPUs there, but torch sees 1" in text


def test_names_that_two_nodes_share_are_told_apart_by_the_nodes_ids() -> None:
    twins = [{**node, "NodeManagerHostname": "t", "NodeManagerAddress": "::1"} for node in NODES]
    assert preflight.node_names(twins[:2]) == {
        "1" * 40: "t (::1) node 11111111",
        "2" * 40: "t (::1) node 22222222",
    }


def on_node(sign: Sign, files: str | None = None) -> str | None:
    """What is wrong with the storage where a node sees `files` in its place."""
    seen = sign if files is None else dataclasses.replace(sign, files=files)
    return look("n", seen, gpus=False).storage


@pytest.fixture(params=["directory", "uri"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage: a local directory, or one that is reached by a URI."""
    return str(tmp_path / "files") if request.param == "directory" else f"memory:/{tmp_path}"


def test_a_node_with_the_same_storage_has_no_fault_and_its_reply_is_seen(files: str) -> None:
    with signed(files) as sign:
        assert on_node(sign) is None
        assert preflight.reply_seen(sign, "n")
        assert Artifacts(files).exists(sign.name)
    for name in (sign.folder, sign.name, sign.reply("n")):  # nothing is left behind
        assert not Artifacts(files).exists(name)


@pytest.mark.parametrize("there", ["nothing", "another file"])
def test_a_node_with_another_storage_is_told_to_reach_this_one(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    monkeypatch.setattr(preflight, "SETTLE_S", 0.2)
    other = str(tmp_path / "node")
    with signed(files) as sign:
        if there == "another file":
            Artifacts(other).write(sign.name, b"another secret")
        fault = on_node(sign, other)
        assert fault is not None
        assert fault.startswith(f"does not see what the driver writes to {other}; let the node")
        assert "--storage, such as s3://bucket/folder" in fault
        assert not preflight.reply_seen(sign, "n")


def test_a_file_that_comes_a_little_later_is_waited_for(tmp_path: Path) -> None:
    late = tmp_path / "late"
    with signed(str(tmp_path / "files")) as sign:

        def comes(_: float) -> None:
            Artifacts(str(late)).write(sign.name, sign.secret.encode())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(preflight.time, "sleep", comes)
            assert on_node(sign, str(late)) is None


def test_a_node_that_can_read_but_not_write_is_told_so(tmp_path: Path) -> None:
    with signed(str(tmp_path)) as sign:
        (tmp_path / sign.reply("n")).mkdir()  # in the way of what the node writes
        fault = on_node(sign)
        assert fault is not None
        assert fault.startswith(f"cannot use {tmp_path} (")


def test_a_storage_that_cannot_be_written_is_an_error_of_the_driver(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    text = "is no place for the files of a search on a cluster .*; give another with --storage"
    with pytest.raises(UsageError, match=text) as one, signed(str(tmp_path / "results")):
        pass
    assert "\n" not in str(one.value)


def test_the_digest_follows_every_source_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest_in(folder: Path) -> str:
        there = folder / "mpt" / "search" / "ray" / "preflight.py"
        monkeypatch.setattr(preflight, "__file__", str(there))
        return preflight._source_digest()

    same = preflight_cluster.copy_source(tmp_path / "same")
    again = preflight_cluster.copy_source(tmp_path / "again")
    assert digest_in(same) == digest_in(again)
    (again / "mpt" / "errors.py").rename(again / "mpt" / "errorz.py")
    other = preflight_cluster.other_source(tmp_path / "other")
    assert len({digest_in(folder) for folder in (same, again, other)}) == 3


def can_mount() -> bool:
    try:
        words = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
        return subprocess.run(words, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_on_a_real_cluster_unfit_and_silent_nodes_are_found() -> None:
    mount = can_mount()
    printed = run_ray_script(
        preflight_cluster.__file__,
        *(["MOUNT"] if mount else []),
        # a copy, which nobody edits meanwhile
        source=lambda folder: preflight_cluster.copy_source(folder / "source"),
        timeout_s=1200,
    )
    says = json.loads(printed.splitlines()[-1])
    assert says["two like nodes"] is None
    unfit = re.split(r" \[\d\] ", says["unfit nodes"])
    assert unfit[0].startswith(f"{1 + mount} of {3 + mount} nodes")
    (other,) = [text for text in unfit if says["other"][:8] in text]
    assert "mpt's source is" in other
    assert "Ray counts 1 GPUs there, but torch sees 0" in other
    if mount:
        (elsewhere,) = [text for text in unfit if says["elsewhere"][:8] in text]
        assert "does not see what the driver writes to" in elsewhere
    assert says["plain"][:8] not in says["unfit nodes"]
    silent = re.split(r" \[\d\] ", says["a silent node"])
    assert any(says["plain"][:8] in text and "did not answer within" in text for text in silent)
    assert says["left"] == []
