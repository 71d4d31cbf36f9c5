"""Folders of labelled boards: both layouts, parts of them, and what is said about those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from station.detectors.metric import Marked
from station.errors import LabelsError
from station.labelled import Layout, as_marked, hits_by_label, load, read_labelled, renumbered
from station.types import Box, Defect, Image
from tests.sources.boards import png_head

WIDTH_PX, HEIGHT_PX = 200, 100


def folder(root: Path, labels: dict[str, str | None]) -> Path:
    """A folder with a grey picture for each name, and its label file unless that is None."""
    for name, text in labels.items():
        picture = root / "images" / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), np.full((HEIGHT_PX, WIDTH_PX, 3), 90, np.uint8))
        label = root / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            label.write_text(text)
    return root


def marked(root: Path) -> list[Marked]:
    return [
        one
        for number, board in enumerate(read_labelled(root))
        for one in board.marked(number, height_px=HEIGHT_PX, width_px=WIDTH_PX)
    ]


@pytest.mark.parametrize(
    ("line", "layout"),
    [
        ("2 0.25 0.5 0.1 0.2\n", Layout.YOLO),
        ("40 40 60 60 3\n", Layout.DEEPPCB),
        ("40,40,60,60,3", Layout.DEEPPCB),
        ("\n40\t40 60  60 3 \r\n\n", Layout.DEEPPCB),
    ],
)
def test_both_layouts_give_the_same_box_in_pixels(tmp_path: Path, line: str, layout: Layout) -> None:
    root = folder(tmp_path, {"one": line})
    assert read_labelled(root)[0].layout is layout
    assert marked(root) == [Marked(0, 2, 40, 40, 60, 60)]


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a": "\ufeff40 40 60 60 3\n", "b": "\ufeff"})
    (root / "val.txt").write_text("a\nb\n", encoding="utf-8-sig")
    assert [len(one.rows) for one in read_labelled(root, split="val")] == [1, 0]


def test_a_picture_without_a_label_has_no_defect(tmp_path: Path) -> None:
    root = folder(tmp_path, {"bad": "40 40 60 60 3", "empty": "", "good": None})
    assert [(one.name, len(one.rows)) for one in read_labelled(root)] == [("bad", 1), ("empty", 0), ("good", 0)]


def test_a_part_is_a_list_of_names_or_a_folder(tmp_path: Path) -> None:
    listed = folder(tmp_path / "listed", {"a": "40 40 60 60 3", "b": "40 40 60 60 3"})
    (listed / "val.txt").write_text("b\n")
    assert [one.name for one in read_labelled(listed, split="val")] == ["b"]
    (listed / "val.txt").write_text("./images/b.png\n")
    assert [one.name for one in read_labelled(listed, split="val")] == ["b"]
    sorted_ = folder(tmp_path / "sorted", {"train/a": "0 0.5 0.5 0.1 0.1", "val/b": "0 0.5 0.5 0.1 0.1"})
    assert [one.name for one in read_labelled(sorted_, split="val")] == ["val/b"]
    assert len(read_labelled(sorted_)) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 2 3", r"one\.txt:1: '1 2 3' is neither YOLO's"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", r"one\.txt:1"),  # a segmentation
        ("open 1 2 3 4", r"one\.txt:1"),
        ("0 0.5 0.5 1.2 0.1", r"one\.txt: 0 0\.5 0\.5 1\.2 0\.1 is neither"),
        ("60 60 40 40 3", r"one\.txt: 60 60 40 40 3 is neither"),
        ("nan nan nan nan nan", r"is neither"),
        ("0 0.5 0.5 0.1 0.1\n40 40 60 60 3", "of two kinds"),
    ],
)
def test_a_label_that_is_not_understood_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(LabelsError, match=said):
        read_labelled(folder(tmp_path, {"one": line}))


def test_a_folder_that_is_none_of_ours_is_told_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"images is no folder: give a folder with images/ and labels/"):
        read_labelled(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(LabelsError, match="has no picture"):
        read_labelled(tmp_path)
    with pytest.raises(LabelsError, match="has no label for any picture"):
        read_labelled(folder(tmp_path, {"one": None}))
    assert [len(one.rows) for one in read_labelled(tmp_path, unlabelled=True)] == [0]
    with pytest.raises(LabelsError, match="no part 'val'"):
        read_labelled(folder(tmp_path, {"one": "40 40 60 60 3"}), split="val")
    (tmp_path / "val.txt").write_text("two\n")
    with pytest.raises(LabelsError, match="names two, which is not in"):
        read_labelled(tmp_path, split="val")


def test_a_class_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    boards = read_labelled(folder(tmp_path, {"one": "40 40 60 60 3"}))
    assert renumbered(boards, ("open", "short", "spur")) == boards
    with pytest.raises(LabelsError, match=r"one is labelled with class 3, but the model knows only 2 labels"):
        renumbered(boards, ("open", "short"))


def test_classes_are_what_the_data_yaml_beside_them_calls_them(tmp_path: Path) -> None:
    """As ``station ledger export --dataset`` writes it: by name, and not in the model's order."""
    root = folder(tmp_path, {"one": "0 0.25 0.5 0.1 0.2\n2 0.25 0.5 0.1 0.2"})
    (root / "data.yaml").write_text('path: .\nnames:\n  0: "open"\n  1: "short"\n  2: "spur"\n', encoding="utf-8-sig")
    boards = read_labelled(root)
    (board,) = renumbered(boards, ("spur", "copper", "open"))
    assert [one.class_id for one in board.rows] == [2, 0]

    def detect(_: Image) -> list[Defect]:
        return [Defect("spur", 0.9, Box(40, 40, 20, 20), "test")]

    hits = hits_by_label(detect, boards, ("spur", "copper", "open"))
    assert [(label, one.right.tolist(), one.labelled) for label, one in hits.items()] == [
        ("spur", [True], 1),
        ("copper", [], 0),
        ("open", [], 1),
    ]
    with pytest.raises(
        LabelsError, match=r"one is labelled with spur \(class 2 of data\.yaml\), but the model knows only"
    ):
        renumbered(boards, ("open", "short"))
    (root / "data.yaml").write_text("names: [open]\n")
    with pytest.raises(LabelsError, match=r"one is labelled with class 2, which data\.yaml does not name"):
        renumbered(read_labelled(root), ("open", "short"))


