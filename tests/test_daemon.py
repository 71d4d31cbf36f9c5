"""The daemon as its users meet it: a real process, a real broker, a real disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from station.assets import ASSETS
from tests.daemon import (
    BLACK_PASSES,
    PATIENCE_S,
    TOPIC,
    Broker,
    Daemon,
    Received,
    ServiceManager,
    Subscriber,
    closing_all,
    drop,
    encoded,
    free_port,
    picture,
    stays,
)
from tests.waiting import until

SAMPLES = ASSETS / "samples"


def wait(condition: Callable[[], object], what: str) -> None:
    until(condition, within_s=PATIENCE_S, what=what)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path / "broker").start()
    yield from _given(one)


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    one = Subscriber(broker.port).start()
    yield from _given(one)


@pytest.fixture
def station(tmp_path: Path, broker: Broker) -> Iterator[Daemon]:
    """Not started yet."""
    yield from _given(Daemon(tmp_path, broker_port=broker.port))


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Daemon]:
    """A station whose broker is not there; not started yet."""
    yield from _given(Daemon(tmp_path))


def _given[T](one: T) -> Iterator[T]:
    raise NotImplementedError
