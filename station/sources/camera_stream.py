"""
Reads a network camera through FFmpeg, in the camera's own process: what was lost on its way is seen, and never judged.

FFmpeg conceals what is missing of H.264 and H.265 by a part of an earlier picture, and each later picture builds on
that, until one comes that builds on no other (a key frame). It has settings against this, but OpenCV gives its decoder
none (``avcodec_open2(context, codec, NULL)``). So there is one witness: what FFmpeg says in its log.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

# RTSP over TCP, since a lost UDP packet is a grey stripe on a board, and no buffering. A queue of two, although TCP
# keeps the order: without one FFmpeg does not say that the camera, or a relay behind it, has left packets out.
OPTIONS = "rtsp_transport;tcp|reorder_queue_size;2|fflags;nobuffer|flags;low_delay"
LOG_LEVEL = "48"  # FFmpeg's debug: only there it says that a picture is missing, and which builds on no other
SAID = re.compile(r"\[OPENCV:FFMPEG:(\d+)\] (.+)")  # as OpenCV prints it on stdout
ERROR = 16  # the level of what FFmpeg calls an error, or worse
LOST = re.compile("RTP: missed|dropping old packet|Packet corrupt|Continuity check failed")
CONCEALED = re.compile("concealing|Frame num gap")
HARMLESS = re.compile("SEI")  # a remark beside the picture, which some cameras write as they like
KEY = re.compile(r"nal_unit_type: \d+\((?:IDR|CRA|BLA)")
TOUCHED = 3  # pictures read: what is lost lies in the one at hand, or is the end of it and the beginning of the next


def open_stream(url: str) -> tuple[Any, Overheard]:
    """The stream, and what FFmpeg says of it."""
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", OPTIONS)
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = LOG_LEVEL
    overheard = Overheard()
    import cv2

    patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 8000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 4000]
    return cv2.VideoCapture(url, cv2.CAP_FFMPEG, patience), overheard


class Overheard:
    """Stdout of this process from here on, where OpenCV prints what FFmpeg says; errors are passed on to stderr."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._reads, writes = os.pipe()
        os.set_blocking(self._reads, False)
        os.dup2(writes, 1)
        os.close(writes)
        self._lock = threading.Lock()
        self._rest = b""
        self._said: list[tuple[int, str]] = []
        threading.Thread(target=self._listen, daemon=True).start()  # a pipe that is full would stop FFmpeg

    def said(self) -> list[tuple[int, str]]:
        """All that matters since this was asked last: its level, and the text."""
        self._libc.fflush(None)
        self._take()
        with self._lock:
            said, self._said = self._said, []
        return said

    def _listen(self) -> None:
        while True:
            select.select([self._reads], [], [])
            self._take()

    def _take(self) -> None:
        with self._lock, suppress(BlockingIOError):
            while True:
                *lines, self._rest = (self._rest + os.read(self._reads, 65536)).split(b"\n")
                for line in lines:
                    if found := SAID.match(line.decode("utf-8", "replace")):
                        self._hear(int(found[1]), found[2])

    def _hear(self, level: int, text: str) -> None:
        if level <= ERROR:
            sys.stderr.write(f"{text}\n")
        if level <= ERROR or LOST.search(text) or CONCEALED.search(text) or KEY.match(text):
            self._said.append((level, text))


class Damage:
    """
    What is wrong with a picture that came, by what FFmpeg said until then. Pure.

    FFmpeg says it of a picture when it reads or decodes that, so before it is given. From then on all are damaged,
    until one is given that builds on no other and was decoded later.
    """

    def __init__(self) -> None:
        self._why = ""
        self._touched = 0
        self._key = False

    def of(self, said: Iterable[tuple[int, str]], kind: str) -> str:
        """Why this picture is not whole, or "". *kind*: "I" if it builds on no other, "" where that is not known."""
        for level, text in said:
            if LOST.search(text):
                self._why, self._key, self._touched = text, False, TOUCHED
            elif CONCEALED.search(text) or (level <= ERROR and not HARMLESS.search(text)):
                self._why, self._key = text, False
            elif KEY.match(text):
                self._key = not self._touched
        self._touched = max(0, self._touched - 1)
        if self._key and kind in {"I", ""}:
            self._why = ""
        return self._why
