"""The scripts that judge a detector and report on it, on a few boards whose figures are worked out by hand."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import evaluate
import numpy as np
import pytest
from card import table
from cases import confusion, picture_of, worst_false_calls, worst_misses
from judge import BoardDetector, BothJudge, Judgement, Told, choose, judge, part_of

from station.commands.model import toml_of
from station.errors import DetectorError, LabelsError
from station.types import Box, Defect, Image, ModelInfo, Recipe, Region
from tests.detectors.models import save
from tests.detectors.outputs import rows

SIZE_PX = 160
LABELS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
RECIPE = Recipe("default", 0.5)

# Name of the board (its mean grey), what is labelled on it (DeepPCB's layout), and whether it has a template.
BOARDS = {
    "11000001": (40, "10 10 30 30 1\n100 100 120 120 2", True),
    "11000002": (60, "10 10 30 30 1\n60 60 80 80 4", True),
    "22000003": (80, "", True),
}
TEMPLATE_GREY = 200


def found(label: str, score: float, x: float, y: float, *, size: float = 20) -> Defect:
    return Defect(label, score, Box(x, y, size, size), "fake")


# What the fake finds, by the grey of the picture: a hit and a miss, a hit too weak and a mistaken label, a false call.
ANSWERS = {
    40: [found("open", 0.9, 10, 10)],
    60: [found("open", 0.3, 10, 10), found("mousebite", 0.8, 60, 60)],
    80: [found("pin-hole", 0.7, 120, 20)],
    TEMPLATE_GREY: [found("pin-hole", 0.6, 120, 20)],
}


class Fake:
    """A detector that knows the answers by the picture's first pixel."""

    model = ModelInfo("fake", "0" * 64)

    def __init__(
        self, labels: tuple[str, ...] = LABELS, *, compares: bool = False, rename: dict[str, str] | None = None
    ) -> None:
        self.labels = labels
        self.compares = compares
        self.told: list[Path | None] = []
        self._rename = rename or {}

    def detect(self, board: Image, template: Path | None) -> Told:
        self.told.append(template)
        answers = ANSWERS[int(board[0, 0, 0])]
        told = [Defect(self._rename.get(d.label, d.label), d.confidence, d.box, d.found_by) for d in answers]
        return Told(told, told)


