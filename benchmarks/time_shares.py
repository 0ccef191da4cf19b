"""Where the time of training steps goes, by torch.profiler.

A forward operation belongs to the module it runs in: attention (projections and scores),
feed-forward, the loss (output head and cross-entropy), or to the optimiser. A backward operation
belongs where the forward one did that autograd links it to. On a CPU an operation counts its own
time, and what is left of the wall clock is Python; on a GPU it counts its kernels' time, and what
is left is the GPU idle, waiting to be given work. The profiler itself slows Python down, so that
this last share is an upper bound.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from mpt.backbones import Backbone
from mpt.optim import Adafactor

PARTS = ("attention", "feed-forward", "loss", "optimiser", "other operations")
_REGION = "part: "
_NODE = "autograd::engine::evaluate_function"


class Profile:
    """A profile of the steps after the first; its regions cost the others nothing.

    Args:
        backbone: whose passes are told apart.
        device: "cpu" or a CUDA device.
        steps: optimiser steps after which it ends, the first one not counted.
    """

    def __init__(self, backbone: Backbone, device: str, steps: int):
        self._backbone, self._cuda, self._steps_left = backbone, device != "cpu", steps + 1
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        self._profiler = profile(activities=kinds)
        self._seconds = 0.0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Profile what is trained inside the block."""
        handles = [*_module_regions(self._backbone.model)]
        passes = {"target_states": "other operations", "row_losses": "loss"}
        for name, part in passes.items():
            setattr(self._backbone, name, _inside(part, getattr(self._backbone, name)))
        step = _inside("optimiser", Adafactor.step)
        try:
            with mock.patch.object(Adafactor, "step", self._counting(step)):
                yield
        finally:
            for name in passes:
                delattr(self._backbone, name)  # the class's own method shows again
            for handle in handles:
                handle.remove()

    def _counting(self, step: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any) -> None:
            step(*arguments)
            self._steps_left -= 1
            if not self._seconds:
                self._profiler.start()
                self._seconds = -time.perf_counter()
            elif self._steps_left == 0:
                self._profiler.stop()
                self._seconds += time.perf_counter()

        return counted

    def shares(self) -> dict[str, float]:
        """Return the share of the wall clock of every part, and of what is left."""
        events = list(self._profiler.events() or [])
        part_of = _forward_parts(events)
        seconds_of = dict.fromkeys(PARTS, 0.0)
        for event in events:
            if event.device_type != DeviceType.CPU or event.name.startswith(_REGION):
                continue  # a kernel counts where it was launched
            own = event.self_device_time_total if self._cuda else event.self_cpu_time_total
            if own:
                seconds_of[_part(event, part_of)] += 1e-6 * own
        shares = {part: seconds / self._seconds for part, seconds in seconds_of.items()}
        return {**shares, "idle" if self._cuda else "Python": 1 - sum(shares.values())}


def _inside(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def recorded(*arguments: Any, **named: Any) -> Any:
        with record_function(_REGION + part):
            return function(*arguments, **named)

    return recorded


def _module_regions(model: nn.Module) -> Iterator[Any]:
    """Mark the forward passes of attention and feed-forward modules; yield handles to undo it."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        part = None
        if kind.endswith("Attention") and "Layer" not in kind:  # T5, BART, GPT-2 alike
            part = "attention"
        elif kind in ("T5LayerFF", "GPT2MLP") or name.endswith((".fc1", ".fc2")):
            part = "feed-forward"
        if part is None:
            continue
        region: list[Any] = []

        def begin(*_: Any, part: str = part, region: list[Any] = region) -> None:
            region.append(record_function(_REGION + part))
            region[-1].__enter__()

        def end(*_: Any, region: list[Any] = region) -> None:
            region.pop().__exit__(None, None, None)

        yield module.register_forward_pre_hook(begin)
        yield module.register_forward_hook(end)


def _forward_parts(events: list[Any]) -> dict[int, str]:
    """Return sequence number → part of the operation that made this node of the graph.

    Operations before it bear its number too, so that the last one counts; those of the backward
    pass bear whatever number comes next.
    """
    parts: dict[int, str] = {}
    for event in sorted(events, key=lambda one: one.time_range.start):
        if event.sequence_nr < 0 or event.name.startswith(_REGION):
            continue
        if not any(around.name.startswith(_NODE) for around in _and_around(event)):
            parts[event.sequence_nr] = _part(event, {})
    return parts


def _and_around(event: Any) -> Iterator[Any]:
    """Yield an event and those it stands in, from the inside out."""
    while event is not None:
        yield event
        event = event.cpu_parent


def _part(event: Any, part_of: dict[int, str]) -> str:
    """Return the part of the innermost region, or of the node of the graph, around an event."""
    for around in _and_around(event):
        if around.name.startswith(_REGION):
            return str(around.name.removeprefix(_REGION))
        if around.name.startswith(_NODE):
            return part_of.get(around.sequence_nr, "other operations")
    return "other operations"
