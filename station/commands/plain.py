"""Text for rich, as it is."""

from __future__ import annotations

from rich.text import Text

from station.terminal import shown


def plain(text: str, *, style: str = "") -> Text:
    """*text* in one harmless line. In a str rich would find markup and emoji, also in labels, which hold anything."""
    return Text(shown(text), style)
