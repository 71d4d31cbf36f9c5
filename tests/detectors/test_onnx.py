"""The detector on onnxruntime: exact boxes from known outputs, and clear words for a model that cannot be used."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import structlog
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from station.detectors.onnx import OnnxDetector, _hushed
from station.errors import DetectorError, ModelError
from station.types import Box, Image
from tests.detectors.models import save, save_seeing
from tests.detectors.outputs import FINAL, V5, V8, columns, rows


def detector(
    path: Path, *, iou: float = 0.45, sha256: str | None = None, providers: tuple[str, ...] | None = None
) -> OnnxDetector:
    return OnnxDetector(path, name="m", confidence=0.25, iou=iou, threads=1, sha256=sha256, providers=providers)


def grey(height: int = 64, width: int = 64) -> Image:
    return np.full((height, width, 3), 114, np.uint8)


@pytest.mark.parametrize("output", [V8, V5, FINAL], ids=["v8", "v5", "end-to-end"])
@pytest.mark.parametrize("half", [False, True])
def test_every_layout_gives_the_same_defects(tmp_path: Path, output: NDArray[np.float32], half: bool) -> None:
    found = detector(save(tmp_path / "m.onnx", output, half=half)).detect(grey())
    assert [(one.label, round(one.confidence, 2), one.found_by) for one in found] == [
        ("short", 0.9, "m"),
        ("open", 0.7, "m"),
    ]
    for one in found:
        assert (one.box.x, one.box.y, one.box.width, one.box.height) == pytest.approx((15, 26, 10, 8), abs=0.05)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (64, 64, (15, 26, 10, 8)),
        (128, 128, (30, 52, 20, 16)),
        (32, 32, (7.5, 13, 5, 4)),
        (64, 128, (30, 52 - 32, 20, 16)),  # 32 x 64 in the middle of 64 x 64: 16 rows of pad above, at half scale
        (128, 64, (0, 52, 18, 16)),  # begins 2 pixels left of the picture: clipped
    ],
)
def test_boxes_come_back_in_pixels_of_the_original(
    tmp_path: Path, height: int, width: int, expected: tuple[float, float, float, float]
) -> None:
    (found, _) = detector(save(tmp_path / "m.onnx", V8)).detect(grey(height, width))
    assert (found.box.x, found.box.y, found.box.width, found.box.height) == pytest.approx(expected, abs=0.01)


def test_what_lies_in_the_pad_is_no_defect(tmp_path: Path) -> None:
    above = detector(save(tmp_path / "m.onnx", rows((30, 6, 10, 8, 0.9, 0), (30, 30, 10, 8, 0.8, 0))))
    assert [round(one.confidence, 1) for one in above.detect(grey(64, 128))] == [0.8]


def test_blue_green_red_bytes_reach_the_network_as_red_green_blue_up_to_one(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 2] = 204  # red, in BGR
    image[..., 0] = 51  # blue
    (found,) = detector(save_seeing(tmp_path / "m.onnx")).detect(image)
    assert found.confidence == pytest.approx(0.8, abs=1e-4)
    assert found.box.x == pytest.approx(2.0, abs=1e-3)


def test_each_picture_is_judged_by_its_own_pixels(tmp_path: Path) -> None:
    seeing = detector(save_seeing(tmp_path / "m.onnx"))
    for red in (255, 0, 128):
        image = np.zeros((64, 64, 3), np.uint8)
        image[..., 2] = red
        assert [one.confidence for one in seeing.detect(image)] == ([pytest.approx(red / 255, abs=1e-3)] if red else [])


def test_a_model_with_open_shapes_is_used_at_the_size_it_was_exported_for(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        V8,
        batch="batch",
        told_size=("height", "width"),
        told_output=["batch", "rows", "columns"],
        metadata={"imgsz": "[32, 64]"},
    )
    opened = detector(path)
    assert opened.input_size == (32, 64)
    assert opened.detect(grey(32, 64))[0].box == Box(15, 26, 10, 6), "clipped to the 32 rows of the picture"


def test_a_model_of_any_size_that_does_not_say_which_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8, told_size=("height", "width"))
    with pytest.raises(ModelError, match="any size"):
        detector(path)


def test_an_open_output_that_fits_no_layout_is_refused_at_load(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8, names="{0: 'only'}", told_output=["batch", "rows", "columns"])
    with pytest.raises(ModelError, match=r"1 x 6 x 4, but with 1 class names"):
        detector(path)


@pytest.mark.parametrize("output", [rows((20, 30, 10, 8, np.nan, 0.1)), rows((20, 30, 10, 8, -3.0, 2.0))])
def test_a_network_that_answers_no_scores_never_passes_a_board(tmp_path: Path, output: NDArray[np.float32]) -> None:
    found = detector(save(tmp_path / "m.onnx", output))
    with pytest.raises(DetectorError, match="not from 0 to 1"):
        found.detect(grey())
    with pytest.raises(ModelError, match="plain grey picture"):
        found.warm_up()


def test_a_network_that_fails_on_a_picture_leaves_it_unjudged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = detector(save(tmp_path / "m.onnx", V8))
    found.warm_up()

    class Failing:
        def run(self, *_: object) -> None:
            raise Fail("out of GPU memory\nat line 1")

    monkeypatch.setattr(found, "_session", Failing())
    with pytest.raises(DetectorError, match=r"the network failed: out of GPU memory$"):
        found.detect(grey())


def test_a_class_without_a_name_is_no_pass(tmp_path: Path) -> None:
    found = detector(save(tmp_path / "m.onnx", columns((1, 1, 9, 9, 0.9, 7))))
    with pytest.raises(DetectorError, match="class 7"):
        found.detect(grey())


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros((0, 64, 3), np.uint8)])
def test_what_is_no_colour_picture_is_refused(tmp_path: Path, image: Image) -> None:
    with pytest.raises(DetectorError, match="not a colour picture"):
        detector(save(tmp_path / "m.onnx", V8)).detect(image)


def refused(path: Path, *, sha256: str | None = None) -> str:
    """What is said of a model that cannot be used; it names the file."""
    with pytest.raises(ModelError) as caught:
        detector(path, sha256=sha256)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"", "empty"), (b"this is no network", "export it again"), (bytes(999), "export it")],
)
def test_a_file_that_is_no_network_says_what_to_do(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    assert words in refused(path)


def test_a_file_that_was_cut_off_or_changed_says_what_to_do(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8)
    assert "is damaged" in refused(path, sha256="0" * 64)
    path.write_bytes(path.read_bytes()[:200])
    assert "export it again" in refused(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": None}, "no class names"),
        ({"names": "{}"}, "no class names"),
        ({"names": "{1: 'a', 2: 'b'}"}, "no class names"),
        ({"names": "__import__('os').getcwd()"}, "no class names"),
        ({"names": "(" * 5000}, "no class names"),
        ({"names": "{0: 'a'}"}, "with 1 class names"),
        ({"task": "segment"}, "task segment"),
        ({"task": "pose"}, "task pose"),
        ({"task": "obb"}, "task obb"),
        ({"task": "classify"}, "task classify"),
        ({"metadata": {"head": "RTDETRDecoder"}}, "RT-DETR"),
        ({"inputs": 2}, "not one colour picture"),
        ({"channels": 1}, "not one colour picture"),
        ({"batch": 4}, "batch=1"),
    ],
)
def test_a_network_that_is_no_detector_of_ours_says_why(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refused(save(tmp_path / "m.onnx", V8, **changes))


def test_weights_in_a_second_file_are_refused_since_the_checksum_would_not_cover_them(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    assert "second file" in refused(path)


def test_the_right_checksum_is_accepted_and_told(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert detector(path, sha256=expected).model.sha256 == expected


def test_class_names_may_be_a_list(tmp_path: Path) -> None:
    assert detector(save(tmp_path / "m.onnx", V8, names="['x', 'y']")).labels == ("x", "y")


def test_overlapping_boxes_of_one_class_are_one_defect(tmp_path: Path) -> None:
    found = detector(save(tmp_path / "m.onnx", V8), iou=0.95).detect(grey())
    assert len(found) == 3, "with a limit that high the second box stays"


def test_a_provider_that_is_not_offered_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not offer NoProvider, but: .*CPUExecutionProvider"):
        detector(save(tmp_path / "m.onnx", V8), providers=("NoProvider",))


def test_a_gpu_that_does_not_work_gives_way_to_the_cpu_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = onnxruntime.InferenceSession
    offered = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def session(path: str, options: object, *, providers: list[str], enable_fallback: int) -> object:
        if "CUDAExecutionProvider" in providers:
            raise RuntimeError("no CUDA-capable device is detected")
        return real(path, options, providers=providers, enable_fallback=enable_fallback)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with structlog.testing.capture_logs() as logs:
        found = detector(save(tmp_path / "m.onnx", V8))
    assert found.provider == "CPUExecutionProvider"
    assert [one["provider"] for one in logs if one["event"] == "provider not usable"] == offered[:2]
    assert capsys.readouterr().out == "", "stdout belongs to station inspect --json"


def test_native_noise_is_hushed_only_while_it_lasts(capfd: pytest.CaptureFixture[str]) -> None:
    with _hushed():
        os.write(2, b"device discovery failed")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_loading_judging_and_failing_write_nothing_on_their_own(tmp_path: Path) -> None:
    good, bad = save(tmp_path / "good.onnx", V8), tmp_path / "bad.onnx"
    bad.write_bytes(bytes(999))
    code = f"""
import numpy, pathlib
from station.detectors.onnx import OnnxDetector
from station.errors import ModelError
detector = OnnxDetector(pathlib.Path({str(good)!r}), name="m", confidence=0.25, iou=0.45)
detector.warm_up()
assert len(detector.detect(numpy.zeros((99, 99, 3), numpy.uint8))) == 2
try:
    OnnxDetector(pathlib.Path({str(bad)!r}), name="m", confidence=0.25, iou=0.45)
except ModelError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_onnxruntime_reports_to_nobody_and_keeps_no_database_for_it(tmp_path: Path) -> None:
    program = (
        "from station.detectors.onnx import OnnxDetector; from pathlib import Path; "
        f"OnnxDetector(Path({str(save(tmp_path / 'm.onnx', V8))!r}), name='m', confidence=0.25, iou=0.45).warm_up()"
    )
    home = tmp_path / "home"
    home.mkdir()
    # It keeps quiet on CI by itself: a factory is no CI.
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    subprocess.run([sys.executable, "-c", program], env={**environment, "HOME": str(home)}, check=True, timeout=60)
    assert list(home.rglob("*")) == []
