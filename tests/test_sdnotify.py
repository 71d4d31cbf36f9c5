"""What systemd hears, on real sockets of both kinds."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from station.sdnotify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A socket as systemd opens it, by name and abstract."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify") if request.param == "path" else f"\0station-test-{uuid.uuid4()}")
        bound.settimeout(30)
        yield bound


def notifier(manager: socket.socket) -> Notifier:
    name = manager.getsockname()
    return Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode() if isinstance(name, bytes) else name})


def test_systemd_hears_every_message(manager: socket.socket) -> None:
    systemd = notifier(manager)
    said = [
        (systemd.ready(), b"READY=1\nSTATUS=inspecting"),
        (systemd.feed(), b"WATCHDOG=1"),
        (
            systemd.extend_timeout(1.5, "building the engine: 40 %"),
            b"EXTEND_TIMEOUT_USEC=1500000\nSTATUS=building the engine: 40 %",
        ),
        (systemd.stopping("draining 3 events"), b"STOPPING=1\nSTATUS=draining 3 events"),
    ]
    for heard, message in said:
        assert heard
        assert manager.recv(4096) == message


def test_a_status_of_several_lines_stays_one_message(manager: socket.socket) -> None:
    notifier(manager).stopping("line failed:\nREADY=1")
    assert manager.recv(4096) == b"STOPPING=1\nSTATUS=line failed: READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_systemd_nothing_is_said(environment: dict[str, str]) -> None:
    assert not Notifier(environment).ready()


def test_a_vanished_socket_is_survived(tmp_path: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).feed()


def test_a_manager_that_does_not_read_does_not_hold_up_the_caller(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        systemd = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert any(not systemd.feed() for _ in range(100_000))  # ends at all: the queue is full, and feed came back


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_patience_and_only_when_meant_for_us(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert Notifier(environment).watchdog_interval_s() == interval_s