def test_a_data_yaml_above_a_part_of_the_data_set_names_its_classes_too(tmp_path: Path) -> None:
    """As Roboflow lays a data set out: data.yaml, train/images, train/labels."""
    root = folder(tmp_path / "train", {"one": "0 0.25 0.5 0.1 0.2"})
    (tmp_path / "data.yaml").write_text("names: [spur]\n")
    (board,) = renumbered(read_labelled(root), ("open", "spur"))
    assert board.rows[0].class_id == 1
    (root / "data.yaml").write_text("names: [open]\n")  # its own is nearer
    (board,) = renumbered(read_labelled(root), ("open", "spur"))
    assert board.rows[0].class_id == 0


def test_a_data_yaml_above_is_found_from_within_the_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.yaml").write_text("names: [spur]\n")
    monkeypatch.chdir(folder(tmp_path / "train", {"one": "0 0.25 0.5 0.1 0.2"}))
    assert read_labelled(Path())[0].names == {0: "spur"}


@pytest.mark.parametrize("text", ["nc: 3\n", "names: {0: open}\n", "names:\n  0: caf\xe9\n"])
def test_a_data_yaml_that_is_not_understood_is_refused_and_never_passed_over(tmp_path: Path, text: str) -> None:
    root = folder(tmp_path, {"one": "0 0.25 0.5 0.1 0.2"})
    (root / "data.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(
        LabelsError, match=r"data\.yaml: what the classes are called is not understood: .*names: \[open"
    ):
        read_labelled(root)


def test_a_data_yaml_says_nothing_of_deeppcbs_own_layout(tmp_path: Path) -> None:
    root = folder(tmp_path, {"one": "40 40 60 60 1"})
    (root / "data.yaml").write_text("names: [short, open]\n")
    (board,) = renumbered(read_labelled(root), ("open", "short"))
    assert board.rows[0].class_id == 0


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"none\.png cannot be read"):
        load(tmp_path / "none.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(LabelsError, match=r"cut\.png is no whole picture"):
        load(tmp_path / "cut.png")
    (tmp_path / "vast.png").write_bytes(png_head(20_000, 20_000))
    with pytest.raises(LabelsError, match=r"vast\.png is no whole picture: too many pixels"):
        load(tmp_path / "vast.png")


def test_what_a_detector_finds_is_counted_by_label(tmp_path: Path) -> None:
    boards = read_labelled(folder(tmp_path, {"bad": "40 40 60 60 1", "good": None}))

    def detect(image: Image) -> list[Defect]:
        assert image.shape == (HEIGHT_PX, WIDTH_PX, 3)
        return [Defect("open", 0.9, Box(40, 40, 20, 20), "test"), Defect("spur", 0.3, Box(0, 0, 9, 9), "test")]

    hits = hits_by_label(detect, boards, ("open", "spur"))
    # The same is said of the good board: there it is a false call.
    assert (hits["open"].right.tolist(), hits["open"].labelled) == ([True, False], 1)
    assert (hits["spur"].right.tolist(), hits["spur"].labelled) == ([False, False], 0)


def test_a_label_that_nobody_asked_for_is_left_out() -> None:
    assert as_marked([Defect("scratch", 0.9, Box(0, 0, 9, 9), "test")], 0, ("open",)) == []
