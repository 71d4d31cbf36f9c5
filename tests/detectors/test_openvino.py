"""A network on OpenVINO: what it compiled is kept and used again only where it fits, and it tells nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from station.assets import ASSETS
from station.detectors.backends import has_openvino
from station.detectors.bytes_in import with_bytes_in
from station.errors import DetectorError, ModelError
from tests.detectors.models import save, save_seeing
from tests.detectors.outputs import FINAL, V8

if not has_openvino():
    pytest.skip("openvino is not installed", allow_module_level=True)

from station.detectors import openvino as backend
from station.detectors.openvino import OpenVinoNetwork

GREY = np.full((1, 3, 64, 64), 128, np.uint8)


def never(*_: object) -> None:
    raise AssertionError("compiled a second time")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "data" / "compiled"


def test_what_was_compiled_is_kept_and_gives_the_same_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir()
    path = save(tmp_path / "m.onnx", V8)
    first = OpenVinoNetwork(path, threads=1, cache=cache)

    monkeypatch.setattr(backend, "_compiled", never)
    again = OpenVinoNetwork(path, threads=1, cache=cache)
    assert (again.labels, again.input, again.output_shape) == (first.labels, first.input, first.output_shape)
    assert np.array_equal(again.run(GREY), V8)
    assert len(list(cache.iterdir())) == 1


def test_halves_are_compiled_at_the_first_start_and_later_loaded_when_two_come_at_a_time(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir()
    path = save(tmp_path / "m.onnx", V8)
    first = OpenVinoNetwork(path, threads=4, cache=cache)
    first.halve()
    assert first._idle_halves is not first._idle
    assert np.array_equal(first.run(GREY, half=True), first.run(GREY))

    monkeypatch.setattr(backend, "_compiled", never)
    again = OpenVinoNetwork(path, threads=4, cache=cache)
    again.halve()
    assert again._idle_halves is again._idle, "nobody needs them yet"
    assert np.array_equal(again.run(GREY, half=True), V8)
    halved = again._idle_halves
    assert halved is not again._idle
    assert halved.qsize() == 2
    again.halve()
    again.run(GREY, half=True)
    assert again._idle_halves is halved, "once"


def test_two_run_beside_each_other_and_a_third_waits(tmp_path: Path) -> None:
    network = OpenVinoNetwork(save(tmp_path / "m.onnx", V8), threads=2)
    network.halve()
    with ThreadPoolExecutor(3) as pool:
        for answer in pool.map(lambda _: network.run(GREY, half=True), range(30)):
            assert np.array_equal(answer, V8)
    assert network._idle_halves.qsize() == 2


def test_a_single_thread_has_no_halves(tmp_path: Path) -> None:
    network = OpenVinoNetwork(save(tmp_path / "m.onnx", V8), threads=1)
    network.halve()
    assert network._idle_halves is network._idle
    assert np.array_equal(network.run(GREY, half=True), V8)


def test_where_the_file_has_changed_by_then_all_cores_go_on_with_the_model_that_was_loaded(
    tmp_path: Path, cache: Path
) -> None:
    cache.parent.mkdir()
    path = save(tmp_path / "m.onnx", V8)
    OpenVinoNetwork(path, threads=2, cache=cache).halve()
    network = OpenVinoNetwork(path, threads=2, cache=cache)
    network.halve()
    save_seeing(path)
    with structlog.testing.capture_logs() as logs:
        assert np.array_equal(network.run(GREY, half=True), V8)
        assert np.array_equal(network.run(GREY, half=True), V8)
    assert [one["event"] for one in logs] == ["network not halved"]


def test_halves_that_were_compiled_for_something_else_are_compiled_before_anybody_waits(
    tmp_path: Path, cache: Path
) -> None:
    cache.parent.mkdir()
    path = save(tmp_path / "m.onnx", V8)
    OpenVinoNetwork(path, threads=2, cache=cache).halve()
    (kept,) = cache.glob("*-2.openvino")
    kept.write_bytes(another_machine(kept.read_bytes()))
    network = OpenVinoNetwork(path, threads=2, cache=cache)
    network.halve()
    assert network._idle_halves is not network._idle


def test_halves_that_fail_leave_all_cores_to_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = OpenVinoNetwork(save(tmp_path / "m.onnx", V8), threads=2)

    def fails(*_: object) -> None:
        raise RuntimeError("Exception from somewhere:\nno memory")

    monkeypatch.setattr(backend, "_requests", fails)
    with structlog.testing.capture_logs() as logs:
        network.halve()
    assert [one["event"] for one in logs] == ["network not halved"]
    assert np.array_equal(network.run(GREY, half=True), V8)


def test_a_cache_that_may_not_be_read_costs_only_time(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads anything, so the refusal is the test's own."""
    cache.parent.mkdir()
    network = OpenVinoNetwork(save(tmp_path / "m.onnx", V8), threads=2, cache=cache)
    opens = Path.open

    def refuses(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.parent == cache:
            raise PermissionError(13, "Permission denied")
        return opens(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuses)
    network.halve()
    assert np.array_equal(network.run(GREY, half=True), V8)


def test_a_network_that_takes_bytes_is_given_them_as_they_are(tmp_path: Path) -> None:
    changed = with_bytes_in((ASSETS / "pcb-pair.onnx").read_bytes())
    assert changed is not None
    (tmp_path / "bytes.onnx").write_bytes(changed)
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 640, 640)).astype(np.uint8)
    floats, given = (OpenVinoNetwork(one, threads=2) for one in (ASSETS / "pcb-pair.onnx", tmp_path / "bytes.onnx"))
    assert np.allclose(floats.run(picture), given.run(picture), atol=1e-3)


