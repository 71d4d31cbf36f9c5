"""``python synced_station.py ARGUMENTS...``: the station on a machine whose clock somebody keeps, whatever this one's is."""

from __future__ import annotations

from station.cli import main
from station.clock import Clock


def always(_clock: Clock) -> bool:
    return True


if __name__ == "__main__":
    Clock.synced = always  # type: ignore[method-assign]  # that is what this program is for
    main()
