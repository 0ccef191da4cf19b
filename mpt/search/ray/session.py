"""Starting and leaving Ray: quiet, local unless told otherwise, never a hang for resources.

The environment is best set before `ray` is imported: so nothing here imports it at the top.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpt.errors import Interrupted, MptError, UsageError
from mpt.processes import usable_processors
from mpt.search.ray.watchdog import unhung, watched

if TYPE_CHECKING:
    from mpt.search.cost.plan import Rates
    from mpt.search.job import Execution
    from mpt.study.specs import TrialSpec

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own boxes and tables
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # today's default, without the warning about it
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the database is ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are handled in `run.py`
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # Workers' heaps lie in huge pages where Linux gives them: up to 4 % of a MAML step of the
    # embedded model (docs/log.md), the same bits. Another value of the user's stays.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

_STARTS = 3
"""Attempts to start a local Ray."""

_STORE_BYTES = 128 * 2**20
"""Object store of a local Ray: only settings travel through it."""


_own_tokens: set[str | None] = set()
"""Tokens that this process made for a local Ray."""


_kept: list[contextlib.ExitStack] = []
"""What ends the Ray of the outermost `one_ray`; empty outside of one."""


@contextlib.contextmanager
def one_ray() -> Iterator[None]:
    """Let all sessions inside the block share one Ray: the first starts it, the block ends it.

    A block without a session starts none; a block inside another is part of that one.
    """
    if _kept:
        yield
        return
    with contextlib.ExitStack() as stack:
        _kept.append(stack)
        try:
            yield
        finally:
            _kept.clear()


@contextlib.contextmanager
def ray_starts_beside(execution: Execution, say: Callable[[str], None]) -> Iterator[None]:
    """Start a local Ray, which is mostly waiting, while the block computes.

    It belongs to `one_ray`. Outside of that, on one processor and where a Ray runs already, none
    is started.

    Raises:
        Interrupted: Ray did not start.
    """
    prepare_environment(execution.address)
    import ray

    begun = not _kept or ray.is_initialized()
    if begun or execution.address != "local" or usable_processors() < 2:
        yield
        return
    # Linux ends Ray's processes with the thread that has started them, so it lives as long as they
    starter = ThreadPoolExecutor(1)
    start = starter.submit(_start, execution)
    _kept[0].callback(_end_started, start, starter)
    yield
    start.result()
    _own(execution, _kept[0], say)


def _end_started(start: Future[None], starter: ThreadPoolExecutor) -> None:
    """End a Ray that may still be starting, then the thread that it would die with."""
    import ray

    if start.exception() is None and ray.is_initialized():
        ray.shutdown()
    starter.shutdown()


@contextlib.contextmanager
def ray_session(
    execution: Execution,
    slots_wanted: int | None,
    *,
    say: Callable[[str], None],
    files: str | None = None,
) -> Iterator[int]:
    """Run a block with Ray; give the number of trials that can run at once, of those wanted.

    Checkpoints and prompts go to `files`, which every node of a cluster has to reach; None:
    nothing is written.

    Raises:
        UsageError: the cluster cannot be reached, a node of it is not fit (`check_cluster`), or no
            node can ever hold a trial.
    """
    prepare_environment(execution.address)
    import ray

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            _start(execution)
            _own(execution, _kept[0] if _kept else stack, say)
        _silence()
        from mpt.search.ray.capacity import room_for_trials
        from mpt.search.ray.preflight import check_cluster

        gpus, cluster = execution.gpus_per_trial, execution.address != "local"
        slots = room_for_trials(gpus, growing=cluster, say=say)
        if cluster:
            # trials that are told to compute on the CPU use no GPU, whatever they reserve
            check_cluster(files, gpus=0.0 if execution.device == "cpu" else gpus)
        yield slots if slots_wanted is None else min(slots_wanted, slots)


def _own(execution: Execution, end: contextlib.ExitStack, say: Callable[[str], None]) -> None:
    """Let a Ray that has just started end with `end`; watch a local one, say where it is seen."""
    import ray

    end.callback(ray.shutdown)
    if execution.address == "local":
        end.enter_context(watched(say, execution.resume))
        if execution.dashboard:
            url = ray._private.worker.global_worker.node.webui_url
            for line in _dashboard_lines(f"http://{url}"):
                say(line)


def prepare_environment(address: str) -> None:
    """Set what Ray reads at import; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" not in os.environ and not _ray_runs():
        # Ray's ports are open to the network. A local Ray gets a token of its own that dies with
        # it; without one, Ray would leave a token file behind that changes later `ray start`s.
        os.environ["RAY_AUTH_MODE"] = "token"
        if address == "local" and "RAY_AUTH_TOKEN" not in os.environ:
            _own_tokens.add(os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32)))
        if "ray" in sys.modules:  # whoever brings a scheduler of Tune's has imported it
            _read_again()


