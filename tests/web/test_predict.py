"""The inspection API over a real port: what is sent, what is answered, and what is refused before it costs anything."""

from __future__ import annotations

import base64
import socket
import tempfile
import threading
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from station.assets import SAMPLES
from station.errors import DetectorError
from station.picture import decode
from station.types import Defect, Image
from station.web.uploads import MAX_FILES
from tests.waiting import until
from tests.web.ports import Served, png, send


def test_a_picture_is_answered_as_the_interface_says(tmp_path: Path) -> None:
    served = Served(tmp_path)
    with served.client() as client:
        answer = send(client, png())
    assert answer.status_code == 200
    document = answer.json()
    assert document["detections"] == [
        {"bbox": [10, 20, 40, 60], "confidence": 0.91, "class_id": 1, "class_name": "short"}
    ]
    assert document["image_size"] == {"width": 64, "height": 48}
    assert (document["verdict"], document["reason"]) == ("fail", "short 0.91 >= 0.50")
    assert 0 < document["processing_time"] < 30
    assert served.counted("station_http_requests_total", path="/predict", status="200") == 1
    assert served.counted("station_upload_bytes_count") == 1


def test_the_picture_with_its_boxes_is_a_png(tmp_path: Path) -> None:
    with Served(tmp_path).client() as client:
        answer = send(client, png(), "/predict-image")
        annotated = send(client, png(), params={"annotate": "true"}).json()["annotated"]
    assert answer.headers["content-type"] == "image/png"
    assert float(answer.headers["x-processing-time"]) > 0
    for data in (answer.content, base64.b64decode(annotated)):
        drawn = decode(data)
        assert drawn is not None
        assert drawn.shape[1] == 64


def test_several_pictures_are_answered_each_by_itself(tmp_path: Path) -> None:
    files = [("file", ("a.png", png(seed=1))), ("file", ("b.txt", b"no picture")), ("file", ("c.png", png(seed=2)))]
    with Served(tmp_path).client() as client:
        results = client.post("/predict", files=files).json()["results"]
    assert [one.get("verdict") for one in results] == ["fail", None, "fail"]
    assert (results[1]["status"], results[1]["title"]) == (415, "No picture")


@pytest.mark.parametrize("sample", ["fail-open-44000062.jpg", "pass-template-44000062.jpg"])
def test_the_type_is_told_by_the_content_not_by_name_or_header(sample: str, tmp_path: Path) -> None:
    data = (SAMPLES / sample).read_bytes()
    with Served(tmp_path).client() as client:
        answer = client.post("/predict", files={"file": ("../../etc/passwd\x00.txt", data, "text/plain")})
    assert answer.status_code == 200


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises more than any memory holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    body = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", 415, "send a JPEG"),
        (b"hello", 415, "send a JPEG"),
        (b"%PDF-1.7 ...", 415, "send a JPEG"),
        (png()[:-20], 422, "PNG"),
        ((SAMPLES / "unknown-cut-off-92000110.jpg").read_bytes(), 422, "truncated"),
        (bomb(80_000, 80_000), 422, "6400"),
    ],
)
def test_what_is_no_whole_picture_is_refused_with_what_to_do(
    data: bytes, status: int, said: str, tmp_path: Path
) -> None:
    served = Served(tmp_path)
    with served.client() as client:
        answer = send(client, data)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert served.judged == 0


def test_a_picture_that_the_detector_cannot_judge_is_unknown(tmp_path: Path) -> None:
    def broken(_image: Image) -> list[Defect]:
        raise DetectorError("no such size")

    with Served(tmp_path, detect=broken).client() as client:
        document = send(client, png()).json()
    assert document["verdict"] == "unknown"
    assert "no such size" in document["reason"]


def raw(url: str, request: bytes) -> bytes:
    """What comes back for *request*, byte for byte."""
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=30) as one:
        one.sendall(request)
        answer = b""
        while chunk := one.recv(65536):
            answer += chunk
        return answer


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


def test_a_length_beyond_the_limit_is_refused_before_a_byte_of_it_came(tmp_path: Path) -> None:
    served = Served(tmp_path, max_file_mb=1)
    with served.client():
        answer = raw(served.url, HEAD + b"Content-Length: 999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"max_file_mb" in answer


def test_a_body_without_a_length_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    served = Served(tmp_path, max_file_mb=1)
    sent = threading.Event()
    with served.client(), socket.create_connection(("127.0.0.1", served.settings.http.port), timeout=30) as one:
        one.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        one.sendall(b"%x\r\n%s\r\n" % (len(PART), PART))

        def endless() -> None:
            try:
                while True:
                    one.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            except OSError:
                sent.set()

        thread = threading.Thread(target=endless, daemon=True)
        thread.start()
        assert one.recv(100).startswith(b"HTTP/1.1 413")
        with suppress(OSError):  # the station may have closed its side already
            one.shutdown(socket.SHUT_RDWR)
        thread.join(30)
    assert sent.is_set()
    assert served.judged == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (PART + b"abc", 422),
        (b"--b--\r\n", 422),
        (b"nonsense", 422),
        (PART.replace(b'name="file"', b'name="other"') + b"abc\r\n--b--\r\n", 422),
        (b"--b\r\n" + b"x" * 10_000 + b": y\r\n\r\n", 422),
        ((PART + b"x\r\n") * (MAX_FILES + 1) + b"--b--\r\n", 413),
    ],
)
def test_a_form_that_is_damaged_or_lacks_the_file_is_refused(body: bytes, status: int, tmp_path: Path) -> None:
    served = Served(tmp_path)
    with served.client():
        answer = raw(served.url, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer[:300]
    assert b"application/problem+json" in answer


def test_a_json_body_is_told_how_to_send_a_picture(tmp_path: Path) -> None:
    with Served(tmp_path).client() as client:
        answer = client.post("/predict", json={"file": "x"})
    assert answer.status_code == 415
    assert "curl -F file=@" in answer.json()["detail"]


def open_files() -> set[str]:
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it was the folder itself
            found.add(str(one.readlink()))
    return found


def test_nothing_of_an_upload_touches_the_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1200, 1200, 3), np.uint8)
    written, data = cv2.imencode(".png", noise)
    assert written
    before = open_files()

    def look(_image: Image) -> list[Defect]:
        assert [
            one for one in open_files() - before if "(deleted)" in one or one.startswith(tempfile.gettempdir())
        ] == []
        return []

    served = Served(tmp_path, detect=look)
    with served.client() as client:
        assert send(client, bytes(data)).status_code == 200


