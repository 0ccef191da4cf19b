"""A process that has imported what a worker of Ray imports, and becomes one whenever it is asked.

To import torch, transformers and Ray Tune takes a worker six seconds of computing. A local Ray
that starts inside `workers_from_a_copy` has each of its workers begin as a copy of this process:
with a process id, an environment and files of its own, with nothing of Ray or `mpt` imported. It
takes a second then.

As a script: ``python ready_process.py SOCKET MODULE…`` imports these modules and serves until its
standard input ends; what asks is `begin_worker.py`, which Ray starts in the place of a worker.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import itertools
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

MODULES = (
    *("torch", "transformers.models.t5.modeling_t5", "pandas", "pyarrow.fs", "sqlalchemy"),
    *("fsspec", "jsonschema", "pydantic"),
)
"""What workers import of other packages; not Ray, which reads its environment at its import."""
LARGEST = 2**20
"""Bytes of a request at the most."""


@contextlib.contextmanager
def workers_from_a_copy() -> Iterator[None]:
    """Let a local Ray that starts in the block begin its workers as copies of that process.

    Where the system has no `pidfd_open` (macOS), workers begin as they always do.
    """
    if not hasattr(os, "pidfd_open"):
        yield
        return
    parameters: Any = importlib.import_module("ray._private.parameter")
    begin = str(Path(__file__).with_name("begin_worker.py"))
    more = functools.partial(parameters.RayParams, setup_worker_path=begin)
    with (
        mock.patch.object(parameters, "RayParams", more),
        mock.patch.dict(os.environ, {"MPT_TEST_READY": _started()}),
    ):
        yield


@functools.cache
def _started() -> str:
    """Start the process, once for all of these tests; return its socket."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(ready_process(*MODULES))


@contextlib.contextmanager
def ready_process(*modules: str) -> Iterator[str]:
    """Start a process that has imported these modules, and end it; give its socket."""
    with tempfile.TemporaryDirectory(prefix="mpt-") as folder:  # short, as paths of sockets are
        path = f"{folder}/ready"
        process = subprocess.Popen(
            [sys.executable, __file__, path, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.read(1) == b"+"  # it listens
        try:
            yield path
        finally:
            process.communicate()


def serve(path: str, modules: list[str]) -> None:
    """Fork for every request until standard input ends; no copy outlives who asked for it."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server,
        selectors.DefaultSelector() as events,
    ):
        server.bind(path)
        server.listen()
        print("+", end="", flush=True)
        for name in modules:
            importlib.import_module(name)
        gc.freeze()
        copies: dict[int, list[Any]] = {}  # what tells that one, or who asked for it, has ended
        events.register(server, selectors.EVENT_READ)
        events.register(sys.stdin, selectors.EVENT_READ)
        while sys.stdin not in (ready := {key.fileobj: key.data for key, _ in events.select()}):
            if server in ready:
                asking, _ = server.accept()
                request, files, _, _ = socket.recv_fds(asking, LARGEST, 3)
                copy = os.fork()
                if copy == 0:
                    others = itertools.chain(*copies.values())
                    _become(json.loads(request), files, [events, server, asking, *others])
                for file in files:
                    os.close(file)
                copies[copy] = [asking, io.FileIO(os.pidfd_open(copy))]
                for one in copies[copy]:
                    events.register(one, selectors.EVENT_READ, copy)
            for copy in {copy for copy in ready.values() if copy in copies}:
                os.kill(copy, signal.SIGKILL)
                os.waitpid(copy, 0)
                for one in copies.pop(copy):
                    events.unregister(one)
                    one.close()
        for copy in copies:
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)


def _become(request: Any, files: list[int], held: list[Any]) -> None:
    """Run a script as a process that Ray has started would, and end."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ray ends the group of a worker that it ends
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        for one in held:
            one.close()
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv[:], sys.path[:] = request["words"], request["path"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
