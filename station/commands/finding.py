"""What ``station check`` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: does it work, must it be mended before the station can inspect, and what was seen."""

    part: str
    works: bool
    seen: str
    needed: bool = True
