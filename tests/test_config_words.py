"""What is wrong in a configuration is said in an operator's words, whatever it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from station.config import GUIDE_NAMES, SECTIONS, kinds_of, load, load_trust
from station.errors import ConfigError

LIBRARIES = re.compile(
    r"Input should|String should|valid (string|integer|number|boolean|tuple|dictionary|path)|pydantic"
)
WRONG = ("true", "-1e9", "1.5", "'?'", "''", "[1]", "{ a = 1 }", "1979-05-27", "nan", f"'{'x' * 300}'")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("STATION_CONFIG", *GUIDE_NAMES):
        monkeypatch.delenv(name, raising=False)


def refused(text: str, *overrides: str) -> str:
    """What is said of a station.toml with *text*."""
    path = Path("station.toml")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, overrides=overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mqtt]\nport = 99999", "[mqtt] port: must be a whole number from 1 to 65535 (given: 99999)"),
        ("[mqtt]\nport = 1.5", "[mqtt] port: must be a whole number from 1 to 65535 (given: 1.5)"),
        ("[mqtt]\nport = true", "[mqtt] port: must be a number, not true or false (given: true)"),
        ("[source]\nscan_s = inf", "[source] scan_s: must be a number above 0 (given: Infinity)"),
        (
            "[recipe]\nthresholds = { short = nan }",
            "[recipe] thresholds.short: must be a number from 0 to 1 (given: NaN)",
        ),
        ("[mqtt]\nhost = 5", "[mqtt] host: must be text in quotes (given: 5)"),
        ("[mqtt]\ntls = 'maybe'", '[mqtt] tls: must be true or false (given: "maybe")'),
        ("[mqtt]\nheartbeat_s = 0", "[mqtt] heartbeat_s: must be a number above 0 (given: 0)"),
        ("[mqtt]\nca_file = 3", "[mqtt] ca_file: must be a path in quotes (given: 3)"),
        ("[mqtt]\nprotocol = '4'", '[mqtt] protocol: must be "auto", "5" or "3.1.1" (given: "4")'),
        ("[mqtt]\nca_file = 'x'", "[mqtt]: ca_file, cert_file and key_file need tls = true"),
        ("[evidence]\nmax_mb = 'x'", '[evidence] max_mb: must be a number above 0 (given: "x")'),
        ("[recipe]\nmin_area_px = -1", "[recipe] min_area_px: must be a number, 0 or more (given: -1)"),
        ("[recipe]\nthresholds = { short = 2 }", "[recipe] thresholds.short: must be a number from 0 to 1 (given: 2)"),
        ("[recipe]\nthresholds = 3", "[recipe] thresholds: must be a table, as { name = value } (given: 3)"),
        ("[recipe]\nignore = 5", "[recipe] ignore: must be a list in square brackets (given: 5)"),
        ("[station]\nname = ''", '[station] name: may not be empty (given: "")'),
        ("[source]\nkind = 'usb'", '[source] kind: must be "folder" or "camera" (given: "usb")'),
        ("[source]\nkind = 'camera'", "[source] device: is missing, and has no default"),
        ("mqtt = 'x'", '[mqtt]: is a section: write [mqtt] on a line of its own, and its keys below (given: "x")'),
    ],
)
def test_a_wrong_value_is_told_with_what_is_accepted(text: str, said: str) -> None:
    assert refused(text) == f"station.toml: {said}"


@pytest.mark.parametrize("key", ["source.path", "station.data_dir", "mqtt.password_file", "recipe.template"])
def test_a_path_that_is_empty_or_none_is_refused(key: str) -> None:
    """An empty one would be the folder that the station is started in: its own files were boards then."""
    assert "must not be empty: leave the key out for its default" in refused("", f"{key}=")
    assert "must hold no NUL character" in refused("", f'{key}="a\\u0000b"')


def test_a_home_folder_is_found_as_a_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "station.toml"
    file.write_text('[recipe]\ntemplate = "~/board.png"\n[station]\ndata_dir = "~nobody-of-that-name/data"\n')
    settings = load(file)
    assert settings.recipe.template == tmp_path / "board.png"
    assert settings.station.data_dir == Path("~nobody-of-that-name/data")


@pytest.mark.parametrize("key", ["station.topic", "mqtt.client_id", "mqtt.username"])
def test_what_ends_every_connection_to_a_broker_is_refused(key: str) -> None:
    assert "hold line breaks or other control characters" in refused("", f'{key}="line1\\n"')


def test_a_pattern_is_told_in_words() -> None:
    assert "letters, digits, . _ -" in refused("[station]\nname = 'a b'")
    assert "wildcards + and #, nor begin with / or $" in refused("[station]\ntopic = 'a/+'")
    said = refused("[recipe]\nchallenge = { serials = ['x'], expect = ['open'], at = ['06:30', '25:00'] }")
    assert '[recipe] challenge.at, item 2: must be a time of day, HH:MM, as in "06:30" (given: "25:00")' in said
    said = refused("[gate]\nkind = 'relay'\nport = '/dev/x'\non_hex = 'A'")
    assert "[gate] on_hex: must be pairs of hexadecimal digits" in said


def test_an_unknown_key_of_a_trust_file_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    path.write_text("width = 64\nheight = 64\nmin_brigtness = 0\nmax_brightness = 255\n")
    with pytest.raises(ConfigError, match="min_brigtness: unknown key; did you mean min_brightness") as caught:
        load_trust(path)
    assert "min_brightness is missing" in str(caught.value)


@pytest.mark.parametrize("section", SECTIONS)
def test_no_key_is_refused_in_the_words_of_a_library(section: str) -> None:
    said = []
    for kind, fields in kinds_of(section).items():
        head = f"[{section}]\n" + (f"kind = '{kind}'\n" if kind else "")
        for key in set(fields.model_fields) - {"kind"}:
            for value in WRONG:
                Path("station.toml").write_text(f"{head}{key} = {value}\n", encoding="utf-8")
                try:
                    load(Path("station.toml"))
                except ConfigError as error:
                    said.append(str(error))
    assert [one for one in said if LIBRARIES.search(one)] == []
    assert all(one.startswith("station.toml: ") or "needs recipe.template" in one for one in said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mqtt]\nhots = 'x'", "[mqtt] hots: unknown key; did you mean host?"),
        ("[mqtt]\nkeep_days = 3", "[mqtt] keep_days: unknown key; it belongs to [evidence] or [ledger]"),
        ("[sation]\nname = 'x'", "[sation]: unknown section; did you mean station?"),
        ("host = 'x'", "host stands outside of any section: put it below [modbus], [mqtt] or [http]"),
        ("topics = 'x'", "topics stands outside of any section: put it below its section; did you mean topic?"),
        ("[source]\ndevice = 'x'", '[source] device: belongs to [source] kind = "camera", and this is kind = "folder"'),
    ],
)
def test_an_unknown_name_is_told_with_where_it_may_belong(text: str, said: str) -> None:
    assert refused(text) == f"station.toml: {said}"


def test_a_recipe_of_its_own_is_told_by_its_name() -> None:
    said = refused("[recipes.tall]\nthreshold = 2\nthreshhold = 0.5\n[recipes.small]\nthresholds = { short = 'x' }")
    assert "station.toml: [recipes.tall] threshold: must be a number from 0 to 1 (given: 2)" in said
    assert "station.toml: [recipes.tall] threshhold: unknown key; did you mean threshold?" in said
    assert 'station.toml: [recipes.small] thresholds.short: must be a number from 0 to 1 (given: "x")' in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipes = 5", "[recipes]: is a section: write [recipes.NAME] on a line of its own, and its keys below"),
        ("[recipes]\ntall = 5", "[recipes] tall: is a section: write [recipes.tall] on a line of its own"),
        ("[recipe.tall]", "[recipe] tall: unknown key; a recipe of its own is written [recipes.tall]"),
        ("recipe = 5\n[recipes.tall]", "[recipe]: is a section: write [recipe] on a line of its own"),
    ],
)
def test_a_recipe_in_the_wrong_place_is_told_where_it_belongs(text: str, said: str) -> None:
    assert f"station.toml: {said}" in refused(text)


def test_a_key_of_an_item_is_compared_with_the_keys_of_items() -> None:
    said = refused("[[recipe.ignore]]\nname = 'a'\nx = 1\ny = 1\nheight = 2\nw = 3")
    assert "[recipe] ignore, item 1: w: unknown key; did you mean width?" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mqtt]\nhost=broker", 'line 2: host=broker: text needs quotes, as in host = "broker"'),
        ("[mqtt]\nhost = \u201cbroker\u201d # ours", 'text needs quotes, as in host = "broker"'),
        ("[source]\npath = C:\\inbox", "text needs quotes, as in path = 'C:\\inbox'"),
        ("[source]\npath = /srv/inbox\n\n", 'line 2: path = /srv/inbox: text needs quotes, as in path = "/srv/inbox"'),
        ("[mqtt]\ntls = True", "line 2: tls = True: write true in small letters"),
        ("[mqtt\nport = 1", "line 1: [mqtt: a section is written [NAME]"),
        ("[mqtt]\n[http]\n[mqtt]", "line 3: [mqtt]: this section stands twice"),
        ("[mqtt]\nport = 1\nport = 2\n", "port = 2: this key, or its section, stands twice"),
        ('[source]\npath = "C:\\data"', "a backslash needs single quotes"),
        ('[mqtt]\nhost = "broker', 'line 2: host = "broker: the closing quote is missing'),
        ("[mqtt]\nhost: x", "line 2: host: x: a key and its value are written KEY = VALUE"),
        ("[mqtt]\nhost =\n", "line 2: host =: a value is missing after ="),
        ("[recipe]\nthreshold = 0,5", "a number is written with a point"),
        ("[recipe]\nignore = [1, 2", "Unclosed array"),
    ],
)
def test_a_line_that_is_no_toml_is_shown_with_what_to_write_instead(text: str, said: str) -> None:
    shown = refused(text)
    assert shown.startswith("station.toml is not valid TOML: line ")
    assert said in shown


def test_a_password_that_somebody_wrote_into_the_file_is_not_repeated() -> None:
    assert "hunter2" not in refused("[mqtt]\npassword = hunter2")
    assert "hunter2" not in refused("[mqtt]\npassword = 'hunter2'")


@pytest.mark.parametrize("quote", ["", "'"])
@pytest.mark.parametrize(("section", "key"), [("http", "redis"), ("source", "device"), ("mqtt", "host")])
def test_a_login_in_an_address_is_not_repeated(section: str, key: str, quote: str) -> None:
    kind = 'kind = "camera"\n' if section == "source" else ""
    assert "hunter2" not in refused(f"[{section}]\n{kind}{key} = {quote}redis://aoi:hunter2@host/0{quote}")


def test_an_error_is_blamed_on_where_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("", "mqtt.cert_file=x").startswith("command line: [mqtt]: ")
    assert refused("[mqtt]\nca_file = 'x'", "mqtt.key_file=x").startswith("command line: "), "what was added last"
    assert refused("", "evidence.stop_below_mb=1").startswith("command line: evidence.stop_below_mb")
    said = refused("[recipe]\nignore = []", "recipe.ignore=[{w=1}]")
    assert said.startswith("command line: [recipe] ignore, item 1: ")
    monkeypatch.setenv("STATION_MQTT__CA_FILE", "x")
    assert refused("[mqtt]\nhost = 'x'").startswith("environment: [mqtt]: ")


def test_a_kind_that_was_chosen_elsewhere_is_told_with_where() -> None:
    said = refused("[source]\npath = 'in'", "source.kind=camera", "source.device=/dev/video0")
    here = 'station.toml: [source] path: belongs to [source] kind = "folder", and this is kind = "camera"'
    assert said == f"{here} (command line)"
    assert refused("[source]\nkind = 'camera'\ndevice = 'x'\npath = 'in'") == here


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mqtt.prot=1", "unknown key; did you mean mqtt.port?"),
        ("mqtt.port", "write mqtt.port=VALUE"),
        ("mqtt.prot", "write SECTION.KEY=VALUE; did you mean mqtt.port?"),
        ("port=1", "write SECTION.KEY=VALUE; did you mean"),
    ],
)
def test_an_override_is_told_whether_its_form_is_wrong_or_its_key(override: str, said: str) -> None:
    assert refused("", override).startswith(f"--set {override}: {said}")


def test_a_variable_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_MQTT__HOST", "fine")
    monkeypatch.setenv("STATION_RECIPE__IGNORE", "a")
    assert refused("").startswith("environment variable STATION_RECIPE__IGNORE: lists and tables are written as JSON")


@pytest.mark.parametrize("line", ["STATION_MQTT__PROT=1", "STATION_RECIPE__IGNORE=a"])
def test_a_line_of_the_file_env_is_not_called_a_variable_of_the_environment(line: str) -> None:
    Path(".env").write_text(line)
    assert refused("").startswith(f".env: {line.partition('=')[0]}: ")


def test_an_unknown_section_is_told_beside_what_else_is_wrong() -> None:
    said = refused('[sorce]\npath = "in"\n[mqtt]\nhots = "a"')
    assert "[sorce]: unknown section; did you mean source?" in said
    assert "[mqtt] hots: unknown key; did you mean host?" in said