@pytest.mark.parametrize(
    "harm",
    [
        lambda kept: kept.write_bytes(b""),
        lambda kept: kept.write_bytes(b"no JSON at all\n"),
        lambda kept: kept.write_bytes(b"[1]\n"),
        lambda kept: kept.write_bytes(kept.read_bytes()[:-9]),
        lambda kept: kept.write_bytes(kept.read_bytes()[:-1] + bytes([kept.read_bytes()[-1] ^ 1])),
        lambda kept: kept.write_bytes(kept.read_bytes().replace(b"'short'", b"'shorT'")),
        lambda kept: kept.write_bytes(another_machine(kept.read_bytes())),
        lambda kept: kept.write_bytes(valid_around_rubbish(kept.read_bytes())),
    ],
    ids=["empty", "no-json", "other-json", "cut-off", "bits-changed", "a-label-changed", "another-machine", "rubbish"],
)
def test_what_was_kept_and_does_not_fit_is_made_anew(tmp_path: Path, cache: Path, harm: object) -> None:
    assert callable(harm)
    cache.parent.mkdir()
    path = save(tmp_path / "m.onnx", V8)
    OpenVinoNetwork(path, threads=1, cache=cache)
    (kept,) = cache.iterdir()
    harm(kept)
    with structlog.testing.capture_logs() as logs:
        assert np.array_equal(OpenVinoNetwork(path, threads=1, cache=cache).run(GREY), V8)
    assert [one["event"] for one in logs] == ["compiled model made anew"]
    with structlog.testing.capture_logs() as logs:
        OpenVinoNetwork(path, threads=1, cache=cache)
    assert logs == []


def another_machine(kept: bytes) -> bytes:
    head, _, blob = kept.partition(b"\n")
    return json.dumps(json.loads(head) | {"identity": "of another"}).encode() + b"\n" + blob


def valid_around_rubbish(kept: bytes) -> bytes:
    head = json.loads(kept.partition(b"\n")[0])
    return json.dumps(head | {"sha256": backend._sha256(head["metadata"], b"")}).encode() + b"\n"


def test_other_threads_are_another_compiled_model(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir()
    path = save(tmp_path / "m.onnx", V8)
    OpenVinoNetwork(path, threads=1, cache=cache)
    with structlog.testing.capture_logs() as logs:
        OpenVinoNetwork(path, threads=2, cache=cache)
    assert [one["event"] for one in logs] == ["compiled model made anew"]


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with structlog.testing.capture_logs() as logs:
        network = OpenVinoNetwork(save(tmp_path / "m.onnx", V8), threads=1, cache=cache)
    assert np.array_equal(network.run(GREY), V8)
    assert "compiled model not kept" in [one["event"] for one in logs]


def test_a_data_folder_that_is_not_there_is_not_made(tmp_path: Path, cache: Path) -> None:
    OpenVinoNetwork(save(tmp_path / "m.onnx", V8), threads=1, cache=cache)
    assert not cache.parent.exists()


def test_only_the_latest_compiled_models_are_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir()
    monkeypatch.setattr(backend, "KEPT", 2)
    for number in range(3):
        path = save(tmp_path / f"{number}.onnx", V8, metadata={"number": str(number)})
        OpenVinoNetwork(path, threads=1, cache=cache)
        (newest,) = (one for one in cache.iterdir() if one.stat().st_mtime_ns >= 10**18)
        os.utime(newest, ns=(number, number))  # clocks of file systems are coarse
    assert len(list(cache.iterdir())) == 2


def test_a_network_that_fails_on_a_picture_leaves_it_unjudged(tmp_path: Path) -> None:
    network = OpenVinoNetwork(save(tmp_path / "m.onnx", V8), threads=1)
    with pytest.raises(DetectorError, match=r"^the network failed: "):
        network.run(np.zeros((1, 3, 32, 32), np.uint8))


def test_a_file_that_is_no_network_gives_the_reason_and_not_source_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(999))
    with pytest.raises(ModelError, match=r"cannot be loaded as ONNX: .*; export it again") as caught:
        OpenVinoNetwork(path)
    assert "\n" not in str(caught.value)
    assert "Exception from" not in str(caught.value)


def test_a_model_of_any_batch_is_closed_to_one(tmp_path: Path) -> None:
    network = OpenVinoNetwork(save(tmp_path / "m.onnx", FINAL, batch="batch"), threads=1)
    assert network.input.batch == 1


def test_openvino_reports_to_nobody_keeps_no_statistics_and_writes_nothing_on_its_own(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(bytes(999))
    program = f"""
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
import numpy
from pathlib import Path
from station.detectors.openvino import OpenVinoNetwork
from station.errors import ModelError
network = OpenVinoNetwork(Path({str(save(tmp_path / "m.onnx", V8))!r}), cache=Path({str(tmp_path)!r}) / "compiled")
network.run(numpy.zeros((1, 3, 64, 64), numpy.float32))
try:
    OpenVinoNetwork(Path({str(bad)!r}))
except ModelError:
    print("refused", seen)
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert (done.stdout, done.stderr) == ("refused []\n", "")
    assert list(home.rglob("*")) == []
