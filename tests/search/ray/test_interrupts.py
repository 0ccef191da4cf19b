"""Ctrl-C and SIGTERM: told to Tune while it runs, a KeyboardInterrupt before and after."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from mpt.search.ray.interrupts import Interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test does to the handlers is undone."""
    old = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


class Tune:
    """Listens to SIGUSR1 as Tune's loop does."""

    def __init__(self) -> None:
        self.told = 0

    def listen(self) -> None:
        signal.signal(signal.SIGUSR1, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.told += 1


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_before_tune_runs_a_signal_ends_what_goes_on(number: signal.Signals) -> None:
    with Interrupts().watching() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            send(number)
        assert interrupts.name == number.name


@pytest.mark.parametrize("number", SIGNALS)
def test_while_tune_runs_it_is_told_to_stop_in_order(number: signal.Signals) -> None:
    tune = Tune()
    with Interrupts().watching() as interrupts, interrupts.tuning():
        tune.listen()
        send(number)
        assert tune.told == 1
        assert interrupts.name == number.name


def test_a_second_signal_does_not_wait_for_tune() -> None:
    tune = Tune()
    with Interrupts().watching() as interrupts, interrupts.tuning():
        tune.listen()
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert tune.told == 1


def test_before_tunes_loop_listens_a_signal_ends_the_program_and_not_the_process() -> None:
    with Interrupts().watching() as interrupts, interrupts.tuning():
        with pytest.raises(KeyboardInterrupt):  # by itself, SIGUSR1 would kill
            send(signal.SIGTERM)
        send(signal.SIGUSR1)


def test_after_tune_a_signal_is_a_signal_again() -> None:
    tune = Tune()
    with Interrupts().watching() as interrupts:
        with interrupts.tuning():
            tune.listen()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert tune.told == 0


def test_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)]
    with Interrupts().watching() as interrupts, interrupts.tuning():
        assert [signal.getsignal(number) for number in SIGNALS] != before[:2]
    assert [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)] == before


def test_handlers_that_ray_put_in_their_place_are_replaced_again() -> None:
    with Interrupts().watching() as interrupts:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as `ray.init` does
        interrupts.listen()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


def test_a_notebook_keeps_its_own_handlers() -> None:
    tune, interrupts = Tune(), Interrupts()
    tune.listen()
    before = [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)]
    interrupts.listen(False)
    with interrupts.tuning(False):
        assert [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)] == before


class _Cycle:
    """A cycle, which the garbage collector ends; its callback gets a signal."""

    def __init__(self) -> None:
        self.own = self

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        sum(range(10))  # the handler runs between two steps of the interpreter


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_python_drops_is_not_lost() -> None:
    with Interrupts().watching() as interrupts:
        interrupts.check()  # nothing came
        _Cycle()
        gc.collect()  # raises nothing: exceptions in finalisers are printed
        assert interrupts.name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt), interrupts.tuning():
            pytest.fail("Tune must not start")
