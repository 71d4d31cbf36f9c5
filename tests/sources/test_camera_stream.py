"""H.264 and H.265 over RTSP that lose parts: FFmpeg makes up what is missing, and no such picture is given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from station.sources.camera_stream import Damage
from station.types import Image
from tests.film_server import FilmServer, Loses, Packets
from tests.sources.test_camera import Watching
from tests.waiting import until

HERE = Path(__file__).parent
FILMS = [HERE / "film.h264", HERE / "film.h265"]  # 20 pictures each; the first and the eleventh build on no other
KEY = (48, "nal_unit_type: 5(IDR), nal_ref_idc: 3")
LOST = (24, "RTP: missed 1 packets")
CONCEALED = (32, "concealing 180 DC, 180 AC, 180 MV errors in P frame")
ERROR = (16, "error while decoding MB 9 8, bytestream -5")


def pictures_of(film: Path) -> list[Image]:
    capture = cv2.VideoCapture(str(film))
    pictures: list[Image] = []
    while (read := capture.read())[0]:
        pictures.append(read[1].astype(np.uint8))
    assert len(pictures) == 20
    return pictures


def a_packet(number: int, packets: Packets) -> Packets:
    """Of the fifth picture of every second film."""
    return packets[:3] + packets[4:] if number % 40 == 4 else packets


def a_picture(number: int, packets: Packets) -> Packets:
    return [] if number % 40 == 4 else packets


def a_packet_of_the_first(number: int, packets: Packets) -> Packets:
    """Which builds on no other, and on which the next nine build."""
    return packets[:5] + packets[6:] if number % 40 == 20 else packets


def an_end_and_the_next_beginning(number: int, packets: Packets) -> Packets:
    return packets[:-1] if number % 40 == 19 else packets[4:] if number % 40 == 20 else packets


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.suffix)
@pytest.mark.parametrize("loses", [a_packet, a_picture, a_packet_of_the_first, an_end_and_the_next_beginning])
def test_a_picture_that_lacks_a_part_or_builds_on_one_that_does_is_never_given(film: Path, loses: Loses) -> None:
    """Most of what FFmpeg gave until the next key frame was wrong, and looked like a board."""
    whole = pictures_of(film)
    with FilmServer(film, loses) as server, Watching(server.url, stalled_s=30.0, frozen_s=0.0) as watching:
        number, until_sent = watching.shot().number, server.sent + 100
        while server.sent < until_sent:
            shot = watching.camera.shot(since_s=0.0, after=number, within_s=30)
            assert any(np.array_equal(shot.image, one) for one in whole), f"picture {shot.number} is none of the film"
            number = shot.number
        assert watching.faults() == {}


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.suffix)
def test_of_a_film_that_loses_nothing_each_picture_is_given(film: Path) -> None:
    with FilmServer(film) as server, Watching(server.url, frozen_s=0.0) as watching:
        first = watching.shot().number
        until(lambda since=server.sent: server.sent > since + 40)  # type: ignore[misc]  # bound at once
        assert watching.shot().number > first + 35
        assert watching.faults() == {}


def test_a_camera_that_loses_a_part_of_each_picture_is_a_fault() -> None:
    server = FilmServer(FILMS[0], lambda _number, packets: packets[:3] + packets[4:])
    with server, Watching(server.url, stalled_s=0.5) as watching:
        until(lambda: "its pictures come damaged" in watching.faults().get("camera_failing", ""))
        assert watching.trouble()


def of(*reads: tuple[list[tuple[int, str]], str]) -> str:
    """A letter for each picture: W is whole, D is damaged."""
    damage = Damage()
    return "".join("D" if damage.of(said, kind) else "W" for said, kind in reads)


@pytest.mark.parametrize("said", [LOST, CONCEALED, ERROR, (48, "Frame num gap 3 1")])
def test_after_a_loss_all_are_damaged_until_one_builds_on_no_other(said: tuple[int, str]) -> None:
    assert of(([], "I"), ([said], "P"), ([], "P"), ([], "P"), ([KEY], "I"), ([], "P")) == "WDDDWW"


def test_a_picture_that_was_decoded_before_the_loss_and_given_after_it_is_not_that_one() -> None:
    assert of(([ERROR], "I"), ([], "P"), ([KEY], "P"), ([], "P"), ([], "I")) == "DDDDW"


@pytest.mark.parametrize("reads_later", [0, 1, 2])
def test_a_key_frame_that_may_have_lost_a_part_itself_ends_nothing(reads_later: int) -> None:
    said: list[list[tuple[int, str]]] = [[LOST], [], []]
    said[reads_later].append(KEY)
    assert of(*((one, "I") for one in said), ([], "P"), ([KEY], "I")) == "DDDDW"


def test_what_was_said_before_the_first_key_frame_is_no_loss() -> None:
    """Whoever joins a stream between two."""
    assert of(([(48, "Frame num gap 3 1"), ERROR, KEY], "I"), ([], "P")) == "WW"


def test_remarks_beside_the_picture_are_none() -> None:
    assert of(([(16, "SEI type 5 size 40 truncated at 8"), (24, "CSeq 9 expected, 0 received.")], "P")) == "W"


def test_where_kinds_are_not_known_ffmpegs_word_is_enough() -> None:
    assert of(([ERROR], ""), ([], ""), ([KEY], ""), ([], "")) == "DDWW"
