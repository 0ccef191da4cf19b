"""Before a search on a cluster: is every node fit for it?

One small task goes to each node. It looks at the storage, the versions and the GPUs there; both
sides write a file that the other has to read, and the driver compares. All nodes that are not fit
are named at once, each with the cure. A node that does not answer in time is not fit either.

A node that joins later is not asked: there, a trial compares its own key, which holds backbone,
data and settings, with the driver's, and refuses to work if they differ.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpt.errors import MptError, UsageError
from mpt.provenance import provenance
from mpt.store.artifacts import Artifacts

ANSWER_S = 120.0
"""Seconds a node has to answer: a worker has to start there, on a machine that may be busy."""

SETTLE_S = 5.0
"""Seconds a new file may take to be seen elsewhere (NFS caches directories)."""

_SHARE = (
    "let the node reach it (a mount at the same path, or credentials for the bucket), or give "
    "another with --storage, such as s3://bucket/folder"
)
_SAME = "install this project and its pinned versions on every node (pip install -e .)"


def check_cluster(
    files: str | None,
    *,
    gpus: float = 0.0,
    answer_s: float = ANSWER_S,
) -> None:
    """Ask every node of the cluster this process is connected to.

    Args:
        files: root of the storage of checkpoints and prompts; None: do not check it.
        gpus: GPUs of a trial, see `Execution.gpus_per_trial`.
        answer_s: seconds until a node that is silent counts as unfit.

    Raises:
        UsageError: at least one node is not fit; all of them are named, each with the cure.
    """
    import ray

    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    names = node_names(list(nodes.values()))
    faults: dict[tuple[str, ...], list[str]] = {}
    with contextlib.ExitStack() as stack:
        sign = None if files is None else stack.enter_context(signed(files))
        for node, answer in _ask(nodes, sign, gpus > 0, answer_s).items():
            if isinstance(answer, str):
                reasons = [answer]
            else:
                reasons = _unfit(answer, nodes[node]["Resources"] if gpus > 0 else {})
                if sign is not None and not answer.storage and not reply_seen(sign, node):
                    reasons.append(f"what it writes to {files} is not seen here; {_SHARE}")
            if reasons:
                faults.setdefault(tuple(reasons), []).append(names[node])
    if faults:
        raise UsageError(_listed(faults, len(nodes)))


def _listed(faults: Mapping[tuple[str, ...], Sequence[str]], nodes: int) -> str:
    """Return one line: which nodes are unfit, why, and what to do; like ones together."""
    unfit = sum(len(who) for who in faults.values())
    groups = (f"{', '.join(who)}: {'; also: '.join(reasons)}" for reasons, who in faults.items())
    marked = " ".join(f"[{number}] {group}" for number, group in enumerate(groups, start=1))
    return f"{unfit} of {nodes} nodes of the cluster are not fit for this search: {marked}"


def node_names(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return node id → host name and address, with the id where that is not unique."""
    names = {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in nodes
    }
    count = Counter(names.values())
    return {
        node: name if count[name] == 1 else f"{name} node {node[:8]}"
        for node, name in names.items()
    }


