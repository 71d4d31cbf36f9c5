"""Debian's own Python, which has what no wheel has: GStreamer."""

from __future__ import annotations

import subprocess

PYTHON = "/usr/bin/python3"


def can(look: str) -> bool:
    """Whether it is there and the program *look* ends well in it."""
    try:
        return subprocess.run([PYTHON, "-c", look], capture_output=True, check=False, timeout=60).returncode == 0
    except OSError:
        return False
