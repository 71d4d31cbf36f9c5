"""Who may ask: keys, tokens, scopes, and what is done about those who guess."""

from __future__ import annotations

import base64
import hmac
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from starlette.requests import Request

from station.access_keys import AccessKeys
from station.errors import AccessError, ConfigError, ExpiredTokenError
from station.tokens import Tokens
from station.types import Scope
from station.web.access import FREE_FAILURES, MAX_FAILURES, Access, Addresses
from station.web.problems import ProblemError
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


def test_who_guesses_is_slowed_and_then_turned_away_and_a_good_key_is_not(tmp_path: Path) -> None:
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
        assert send(client, png(), headers={"X-API-Key": key, "X-Forwarded-For": "10.0.0.66"}).status_code == 200


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
        (["127.0.0.1"], "10.0.0.9:40001", "10.0.0.9"),
        (["127.0.0.1"], "::ffff:10.0.0.9", "10.0.0.9"),
        (["127.0.0.1"], "[2001:db8::1]:40001", "2001:db8::/64"),
        (["127.0.0.1"], "2001:DB8:0:0:9::7", "2001:db8::/64"),
        (["127.0.0.1", "10.0.0.0/24"], "1.1.1.1, 10.0.0.9:5", "1.1.1.1"),
    ],
)
def test_a_forwarded_address_counts_only_from_a_proxy_that_is_named(
    trusted: list[str], forwarded: str, found: str
) -> None:
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


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"name": "x"}}', '{"a": null}', "\x00"])
def test_a_damaged_file_of_keys_opens_to_nobody_and_is_never_replaced(text: str, tmp_path: Path) -> None:
    one = served(tmp_path)
    key, path = key_of(one), tmp_path / "keys.json"
    good = path.read_text()
    with one.client() as client:
        path.write_text(text)
        answer = send(client, png(), headers={"X-API-Key": key})
        assert answer.status_code == 503
        assert "station key list" in answer.json()["detail"]
        with pytest.raises(ConfigError, match="damaged: put it back"):
            AccessKeys(path).create("another", ["read"])
        assert path.read_text() == text
        path.write_text(good)
        assert send(client, png(), headers={"X-API-Key": key}).status_code == 200


def test_a_file_of_keys_that_cannot_be_read_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.json").mkdir()
    with pytest.raises(ConfigError, match=r"keys\.json cannot be read .*user of the service"):
        served(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_service(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    key_of(served(tmp_path))
    for name in ("keys.json", "jwt-secret", ".keys.lock"):
        stat = (tmp_path / name).stat()
        assert (stat.st_uid, stat.st_gid) == (12345, 12346), name


def test_of_keys_made_at_the_same_time_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda number: AccessKeys(path).create(f"k{number}", ["read"]), range(24)))
    keys = AccessKeys(path)
    assert len(keys.all()) == 24
    assert all(keys.find(one) for one in texts)


def test_a_key_cannot_be_named_like_the_id_of_another(tmp_path: Path) -> None:
    keys = AccessKeys(tmp_path / "keys.json")
    keys.create("first", ["read"])
    with pytest.raises(ConfigError, match="already"):
        keys.create(keys.all()[0].id, ["read"])


def test_a_secret_is_compared_in_constant_time_for_unknown_keys_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = AccessKeys(tmp_path / "keys.json")
    text = keys.create("line-2", ["read"])
    compared = list[int]()
    real = hmac.compare_digest

    def watching(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return real(one, other)

    monkeypatch.setattr("station.access_keys.hmac.compare_digest", watching)
    assert keys.find(text) is not None
    assert keys.find(text[:-1] + "!") is None
    assert keys.find("st_unknown_x") is None
    assert compared == [64, 64, 64]


@pytest.mark.parametrize("stale", [False, True])
def test_a_scraper_without_a_key_or_with_an_expired_token_does_not_shut_out_its_neighbours(
    stale: bool, tmp_path: Path
) -> None:
    one = served(tmp_path, jwt_secret_file=secret_file(tmp_path))
    late = jwt.encode(claims(exp=datetime.now(timezone.utc) - timedelta(hours=1)), SECRET)
    headers = {"Authorization": f"Bearer {late}"} if stale else {}
    with one.client() as client:
        for _ in range(MAX_FAILURES + 1):
            assert send(client, png(), headers=headers).status_code == 401
        assert send(client, png(), headers={"X-API-Key": key_of(one)}).status_code == 200
    assert one.counted("station_http_auth_failures_total", reason="login") == MAX_FAILURES + 1


def test_an_expired_token_with_a_wrong_signature_is_a_guess() -> None:
    late = jwt.encode(claims(exp=datetime.now(timezone.utc) - timedelta(hours=1)), SECRET[::-1])
    with pytest.raises(AccessError) as caught:
        tokens().check(late)
    assert not isinstance(caught.value, ExpiredTokenError)


def secret_file(folder: Path) -> Path:
    path = folder / "secret"
    path.write_text(SECRET)
    return path


def test_a_public_key_is_not_taken_for_a_secret(tmp_path: Path) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(serialization.Encoding.PEM, form)
    said = unsigned("HS256").rstrip(".")
    signature = base64.urlsafe_b64encode(hmac.digest(public, said.encode(), "sha256")).decode().rstrip("=")
    with pytest.raises(AccessError):
        tokens(algorithm="RS256", secret=None, public_key=public.decode()).check(f"{said}.{signature}")


def test_a_login_is_read_no_further_than_a_key_is_long(tmp_path: Path) -> None:
    one = served(tmp_path)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with one.client() as client:
        assert client.post("/login", content=b"key=" + b"a" * 100_000, headers=form).status_code == 413
        assert client.post("/login", files={"key": ("x", b"a" * 100_000)}).status_code == 415
        for content in (b"", b"key=", b"key=%20", b"other=1", b"\xff\xfe"):
            answer = client.post("/login", content=content, headers=form)
            assert answer.status_code == 422
            assert "station key create" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://aoi-1:8000", "Host": "aoi-1:8000"}, 200),
        ({"Origin": "https://aoi-1:8443", "Host": "aoi-1"}, 200),
        ({"Origin": "http://aoi-1:3000", "Host": "aoi-1:8000"}, 403),
        ({"Origin": "http://aoi-1.evil", "Host": "aoi-1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": ""}, 403),
    ],
)
def test_a_page_from_elsewhere_cannot_act_with_the_cookie(headers: dict[str, str], status: int, tmp_path: Path) -> None:
    one = served(tmp_path)
    key = key_of(one)
    with one.client() as client:
        cookie = client.post("/login", data={"key": key}).headers["set-cookie"].partition(";")[0]
        client.cookies.clear()
        assert send(client, png(), headers={"Cookie": cookie, **headers}).status_code == status
        assert send(client, png(), headers={"X-API-Key": key, **headers}).status_code == 200, "no browser sends that"