def plain(grey: int) -> Image:
    """A board of one grey, but for a corner: where there is nothing to be seen no board is judged."""
    board = np.full((SIZE_PX, SIZE_PX, 3), grey, np.uint8)
    board[-20:, -20:] = 255
    return board


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The boards as a folder with images, labels and templates."""
    root = tmp_path / "data"
    for name in ("images", "labels", "templates"):
        (root / name).mkdir(parents=True)
    for name, (grey, labels, has_template) in BOARDS.items():
        cv2.imwrite(str(root / "images" / f"{name}.png"), plain(grey))
        (root / "labels" / f"{name}.txt").write_text(labels)
        if has_template:
            cv2.imwrite(str(root / "templates" / f"{name}.png"), plain(TEMPLATE_GREY))
    return root


def judged(
    data: Path, detector: BoardDetector | None = None, *, recipe: Recipe = RECIPE, blind: bool = False
) -> Judgement:
    boards = choose(data, split="all")
    return judge(detector or Fake(), boards, recipe=recipe, templates=data / "templates", blind=blind)


@pytest.fixture
def judgement(data: Path) -> Judgement:
    return judged(data)


def test_the_figures_by_hand(judgement: Judgement) -> None:
    figures = evaluate.evaluate(judgement)
    # Open: both found, nothing wrong. Short and spur: never. Mousebite and pin-hole are not labelled: no figure.
    assert figures["mAP33"] == figures["mAP50"] == figures["mAP50_95"] == pytest.approx(1 / 3)
    # At 0.5 one of three is right, and one of four is found.
    at = figures["f_score_recipe"]
    assert (at["precision"], at["recall"], at["value"]) == (pytest.approx(1 / 3), 0.25, pytest.approx(2 / 7))
    # At 0.9 the only one is right: 1 of 4, F = 0.4; at 0.3 two of four: 0.5.
    assert figures["f_score"]["value"] == 0.5
    assert figures["f_score"]["threshold"] == 0.3
    assert figures["classes"]["open"]["recall"] == 0.5
    assert figures["classes"]["pin-hole"]["AP33"] is None
    assert "copper" not in figures["classes"]
    assert (figures["defective_boards"], figures["defective_boards_passed"]) == (2, 0)
    assert (figures["templates"], figures["templates_failed"]) == (3, 3)
    assert figures["templates_failed_at"]["0.60"] == 3
    assert figures["templates_failed_at"]["0.70"] == 0


def test_what_the_recipe_does_not_count_lets_boards_pass(data: Path) -> None:
    figures = evaluate.evaluate(judged(data, recipe=Recipe("mild", 0.85, {"pin-hole": 0.65})))
    assert figures["defective_boards_passed"] == 1
    assert figures["templates_failed"] == 0


def test_thresholds_weigh_the_templates_too(judgement: Judgement) -> None:
    cost = evaluate.evaluate(judgement, miss_cost=10)["cost"]["labels"]
    # Four labelled in all: too few for any label to decide alone. Down to 0.3 all labels together miss two (20) and
    # make five false calls, three of them on templates; at 0.85 they would miss three (30).
    assert {one["pooled"] for one in cost.values()} == {True}
    assert cost["open"]["misses"] == 0
    assert cost["pin-hole"]["false_calls"] == 4


def test_the_line_to_paste_is_toml() -> None:
    assert toml_of({"open": 0.25, "pin-hole": 0.5}) == 'thresholds = { "open" = 0.25, "pin-hole" = 0.5 }'


def test_the_card_of_the_model_says_the_same(judgement: Judgement) -> None:
    card = table(evaluate.evaluate(judgement))
    assert "| open | 1.000 | 1.000 | 1.000 | 0.500 |" in card
    assert "| pin-hole | - | - | 0.000 | - |" in card
    assert "| **all** | **0.333** | **0.333** | 0.333 | 0.250 |" in card
    assert "F-score 0.286 at the recipe's thresholds" in card
    assert "Of 3 defect-free templates 3 would fail there" in card


def test_good_boards_are_counted_beside_the_templates(judgement: Judgement) -> None:
    figures = evaluate.evaluate(judgement)
    # On the third board nothing is labelled, and a pin-hole is found with 0.7.
    assert (figures["good_boards"], figures["good_boards_failed"]) == (1, 1)
    assert (figures["good_boards_failed_at"]["0.70"], figures["good_boards_failed_at"]["0.80"]) == (1, 0)


def test_of_good_boards_alone_the_figures_that_do_not_exist_are_none(data: Path) -> None:
    shutil.rmtree(data / "labels")
    figures = evaluate.evaluate(judged(data))
    assert figures["mAP33"] is figures["f_score"]["value"] is figures["f_score"]["threshold"] is None
    assert figures["f_score_recipe"] == {"value": None, "precision": 0.0, "recall": None}
    assert (figures["good_boards"], figures["good_boards_failed"], figures["templates_failed"]) == (3, 3, 3)
    blind = evaluate.evaluate(judged(data, blind=True))
    assert list(blind["classes"]) == ["defect"]


def test_what_the_recipe_suppresses_is_found_by_nobody(data: Path) -> None:
    there = Region("logo", Box(90, 0, 70, 60))
    figures = evaluate.evaluate(judged(data, recipe=replace(RECIPE, ignore=(there,))))
    assert figures["classes"].get("pin-hole") is None
    assert (figures["good_boards_failed"], figures["templates_failed"]) == (0, 0)
    assert figures["good_boards_failed_at"]["0.25"] == 0
    figures = evaluate.evaluate(judged(data, recipe=replace(RECIPE, min_area_px=401)))
    assert (figures["mAP33"], figures["defective_boards_passed"]) == (0.0, 2)
    assert evaluate.evaluate(judged(data, recipe=replace(RECIPE, min_area_px=400)))["defective_boards_passed"] == 0


def test_a_picture_without_a_board_is_unknown_as_on_the_line(data: Path) -> None:
    cv2.imwrite(str(data / "images" / "11000001.png"), np.full((SIZE_PX, SIZE_PX, 3), 40, np.uint8))
    assert evaluate.evaluate(judged(data))["unknown_boards"] == 1
    assert evaluate.evaluate(judged(data, recipe=replace(RECIPE, min_contrast=0.0)))["unknown_boards"] == 0


def test_what_counts_is_what_the_station_would_have_listed(data: Path) -> None:
    class Unsure(Fake):
        """Where tiles are united, what none is sure of has a say in what others saw."""

        def detect(self, board: Image, template: Path | None) -> Told:
            told = super().detect(board, template).every
            return Told([*told, found("copper", 0.9, 60, 100)], told)

    figures = evaluate.evaluate(judged(data, Unsure()))
    assert figures["classes"]["copper"]["precision"] is None
    assert figures["f_score_recipe"]["precision"] == pytest.approx(1 / 3)


def test_a_family_is_the_start_of_a_name(data: Path) -> None:
    assert [one.name for one in choose(data, split="all", families=["22"])] == ["22000003"]
    assert len(choose(data, split="all", families=["11", "22"])) == 3
    with pytest.raises(LabelsError, match=r"no board of .* that starts with 33 or 44"):
        choose(data, split="all", families=["33", "44"])


def test_the_part_that_is_kept_to_judge_is_taken_where_there_is_one(data: Path) -> None:
    assert (part_of(data, None), part_of(data, "train")) == ("all", "train")
    (data / "val.txt").write_text("11000002\n")
    assert part_of(data, None) == "val"
    assert [one.name for one in choose(data, split="val")] == ["11000002"]


def test_a_detector_that_compares_is_told_the_template_of_each_board(data: Path) -> None:
    fake = Fake(compares=True)
    judgement = judged(data, fake)
    wanted = [data / "templates" / f"{name}.png" for name in BOARDS for _ in ("board", "template")]
    assert fake.told == wanted
    assert judgement.moved


def test_a_detector_that_compares_needs_every_template(data: Path) -> None:
    boards = choose(data, split="all")
    with pytest.raises(LabelsError, match="there is no folder of them: use --templates"):
        judge(Fake(compares=True), boards, recipe=RECIPE, templates=None)
    (data / "templates" / "11000002.png").unlink()
    with pytest.raises(LabelsError, match="has none for 11000002: use --templates"):
        judge(Fake(compares=True), boards, recipe=RECIPE, templates=data / "templates")


def test_labels_of_its_own_are_judged_without_regard_to_class(data: Path) -> None:
    fake = Fake(("difference",), compares=True, rename=dict.fromkeys(LABELS, "difference"))
    figures = evaluate.evaluate(judged(data, fake, blind=True))
    assert list(figures["classes"]) == ["defect"]
    # Of four labelled it finds the open and, under whatever name, the spur; and one thing on the third board.
    assert figures["f_score_recipe"]["recall"] == 0.5
    assert figures["f_score_recipe"]["precision"] == pytest.approx(2 / 3)


def test_classes_without_a_name_do_not_hinder_who_is_blind(data: Path) -> None:
    (data / "labels" / "11000001.txt").write_text("7 0.125 0.125 0.125 0.125")
    (data / "labels" / "11000002.txt").write_text("")
    fake = Fake(("difference",), compares=True, rename=dict.fromkeys(LABELS, "difference"))
    assert evaluate.evaluate(judged(data, fake, blind=True))["mAP33"] == 1.0
    with pytest.raises(LabelsError, match="labelled with class 7"):
        judged(data, fake)


def test_what_is_refused_is_unknown_and_no_pass(data: Path) -> None:
    class Refusing(Fake):
        def detect(self, board: Image, template: Path | None) -> Told:
            raise DetectorError("does not fit")

    figures = evaluate.evaluate(judged(data, Refusing()))
    assert (figures["unknown_boards"], figures["unknown_templates"]) == (3, 3)
    assert (figures["defective_boards_passed"], figures["templates_failed"]) == (0, 3)
    assert figures["mAP33"] == 0.0


def test_a_model_of_other_classes_is_refused(data: Path) -> None:
    with pytest.raises(LabelsError, match="these boards are of another model"):
        judged(data, Fake(("open", "short")))


def test_who_was_taken_for_what_by_hand(judgement: Judgement) -> None:
    table = confusion(judgement)
    nothing = len(LABELS)
    said = {
        (*LABELS, "nothing")[row] + " as " + (*LABELS, "nothing")[column]: int(table[row, column])
        for row, column in np.argwhere(table)
    }
    assert said == {
        "open as open": 1,
        "open as nothing": 1,
        "short as nothing": 1,
        "spur as mousebite": 1,
        "nothing as pin-hole": 1,
    }
    assert table[nothing, nothing] == 0


def test_the_worst_misses_are_those_that_it_saw_least_of(judgement: Judgement) -> None:
    assert [one.said for one in worst_misses(judgement, most=9)] == [
        "short missed: nothing was found there",
        "spur missed: called mousebite 0.80",
        "open missed: found with 0.30 only",
    ]
    assert len(worst_misses(judgement, most=1)) == 1


def test_the_worst_false_calls_are_the_surest_and_of_different_boards(judgement: Judgement) -> None:
    assert [(one.board, one.said) for one in worst_false_calls(judgement, most=9)] == [
        ("11000002", "mousebite 0.80 where spur is labelled"),
        ("22000003", "pin-hole 0.70 where nothing is labelled"),
        ("11000001", "pin-hole 0.60 on a defect-free template"),
        ("11000002", "pin-hole 0.60 on a defect-free template"),
        ("22000003", "pin-hole 0.60 on a defect-free template"),
    ]


def test_a_case_is_shown_beside_its_template(judgement: Judgement) -> None:
    miss, on_template = worst_misses(judgement, most=1)[0], worst_false_calls(judgement, most=3)[2]
    shown = picture_of(miss, judgement)
    assert shown.shape[1] > 2 * shown.shape[0]
    assert shown[5, 5].tolist() == [40 // 2 + 96] * 3
    assert shown[5, -5].tolist() == [TEMPLATE_GREY // 2 + 96] * 3
    alone = picture_of(on_template, judgement)
    assert alone.shape[0] == alone.shape[1]


def test_both_are_united_as_on_the_line(data: Path) -> None:
    golden = Fake(("darker",), compares=True, rename=dict.fromkeys(LABELS, "darker"))
    both = BothJudge(Fake(), golden, recipe=RECIPE)
    judgement = judged(data, both, blind=True)
    # They see the same, so everything is there once; what is labelled and seen by either is found.
    assert len(judgement.found) == 4
    assert evaluate.evaluate(judgement)["f_score_recipe"]["recall"] == 0.5
    assert set(golden.told) == {data / "templates" / f"{name}.png" for name in BOARDS}


# --- as the line judges

BIG_PX, TILE_PX, STEP_PX = 160, 64, 32  # tiles of 64 overlap by half: there is no smaller network to cut pictures for


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A board larger than the network, which finds one defect in whatever it is shown; and labels for each tile."""
    root = tmp_path / "big"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    board = np.full((BIG_PX, BIG_PX), 1000, np.uint16)  # of 4095: its camera has 12 bits
    board[:80] = 2000
    cv2.imwrite(str(root / "images" / "one.png"), board)
    places = [(x, y) for y in range(0, BIG_PX - TILE_PX + 1, STEP_PX) for x in range(0, BIG_PX - TILE_PX + 1, STEP_PX)]
    labels = [f"{x + 15} {y + 26} {x + 25} {y + 34} 1" for x, y in places]
    (root / "labels" / "one.txt").write_text("\n".join(labels))
    save(root / "model.onnx", rows((20, 30, 10, 8, 0.9, 0), (23, 30, 10, 8, 0.8, 0), (20, 50, 4, 4, 0.01, 0.0)))
    return root


