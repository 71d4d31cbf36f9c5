"""A PLC at the other end of a serial line: a real pty, what it says and hears, and what it would let pass."""

from __future__ import annotations

import os
import pty
import select
import threading
import time
import tty
from dataclasses import dataclass, field
from pathlib import Path

from tests.waiting import until


@dataclass(frozen=True, slots=True)
class Heard:
    """One line from the station, and when its terminator came (``time.monotonic``)."""

    text: str
    at_s: float


@dataclass
class Plc:
    """
    In a ``with``, it listens at *master*; the station's end is ``port``.

    ``unplug`` closes the line, ``plug`` makes another one under the same name, as a USB adapter that comes back. What
    the station sends to a PLC that was not there is lost. *acks*: it says ``A<number>`` to each result.
    """

    folder: Path
    acks: bool = False
    heard: list[Heard] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    _master: int = -1
    _slave: int = -1
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def port(self) -> Path:
        return self.folder / "plc"

    def __enter__(self) -> Plc:
        self.plug()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def plug(self) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(self._slave))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(self._master, self._stop), daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(10)
        self._thread = None
        self.port.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)

    def say(self, data: bytes) -> None:
        os.write(self._master, data)

    def texts(self) -> list[str]:
        return [one.text for one in self.heard]

    def wait_for(self, text: str, *, times: int = 1) -> Heard:
        """The *times*-th line that is *text*."""
        until(lambda: self.texts().count(text) >= times, what=f"{text!r} at the PLC, which heard {self.texts()[-8:]}")
        return [one for one in self.heard if one.text == text][times - 1]

    def passes(self, number: int, *, asked_s: float, within_s: float) -> bool:
        """
        What a PLC does with board *number*, asked for at *asked_s*: it opens for its own PASS, in time, and for nothing
        else; a "safe" after it, or a second word on the board, closes it again.
        """
        about = [one for one in self.heard if asked_s <= one.at_s <= asked_s + within_s]
        words = [one.text for one in about if one.text in {f"P{number}", f"F{number}", f"U{number}", "SAFE"}]
        return words == [f"P{number}"]

    def _listen(self, master: int, stop: threading.Event) -> None:
        rest = b""
        while not stop.is_set():
            if not select.select([master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(master, 4096)
            except OSError:  # nobody has the other end open
                stop.wait(0.01)
                continue
            self.raw += data
            *lines, rest = (rest + data).split(b"\r")
            for line in lines:
                text = line.decode("ascii", "replace")
                self.heard.append(Heard(text, time.monotonic()))
                if self.acks and text[:1] in {"P", "F", "U"} and text[1:].isdigit():
                    os.write(master, f"A{text[1:]}\r".encode())
