"""When a search checks the nodes it runs on, where it looks for a cluster, how Ray is started."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

import mpt
from mpt.errors import DataError, Interrupted, UsageError
from mpt.search.job import Execution
from mpt.search.ray import capacity, preflight, watchdog
from mpt.search.ray import session as ray_session

ROOT = Path(mpt.__file__).resolve().parents[1]
FILES = "s3://bucket/search"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A Ray with room for five trials is there already; what it is asked is noted."""
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_session, "prepare_environment", lambda address: None)
    monkeypatch.setattr(
        preflight, "check_cluster", lambda files, *, gpus: seen.append((files, gpus))
    )

    def room(gpus: float, *, growing: bool, say: Any) -> int:
        seen.append(("growing" if growing else "fixed", gpus))
        return 5

    monkeypatch.setattr(capacity, "room_for_trials", room)
    return seen


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (Execution(), [("fixed", 0.0)]),
        (Execution(address="auto"), [("growing", 0.0), (FILES, 0.0)]),
        (
            Execution(address="10.0.0.1:6379", gpus_per_trial=0.5),
            [("growing", 0.5), (FILES, 0.5)],
        ),
        # the trials compute on the CPU: what GPUs there are does not matter
        (
            Execution(address="auto", gpus_per_trial=1.0, device="cpu"),
            [("growing", 1.0), (FILES, 0.0)],
        ),
    ],
)
def test_the_nodes_of_a_cluster_are_checked_and_a_ray_of_its_own_is_not(
    checks: list[tuple[Any, ...]], execution: Execution, expected: list[tuple[Any, ...]]
) -> None:
    with ray_session.ray_session(execution, 9, say=print, files=FILES) as slots:
        assert slots == 5
    assert checks == expected


def test_there_are_no_more_slots_than_trials(checks: list[tuple[Any, ...]]) -> None:
    with ray_session.ray_session(Execution(), 3, say=print) as slots:
        assert slots == 3


def test_sessions_in_one_block_share_the_ray_that_the_first_has_started(
    checks: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: seen[-1:] == ["start"])
    monkeypatch.setattr(ray_session, "_start", lambda execution: seen.append("start"))
    monkeypatch.setattr(ray_session, "watched", lambda say, resume: contextlib.nullcontext())
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append("end"))
    with ray_session.one_ray():
        assert seen == []  # nothing is started before it is needed
        with ray_session.ray_session(Execution(), 3, say=print):
            pass
        with ray_session.one_ray(), ray_session.ray_session(Execution(), 3, say=print):
            pass
        assert seen == ["start"]
    assert seen == ["start", "end"]
    for _ in range(2):  # without a block, each has its own
        with ray_session.ray_session(Execution(), 3, say=print):
            assert seen[-1] == "start"
    assert seen == ["start", "end"] * 3