@pytest.fixture
def on_line(big: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """What evaluate.py makes of the big board for a line of this configuration, after the bit depth."""

    def run(config: str, *, depth_bits: int = 12) -> dict[str, Any]:
        (big / "station.toml").write_text(f"[source]\ndepth_bits = {depth_bits}\n{config}")
        options = ["--data", big, "--model", big / "model.onnx", "--config", big / "station.toml"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, options), "--json", str(big / "figures.json")])
        evaluate.main()
        figures: dict[str, Any] = json.loads((big / "figures.json").read_text())
        return figures

    return run


def test_a_picture_larger_than_the_network_is_cut_as_on_the_line(on_line: Callable[..., dict[str, Any]]) -> None:
    figures = on_line("")
    assert figures["labelled_defects"] == 16
    assert figures["f_score_recipe"] == {"value": 1.0, "precision": 1.0, "recall": 1.0}
    assert figures["mAP33"] == 1.0
    scaled = on_line('[detector]\ntiles = "off"\n')
    assert scaled["f_score_recipe"]["recall"] == 0.0


def test_the_overlap_the_bit_depth_and_what_the_recipe_hides_are_those_of_the_line(
    on_line: Callable[..., dict[str, Any]],
) -> None:
    twice = on_line("[detector]\niou = 0.6\n")
    assert twice["f_score_recipe"]["precision"] == pytest.approx(0.5, abs=0.1)
    assert on_line("", depth_bits=16)["unknown_boards"] == 1  # too dark to show a board
    assert on_line("[recipe]\nmin_area_px = 81\n")["f_score_recipe"]["recall"] == 0.0
    hidden = '[recipe]\nignore = [{ name = "logo", x = 0, y = 0, width = 160, height = 50 }]\n'
    assert on_line(hidden)["f_score_recipe"]["recall"] == 0.75


