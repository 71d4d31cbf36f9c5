"""What a station does about its disk: says how full it is, and clears away what is old."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from station.disk import Disks, Room
from station.health import Health

PRUNE_CHUNKS = 20  # of some hundred rows each, a minute: more than any line makes, and never long

Prune = Callable[[], int]
"""Clears away one chunk of what is old, and returns how much that was. Raises LedgerError."""


class Housekeeping:
    """
    For the thread that ticks. *stop_below_mb* and *evidence_below_mb* are the floors of *disks*, for the words.

    *sweep* takes a small step of clearing away pictures; *prunes* are what is cleared away by ``clear``.
    """

    def __init__(
        self,
        disks: Disks,
        health: Health,
        *,
        stop_below_mb: float,
        evidence_below_mb: float,
        sweep: Callable[[], object],
        prunes: Sequence[Prune],
    ) -> None:
        self._disks = disks
        self._health = health
        self._stop_below_mb = stop_below_mb
        self._evidence_below_mb = evidence_below_mb
        self._sweep = sweep
        self._prunes = tuple(prunes)

    def look(self) -> None:
        """About once a second: faults for a disk that fills up, and a step of the sweep."""
        room = self._disks.room()
        if room is Room.FULL:
            why = (
                f"{self._free()}, {self._stop_below_mb:g} MB needed ([ledger] stop_below_mb): "
                "no board is taken until there is room"
            )
            self._health.cannot("disk", why)
            self._health.begin("disk_full", why)
        else:
            self._health.cannot("disk", None)
            self._health.end("disk_full")
        if room is Room.PLENTY:
            self._health.end("disk_low")
        else:
            self._health.begin(
                "disk_low",
                f"{self._free()}: no pictures are kept below {self._evidence_below_mb:g} MB ([evidence] stop_below_mb)",
            )
        self._sweep()

    def _free(self) -> str:
        free_bytes, fullest = self._disks.free_bytes(), self._disks.fullest()
        if fullest is None:
            return "neither data_dir nor the inbox can be asked for its room"
        # A file system without inodes has no room for a file, whatever df says.
        return (
            f"{free_bytes / 1e6:.0f} MB free on the disk of {fullest}{'' if free_bytes else ' (see df -h and df -i)'}"
        )

    def clear(self) -> None:
        """About once a minute. Raises LedgerError."""
        for prune in self._prunes:
            for _ in range(PRUNE_CHUNKS):
                if not prune():
                    break
