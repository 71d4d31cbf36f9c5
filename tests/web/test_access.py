"""Who may ask: keys, tokens, scopes, and what is done about those who guess."""

from __future__ import annotations

import base64
import json
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from station.access_keys import AccessKeys
from station.errors import AccessError, ConfigError
from station.tokens import Tokens
from station.web.access import FREE_FAILURES, MAX_FAILURES, Access, Addresses
from tests.web.ports import Served, png, send

SECRET = "0123456789abcdef" * 4
NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def tokens(**changes: Any) -> Tokens:
    return Tokens(**{"algorithm": "HS256", "audience": "aoi-1", "secret": SECRET} | changes)


def served(folder: Path, **http: Any) -> Served:
    return Served(folder, auth="required", **http)


def key_of(one: Served, *scopes: Any, name: str = "line-2") -> str:
    assert one.door.keys is not None
    return one.door.keys.create(name, scopes or ("predict",))


def test_a_key_lets_in_by_either_header_and_nothing_else_does(tmp_path: Path) -> None:
    one = served(tmp_path)
    key = key_of(one)
    with one.client() as client:
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}):
            assert send(client, png(), headers=headers).status_code == 200
        for headers in ({}, {"X-API-Key": key[:-1]}, {"X-API-Key": "x"}, {"Authorization": f"Basic {key}"}):
            answer = send(client, png(), headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert key[-20:] not in answer.text
    assert one.counted("station_http_auth_failures_total", reason="login") == 4


def test_a_key_without_the_scope_is_told_which_it_needs(tmp_path: Path) -> None:
    one = served(tmp_path)
    with one.client() as client:
        answer = send(client, png(), headers={"X-API-Key": key_of(one, "read")})
    assert answer.status_code == 403
    assert '"predict"' in answer.json()["detail"]


def test_a_key_that_is_revoked_elsewhere_ends_at_once_and_its_tokens_with_it(tmp_path: Path) -> None:
    one = served(tmp_path)
    key = key_of(one)
    with one.client() as client:
        token = client.post("/token", headers={"X-API-Key": key}).json()
        assert (token["token_type"], token["expires_in"], token["scope"]) == ("bearer", 1800, "predict")
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        assert send(client, png(), headers=bearer).status_code == 200
        AccessKeys(tmp_path / "keys.json").revoke("line-2")
        assert send(client, png(), headers=bearer).status_code == 401
        assert send(client, png(), headers={"X-API-Key": key}).status_code == 401


def test_a_token_is_not_exchanged_for_a_longer_one(tmp_path: Path) -> None:
    one = served(tmp_path)
    with one.client() as client:
        token = client.post("/token", headers={"X-API-Key": key_of(one)}).json()["access_token"]
        assert client.post("/token", headers={"Authorization": f"Bearer {token}"}).status_code == 403


def test_keys_are_kept_as_hashes_for_the_owners_eyes(tmp_path: Path) -> None:
    keys = AccessKeys(tmp_path / "keys.json")
    text = keys.create("line-2", ["read", "command"])
    path = tmp_path / "keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text.rpartition("_")[2] not in path.read_text()
    (found,) = AccessKeys(path).all()
    assert (found.name, sorted(found.scopes)) == ("line-2", ["command", "read"])
    assert keys.find(text) == found
    for wrong in ("", "st_", "st__", f"st_{found.id}_", f"st_000_{text[-43:]}", text.upper(), "ß" * 50):
        assert keys.find(wrong) is None


@pytest.mark.parametrize(
    ("name", "scopes", "said"),
    [("", ["read"], "1 to 64"), ("a\n", ["read"], "printable"), ("x", [], "--scope"), ("taken", ["read"], "already")],
)
def test_a_key_that_makes_no_sense_is_refused(name: str, scopes: list[Any], said: str, tmp_path: Path) -> None:
    keys = AccessKeys(tmp_path / "keys.json")
    keys.create("taken", ["read"])
    with pytest.raises(ConfigError, match=said):
        keys.create(name, scopes)
    with pytest.raises(ConfigError, match="known are: taken"):
        keys.revoke("nobody")


def claims(**changes: Any) -> dict[str, Any]:
    good = {"sub": "x", "aud": "aoi-1", "scope": "read", "exp": datetime.now(timezone.utc) + timedelta(minutes=5)}
    return {key: value for key, value in (good | changes).items() if value is not None}


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - timedelta(days=900)},
        {"exp": None},
        {"sub": None},
        {"aud": None},
        {"aud": "aoi-2"},
        {"nbf": datetime.now(timezone.utc) + timedelta(hours=1)},
    ],
)
def test_a_token_that_is_not_for_us_or_not_now_is_not_believed(changed: dict[str, Any]) -> None:
    assert tokens().check(jwt.encode(claims(), SECRET)).scopes == {"read"}
    with pytest.raises(AccessError):
        tokens().check(jwt.encode(claims(**changed), SECRET))


