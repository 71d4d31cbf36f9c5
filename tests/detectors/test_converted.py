"""What a .pt was converted to is found by its bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from station.detectors.converted import converted, keep_converted
from station.detectors.find import find_model
from station.detectors.store import ModelStore
from station.errors import ModelError


def test_a_converted_pt_is_found_by_its_own_bytes_alone(store: ModelStore, tmp_path: Path) -> None:
    pt, onnx = tmp_path / "best.pt", tmp_path / "made.onnx"
    pt.write_bytes(b"weights")
    onnx.write_bytes(b"network")
    assert converted(pt, store) is None
    kept = keep_converted(pt, onnx, store)
    assert kept.name == "best"
    assert kept.path.read_bytes() == b"network"
    assert converted(pt, store) == kept == find_model(str(pt), store=store)
    kept.path.write_bytes(b"netw0rk")
    assert converted(pt, store) is None, "damaged"
    kept.path.unlink()
    assert converted(pt, store) is None, "gone"
    assert keep_converted(pt, onnx, store) == converted(pt, store) == kept
    pt.write_bytes(b"other weights")
    assert converted(pt, store) is None
    with pytest.raises(ModelError, match="not converted"):
        find_model(str(pt), store=store)


def test_a_conversion_that_cannot_be_kept_leaves_no_half_of_it(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pt, onnx = tmp_path / "best.pt", tmp_path / "made.onnx"
    pt.write_bytes(b"weights")
    onnx.write_bytes(b"network")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    store.folder.mkdir(parents=True)
    with pytest.raises(ModelError, match=r"cannot be kept in .*No space left"):
        keep_converted(pt, onnx, store)
    assert list((store.folder / ".converted").iterdir()) == []
