"""What the benchmarks measure with: fresh processes, peaks of memory, medians, the machine."""

from __future__ import annotations

import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}–{self.high:.3g}]"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the extremes: with few repeats nothing finer can be known."""
    return Spread(statistics.median(values), min(values), max(values))


def machine(device: str) -> str:
    """Return one line on what is measured on, with the load by others."""
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    load = " ".join(f"{n:.1f}" for n in os.getloadavg())
    threads, cores = torch.get_num_threads(), os.cpu_count()
    return f"CPU, {threads} of {cores} threads, load average {load}, torch {torch.__version__}"


def now(device: str) -> float:
    """Return seconds to take differences of.

    On a CPU they are the CPU seconds of this process: the load by others lengthens them least. On
    a GPU they are those of the clock, after the GPU has done all it was given.
    """
    return time.process_time() if device == "cpu" else clock_now(device)


def clock_now(device: str) -> float:
    """Return seconds of the clock, after a GPU has done all it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matrix_rate(device: str, dtype: torch.dtype, repeats: int = 5) -> float:
    """Return the FLOP/s of the best of a few square matrix products, 2n³ FLOPs each.

    n is 1024 on a CPU and 8192 on a GPU: large enough that nothing but the product counts.
    """
    n = 1024 if device == "cpu" else 8192
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(repeats + 1):  # the first one starts up the library
        started = now(device)
        torch.mm(left, right)
        best = max(best, 2 * n**3 / (now(device) - started))
    return best


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns in a fresh process, or one line that says why it does not.

    The process is forked and has the libraries and nothing else, if nothing ran here before: call
    it before any tensor is computed.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return "ended without a word (out of memory?)"
    finally:
        process.join()


def _send(
    pipe: multiprocessing.connection.Connection, work: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads()))
    try:
        pipe.send(work(*arguments))
    except Exception as error:  # one cell that cannot run must not end the table
        pipe.send(f"{type(error).__name__}: {error}"[:160])


def reset_peak(device: str) -> int:
    """Return the bytes in use, from which on the peak is counted."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is in use
    return _status("VmRSS")


def peak(device: str) -> int:
    """Return the most bytes in use since `reset_peak`."""
    return torch.cuda.max_memory_allocated() if device != "cpu" else _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit(
        f"/proc/self/status has no {field}: memory on a CPU is measured on Linux only"
    )
