"""
How long the line waits: from the trigger's last byte to the answer's last byte, over a pty, beside what it must take.

    scripts/bench --line [--boards 200]

A folder of board pictures stands in for the camera. One capture is what that camera needs for a picture (measured here:
read, decode, its turn at its rate); a picture counts only if it was begun after the trigger.
"""

from __future__ import annotations

import itertools
import os
import pty
import select
import shutil
import statistics
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
from bench_rig import PLAIN, Figure, bare_run, daemon, mosquitto

FPS = 30
GOLDEN = 0.618034
ROUND_S = 8 / FPS  # from one trigger to the next: whole turns of the camera, and time to measure the floor
PAUSE_S = 0.03  # as long as the line waits for its camera: after a pause a network takes longer than in a row
ALLOWANCE_MS = 5.0


def measure(home: Path, pictures: list[Path], boards: int) -> Iterator[Figure]:
    times = triggered(home / "line", pictures, boards)
    waits_ms = [one.wait_ms for one in times]
    bare_ms = statistics.median(one.bare_ms for one in times)
    # A picture's turn at this rate, which has begun already when the trigger comes; then reading and decoding one.
    capture_ms = 1e3 / FPS / 2 + statistics.median(one.read_ms for one in times)
    limit_ms = capture_ms + bare_ms + ALLOWANCE_MS
    told = f"capture {capture_ms:.1f} + bare after a pause {bare_ms:.1f} + {ALLOWANCE_MS:g} ms"
    yield Figure("trigger byte to gate byte, median", statistics.median(waits_ms), "ms", limit_ms, told)
    yield Figure("trigger byte to gate byte, p99", statistics.quantiles(waits_ms, n=100)[98], "ms", None, "")


@dataclass(frozen=True, slots=True)
class Times:
    """One board: from trigger to answer, and right after it what must be: a picture read, and a bare run."""

    wait_ms: float
    read_ms: float
    bare_ms: float


def triggered(home: Path, pictures: list[Path], boards: int) -> list[Times]:
    """
    The station is asked for one board after the other, each when the last is answered and the line says READY.

    The floor is measured between any two of them, beside the same camera: a machine that drifts meets both.
    """
    camera = home / "camera"
    camera.mkdir(parents=True)
    for one in pictures:
        shutil.copy(one, camera)
    bare_ms, files = bare_run(pictures), itertools.cycle(pictures)
    master, slave = pty.openpty()
    tty.setraw(slave)
    line = (
        f'[source]\nkind = "camera"\ndevice = "{camera}"\nfps = {FPS}\nlatency_ms = 0\nfrozen_s = 0\n'
        f'[trigger]\nkind = "serial"\nanswer_ms = 10000\n[gate]\nkind = "serial"\n'
        f'[serial]\nport = "{os.ttyname(slave)}"\nbaud = 115200\n'
    )
    times = []
    try:
        with mosquitto() as port, daemon(home, port, PLAIN, source=line):
            plc = _Plc(master)
            plc.wait_for(b"READY")
            began_s = time.monotonic()
            for number in range(1, boards + 6):
                # Triggers meet the camera at every moment of its turn, evenly: else chance moves the median by 1 ms.
                _sleep_until(began_s + number * ROUND_S + (number * GOLDEN % 1) / FPS)
                wait_ms = plc.ask(number)
                time.sleep(2 * PAUSE_S)  # the station keeps the evidence meanwhile
                read_ms = _read_ms(next(files))
                time.sleep(PAUSE_S)
                times.append(Times(wait_ms, read_ms, bare_ms()))
    finally:
        os.close(master)
        os.close(slave)
    return times[5:]


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))


def _read_ms(picture: Path) -> float:
    began_s = time.perf_counter()
    cv2.imread(str(picture))
    return (time.perf_counter() - began_s) * 1e3


class _Plc:
    def __init__(self, master: int) -> None:
        self._master = master
        self._rest = b""

    def ask(self, number: int) -> float:
        began_s = time.perf_counter()
        os.write(self._master, b"T%d\r" % number)
        answered_s = self.wait_for(b"P%d" % number, b"F%d" % number)
        self.wait_for(b"READY")
        return (answered_s - began_s) * 1e3

    def wait_for(self, *texts: bytes) -> float:
        while True:
            *lines, self._rest = self._rest.split(b"\r")
            if any(one in texts for one in lines):
                self._rest = b"\r".join([*lines[[one in texts for one in lines].index(True) + 1 :], self._rest])
                return time.perf_counter()
            if not select.select([self._master], [], [], 30)[0]:
                raise SystemExit(f"the station did not say {texts} within 30 s")
            self._rest += os.read(self._master, 4096)