def unsigned(algorithm: str) -> str:
    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims(exp=4102444800))}."


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512"])
def test_a_token_without_a_good_signature_is_not_believed(algorithm: str) -> None:
    with pytest.raises(AccessError):
        tokens().check(unsigned(algorithm))


def test_a_token_signed_with_another_secret_or_algorithm_is_not_believed() -> None:
    for other in (jwt.encode(claims(), SECRET[::-1]), jwt.encode(claims(), SECRET, algorithm="HS512"), "a.b.c", ""):
        with pytest.raises(AccessError):
            tokens().check(other)


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_a_public_key_checks_what_others_signed_and_is_no_secret_itself(algorithm: Any) -> None:
    private = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if algorithm == "RS256"
        else ed25519.Ed25519PrivateKey.generate()
    )
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    checking = tokens(algorithm=algorithm, secret=None, public_key=public)
    assert checking.check(jwt.encode(claims(), private, algorithm=algorithm)).subject == "x"
    forged = unsigned("HS256")
    with pytest.raises(AccessError):
        checking.check(forged)
    with pytest.raises(AccessError, match="only checks"):
        checking.issue("x", frozenset({"read"}), minutes=1)
    with pytest.raises(ConfigError, match="no public key"):
        tokens(algorithm=algorithm, secret=None, public_key="nonsense")


@pytest.mark.parametrize("secret", ["your-secret-key-here", "your-secret-key", "x" * 31])
def test_a_secret_that_can_be_guessed_is_refused_with_what_to_do(secret: str) -> None:
    with pytest.raises(ConfigError, match="openssl rand"):
        tokens(secret=secret)


def test_the_guides_own_secret_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "your-secret-key-here")
    with pytest.raises(ConfigError, match="public guide"):
        served(tmp_path)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    served(tmp_path)
    assert not (tmp_path / "jwt-secret").exists()


def test_a_secret_is_made_once_where_none_is_given(tmp_path: Path) -> None:
    first = served(tmp_path).door.tokens
    assert first is not None
    second = served(tmp_path).door.tokens
    assert second is not None
    assert second.check(first.issue("x", frozenset({"read"}), minutes=1)).subject == "x"
    assert stat.S_IMODE((tmp_path / "jwt-secret").stat().st_mode) == 0o600


def test_two_stations_do_not_believe_each_others_tokens() -> None:
    with pytest.raises(AccessError):
        tokens(audience="aoi-2").check(tokens().issue("x", frozenset({"read"}), minutes=1))


def test_unknown_words_in_a_token_are_no_scopes() -> None:
    assert tokens().check(jwt.encode(claims(scope="read admin predict"), SECRET)).scopes == {"read", "predict"}
    assert tokens().check(jwt.encode(claims(scope=["read"]), SECRET)).scopes == set()


