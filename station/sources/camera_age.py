"""How old a camera's picture is at most: by when it came, and by its camera's own stamp. Pure."""

from __future__ import annotations

from collections import deque


class Trouble(Exception):  # noqa: N818  # it is no error of ours
    """
    What is wrong with the camera, for a person. *lasting*: it, or this computer, cannot do what is configured, and no
    other program is the cause.
    """

    def __init__(self, what: str, *, lasting: bool = False) -> None:
        super().__init__(what)
        self.lasting = lasting


class Freshness:
    """
    When can the exposure of a picture have begun, at the earliest? A picture that waited in a buffer is older than it
    looks, and may show the previous board.

    While none waits on the way, it began no earlier than the picture before it arrived, less *latency_s* from the
    sensor to here. One that follows after less than half the usual distance has waited, so the earliest time stays
    where it was. After a pause (of the network, or of this program) nobody knows how many wait, until some in a row
    come at the usual distance. Where the camera stamps its pictures (RTSP), they are also older by as long as their
    stamps say that they waited (``Stamps``): those that queue and then come at an even pace are not noticed otherwise.
    """

    LEARNS = 3  # distances by which the usual one is known
    STEADY = 2  # of them in a row after a pause: nothing waits any more
    JITTER_S = 0.01  # of a machine with other things to do
    ADAPTS = 0.02  # how fast the usual distance follows
    SLOWER = 15  # long distances in a row: it is a slower camera now, and no pause
    OTHER = 100  # pictures at odd distances: more than wait anywhere

    def __init__(self, begun_s: float, *, latency_s: float) -> None:
        self._latency_s = latency_s
        self._settled_s = begun_s
        self._previous_s: float | None = None
        self._lately: deque[float] = deque(maxlen=self.LEARNS)
        self._usual_s: float | None = None
        self._steady = self._long = self._odd = 0
        self._stamps = Stamps()

    def began_s(self, arrived_s: float, stamp_s: float | None) -> float:
        """
        The earliest beginning of the picture that came at *arrived_s*, which its camera stamped *stamp_s*. Raises
        Trouble.
        """
        began_s = self._settled_s
        if self._previous_s is not None:
            distance_s = arrived_s - self._previous_s
            waited = not self._on_time(distance_s)
            if waited and stamp_s is not None and self._usual_s is not None:
                waited = distance_s < self._usual_s / 2  # how long the others did, its stamp says
            if not waited:
                self._settled_s = arrived_s
        self._previous_s = arrived_s
        if stamp_s is not None:
            began_s = min(began_s, arrived_s - self._stamps.waited_s(arrived_s, stamp_s))
        return began_s - self._latency_s

    def _on_time(self, distance_s: float) -> bool:
        """Whether a picture that comes so long after the last one has waited nowhere, as far as one can know."""
        self._lately.append(distance_s)
        if self._usual_s is None or self._long >= self.SLOWER or self._odd >= self.OTHER:
            if len(self._lately) < self.LEARNS:
                return False
            self._usual_s = sorted(self._lately)[self.LEARNS // 2]
            self._steady, self._long, self._odd = self.STEADY - 1, 0, 0
        usual_s = self._usual_s
        if distance_s > 1.5 * usual_s + self.JITTER_S:
            self._steady = 0
            self._long += 1
            self._odd += 1
            return False
        self._long = 0
        behind = self._steady < self.STEADY
        if distance_s < usual_s * (0.75 if behind else 0.5):
            if behind:
                self._steady = 0
            self._odd += 1
            return False
        self._steady += 1
        self._usual_s += self.ADAPTS * (distance_s - usual_s)
        if self._steady < self.STEADY:
            return False
        self._odd = 0
        return True


class Stamps:
    """
    How long did a picture wait, by its camera's own stamp? As much as it was longer on its way than the shortest.

    Keeps the shortest delay, relaxed only at clock-drift speed, so a slowly growing lag is still seen. A shorter delay
    counts once several in a row confirm it, so a single odd stamp affects its own picture only. If the camera's clock
    is set, the old delay is unknown, and a lag that lasts may be no more than that: both are Trouble, and the camera is
    reopened.
    """

    DRIFT = 200e-6  # two quartz clocks at their worst, 100 ppm each: no more, since a lag can grow so fast unseen
    CONFIRM = 3  # ways in a row
    LAG_S = 1.0  # by default a trigger waits no longer for its answer
    LONG_S = 10.0  # no burst lasts so long; and within it a server has sent what it kept for who connects

    def __init__(self) -> None:
        self._ways: deque[float] = deque(maxlen=self.CONFIRM)
        self._shortest_s = self._opened_s = self._previous_s = 0.0
        self._late_since_s: float | None = None

    def waited_s(self, arrived_s: float, stamp_s: float) -> float:
        """Of the picture that came at *arrived_s* with *stamp_s*. Raises Trouble when stamps tell nothing more."""
        way_s = arrived_s - stamp_s
        self._ways.append(way_s)
        confirmed_s = max(self._ways)
        if len(self._ways) < self.CONFIRM:
            self._shortest_s, self._opened_s, self._previous_s = confirmed_s, arrived_s, arrived_s
        self._shortest_s += self.DRIFT * (arrived_s - self._previous_s)
        self._previous_s = arrived_s
        ahead_s = self._shortest_s - confirmed_s
        if ahead_s > self.LAG_S and arrived_s - self._opened_s > self.LONG_S:
            raise Trouble(f"the stamps of its pictures have jumped ahead by {ahead_s:.1f} s: was its clock set?")
        self._shortest_s = min(self._shortest_s, confirmed_s)
        waited_s = max(0.0, way_s - self._shortest_s)
        if waited_s <= self.LAG_S:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = arrived_s
        elif arrived_s - self._late_since_s >= self.LONG_S:
            raise Trouble(
                f"by their stamps its pictures have come late for {self.LONG_S:g} s, the last one by {waited_s:.1f} s: "
                "the network or this PC is too slow for them (fewer or smaller ones, a better cable), "
                "or the camera's clock was set back or runs wrong"
            )
        return waited_s