def test_over_capacity_it_says_so_at_once_and_serves_the_others(tmp_path: Path) -> None:
    go, inside = threading.Event(), threading.Semaphore(0)

    def slow(_image: Image) -> list[Defect]:
        inside.release()
        assert go.wait(30)
        return []

    served = Served(tmp_path, detect=slow, queue=2, cache_mb=0)
    found: list[int] = []
    with served.client() as client:
        threads = [
            threading.Thread(target=lambda n=n: found.append(send(client, png(seed=n)).status_code)) for n in range(2)
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert inside.acquire(timeout=30)
        refused = send(client, png(seed=9))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        go.set()
        for thread in threads:
            thread.join(30)
        assert found == [200, 200]
        assert send(client, png(seed=9)).status_code == 200


def test_the_same_picture_is_judged_once_until_model_or_recipe_change(tmp_path: Path) -> None:
    served = Served(tmp_path)
    with served.client() as client:
        first, second = send(client, png()).json(), send(client, png()).json()
        assert (served.judged, served.counted("station_cache_hits_total")) == (1, 1)
        assert served.counted("station_upload_bytes_count") == 2
        assert first["detections"] == second["detections"]
        served.bench = replace(served.bench, recipe_sha256="r2")
        send(client, png())
        assert served.judged == 2
        send(client, png(seed=3))
        assert served.judged == 3


def test_the_request_id_comes_back_and_a_bad_one_is_replaced(tmp_path: Path) -> None:
    with Served(tmp_path).client() as client:
        assert client.get("/docs", headers={"X-Request-ID": "line-7.42"}).headers["x-request-id"] == "line-7.42"
        replaced = client.get("/docs", headers={"X-Request-ID": "x" * 65}).headers["x-request-id"]
    assert len(replaced) == 32


def test_a_failure_that_nobody_foresaw_tells_nothing_of_the_inside(tmp_path: Path) -> None:
    def broken(_image: Image) -> list[Defect]:
        raise RuntimeError("secret inside")

    served = Served(tmp_path, detect=broken)
    with served.client() as client:
        answer = send(client, png())
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert served.counted("station_http_requests_total", path="/predict", status="500") == 1


def test_a_path_that_a_stranger_made_up_is_no_label(tmp_path: Path) -> None:
    served = Served(tmp_path)
    with served.client() as client:
        for number in range(5):
            assert client.get(f"/no/{number}").headers["content-type"] == "application/problem+json"
    assert 'path="unknown"' in served.metrics_text()
    assert "/no/" not in served.metrics_text()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_needs_nothing_from_elsewhere(path: str, tmp_path: Path) -> None:
    with Served(tmp_path).client() as client:
        page = client.get(path).text
        assert "http://" not in page
        assert "https://" not in page
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js", "favicon.png"):
            assert client.get(f"/docs-files/{name}").status_code == 200
        paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/predict-image", "/token"} <= set(paths)


def test_other_pages_may_ask_only_where_that_was_configured(tmp_path: Path) -> None:
    ask = {"Origin": "https://line.example.com", "Access-Control-Request-Method": "POST"}
    with Served(tmp_path, allowed_origins="https://line.example.com, https://b.example.com").client() as client:
        allowed = client.options("/predict", headers=ask)
        assert allowed.headers["access-control-allow-origin"] == "https://line.example.com"
        other = client.options("/predict", headers=ask | {"Origin": "https://evil.example.com"})
        assert "access-control-allow-origin" not in other.headers
    with Served(tmp_path).client() as client:
        assert "access-control-allow-origin" not in client.options("/predict", headers=ask).headers


def test_large_answers_are_compressed(tmp_path: Path) -> None:
    with Served(tmp_path).client() as client:
        assert client.get("/openapi.json").headers["content-encoding"] == "gzip"


def test_a_slow_sender_does_not_keep_others_out(tmp_path: Path) -> None:
    served = Served(tmp_path, queue=2)
    with (
        served.client() as client,
        socket.create_connection(("127.0.0.1", served.settings.http.port), timeout=30) as slow,
    ):
        slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + PART)
        until(lambda: send(client, png()).status_code == 200)


def test_a_sender_that_hangs_up_is_no_failure_of_ours(tmp_path: Path) -> None:
    served = Served(tmp_path)
    with served.client():
        with socket.create_connection(("127.0.0.1", served.settings.http.port), timeout=30) as one:
            one.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + PART)
        until(lambda: served.counted("station_http_requests_total", path="/predict", status="400") == 1)


def test_a_deep_upload_is_as_deep_as_the_inboxs_pictures(tmp_path: Path) -> None:
    seen: list[Image] = []

    def detect(image: Image) -> list[Defect]:
        seen.append(image)
        return []

    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    data = cv2.imencode(".png", levels)[1].tobytes()
    with Served(tmp_path, detect=detect, depth_bits=12).client() as client:
        assert send(client, data).status_code == 200
    assert np.array_equal(seen[0][..., 0], levels >> 4)
