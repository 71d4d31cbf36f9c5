"""``station key`` and ``station token``, as a technician types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from station.access_keys import AccessKeys


def station(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in *folder*, whose configuration says nothing but where the data lie."""
    config = folder / "station.toml"
    config.write_text(f'[station]\nname = "aoi-1"\ndata_dir = "{folder / "data"}"\n')
    return subprocess.run(
        [sys.executable, "-m", "station", *arguments, "-c", str(config)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_key_is_printed_once_listed_without_its_secret_and_revoked_by_name(tmp_path: Path) -> None:
    made = station(tmp_path, "key", "create", "line-2", "--scope", "predict", "--scope", "read")
    assert made.returncode == 0, made.stderr
    (text,) = made.stdout.splitlines()
    keys = AccessKeys(tmp_path / "data" / "keys.json")
    assert keys.find(text) is not None

    listed = station(tmp_path, "key", "list").stdout
    assert "line-2" in listed
    assert "predict, read" in listed
    assert text.rpartition("_")[2] not in listed

    gone = station(tmp_path, "key", "revoke", "line-2")
    assert (gone.returncode, gone.stdout.startswith("revoked: line-2")) == (0, True)
    assert keys.find(text) is None


def test_a_name_with_brackets_is_listed_as_it_is(tmp_path: Path) -> None:
    assert station(tmp_path, "key", "create", "line [/2]", "--scope", "read").returncode == 0
    assert "line [/2]" in station(tmp_path, "key", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["key", "revoke", "nobody"], 'there is no key "nobody"; known are: none'),
        (["key", "create", " " * 65, "--scope", "read"], "1 to 64"),
        (["key", "create", "x"], "--scope"),
        (["key", "create", "x", "--scope", "everything"], "everything"),
        (["token", "create", "x", "--scope", "read", "--minutes", "0"], "--minutes"),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_the_reason(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = station(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_file_of_keys_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "data" / "keys.json"
    path.parent.mkdir()
    path.write_text("{")
    for arguments in (["list"], ["create", "x", "--scope", "read"], ["revoke", "x"]):
        done = station(tmp_path, "key", *arguments)
        assert (done.returncode, f"{path} is damaged" in done.stderr) == (2, True)
    assert path.read_text() == "{"


def test_a_token_is_for_this_station_and_for_so_long(tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 4
    done = station(tmp_path, "token", "create", "dash", "--scope", "read", "--minutes", "60", SECRET_KEY=secret)
    claims = jwt.decode(done.stdout.strip(), secret, algorithms=["HS256"], audience="aoi-1")
    assert (claims["sub"], claims["scope"], claims["exp"] - claims["iat"]) == ("dash", "read", 3600)


def test_the_guides_secret_signs_nothing(tmp_path: Path) -> None:
    done = station(tmp_path, "token", "create", "x", "--scope", "read", SECRET_KEY="your-secret-key-here")
    assert done.returncode == 2
    assert "openssl rand -hex 32" in done.stderr


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        ([], {}, "warn  access: 0 API keys: nobody can log in"),
        ([], {"SECRET_KEY": "your-secret-key-here"}, "FAIL  access: the secret for tokens is"),
        (["http.cert_file=away.pem", "http.key_file=away.key"], {}, "FAIL  tls: [http] cert_file = away.pem"),
    ],
)
def test_the_check_says_who_may_ask_and_makes_nothing(
    settings: list[str], environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    options = [word for one in ["http.auth=required", *settings] for word in ("--set", one)]
    done = station(tmp_path, "check", *options, **environment)
    assert said in done.stdout, done.stdout[-2000:] + done.stderr
    assert not (tmp_path / "data" / "jwt-secret").exists()


def test_the_check_shows_no_secret(tmp_path: Path) -> None:
    key = station(tmp_path, "key", "create", "x", "--scope", "read").stdout.strip()
    secret = "0123456789abcdef" * 4
    done = station(tmp_path, "check", "--set", "http.auth=required", SECRET_KEY=secret)
    assert "ok    access: 1 API key" in done.stdout
    assert secret not in done.stdout + done.stderr
    assert key.rpartition("_")[2] not in done.stdout + done.stderr