def _dashboard_lines(url: str) -> list[str]:
    """Return what a person needs to open the dashboard of a local Ray.

    A token that this process made is shown on a terminal, as nobody could know it; never in a
    pipe, since a log may have other readers, and whoever has it runs code as this user.
    """
    lines = [f"  Ray's dashboard: {url}"]
    token = os.environ.get("RAY_AUTH_TOKEN")
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return lines
    if token not in _own_tokens:
        return [*lines, "  it asks for your token (RAY_AUTH_TOKEN, or ray get-auth-token)"]
    if sys.stdout.isatty() and sys.stderr.isatty():
        return [*lines, "  it asks for this token, which ends with the search:", f"  {token}"]
    return [*lines, "  it asks for a token: set RAY_AUTH_TOKEN to one before you start"]


def _ray_runs() -> bool:
    """Return whether this process is connected to a Ray."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _read_again() -> None:
    """Let Ray, which reads its environment at import, read it once more."""
    raylet: Any = importlib.import_module("ray._raylet")

    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _start(execution: Execution) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if execution.address != "local":
        _check_reachable(execution.address)
        try:
            ray.init(address=execution.address, **options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _unreachable(execution.address, first_line(error)) from None
        return
    options |= {
        "include_dashboard": execution.dashboard,
        "dashboard_host": "127.0.0.1",
        "object_store_memory": _STORE_BYTES,
    }
    if execution.workers is not None:
        options["num_cpus"] = execution.workers
    for attempt in range(_STARTS):
        try:
            with _no_idle_daemons(), unhung():
                ray.init(address="local", **options)
            return
        except Exception as error:  # Ray raises a bare Exception after 30 s on a busy machine
            with contextlib.suppress(Exception):
                ray.shutdown()
            if attempt == _STARTS - 1:
                raise Interrupted(
                    f"Ray did not start on this machine in {_STARTS} attempts "
                    f"({first_line(error)}); when it is less busy, run the same command again"
                ) from None


@contextlib.contextmanager
def _no_idle_daemons() -> Iterator[None]:
    """Let Ray start without two of its processes: a second of computing and 170 MB less.

    The log monitor sends what workers print to a driver that does not ask for it; the autoscaler's
    monitor adds machines, which a local Ray has none of. `ray.init` has no options for them.
    """
    parameters: Any = importlib.import_module("ray._private.parameter")
    whole = parameters.RayParams
    parameters.RayParams = functools.partial(whole, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        parameters.RayParams = whole


def first_line(error: Exception) -> str:
    """Return the first line of an error's text; Ray's go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_reachable(address: str) -> None:
    """Knock before Ray does: Ray itself tries for minutes, and no signal ends it then."""
    target = address
    if address == "auto":
        target = os.environ.get("RAY_ADDRESS", "")
        with contextlib.suppress(OSError):
            target = target or _current_cluster().read_text().strip()
        if not target:
            raise _unreachable(address, "no cluster runs on this machine")
    host, _, port = target.rpartition("/")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, f"{target}: {error}") from None


def _current_cluster() -> Path:
    """Return the file where Ray notes the address of a cluster started on this machine."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return Path(folder, "ray", "ray_current_cluster")


def _unreachable(address: str, reason: str) -> UsageError:
    return UsageError(
        f"--address is {address!r}, but no Ray answers there ({reason}); start one (ray start "
        "--head), set RAY_AUTH_MODE as it was set there, or leave --address out"
    )


def on_this_cpu(execution: Execution) -> bool:
    """Return whether trials run on CPUs like the driver's, so that it can measure for them."""
    return execution.address == "local" and execution.gpus_per_trial == 0


def remote_probe(trials: Sequence[TrialSpec], execution: Execution) -> Rates:
    """Measure the rates where trials run, with what a trial has.

    Raises:
        MptError: the backbone or the files cannot be read there.
    """
    import ray

    from mpt.search.ray.trainable import probe_here

    task = ray.remote(num_cpus=1, num_gpus=execution.gpus_per_trial)(probe_here)
    try:
        return ray.get(task.remote(list(trials), execution.device))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MptError):
            raise error.cause from None
        raise


def _silence() -> None:
    """Keep Ray's log lines off the screen: what matters in them is said in our own words."""
    for name in ("ray", "ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
