"""Signals stop work soon, at a place where nothing is lost, and are never swallowed."""

import signal
import weakref

import pytest

from rfdetr.interrupts import Interrupted, check, exposed, interruptible, shielded

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


class Thing:
    """Something that can die, at which moment a signal arrives: Python prints what is raised there."""

    def __init__(self, number) -> None:
        self.watch = weakref.ref(self, lambda _: signal.raise_signal(number))


def swallow(number) -> None:
    thing = Thing(number)
    watch = thing.watch
    del thing
    assert watch() is None


@SIGNALS
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_signal_is_noticed_at_the_next_check(number) -> None:
    with pytest.raises(Interrupted), interruptible():
        swallow(number)
        check()
        pytest.fail("went on")


@SIGNALS
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_signal_is_noticed_at_the_end_at_last(number) -> None:
    with pytest.raises(Interrupted) as raised, interruptible():
        swallow(number)
    assert raised.value.code == 130


@SIGNALS
def test_a_signal_raises_at_once_and_handlers_are_put_back(number) -> None:
    before = signal.getsignal(number)
    done = []
    with pytest.raises(Interrupted), interruptible():
        assert signal.getsignal(number) != before
        with interruptible():
            signal.raise_signal(number)
            done.append(1)
    assert not done and signal.getsignal(number) == before
    check()  # nothing is left over


@SIGNALS
def test_a_shielded_block_ends_first(number) -> None:
    done = []
    with pytest.raises(Interrupted), interruptible(), shielded():
        signal.raise_signal(number)
        check()
        done.append("shielded")
    with pytest.raises(Interrupted), interruptible(), shielded(), exposed():
        signal.raise_signal(number)
        done.append("exposed")
    assert done == ["shielded"]


def test_a_second_signal_acts_as_usual() -> None:
    # A process that was started in the background may ignore this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible(), shielded():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
