"""What may be shown on a terminal: names and words from elsewhere, which may hold anything. Pure."""

from __future__ import annotations


def shown(text: str) -> str:
    r"""
    *text* in one harmless line: control characters, escape codes and line breaks as ``\x1b``, ``\n``, odd bytes too.

    They would otherwise be carried out: a file's name could clear the screen, or look like a verdict.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def counted(count: int, what: str) -> str:
    """``1 event``, ``2 events``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def board_name(name: str | None, trigger: int | None) -> str:
    """What people call a board: its file or serial, and the number that came with its trigger."""
    return " ".join(filter(None, (name, None if trigger is None else f"trigger {trigger}")))