@pytest.fixture
def begun(checks: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to a Ray that is not there yet, on a machine of two processors."""
    seen: list[str] = []
    monkeypatch.setattr(ray_session, "usable_processors", lambda: 2)
    monkeypatch.setattr(ray, "is_initialized", lambda: seen.count("start") > seen.count("end"))
    monkeypatch.setattr(ray_session, "_start", lambda execution: seen.append("start"))
    monkeypatch.setattr(ray_session, "watched", lambda say, resume: contextlib.nullcontext())
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append("end"))
    return seen


def test_a_ray_that_starts_beside_other_work_is_that_of_the_session_after_it(
    begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    working, starting = threading.Event(), threading.Event()
    starters: list[threading.Thread] = []

    def start(execution: Execution) -> None:
        starters.append(threading.current_thread())
        starting.set()
        assert working.wait(60)  # the block runs while Ray starts
        begun.append("start")

    def end() -> None:
        assert starters[0].is_alive()  # Ray's processes die with it
        begun.append("end")

    monkeypatch.setattr(ray_session, "_start", start)
    monkeypatch.setattr(ray, "shutdown", end)
    with ray_session.one_ray():
        with ray_session.ray_starts_beside(Execution(), print):
            assert starting.wait(60)
            working.set()
        assert begun == ["start"]
        with ray_session.ray_session(Execution(), 3, say=print):
            assert begun == ["start"]
        assert begun == ["start"]
    assert begun == ["start", "end"]
    assert not starters[0].is_alive()


def test_a_ray_that_does_not_start_beside_other_work_is_an_error(
    begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(execution: Execution) -> None:
        raise Interrupted("Ray did not start")

    monkeypatch.setattr(ray_session, "_start", start)
    with ray_session.one_ray():
        with (
            pytest.raises(Interrupted, match="did not start"),
            ray_session.ray_starts_beside(Execution(), print),
        ):
            pass
        with (
            pytest.raises(KeyboardInterrupt),  # whoever interrupts is told of nothing else
            ray_session.ray_starts_beside(Execution(), print),
        ):
            raise KeyboardInterrupt
    assert begun == []


def test_work_that_is_interrupted_leaves_no_ray_that_started_beside_it(begun: list[str]) -> None:
    with (
        ray_session.one_ray(),
        pytest.raises(KeyboardInterrupt),
        ray_session.ray_starts_beside(Execution(), print),
    ):
        raise KeyboardInterrupt
    assert begun == ["start", "end"]


@pytest.mark.parametrize(
    ("processors", "execution", "block"),
    [
        (1, Execution(), ray_session.one_ray()),
        (2, Execution(address="auto"), ray_session.one_ray()),
        (2, Execution(), contextlib.nullcontext()),
    ],
    ids=["one processor", "a cluster", "nobody would end it"],
)
def test_a_ray_starts_beside_other_work_only_where_it_can(
    begun: list[str],
    monkeypatch: pytest.MonkeyPatch,
    processors: int,
    execution: Execution,
    block: contextlib.AbstractContextManager[None],
) -> None:
    monkeypatch.setattr(ray_session, "usable_processors", lambda: processors)
    with block, ray_session.ray_starts_beside(execution, print):
        pass
    assert begun == []


def test_a_ray_that_was_there_before_is_left_running(
    checks: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("ended"))
    with ray_session.ray_session(Execution(), 3, say=print):
        pass


@pytest.mark.parametrize(
    ("variables", "folder"),
    [({}, "/tmp"), ({"TMPDIR": "/t"}, "/t"), ({"TMPDIR": "/t", "RAY_TMPDIR": "/r"}, "/r")],
)
def test_the_cluster_of_this_machine_is_where_ray_notes_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    from ray._common.utils import get_ray_address_file

    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    there = ray_session._current_cluster()
    assert str(there) == f"{folder}/ray/ray_current_cluster" == get_ray_address_file(None)


def test_without_a_cluster_on_this_machine_auto_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="no cluster runs on this machine"):
        ray_session._check_reachable("auto")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "127.0.0.1:x"])
def test_an_address_where_nobody_listens_is_an_error_at_once(address: str) -> None:
    with pytest.raises(UsageError, match=f"--address is '{address}', but no Ray answers") as one:
        ray_session._check_reachable(address)
    assert "\n" not in str(one.value)


# --- starting a Ray of its own -------------------------------------------------------------------


class Start:
    """Stands in for `ray.init`, which fails so often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: int) -> None:
        self.fails, self.tries, self.shut = fails, list[dict[str, Any]](), 0
        monkeypatch.setattr(ray, "init", self._init)
        monkeypatch.setattr(ray, "shutdown", self._shutdown)

    def _init(self, **options: Any) -> None:
        self.tries.append(options)
        if len(self.tries) <= self.fails:
            raise Exception("The node took too long\nand more")

    def _shutdown(self) -> None:
        self.shut += 1


def test_a_local_ray_that_does_not_start_at_once_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Start(monkeypatch, 2)
    ray_session._start(Execution(workers=3))
    assert len(start.tries) == 3
    assert start.shut == 2
    assert start.tries[-1]["num_cpus"] == 3
    assert start.tries[-1]["include_dashboard"] is False


@pytest.mark.skipif(not watchdog.PROCESSES.exists(), reason="the system tells of no processes")
def test_a_local_ray_one_of_whose_processes_hangs_at_its_birth_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, codes = Start(monkeypatch, 1), list[int]()

    def birth(**options: Any) -> None:
        if not codes:
            codes.append(subprocess.Popen(["true"], preexec_fn=lambda: time.sleep(60)).wait())
        start._init(**options)

    monkeypatch.setattr(ray, "init", birth)
    unhung = watchdog.unhung
    monkeypatch.setattr(ray_session, "unhung", lambda: unhung(0.5))
    ray_session._start(Execution())
    assert codes == [-signal.SIGKILL]
    assert (len(start.tries), start.shut) == (2, 1)


def test_a_local_ray_that_never_starts_is_an_interruption_and_not_an_error_of_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Start(monkeypatch, 9)
    with pytest.raises(
        Interrupted, match=r"in 3 attempts \(The node took too long\); when"
    ) as one:
        ray_session._start(Execution())
    assert one.value.exit_code == 75
    assert "\n" not in str(one.value)