def test_what_the_line_could_not_tell_is_unknown(on_line: Callable[..., dict[str, Any]], big: Path) -> None:
    many = [(4 * (number % 16) + 1, 3 * (number // 16) + 1, 1, 1, 0.9, 0) for number in range(320)]
    save(big / "model.onnx", rows(*many))
    assert on_line("")["unknown_boards"] == 1  # more than are told, and all of them count


# --- as a person starts them


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a script with options, and the fake in place of a model."""

    def run(script: str, *options: str | Path) -> None:
        monkeypatch.setattr("judge.open_detector", lambda *_, **__: Fake())
        monkeypatch.setattr("evaluate.open_detector", lambda *_, **__: Fake())
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, options)])
        __import__(script).main()

    return run


def test_the_table_and_the_document_say_the_same(
    data: Path, tmp_path: Path, start: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    start("evaluate", "--data", data, "--json", tmp_path / "figures.json", "--miss-cost", 10, "--threshold", 0.5)
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["f_score_recipe"]["value"] == pytest.approx(2 / 7)
    assert "F-score 0.2857 there; at best 0.5000, at 0.300 for all" in shown
    assert "defect-free templates that would fail: 3 of 3" in shown
    assert 'thresholds = { "open" = ' in shown


def test_a_folder_of_good_boards_alone_is_judged_and_what_does_not_exist_is_a_dash(
    data: Path, start: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for labels in (data / "labels").iterdir():
        labels.unlink()
    start("evaluate", "--data", data)
    shown = capsys.readouterr().out
    assert "No defect is labelled: all boards are taken to be defect-free." in shown
    assert "defect-free boards that would fail: 3 of 3" in shown
    assert re.search(r"all\W+0\W+-\W+-\W+-\W+0\.0000\W+-", shown)


def test_a_threshold_on_the_command_line_holds_instead_of_the_lines_own(
    data: Path, start: Callable[..., None], tmp_path: Path
) -> None:
    config = tmp_path / "station.toml"
    config.write_text("[recipe]\nmin_area_px = 401\nthreshold = 0.9\nthresholds = { spur = 0.1 }\n")
    for options, threshold, thresholds in (([], 0.9, {"spur": 0.1}), (["--threshold", 0.25], 0.25, {})):
        start("evaluate", "--data", data, "--config", config, *options, "--json", tmp_path / "figures.json")
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert (figures["recipe"]["threshold"], figures["recipe"]["thresholds"]) == (threshold, thresholds)
        assert figures["defective_boards_passed"] == 2  # too small, all of them


def test_the_shipped_recipe_judges_unless_another_is_named(
    data: Path, start: Callable[..., None], tmp_path: Path
) -> None:
    start("evaluate", "--data", data, "--json", tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["recipe"]["name"] == "default"


@pytest.mark.parametrize("script", ["evaluate", "report"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "/no/such/folder"], "/no/such/folder/images is no folder: give a folder with images/ and labels/"),
        (["--data", "DATA", "--split", "test"], "no part 'test'"),
        (["--data", "DATA", "--family", "9"], "starts with 9"),
        (["--data", "DATA", "--config", "/no/such.toml"], "/no/such.toml does not exist"),
        (["--data", "DATA", "--miss-cost", "0"], "how many false calls one miss is worth"),
        (["--data", "DATA", "--threshold", "0.5", "--config", "x"], "x does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    script: str,
    options: list[str],
    said: str,
    data: Path,
    tmp_path: Path,
    start: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if script == "report":
        pytest.importorskip("matplotlib", reason="the report is drawn with matplotlib")
        options = [*options, "--out", str(tmp_path / "report")]
    with pytest.raises(SystemExit) as stopped:
        start(script, *(str(data) if one == "DATA" else one for one in options))
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_report_without_matplotlib_says_what_to_install(
    data: Path,
    tmp_path: Path,
    start: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "charts", raising=False)
    with pytest.raises(SystemExit):
        start("report", "--data", data, "--out", tmp_path / "report")
    assert "pip install matplotlib" in capsys.readouterr().err


def test_a_report_shows_curves_figures_and_the_worst_cases(
    data: Path, tmp_path: Path, start: Callable[..., None]
) -> None:
    pytest.importorskip("matplotlib", reason="the report is drawn with matplotlib")
    results = tmp_path / "results.csv"
    results.write_text(
        "epoch,time,train/box_loss,metrics/mAP50(B),val/box_loss\n1,10,1.5,0.2,1.6\n2,20,1.2,0.5,1.4\n",
        encoding="utf-8",
    )
    out = tmp_path / "report"
    for _ in range(2):  # again over the first
        start("report", "--data", data, "--results", results, "--out", out, "--threshold", 0.5)
    page = (out / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert {"training.png", "confusion.png", "precision-recall.png", "thresholds.png"} <= set(shown)
    assert len([one for one in shown if one.startswith("misses/")]) == 3
    assert len([one for one in shown if one.startswith("false-calls/")]) == 5
    for one in shown:
        assert cv2.imread(str(out / one)) is not None
    assert "spur missed: called mousebite 0.80" in page
    assert json.loads((out / "figures.json").read_text())["boards"] == 3


def test_a_report_on_good_boards_alone_has_their_false_calls(
    data: Path, tmp_path: Path, start: Callable[..., None]
) -> None:
    pytest.importorskip("matplotlib", reason="the report is drawn with matplotlib")
    shutil.rmtree(data / "labels")
    start("report", "--data", data, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<td>defect-free boards that would fail</td><td>3 of 3</td>" in page
    assert "there is none to be weighed" in page
    assert "Worst misses (0)" in page
