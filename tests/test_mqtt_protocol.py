"""Tables of what is concluded from the end of a connection, and from the certificate files."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from station.errors import LinkError
from station.mqtt_options import Tls, tls_context
from station.mqtt_protocol import (
    RETRY_MOST_S,
    RETRY_UNWANTED_MOST_S,
    STOLEN_PAUSE_S,
    TRY_5_AGAIN_S,
    End,
    How,
    Patience,
    Protocol,
    ProtocolChoice,
    fate_of,
)
from station.types import Fate

EARLY, WRONG = How.CLOSED_EARLY, How.WRONG_PROTOCOL


@pytest.mark.parametrize(
    ("ends", "then"),
    [
        ([], "5"),
        ([WRONG], "3.1.1"),
        ([EARLY], "5"),
        ([EARLY, EARLY], "5"),
        ([EARLY, EARLY, EARLY], "3.1.1"),
        ([How.REFUSED] * 9, "5"),
        ([How.NOT_REACHED] * 9, "5"),
        ([How.LOST] * 9, "5"),
        ([How.DISMISSED] * 9, "5"),
        ([How.SILENT] * 9, "5"),
    ],
)
def test_only_a_named_protocol_or_three_early_closes_lead_to_the_older_one(ends: list[How], then: Protocol) -> None:
    choice = ProtocolChoice("auto")
    for how in ends:
        assert choice.next(0.0) == "5"
        choice.ended(how, now_s=0.0)
    assert choice.next(0.0) == then


def test_an_accepted_connection_forgets_the_early_closes_before_it() -> None:
    choice = ProtocolChoice("auto")
    for _ in range(5):
        choice.ended(EARLY, now_s=0.0)
        choice.ended(EARLY, now_s=0.0)
        choice.accepted()
    assert choice.next(0.0) == "5"


def test_mqtt_5_is_due_an_hour_after_the_fall_and_falls_for_an_hour_again() -> None:
    choice = ProtocolChoice("auto")
    choice.ended(WRONG, now_s=100.0)
    assert not choice.due(100.0 + TRY_5_AGAIN_S - 1)
    assert choice.next(100.0 + TRY_5_AGAIN_S - 1) == "3.1.1"
    later_s = 100.0 + TRY_5_AGAIN_S
    assert choice.due(later_s)
    assert choice.next(later_s) == "5"
    choice.ended(WRONG, now_s=later_s)
    assert choice.next(later_s + TRY_5_AGAIN_S - 1) == "3.1.1"


@pytest.mark.parametrize("wanted", ["5", "3.1.1"])
def test_a_configured_protocol_stays(wanted: Protocol) -> None:
    choice = ProtocolChoice(wanted)
    for how in (WRONG, EARLY, EARLY, EARLY):
        choice.ended(how, now_s=0.0)
    assert choice.next(0.0) == choice.next(1e9) == wanted
    assert not choice.due(1e9)


def pauses(ends: list[End], *, chance: float = 1.0) -> list[float]:
    patience = Patience(lambda: chance)
    return [patience.pause_s(end, stolen=patience.stolen(end)) for end in ends]


AWAY = End(How.NOT_REACHED, "")
REFUSED = End(How.REFUSED, "")
SHORT = End(How.LOST, "", lasted_s=1.0)
DISMISSED = End(How.DISMISSED, "", lasted_s=1.0)
LONG = End(How.LOST, "", lasted_s=1000.0)


def test_a_broker_that_is_away_is_looked_for_each_second() -> None:
    assert pauses([AWAY] * 5) == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert max(pauses([AWAY] * 1000)) == RETRY_MOST_S


def test_a_broker_that_does_not_want_us_is_asked_ever_more_rarely() -> None:
    assert pauses([REFUSED] * 5) == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert max(pauses([REFUSED] * 1000)) == RETRY_UNWANTED_MOST_S
    assert pauses([DISMISSED] * 5) == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert pauses([SHORT] * 2) == [0.5, 1.0]


def test_a_connection_that_lasted_starts_anew() -> None:
    assert pauses([DISMISSED, DISMISSED, DISMISSED, LONG]) == [0.5, 1.0, 2.0, 0.5]
    assert pauses([AWAY, AWAY, AWAY, LONG]) == [0.5, 1.0, 1.0, 0.5]


def test_half_of_a_pause_is_chance() -> None:
    assert pauses([REFUSED] * 3, chance=0.0) == [0.25, 0.5, 1.0]
    assert pauses([REFUSED] * 3, chance=0.5) == [0.375, 0.75, 1.5]


def test_the_hourly_try_of_mqtt_5_waits_for_nothing() -> None:
    assert pauses([End(How.RETRY_5, "", lasted_s=3600.0)]) == [0.0]


@pytest.mark.parametrize(
    ("ends", "stolen"),
    [
        ([End(How.STOLEN, "", 900.0)], True),
        ([SHORT, SHORT], False),
        ([SHORT, SHORT, SHORT], True),
        ([SHORT, AWAY, SHORT, AWAY, SHORT, AWAY, SHORT], False),  # a broker that restarts
        ([DISMISSED] * 9, False),  # it said why, and that was another reason
        ([SHORT, SHORT, LONG, SHORT], False),
        ([End(How.SILENT, "", 1.0)] * 9, False),  # we closed those
    ],
)
def test_a_client_id_is_stolen_when_the_broker_says_so_or_takes_us_and_closes_again_and_again(
    ends: list[End], *, stolen: bool
) -> None:
    patience = Patience(lambda: 0.0)
    assert [patience.stolen(end) for end in ends][-1] is stolen


def test_a_stolen_client_id_is_left_to_the_other_for_a_minute_or_two() -> None:
    stolen = End(How.STOLEN, "", 1.0)
    assert pauses([stolen], chance=0.0) == [STOLEN_PAUSE_S]
    assert pauses([stolen], chance=1.0) == [2 * STOLEN_PAUSE_S]


def test_every_reason_code_has_a_fate() -> None:
    assert {fate_of(code) for code in range(0x80)} == {Fate.ACCEPTED}
    assert [code for code in range(0x80, 0x100) if fate_of(code) is Fate.BUSY] == [0x80, 0x83, 0x91, 0x93, 0x96, 0x97]
    assert Fate.LOST not in {fate_of(code) for code in range(0x100)}


# Certificate files.


def test_the_brokers_name_is_checked_and_old_tls_is_not_spoken() -> None:
    context = tls_context(Tls())
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(LinkError, match=f"ca_file {file}"):
        tls_context(Tls(ca_file=file))


def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"cert_file .*cert\.pem with key_file .*key\.pem"):
        tls_context(Tls(cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its key with openssl")
def test_an_encrypted_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -passout pass:x -keyout {key} -out {cert} -subj /CN=x -days 1".split(),
        check=True,
        capture_output=True,
    )
    with pytest.raises(LinkError, match="key_file"):
        tls_context(Tls(cert_file=cert, key_file=key))
