"""The commands of ``station trust``; nothing else."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Optional

import typer

from station.cli_options import ConfigOption, SetOption, settings_of

trust = typer.Typer(help="What a picture must look like to be judged at all.", no_args_is_help=True)


@trust.callback()
def group() -> None:
    """With one command alone typer would drop its name."""


@trust.command("learn")
def trust_learn(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Pictures of good boards, as the station takes them.")],
    save: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads the annotation at run time, on Python 3.10 too
        typer.Option("--save", metavar="FILE", help="Where the limits go. Default: trust-RECIPE.toml in data_dir."),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Learns from a handful of good pictures what a trustworthy one looks like.

    Size, brightness, contrast, sharpness and, with a template, how far a board may lie off it.

    Example: station trust learn good-boards

    Exit: 0 the limits are written (and not used yet: it prints the line for the recipe), 2 the pictures do not do.
    """
    from rich.console import Console

    from station.commands.trust import learn

    settings = settings_of(config, overrides, optional=True)
    console = Console(soft_wrap=True, highlight=False)
    target = learn(settings, folder, save=save, today=datetime.now(timezone.utc).date(), console=console)
    console.print(
        f'\nWritten: {target}\nTo use it, set in the configuration and restart:\n\n\\[recipe]\ntrust = "{target}"'
    )
