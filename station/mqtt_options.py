"""How to reach the broker, and the pure decisions about a connection: protocol, pauses, what an answer means."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from station.errors import LinkError
from station.types import Fate

Protocol: TypeAlias = Literal["5", "3.1.1"]

RETRY_FIRST_S = 0.25
RETRY_MOST_S = 1.0  # a broker that comes back is found at once; one attempt a second costs nobody anything
RETRY_REFUSED_MOST_S = 30.0  # a broker that does not want us as we are configured: somebody must do something first
STOLEN_PAUSE_S = 60.0  # another client has our id: taking it back at once would be a war
TRY_5_AGAIN_S = 3600.0
CLOSES_BEFORE_FALLBACK = 3

# MQTT 5 reason codes that mean "not now": the broker may take the same message later (OASIS MQTT 5.0, 2.4).
BUSY_CODES = frozenset({0x80, 0x83, 0x91, 0x93, 0x96, 0x97})


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate files, PEM. *ca_file* None: the system's authorities. *cert_file*, *key_file*: ours, both or none."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Where the broker is and who we are. *password* is asked at every connection, so that it can be changed."""

    host: str
    port: int
    client_id: str
    topic: str
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password: Callable[[], str | None] = lambda: None
    tls: Tls | None = None
    window: int = 20
    keepalive_s: int = 20
    ack_timeout_s: float = 20.0
    connect_timeout_s: float = 5.0


class ProtocolChoice:
    """
    MQTT 5 first, 3.1.1 where the broker knows no better; 5 is tried again hourly.

    Falls back only on a CONNACK that names the protocol, or after three closes in a row before any CONNACK: an old
    broker may just hang up on what it cannot read, but a broker that restarts does so too.
    """

    def __init__(self, wanted: Literal["auto", "5", "3.1.1"]) -> None:
        self._wanted = wanted
        self._closes = 0
        self._fell_back_s: float | None = None

    def next(self, now_s: float) -> Protocol:
        if self._wanted != "auto":
            return self._wanted
        if self._fell_back_s is not None and now_s - self._fell_back_s < TRY_5_AGAIN_S:
            return "3.1.1"
        self._fell_back_s = None
        return "5"

    def due(self, now_s: float) -> bool:
        """A 3.1.1 connection has lasted long enough to try 5 again."""
        return self._fell_back_s is not None and now_s - self._fell_back_s >= TRY_5_AGAIN_S

    def accepted(self) -> None:
        self._closes = 0

    def refused(self, now_s: float) -> None:
        """The CONNACK says that this protocol is not spoken."""
        self._fall_back(now_s)

    def closed_early(self, now_s: float) -> None:
        """The broker closed before any CONNACK."""
        self._closes += 1
        if self._closes >= CLOSES_BEFORE_FALLBACK:
            self._fall_back(now_s)

    def _fall_back(self, now_s: float) -> None:
        self._closes = 0
        if self._fell_back_s is None:
            self._fell_back_s = now_s


def retry_pause_s(failures: int, random: Callable[[], float], *, refused: bool = False) -> float:
    """How long to wait after so many failures in a row: doubling to a limit, half of it by chance."""
    limit_s = RETRY_REFUSED_MOST_S if refused else RETRY_MOST_S
    return min(RETRY_FIRST_S * 2.0 ** min(failures, 16), limit_s) * (0.5 + 0.5 * random())


def fate_of(code: int) -> Fate:
    """What a PUBACK's reason code means for the message."""
    if code < 0x80:
        return Fate.ACCEPTED
    return Fate.BUSY if code in BUSY_CODES else Fate.REFUSED


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer with the broker's name checked. Raises LinkError naming the file that cannot be used."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca_file is not None:
            context = ssl.create_default_context(cafile=str(tls.ca_file))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
    except OSError as error:
        raise LinkError(f"[mqtt] ca_file {tls.ca_file} cannot be used: {error}") from None
    try:
        if tls.cert_file is not None:
            context.load_cert_chain(str(tls.cert_file), None if tls.key_file is None else str(tls.key_file))
    except OSError as error:
        raise LinkError(
            f"[mqtt] cert_file {tls.cert_file} with key_file {tls.key_file} cannot be used: {error}"
        ) from None
    return context
