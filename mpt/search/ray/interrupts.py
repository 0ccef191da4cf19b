"""Ctrl-C and SIGTERM (also `ray job stop`, Slurm, Kubernetes) as one clean, resumable end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether a signal came; while Tune runs it is told to stop, otherwise the program is."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._tuning = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Interrupts]:
        """Handle SIGINT and SIGTERM inside the block (in the main thread)."""
        old = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def listen(self, wanted: bool = True) -> None:
        """Take the signals (again: `ray.init` puts a handler in place that aborts on SIGTERM).

        A notebook keeps its own handlers: there they are not `wanted`.
        """
        for number in _SIGNALS if wanted else ():
            signal.signal(number, self._handle)

    def check(self) -> None:
        """Raise what a handler has raised where nobody could hear it.

        Python drops exceptions in callbacks of the garbage collector, which run often while
        packages are imported.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        if self.name is not None:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def tuning(self, wanted: bool = True) -> Iterator[None]:
        """Tell Tune instead of raising, inside the block.

        Tune ends its loop on SIGUSR1 once its loop runs; before, SIGUSR1 would kill the process.
        """
        if not wanted:
            yield
            return
        self.check()
        old = signal.getsignal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._tuning = True
        try:
            yield
        finally:
            self._tuning = False
            signal.signal(signal.SIGUSR1, old)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.name is not None
        self.name = signal.Signals(number).name
        listening = callable(signal.getsignal(signal.SIGUSR1))
        if self._tuning and listening and not again:
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            raise KeyboardInterrupt