def test_a_cluster_that_refuses_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "_check_reachable", lambda address: None)

    def refuse(**options: Any) -> None:
        raise ConnectionError("wrong token\nand more")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UsageError, match=r"no Ray answers there \(wrong token\)"):
        ray_session._start(Execution(address="h:1"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without a word on Ray, with a Ray that has been imported and does not run."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    monkeypatch.setattr(os, "environ", plain)
    monkeypatch.setattr(ray_session, "_read_again", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    return plain


def test_a_local_ray_has_a_token_of_its_own(environment: dict[str, str]) -> None:
    ray_session.prepare_environment("local")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"]) == 64


def test_a_cluster_is_spoken_to_with_the_users_token(environment: dict[str, str]) -> None:
    ray_session.prepare_environment("auto")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in environment


def test_workers_have_huge_pages_unless_the_user_says_how_memory_is_taken(
    environment: dict[str, str],
) -> None:
    ray_session.prepare_environment("local")
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    environment["GLIBC_TUNABLES"] = "glibc.malloc.arena_max=1"
    ray_session.prepare_environment("local")
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=1"


@pytest.mark.parametrize(("terminal", "errors"), [(True, True), (True, False), (False, True)])
def test_who_opens_the_dashboard_is_told_its_token_but_a_log_is_not(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, terminal: bool, errors: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: errors))
    ray_session.prepare_environment("local")
    ray_session.prepare_environment("local")  # a second search of the same process
    first, *others = ray_session._dashboard_lines("http://127.0.0.1:8265")
    assert first == "  Ray's dashboard: http://127.0.0.1:8265"
    assert (f"  {environment['RAY_AUTH_TOKEN']}" in others) == (terminal and errors)
    assert all(len(line) <= 80 for line in others)
    assert (terminal and errors) or "set RAY_AUTH_TOKEN" in others[0]


@pytest.mark.parametrize(
    ("mode", "said"), [("token", "  it asks for your token"), ("disabled", "")]
)
def test_the_users_own_token_is_taken_and_never_shown(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, mode: str, said: str
) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, SimpleNamespace(isatty=lambda: True))
    environment |= {"RAY_AUTH_TOKEN": "mine"} | (
        {} if mode == "token" else {"RAY_AUTH_MODE": mode}
    )
    ray_session.prepare_environment("local")
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"]) == (mode, "mine")
    lines = ray_session._dashboard_lines("http://127.0.0.1:8265")
    assert "".join(lines[1:]).startswith(said)
    assert "mine" not in "".join(lines)


def test_what_the_user_has_set_stays(environment: dict[str, str]) -> None:
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_AIR_NEW_OUTPUT": "1"}
    ray_session.prepare_environment("local")
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AIR_NEW_OUTPUT"]) == ("disabled", "1")
    assert "RAY_AUTH_TOKEN" not in environment


def test_a_ray_that_runs_already_keeps_its_way_to_authenticate(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    ray_session.prepare_environment("local")
    assert "RAY_AUTH_MODE" not in environment


def test_importing_the_session_does_not_import_ray() -> None:
    code = "import sys, mpt.search.ray.session; print('ray' in sys.modules)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"


# --- the probe on a worker -----------------------------------------------------------------------


def _asked(monkeypatch: pytest.MonkeyPatch, answer: Any) -> dict[str, Any]:
    """Let Ray answer a remote probe so; return what it was asked for."""
    importlib.import_module("mpt.search.ray.trainable")  # it brings much of Ray's along
    wanted: dict[str, Any] = {}

    def remote(**options: Any) -> Any:
        wanted.update(options)
        return lambda function: SimpleNamespace(remote=lambda *arguments: arguments)

    def get(reference: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "get", get)
    return wanted


def test_rates_are_measured_with_what_a_trial_has(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _asked(monkeypatch, "rates")
    assert ray_session.remote_probe([], Execution(gpus_per_trial=0.5)) == "rates"
    assert wanted == {"num_cpus": 1, "num_gpus": 0.5}


def test_an_error_on_the_worker_that_a_person_can_cure_is_that_error_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cause = DataError("no file x")
    _asked(monkeypatch, ray.exceptions.RayTaskError("probe", "trace", cause))
    with pytest.raises(DataError, match="no file x"):
        ray_session.remote_probe([], Execution())
    _asked(monkeypatch, ray.exceptions.RayTaskError("probe", "trace", ValueError("odd")))
    with pytest.raises(ray.exceptions.RayTaskError):
        ray_session.remote_probe([], Execution())


@pytest.mark.parametrize(
    ("execution", "here"),
    [
        (Execution(), True),
        (Execution(gpus_per_trial=0.5), False),
        (Execution(address="auto"), False),
    ],
)
def test_the_driver_measures_where_trials_run_on_its_own_cpu(
    execution: Execution, here: bool
) -> None:
    assert ray_session.on_this_cpu(execution) is here