def test_an_added_line_of_a_proxy_counts_and_not_the_one_above_it(tmp_path: Path) -> None:
    headers = [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"10.0.0.9")]
    for peer in ("127.0.0.1", "::ffff:127.0.0.1"):
        request = Request({"type": "http", "client": (peer, 5), "headers": headers})
        assert Addresses(["127.0.0.1"]).of(request) == "10.0.0.9"


def test_who_looks_at_pages_uses_up_nothing_of_what_a_line_may_command(tmp_path: Path) -> None:
    one = served(tmp_path, requests_per_minute=2)
    page, plc = key_of(one, "read", name="page"), key_of(one, "command", name="plc")

    async def ask(key: str, scope: Scope) -> int:
        headers = [(b"x-api-key", key.encode())]
        try:
            await one.door.access.admit(Request({"type": "http", "client": ("10.0.0.1", 5), "headers": headers}), scope)
        except ProblemError as problem:
            return problem.status
        return 200

    assert [anyio.run(ask, page, "read") for _ in range(3)] == [200, 200, 429]
    assert [anyio.run(ask, plc, "command") for _ in range(3)] == [200, 200, 429]


def test_exchanging_keys_counts_as_asking(tmp_path: Path) -> None:
    one = served(tmp_path, requests_per_minute=2)
    with one.client() as client:
        answers = [client.post("/token", headers={"X-API-Key": key_of(one, name=f"k{n}")}) for n in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_a_token_that_is_nested_deeper_than_we_can_read_is_just_wrong(tmp_path: Path) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 2900).decode().rstrip("=")
    one = served(tmp_path)
    with one.client() as client:
        assert send(client, png(), headers={"X-API-Key": f"{deep}.e30.x"}).status_code == 401


def test_no_secret_of_a_caller_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = served(tmp_path)
    key = key_of(one)
    with one.client() as client:
        token = client.post("/token", headers={"X-API-Key": key}).json()["access_token"]
        client.post("/login", data={"key": key})
        client.post("/login", data={"key": f"{key}x"})
        send(client, png(), headers={"Authorization": f"Bearer {token}"})
        send(client, png(), headers={"Authorization": f"Bearer {token}x"})
    said = "".join(capsys.readouterr())
    assert "caller not let in" in said
    assert key[-20:] not in said
    assert token[-20:] not in said
    assert SECRET not in repr(one.door)


@pytest.mark.parametrize(("trusted", "secure"), [(["127.0.0.1"], True), ([], False)])
def test_the_cookie_is_for_tls_alone_where_a_proxy_that_is_named_speaks_it(
    trusted: list[str], secure: bool, tmp_path: Path
) -> None:
    one = served(tmp_path, trusted_proxies=trusted)
    with one.client() as client:
        answer = client.post("/login", data={"key": key_of(one)}, headers={"X-Forwarded-Proto": "https"})
    assert ("; secure" in answer.headers["set-cookie"].lower()) is secure


def test_who_asks_too_often_hears_when_to_come_back(tmp_path: Path) -> None:
    one = served(tmp_path, requests_per_minute=1)
    with one.client() as client:
        key = key_of(one)
        assert send(client, png(), headers={"X-API-Key": key}).status_code == 200
        late = send(client, png(), headers={"X-API-Key": key})
    assert late.headers["content-type"] == "application/problem+json"
    assert 1 <= int(late.headers["retry-after"]) <= 120  # a sliding window: this minute and the last
