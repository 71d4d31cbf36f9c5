"""
Tells systemd how the service is doing: READY, WATCHDOG, STOPPING, STATUS.

Source of the protocol: sd_notify(3) and sd_watchdog_enabled(3). A message is one datagram of ``KEY=value`` lines to the
socket that $NOTIFY_SOCKET names. Where systemd did not start the process there is no socket, and nothing is said.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

SEND_S = 0.5  # systemd reads at once; a full queue must not hold up the loop that feeds the watchdog


class Notifier:
    """
    Speaks to the service manager of *environment*. Never raises: a manager that is gone is no reason to stop
    inspecting.

    *pid* is the process that the watchdog must be meant for; by default this one. Call it from one thread at a time.
    Each method returns True when the message was handed over.
    """

    def __init__(self, environment: Mapping[str, str], *, pid: int | None = None) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog_interval_s = _watchdog_interval_s(environment, os.getpid() if pid is None else pid)

    def watchdog_interval_s(self) -> float | None:
        """How often to call ``feed``: half of what systemd waits. None: nobody watches this process."""
        return self._watchdog_interval_s

    def ready(self, status: str = "inspecting") -> bool:
        """The start is complete. *status* is what ``systemctl status`` shows from now on."""
        return self._send("READY=1", _status(status))

    def feed(self) -> bool:
        """Everything moves: do not restart the service. Call it only where that is known."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float, status: str) -> bool:
        """The start or the stop is making progress, shown by *status*: wait *seconds* more from now."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", _status(status))

    def stopping(self, status: str = "stopping") -> bool:
        """The service goes down on purpose."""
        return self._send("STOPPING=1", _status(status))

    def _send(self, *lines: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(SEND_S)
                out.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False  # the manager is gone or busy; the next message may reach it
        return True


def _address(name: str) -> bytes | None:
    """The socket's address. None for no socket, and for kinds (``vsock:``) that only virtual machines speak."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None


def _watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    limit_us = environment.get("WATCHDOG_USEC", "")
    if not limit_us.isdecimal() or int(limit_us) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # meant for our parent: we only inherited the variable
    return int(limit_us) / 2e6


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())  # a line break in it would begin another message