def test_who_guesses_is_slowed_and_then_turned_away_and_others_are_not(tmp_path: Path) -> None:
    one = served(tmp_path, trusted_proxies=["127.0.0.1"])
    key, waited = key_of(one), list[float]()

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    one.door.access._sleep = sleep
    with one.client() as client:
        for _ in range(MAX_FAILURES):
            guess = {"X-API-Key": "st_x_y", "X-Forwarded-For": "10.0.0.66"}
            assert send(client, png(), headers=guess).status_code == 401
        assert send(client, png(), headers=guess).status_code == 429
        assert len(waited) == MAX_FAILURES - FREE_FAILURES
        assert waited == sorted(waited)
        assert send(client, png(), headers={"X-API-Key": key, "X-Forwarded-For": "10.0.0.7"}).status_code == 200


def test_how_often_is_counted_by_address_and_by_key(tmp_path: Path) -> None:
    one = served(tmp_path, requests_per_minute=3, trusted_proxies=["127.0.0.0/8"])
    first, second = key_of(one), key_of(one, name="line-3")

    def ask(client: httpx.Client, key: str, address: str) -> httpx.Response:
        return send(client, png(), headers={"X-API-Key": key, "X-Forwarded-For": address})

    with one.client() as client:
        assert [ask(client, first, "10.0.0.1").status_code for _ in range(3)] == [200] * 3
        late = ask(client, first, "10.0.0.1")
        assert late.status_code == 429
        assert int(late.headers["retry-after"]) >= 1
        assert ask(client, first, "10.0.0.2").status_code == 429, "the key has had its share"
        assert ask(client, second, "10.0.0.3").status_code == 200


@pytest.mark.parametrize(
    ("trusted", "forwarded", "found"),
    [
        ([], "10.0.0.9", "127.0.0.1"),
        (["127.0.0.1"], "10.0.0.9", "10.0.0.9"),
        (["127.0.0.1"], "1.1.1.1, 10.0.0.9", "10.0.0.9"),
        (["127.0.0.1", "10.0.0.0/24"], "1.1.1.1, 10.0.0.9", "1.1.1.1"),
        (["127.0.0.1"], "nonsense", "nonsense"),
    ],
)
def test_a_forwarded_address_counts_only_from_a_proxy_that_is_named(
    trusted: list[str], forwarded: str, found: str
) -> None:
    from starlette.requests import Request

    headers = [(b"x-forwarded-for", forwarded.encode())]
    request = Request({"type": "http", "client": ("127.0.0.1", 5), "headers": headers})
    assert Addresses(trusted).of(request) == found


def test_the_pages_cookie_is_for_http_alone_and_for_no_other_site(tmp_path: Path) -> None:
    one = served(tmp_path)
    with one.client() as client:
        assert client.post("/login", data={"key": "wrong"}).status_code == 401
        foreign = client.post("/login", data={"key": key_of(one)}, headers={"Sec-Fetch-Site": "cross-site"})
        assert foreign.status_code == 403
        answer = client.post("/login", data={"key": key_of(one, name="page")})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert send(client, png()).status_code == 200
        client.post("/logout")
        assert send(client, png()).status_code == 401


def test_where_nobody_needs_a_key_token_says_so(tmp_path: Path) -> None:
    one = Served(tmp_path)
    with one.client() as client:
        answer = client.post("/token", headers={"X-API-Key": "x"})
    assert answer.status_code == 404
    assert "[http] auth" in answer.json()["detail"]


def test_long_and_strange_headers_are_just_wrong(tmp_path: Path) -> None:
    one = served(tmp_path)
    with one.client() as client:
        for value in ("x" * 5000, "\u00e4".encode("latin-1"), b"st_\xff\xfe_x", "a.b.c", "Bearer"):
            assert send(client, png(), headers={"X-API-Key": value}).status_code == 401


def test_memory_of_failures_is_bounded() -> None:
    access = Access(None, None, addresses=Addresses([]))
    for number in range(10_100):
        access._failed(str(number), "x")
    assert len(access._failures) == 10_000
