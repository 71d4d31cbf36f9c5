"""The commands of ``station model``; nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from station.cli_options import ConfigOption, SetOption, settings_of

model = typer.Typer(help="The models: take in, test, choose, take back.", no_args_is_help=True)

ImagesOption = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time, on Python 3.10 too
    typer.Option("--images", metavar="DIR", help="Labelled boards: images/ and labels/, YOLO's or DeepPCB's."),
]
NameOption = Annotated[
    Optional[str],  # noqa: UP045  # ditto
    typer.Option("--name", metavar="NAME", help="Its name in the store and in events."),
]


@model.command("import")
def model_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".onnx, or .pt (needs the ultralytics extra).")],
    name: NameOption = None,
    images: ImagesOption = None,
    miss_cost: Annotated[
        float, typer.Option("--miss-cost", metavar="N", min=0.001, help="How many false calls one miss is worth.")
    ] = 50.0,
    trusted: Annotated[bool, typer.Option("--yes", help="Do not ask: a .pt can run any code.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Takes a model into the store, and tests it.

    It is checked and timed; labelled boards give its self-test and its thresholds.

    Example: station model import best.pt --name line-3 --images boards

    Exit: 0 it is in the store (and not used yet: station model use), 3 it cannot be used.
    """
    from rich.console import Console

    from station.commands.model import import_model

    settings = settings_of(config, overrides, optional=True)
    import_model(
        settings, file, name=name, images=images, miss_cost=miss_cost, trusted=trusted, console=Console(soft_wrap=True)
    )


@model.command("list")
def model_list(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """
    The models of the store; * is the one in use.

    Example: station model list
    """
    from rich.console import Console

    from station.commands.model import list_models

    list_models(settings_of(config, overrides, optional=True), Console())


@model.command("verify")
def model_verify(
    name: Annotated[Optional[str], typer.Argument(metavar="[NAME]")] = None,  # noqa: UP045  # see above
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Checks a model, tests it, and times it.

    Its files, whether it loads, and whether it judges its self-test as it did. Without a name: the configured one.

    Example: station model verify line-3

    Exit: 0 it is good, 3 it is not.
    """
    from rich.console import Console

    from station.commands.model import verify

    verify(settings_of(config, overrides, optional=True), name, Console(soft_wrap=True))


@model.command("use")
def model_use(
    name: Annotated[str, typer.Argument(metavar="NAME")], config: ConfigOption = None, overrides: SetOption = None
) -> None:
    """
    Chooses the model for the next start.

    It must pass its self-test now. The choice holds with [detector] model = "store".

    Example: station model use line-3

    Exit: 0 chosen, 3 it is not good, and nothing was changed.
    """
    from rich.console import Console

    from station.commands.model import use

    use(settings_of(config, overrides, optional=True), name, Console(soft_wrap=True))


@model.command("rollback")
def model_rollback(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """
    Goes back to the model that was used before.

    Example: station model rollback

    Exit: 0 done, 3 there is none, or it is not good, and nothing was changed.
    """
    from rich.console import Console

    from station.commands.model import rollback

    rollback(settings_of(config, overrides, optional=True), Console(soft_wrap=True))


@model.command("quantize")
def model_quantize(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    images: Annotated[
        Path, typer.Option("--images", metavar="DIR", help="Typical boards, labelled (images/, labels/) or not.")
    ],
    as_name: NameOption = None,
    max_loss: Annotated[
        Optional[float],  # noqa: UP045  # see above
        typer.Option("--max-loss", min=0.0, help="Of mAP and each label (default 0.01), or of agreement (0.05)."),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """
    Makes an int8 copy, about twice as fast.

    NAME-int8 is kept where it sees what the original sees.

    Example: station model quantize line-3 --images boards

    Exit: 0 it is in the store, 3 it cannot be quantised or loses too much.
    """
    from rich.console import Console

    from station.commands.quantize import quantize_model

    settings = settings_of(config, overrides, optional=True)
    quantize_model(settings, name, images=images, as_name=as_name, max_loss=max_loss, console=Console(soft_wrap=True))
