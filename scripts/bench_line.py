"""
How long the line waits: from the trigger's last byte to the answer's last byte, over a pty, beside what it must take.

    scripts/bench --line [--boards 200]

A folder of board pictures stands in for the camera. One capture is what that camera needs for a picture (measured here:
read, decode, its turn at its rate); a picture counts only if it was begun after the trigger.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import statistics
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import cv2
from bench import PLAIN, Figure, bare_run_ms, daemon, mosquitto

FPS = 30
GOLDEN = 0.618034
PAUSE_S = 0.03  # as long as the line waits for its camera: after a pause a network takes longer than in a row
ALLOWANCE_MS = 5.0


def measure(home: Path, pictures: list[Path], boards: int) -> Iterator[Figure]:
    before_ms = bare_run_ms(pictures, pause_s=PAUSE_S)
    waits_ms = triggered_ms(home / "line", pictures, boards)
    bare_ms = (before_ms + bare_run_ms(pictures, pause_s=PAUSE_S)) / 2
    capture_ms = capture(pictures)
    limit_ms = capture_ms + bare_ms + ALLOWANCE_MS
    told = f"capture {capture_ms:.1f} + bare after a pause {bare_ms:.1f} + {ALLOWANCE_MS:g} ms"
    yield Figure("trigger byte to gate byte, median", statistics.median(waits_ms), "ms", limit_ms, told)
    yield Figure("trigger byte to gate byte, p99", statistics.quantiles(waits_ms, n=100)[98], "ms", None, "")


def capture(pictures: list[Path]) -> float:
    """A picture's turn at this rate, which has begun already when the trigger comes; then reading and decoding one."""
    times = []
    for one in pictures * 10:
        time.sleep(1 / FPS)  # as the camera does: after a pause reading takes longer than in a row
        began_s = time.perf_counter()
        cv2.imread(str(one))
        times.append(time.perf_counter() - began_s)
    return 1e3 / FPS / 2 + statistics.median(times) * 1e3


def triggered_ms(home: Path, pictures: list[Path], boards: int) -> list[float]:
    """The station is asked for one board after the other, each when the last is answered and the line says READY."""
    camera = home / "camera"
    camera.mkdir(parents=True)
    for one in pictures:
        shutil.copy(one, camera)
    master, slave = pty.openpty()
    tty.setraw(slave)
    line = (
        f'[source]\nkind = "camera"\ndevice = "{camera}"\nfps = {FPS}\nlatency_ms = 0\nfrozen_s = 0\n'
        f'[trigger]\nkind = "serial"\nanswer_ms = 10000\n[gate]\nkind = "serial"\n'
        f'[serial]\nport = "{os.ttyname(slave)}"\nbaud = 115200\n'
    )
    try:
        with mosquitto() as port, daemon(home, port, PLAIN, source=line):
            plc = _Plc(master)
            plc.wait_for(b"READY")
            return [plc.ask(number) for number in range(1, boards + 6)][5:]
    finally:
        os.close(master)
        os.close(slave)


class _Plc:
    def __init__(self, master: int) -> None:
        self._master = master
        self._rest = b""

    def ask(self, number: int) -> float:
        began_s = time.perf_counter()
        os.write(self._master, b"T%d\r" % number)
        answered_s = self.wait_for(b"P%d" % number, b"F%d" % number)
        self.wait_for(b"READY")
        time.sleep((number * GOLDEN % 1) / FPS)  # so that triggers meet the camera at every moment of its turn
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
