"""Tries the decoding of a file in a process of its own: what the station ended in may be what ended it."""

from __future__ import annotations

import signal
import subprocess
import sys

from station.picture import decode

WITHIN_S = 60.0


def trial(data: bytes, *, within_s: float = WITHIN_S) -> str | None:
    """Why the decoder must not be let near *data* again; None: it survived it, whether it took it or not."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the station ended during this file, and decoding it takes more than {within_s:g} s"
    if done.returncode < 0:
        return f"the decoder crashes on it ({signal.Signals(-done.returncode).name}), and the station did once"
    return None


if __name__ == "__main__":
    decode(sys.stdin.buffer.read())
