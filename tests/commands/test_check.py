"""What ``station check`` prints of the configuration can be pasted."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.commands.check import check, resolved
from station.config import load

EVERYTHING = """
[station]
data_dir = "{folder}/data"
[source]
path = "{folder}/in \\"box\\""
[recipe]
name = "board-a"
[recipes.board-b]
serial_pattern = '^B-\\d'
thresholds = {{ short = 0.4 }}
ignore = [{{ name = "logo", x = 1, y = 2, width = 3, height = 4 }}]
[recipes.proven]
serial_pattern = "^P-"
challenge = {{ serials = ["P-BAD"], expect = ["open"] }}
[mqtt]
enabled = false
[http]
port = 1
allowed_origins = ["https://mes.plant"]
"""


def test_what_is_printed_is_a_configuration_that_means_the_same(tmp_path: Path) -> None:
    given, printed = tmp_path / "given.toml", tmp_path / "printed.toml"
    given.write_text(EVERYTHING.format(folder=tmp_path))
    settings = load(given)
    printed.write_text("\n".join(resolved(settings)))
    assert load(printed) == settings
    assert "[recipes.board-b]" in printed.read_text().splitlines()
    assert "# template is not set" in printed.read_text()


def test_a_station_of_several_recipes_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "given.toml"
    given.write_text(EVERYTHING.format(folder=tmp_path))
    assert check(load(given))
    assert "[recipes.board-b] goes by serials" in capsys.readouterr().out
