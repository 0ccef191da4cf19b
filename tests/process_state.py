"""What a test may change of its process and must put back: later tests run in the same process.

Two threads left behind have once given a later test other bits; so whatever changes numbers, times
or places for others is put back, and the test that changed it fails by name.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class _Part:
    """A part of the process's state: how it is read and put back."""

    read: Callable[[], Any]
    put_back: Callable[[Any], object]


def _own_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("MPT_")}


def _put_back_variables(before: dict[str, str]) -> None:
    for name in _own_variables().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _switch_collector(on: bool) -> None:
    if on:
        gc.enable()
    else:
        gc.disable()


_PARTS = {
    "torch's threads": _Part(torch.get_num_threads, torch.set_num_threads),
    "torch's gradients": _Part(torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's default number format": _Part(torch.get_default_dtype, torch.set_default_dtype),
    "the precision of products": _Part(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "the garbage collector": _Part(gc.isenabled, _switch_collector),
    "the working directory": _Part(os.getcwd, os.chdir),
    "variables MPT_…": _Part(_own_variables, _put_back_variables),
}


@contextlib.contextmanager
def left_as_it_was() -> Iterator[None]:
    """Put the state of the process back after the block.

    Signal handlers are put back without a word: Ray sets them when it starts.

    Raises:
        AssertionError: the block has left some of it changed; it says what.
    """
    before = {name: part.read() for name, part in _PARTS.items()}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    yield
    changed = []
    for name, value in before.items():
        if (found := _PARTS[name].read()) != value:
            changed.append(f"{name} ({value} → {found})")
            _PARTS[name].put_back(value)
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    assert not changed, f"this left changed for the tests that follow: {', '.join(changed)}"