def _ask(
    nodes: Iterable[str], sign: Sign | None, gpus: bool, answer_s: float
) -> dict[str, Sight | str]:
    """Return for every node what it has seen, or why there is no answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # No CPU, so that busy nodes answer too; the process ends with the task, as it may have opened
    # a GPU.
    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(look)
    asked = {}
    for node in nodes:
        placement = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[task.options(scheduling_strategy=placement).remote(node, sign, gpus)] = node
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=answer_s)
    answers: dict[str, Sight | str] = {}
    for reference in late:
        answers[asked[reference]] = (
            f"did not answer within {answer_s:.0f} s; see `ray status` and the node's load, or "
            "take it out of the cluster"
        )
        with contextlib.suppress(Exception):
            ray.cancel(reference, force=True)
    for reference in ready:
        try:
            answers[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # mpt, or a part of it, is missing there
            answers[asked[reference]] = f"cannot run mpt ({_last_line(error)}); {_SAME}"
        except ray.exceptions.RayError as error:
            answers[asked[reference]] = (
                f"was lost while it was asked ({type(error).__name__}); see `ray status`"
            )
    return answers


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _unfit(sight: Sight, resources: Mapping[str, float]) -> list[str]:
    """Return what is wrong with a node, by what it has seen and what Ray has given it."""
    faults = [] if sight.storage is None else [sight.storage]
    here = versions()
    differ = [
        f"{name} is {sight.versions.get(name, 'missing')}, but {version} with the driver"
        for name, version in here.items()
        if sight.versions.get(name) != version
    ]
    if differ:
        faults.append(f"{', '.join(differ)}; {_SAME}")
    counted = int(resources.get("GPU", 0))
    if counted > sight.gpus:
        faults.append(
            f"Ray counts {counted} GPUs there, but torch sees {sight.gpus}; check nvidia-smi "
            "and CUDA_VISIBLE_DEVICES, or start Ray there with --num-gpus as it is"
        )
    return faults


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A file that the driver has written into the storage."""

    files: str
    """Root of the storage."""
    folder: str
    secret: str
    """What it says."""

    @property
    def name(self) -> str:
        """Its name below the root."""
        return f"{self.folder}/driver"

    def reply(self, node: str) -> str:
        """Return the name of the file in which a node repeats the secret."""
        return f"{self.folder}/{node[:16]}"


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a node has seen."""

    versions: Mapping[str, str]
    """Package → version; "source" → digest of mpt's source files."""
    storage: str | None
    """What is wrong with the storage; None: nothing."""
    gpus: int
    """GPUs that torch sees; 0 where none are used."""


def look(node: str, sign: Sign | None, gpus: bool) -> Sight:
    """Look around; this runs on the node.

    Args:
        node: Ray's id of it.
        sign: None: the search writes nothing.
        gpus: whether the trials use GPUs.
    """
    return Sight(
        versions=versions(),
        storage=None if sign is None else _storage(sign, node),
        gpus=_gpu_count() if gpus else 0,
    )


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that have to be equal on all nodes.

    torch's build ("+cpu", "+cu128") may differ: a head without GPUs needs no CUDA.
    """
    packages = provenance()["versions"]
    assert isinstance(packages, dict)
    plain = {name: version.partition("+")[0] for name, version in packages.items()}
    return {**plain, "mpt's source": _source_digest()}


def _source_digest() -> str:
    """Return the digest of names and contents of this package's source files."""
    package = Path(__file__).resolve().parents[2]
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".toml"):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(package)} {content}\n".encode())
    return whole.hexdigest()[:12]


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def _storage(sign: Sign, node: str) -> str | None:
    """Return what is wrong with the storage as this node sees it; leave a reply there."""
    try:
        files = Artifacts(sign.files)
        if _read_soon(files, sign.name) != sign.secret:
            return f"does not see what the driver writes to {sign.files}; {_SHARE}"
        files.write(sign.reply(node), sign.secret.encode())
    except MptError as error:
        return f"cannot use {sign.files} ({error}); {_SHARE}"
    return None


@contextlib.contextmanager
def signed(files: str) -> Iterator[Sign]:
    """Put a file into the storage for the time of the block.

    Raises:
        UsageError: the storage cannot be written.
    """
    secret = secrets.token_hex(16)
    sign = Sign(files=files, folder=f"preflight-{secret[:8]}", secret=secret)
    try:
        where = Artifacts(files)
        where.write(sign.name, secret.encode())
    except MptError as error:
        raise UsageError(
            f"{files} is no place for the files of a search on a cluster ({error}); give another "
            "with --storage"
        ) from None
    try:
        yield sign
    finally:
        with contextlib.suppress(MptError):
            where.remove_folder(sign.folder)


def reply_seen(sign: Sign, node: str) -> bool:
    """Return whether what a node has written arrives in the driver."""
    return _read_soon(Artifacts(sign.files), sign.reply(node)) == sign.secret


def _read_soon(files: Artifacts, name: str) -> str | None:
    """Return what a file says, as soon as it is there; None: it is not, or cannot be read."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        with contextlib.suppress(MptError):
            return files.read(name).decode(errors="replace")
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
