"""The commands of the HTTP port: serve, key, token; nothing else."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from station.cli_options import ConfigOption, SetOption, settings_of

key = typer.Typer(help="API keys for the HTTP port.", no_args_is_help=True)
token = typer.Typer(help="Tokens (JWT) for the HTTP port.", no_args_is_help=True)


class ScopeName(str, Enum):
    read = "read"
    predict = "predict"
    command = "command"


ScopeOption = Annotated[
    list[ScopeName], typer.Option("--scope", help="What may be done with it; may be repeated.", show_default=False)
]


def serve(
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes that answer.")] = 1,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    The inspection API alone.

    No line, no ledger, no broker: for servers behind a proxy. [http] says where it listens and who may ask.

    Example: station serve --workers 4

    Exit: as station run.
    """
    from station.memory import leave_out_rich

    leave_out_rich()
    from station.serve import serve as run

    run(settings_of(config, overrides, optional=True, daemon=True), workers=workers)


@key.command("create")
def key_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is: it stands in the log.")],
    scope: ScopeOption,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Makes a key and prints it, once.

    Example: station key create line-2 --scope predict --scope read
    """
    from station.folders import make_folder
    from station.web_side import access_keys

    settings = settings_of(config, overrides, optional=True)
    make_folder(settings.station.data_dir, "[station] data_dir")
    print(access_keys(settings).create(name, [one.value for one in scope]))


@key.command("list")
def key_list(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """
    The keys that are good, without their secrets.

    Example: station key list
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from station.web_side import access_keys

    table = Table("name", "id", "scopes", "made", box=None, header_style="bold")
    for one in access_keys(settings_of(config, overrides, optional=True)).all():
        table.add_row(escape(one.name), one.id, ", ".join(sorted(one.scopes)), one.made_at)
    Console().print(table)


@key.command("revoke")
def key_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name, or its id.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Ends a key, and every token that was made with it, at once.

    Example: station key revoke line-2
    """
    from station.web_side import access_keys

    gone = access_keys(settings_of(config, overrides, optional=True)).revoke(name)
    print(f"revoked: {gone.name} ({gone.id})")


@token.command("create")
def token_create(
    subject: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is: it stands in the log.")],
    scope: ScopeOption,
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=525_600, help="How long it is good for.")] = 30,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Signs a token and prints it.

    It cannot be taken back before its time is over: a key can.

    Example: station token create dashboard --scope read --minutes 60
    """
    from station.web_side import build_tokens

    settings = settings_of(config, overrides, optional=True)
    print(build_tokens(settings).issue(subject, frozenset(one.value for one in scope), minutes=minutes))
