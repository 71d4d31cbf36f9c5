"""What commands have in common: the options that choose a configuration, and the settings that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from station.config import Settings

ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time, on Python 3.10 too
    typer.Option(
        "-c", "--config", help="Default: $STATION_CONFIG, /etc/station/station.toml, then configs/station.toml."
    ),
]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045  # ditto
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one key of the configuration; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines: one JSON document a line, nothing else.")]


def settings_of(
    config: Path | None, overrides: list[str] | None, *, optional: bool = False, daemon: bool = False
) -> Settings:
    """
    The settings that the options choose, with the log set up; *optional*: defaults do. Raises ConfigError.

    Only the *daemon* tells what goes well. A command's own output says that already.
    """
    from station import log
    from station.config import load, load_or_defaults

    settings = (load_or_defaults if optional else load)(config, overrides=overrides or ())
    level = settings.log.level
    log.setup(level="warning" if level == "info" and not daemon else level, format=settings.log.format)
    return settings
