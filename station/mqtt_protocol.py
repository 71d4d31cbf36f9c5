"""What to conclude from how a connection to a broker ended, and from its answers: pure, and tested without a broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from station.types import Fate

Protocol: TypeAlias = Literal["5", "3.1.1"]

RETRY_FIRST_S = 0.25
RETRY_MOST_S = 1.0  # a broker that comes back is found at once; one attempt a second costs nobody anything
RETRY_UNWANTED_MOST_S = 30.0  # a broker that does not want us as we are: somebody must do something first
TRY_5_AGAIN_S = 3600.0
CLOSES_BEFORE_FALLBACK = 3
SHORT_LIFE_S = 5.0  # closed without a word so soon after CONNACK, three times in a row, is another client
SHORT_LIVES_BEFORE_STOLEN = 3
STOLEN_PAUSE_S = 60.0  # another client has our id: taking it back at once would be a war

# MQTT 5 reason codes that mean "not now": the broker may take the same message later (OASIS MQTT 5.0, 2.4).
BUSY_CODES = frozenset({0x80, 0x83, 0x91, 0x93, 0x96, 0x97})
# CONNACK codes that a broker in trouble gives to anyone: it may take us as we are a little later (ibid., 3.2.2.2).
NOT_NOW_CODES = frozenset({0x80, 0x83, 0x88, 0x89, 0x97, 0x9C, 0x9D, 0x9F})
REFUSED_HINT = "look at [mqtt] username, password_file, tls"

MAX_TOPIC = 1024
MAX_LEVELS = 100  # mosquitto takes 200


def publishable(topic: str) -> bool:
    """Whether brokers take a message on *topic*, which a stranger named: for one that they do not, some cut us off."""
    return (
        0 < len(topic) <= MAX_TOPIC
        and topic.isprintable()
        and not topic.startswith("$")
        and not set(topic) & {"+", "#"}
        and topic.count("/") < MAX_LEVELS
    )


class How(Enum):
    """How a connection ended, as far as it decides what to do next."""

    STOPPED = "stopped"
    NOT_REACHED = "not reached"
    CLOSED_EARLY = "closed before CONNACK"
    WRONG_PROTOCOL = "protocol not spoken"
    REFUSED = "refused"
    STOLEN = "client id taken over"
    DISMISSED = "dismissed"  # by the broker, which said why
    LOST = "lost"  # without a word
    SILENT = "silent"  # closed by us: the broker owes an answer
    RETRY_5 = "time to try MQTT 5 again"


@dataclass(frozen=True, slots=True)
class End:
    """The end of one connection; *lasted_s* since the broker accepted it, None if it never did."""

    how: How
    reason: str
    lasted_s: float | None = None

    @property
    def short_lived(self) -> bool:
        """The broker took us, and almost at once it did not want us any more."""
        short = self.lasted_s is not None and self.lasted_s < SHORT_LIFE_S
        return short and self.how in {How.LOST, How.DISMISSED}


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
        if self._fell_back_s is not None and not self.due(now_s):
            return "3.1.1"
        self._fell_back_s = None
        return "5"

    def due(self, now_s: float) -> bool:
        """A 3.1.1 connection has lasted long enough to try 5 again."""
        return self._fell_back_s is not None and now_s - self._fell_back_s >= TRY_5_AGAIN_S

    def accepted(self) -> None:
        self._closes = 0

    def ended(self, how: How, *, now_s: float) -> None:
        """A connection ended in this way: does the next one speak the older protocol?"""
        if self._wanted != "auto":
            return
        if how is How.CLOSED_EARLY:
            self._closes += 1
        if how is How.WRONG_PROTOCOL or self._closes >= CLOSES_BEFORE_FALLBACK:
            self._closes = 0
            if self._fell_back_s is None:
                self._fell_back_s = now_s


class Patience:
    """
    How long to stay away after a connection ended, and whether another client has taken our id.

    *chance* gives 0..1: half of every pause is by chance, so that a plant full of stations does not fall on a broker
    at once. A broker that is not there is tried each second; one that refuses us, or takes us and closes, ever more
    rarely.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0
        self._short_lives = 0
        self._wordless = 0

    def stolen(self, end: End) -> bool:
        """
        Another client uses our id. MQTT 5 has a word for it, which 3.1.1 cannot say and mosquitto 2.0 does not: then it
        is guessed from connections that are closed at once, again and again.

        A broker that restarts closes them too, but it is away for a moment in between: that starts the count anew.
        """
        self._short_lives = self._short_lives + 1 if end.short_lived else 0
        self._wordless = self._wordless + 1 if end.short_lived and end.how is How.LOST else 0
        return end.how is How.STOLEN or self._wordless >= SHORT_LIVES_BEFORE_STOLEN

    def pause_s(self, end: End, *, stolen: bool) -> float:
        """Seconds to stay away. Call it once after each connection, and after ``stolen``."""
        if end.how is How.RETRY_5:
            return 0.0
        if stolen:
            return STOLEN_PAUSE_S * (1.0 + self._chance())
        self._failures = 1 if end.lasted_s is not None else self._failures + 1
        unwanted = end.how is How.REFUSED or end.short_lived
        limit_s = RETRY_UNWANTED_MOST_S if unwanted else RETRY_MOST_S
        doublings = min(max(self._failures, self._short_lives), 16)
        return min(RETRY_FIRST_S * 2.0**doublings, limit_s) * (0.5 + 0.5 * self._chance())


def login_refused(code: int) -> bool:
    """The broker does not want us as we are: trying again does not help. By the reason code of its CONNACK."""
    return code >= 0x80 and code not in NOT_NOW_CODES


def fate_of(code: int) -> Fate:
    """What a PUBACK's reason code means for the message."""
    if code < 0x80:
        return Fate.ACCEPTED
    return Fate.BUSY if code in BUSY_CODES else Fate.REFUSED
