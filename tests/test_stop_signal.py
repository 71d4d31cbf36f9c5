"""The wish to stop is heard whenever it comes, and never stops the one who hears it for good."""

from __future__ import annotations

import subprocess
import sys

from station.stop_signal import StopSignal

# A signal at every moment of a wait. With a threading.Event in its place this stands still within a few hundred.
PROGRAM = """
import os, random, signal
from station.stop_signal import StopSignal

def heard(*_):
    stop.set()

signal.signal(signal.SIGALRM, heard)
for _ in range(20_000):
    stop = StopSignal()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-6, 1e-4))
    while not stop.wait(1e-5):
        pass
    os.close(stop._ours), os.close(stop._theirs)
"""


def test_signals_without_end_do_not_fill_anything_up() -> None:
    stop = StopSignal()
    for _ in range(100_000):
        stop.set()
    assert stop.wait(60)


def test_a_signal_at_any_moment_of_the_wait_is_heard_and_nothing_stands_still() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_waits_no_longer_than_it_was_told_and_stays_set() -> None:
    stop = StopSignal()
    assert not stop.wait(0.001)
    assert not stop.is_set()
    stop.set()
    assert stop.wait(60)
    assert stop.wait(60), "however often it is asked"
    assert stop.is_set()
