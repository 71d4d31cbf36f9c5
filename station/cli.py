"""Commands and exit codes; nothing else. A command imports what it needs when it is called: ``--help`` is instant."""

from __future__ import annotations

import os
import resource
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

from station import __version__
from station.cli_model import model
from station.cli_options import ConfigOption, JsonOption, SetOption, settings_of
from station.cli_serve import key, serve, token
from station.cli_trust import trust
from station.errors import ConfigError, ModelError, StationError

EXIT_ERROR, EXIT_CONFIG, EXIT_MODEL, EXIT_REJECTS = 1, 2, 3, 4

app = typer.Typer(
    help="An inspection station for PCB lines: pictures in, verdicts out, and no event is ever lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ledger = typer.Typer(help="What was inspected, and what is owed to the broker.", no_args_is_help=True)
app.add_typer(ledger, name="ledger")
app.add_typer(model, name="model")
app.add_typer(trust, name="trust")
app.add_typer(key, name="key")
app.add_typer(token, name="token")
app.command()(serve)


def main() -> None:
    """Runs the command line. Every error that the station knows ends in one clear message and its exit code."""
    _keep_to_ourselves()
    try:
        code = app()  # typer itself ends the process after a usage error, --help, or an Exit
    except StationError as error:
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _keep_to_ourselves() -> None:
    """Nobody else may write what we write, whatever the shell allows; and a crash leaves no picture of our memory."""
    os.umask(os.umask(0o077) | 0o022)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _fail(error: StationError) -> NoReturn:
    from station.terminal import shown

    print("station: " + "\n".join(map(shown, str(error).splitlines())), file=sys.stderr)
    match error:
        case ConfigError():
            sys.exit(EXIT_CONFIG)
        case ModelError():
            sys.exit(EXIT_MODEL)
        case _:
            sys.exit(EXIT_ERROR)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context, show: Annotated[bool, typer.Option("--version", help="Prints the version.")] = False
) -> None:
    if show:
        print(f"station {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def run(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """
    The daemon: inspects until SIGTERM or Ctrl-C.

    Example: station run -c /etc/station/aoi-1.toml

    Exit: 0 asked to stop, 2 configuration, 3 model, 1 anything else.
    """
    from station.memory import leave_out_rich

    leave_out_rich()
    from station.app import Station

    settings = settings_of(config, overrides, daemon=True)
    Station(settings).run()


@app.command()
def check(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """
    Prints the configuration, and what works.

    It tries model, source, ledger, broker and serial port.

    Example: station check -c configs/station.toml

    Exit: 0 it can inspect (a broker that is away is only a warning: events wait; one that refuses the login is not),
    2 something must be mended.
    """
    from station.commands.check import check as look

    raise typer.Exit(0 if look(settings_of(config, overrides)) else EXIT_CONFIG)


@app.command()
def capture(
    file: Annotated[Path, typer.Argument(metavar="FILE.png", help="Where it goes; it must not be there yet.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Takes one picture with the configured camera.

    For a template, or for station trust learn. A station that runs has the camera: stop it first.

    Example: station capture good-1.png -c configs/camera-usb.toml

    Exit: 0 it is written, 1 the camera gave none, 2 configuration.
    """
    from station.commands.capture import capture as take

    shot = take(settings_of(config, overrides), file)
    print(f"{file}: {shot.image.shape[1]} x {shot.image.shape[0]} pixels")


@app.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Pictures, or folders of pictures.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    save: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads the annotation at run time, on Python 3.10 too
        typer.Option("--save", metavar="DIR", help="Writes annotated pictures into DIR."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """
    One-off: pictures in, verdicts out.

    Nothing is recorded, moved or sent, and no configuration is needed.

    Example: station inspect board.jpg --save annotated

    Exit: 0 all pass, 4 some fail or unknown.
    """
    from station.commands.inspect import inspect_paths

    all_pass = inspect_paths(settings_of(config, overrides, optional=True), paths, save=save, as_json=as_json)
    raise typer.Exit(0 if all_pass else EXIT_REJECTS)


@app.command()
def watch(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """
    Prints events, state and heartbeat as they arrive.

    A subscriber of the station's own topics, until Ctrl-C.

    Example: station watch -c configs/station.toml

    Exit: 0 ended by Ctrl-C, 1 the broker refuses the login.
    """
    from station.commands.watch import watch as follow

    follow(settings_of(config, overrides), as_json=as_json)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A .tar.gz, readable for its owner only.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    secrets: Annotated[bool, typer.Option("--secrets", help="With the broker's password and the TLS key.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replaces FILE if it is there.")] = False,
) -> None:
    """
    Configuration, models and ledger in one archive.

    Also while the station runs. No pictures, and no secrets unless asked.

    Example: station backup aoi-1.tar.gz -c /etc/station/aoi-1.toml

    Exit: 0 it is whole and on disk, 1 it could not be made.
    """
    from rich.console import Console

    from station.commands.backup import back_up

    settings = settings_of(config, overrides)
    back_up(settings, config, target, secrets=secrets, force=force, console=Console(soft_wrap=True))


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What station backup made.")],
    config: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads the annotation at run time, on Python 3.10 too
        typer.Option("-c", "--config", help="Where the configuration goes. Default: where it was."),
    ] = None,
    data_dir: Annotated[
        Optional[Path],  # noqa: UP045  # ditto
        typer.Option("--data-dir", metavar="DIR", help="Where ledger and models go. Default: as configured."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Moves aside what is there already.")] = False,
) -> None:
    """
    Puts a backup onto this machine.

    It is checked first, and all of it or nothing is put back; what has to be put back by hand is said.

    Example: station restore aoi-1.tar.gz

    Exit: 0 restored, 1 it could not be, and nothing was changed.
    """
    from rich.console import Console

    from station.commands.backup import restore as put_back

    put_back(source, config=config, data_dir=data_dir, force=force, console=Console(soft_wrap=True))


@ledger.command("status")
def ledger_status(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """
    Counts, and what is owed to the broker.

    Example: station ledger status
    """
    from rich.console import Console

    from station.commands.ledger import print_status

    print_status(_ledger(config, overrides), as_json=as_json, console=Console())


@ledger.command("list")
def ledger_list(
    config: ConfigOption = None,
    overrides: SetOption = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many boards.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """
    The last boards, newest last.

    Example: station ledger list -n 50
    """
    from rich.console import Console

    from station.commands.ledger import print_boards

    print_boards(_ledger(config, overrides), limit=limit, as_json=as_json, console=Console())


@ledger.command("replay")
def ledger_replay(
    config: ConfigOption = None,
    overrides: SetOption = None,
    since: Annotated[Optional[datetime], typer.Option(help="UTC.")] = None,  # noqa: UP045  # see above
    until: Annotated[Optional[datetime], typer.Option(help="UTC.")] = None,  # noqa: UP045  # see above
    seq: Annotated[Optional[str], typer.Option(metavar="A-B", help="Sequence numbers.")] = None,  # noqa: UP045  # ditto
    refused: Annotated[bool, typer.Option("--refused", help="Only what the broker refused.")] = False,
) -> None:
    """
    Sends boards again, with the same event ids.

    They are owed to the broker once more; a station that runs sends them within a second.

    Example: station ledger replay --since 2026-11-23T06:00:00
    """
    from station.commands.ledger import Selection, replay
    from station.terminal import counted

    which = Selection(since=_utc(since), until=_utc(until), seqs=_seqs(seq), refused=refused)
    count = replay(_ledger(config, overrides), which)
    print(f"{counted(count, 'event')} {'is' if count == 1 else 'are'} owed again")


@ledger.command("export")
def ledger_export(
    target: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads the annotation at run time, on Python 3.10 too
        typer.Argument(metavar="FILE.csv", show_default=False),
    ] = None,
    dataset: Annotated[
        Optional[Path],  # noqa: UP045  # ditto
        typer.Option("--dataset", metavar="DIR", help="Reviewed boards as images/ and labels/ to train with, instead."),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replaces FILE.csv if it is there.")] = False,
) -> None:
    """
    One row a board, as CSV; - is stdout.

    Example: station ledger export boards.csv
    """
    from rich.console import Console

    from station.commands.ledger import export
    from station.terminal import counted

    if (target is None) == (dataset is None):
        raise ConfigError("name a FILE.csv, or --dataset DIR")
    if dataset is not None:
        from station.commands.dataset import export_dataset

        taken = export_dataset(settings_of(config, overrides), dataset, console=Console(stderr=True, soft_wrap=True))
        hint = "" if taken else ": only boards that were reviewed on the operator's page are taken"
        print(f"{counted(taken, 'board')} written to {dataset}{hint}")
        return
    assert target is not None  # noqa: S101  # one of the two
    count = export(_ledger(config, overrides), target, force=force, console=Console(stderr=True))
    to_stdout = str(target) == "-"  # where the boards are, and nothing else
    where = "stdout" if to_stdout else target
    print(f"{counted(count, 'board')} written to {where}", file=sys.stderr if to_stdout else sys.stdout)


def _ledger(config: Path | None, overrides: list[str] | None) -> Path:
    return settings_of(config, overrides).station.data_dir / "ledger.db"


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=timezone.utc)


def _seqs(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("-")
    try:
        seqs = int(first), int(last or first)
    except ValueError:
        raise ConfigError(f"--seq {text}: write two numbers, as in --seq 100-250") from None
    if seqs[0] > seqs[1]:
        raise ConfigError(f"--seq {text} runs backwards: write --seq {seqs[1]}-{seqs[0]}")
    return seqs
