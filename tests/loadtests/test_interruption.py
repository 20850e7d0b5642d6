import signal
import threading

import pytest

from loadtests.interruption import SIGNALS, calling, heeded


@pytest.fixture(autouse=True)
def heard():
    """Whoever runs the tests in the background may have had signals ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, how in before.items():
        signal.signal(number, how)


def test_the_first_signal_is_asked_to_end_and_a_second_ctrl_c_is_not_patient():
    ends = []
    with heeded() as signals, calling(lambda: ends.append(1)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert (ends, signals.exit_code, signals.impatient) == ([1], 143, False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert (ends, signals.exit_code, signals.impatient) == ([1], 143, True)


def test_with_nobody_to_ask_it_is_a_keyboard_interrupt():
    with heeded() as signals:
        assert signals.exit_code is None
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        assert signals.exit_code == 129


def test_signals_are_afterwards_what_they_were_and_the_ignored_stay_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with heeded() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.exit_code is None
        assert (signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM)) == (signal.SIG_IGN, term)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_changes_nothing():
    seen = []

    def look():
        with heeded() as signals:
            seen.append((signals.exit_code, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(None, signal.getsignal(signal.SIGTERM))]
