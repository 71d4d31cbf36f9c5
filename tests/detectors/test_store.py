"""The model store: what goes in whole, stays whole; what is used; and the finding of a model by name or path."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from station.detectors.card import Card, KnownBoard, Timing, read_card, sha256_of, write_card
from station.detectors.store import BUNDLED, Good, ModelStore, find_model
from station.errors import ModelError

BOARD = b"a picture"
LABELS = ("open", "short")


def card_of(name: str, model: Path, *boards: KnownBoard) -> Card:
    return Card(name, sha256_of(model), "best.onnx", "2026-11-23T10:00:00Z", "test", LABELS, 64, 64, boards)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "data" / "models")


@pytest.fixture
def filled(store: ModelStore, tmp_path: Path) -> ModelStore:
    """Models a, b and c, each with a file of its own and one board."""
    picture = tmp_path / "board.png"
    picture.write_bytes(BOARD)
    known = KnownBoard("fail-01.png", hashlib.sha256(BOARD).hexdigest(), "fail", "open", 0.9)
    for name in "abc":
        model = tmp_path / f"{name}.onnx"
        model.write_bytes(name.encode() * 1000)
        store.add(card_of(name, model, known), model=model, boards={"fail-01.png": picture})
    return store


def test_the_bundled_model_is_found_with_the_checksum_of_its_card(tmp_path: Path) -> None:
    (tmp_path / "pcb-demo.json").write_text('{"sha256": "abc", "figures": {}}')
    found = find_model(BUNDLED, assets=tmp_path)
    assert (found.name, found.path, found.sha256) == ("pcb-demo", tmp_path / "pcb-demo.onnx", "abc")


@pytest.mark.parametrize("card", [None, "", "{", "{}", "[]", "null"])
def test_a_bundled_model_without_a_good_card_is_not_used(tmp_path: Path, card: str | None) -> None:
    if card is not None:
        (tmp_path / "pcb-demo.json").write_text(card)
    with pytest.raises(ModelError, match="install the station again"):
        find_model(BUNDLED, assets=tmp_path)


def test_a_file_is_named_by_its_stem(tmp_path: Path) -> None:
    (tmp_path / "line-3.onnx").touch()
    found = find_model(str(tmp_path / "line-3.onnx"))
    assert (found.name, found.sha256) == ("line-3", None)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("best.pt", "no such file"),
        ("best.onnx", "no such file"),
        ("./line", "no such file"),
        ("line", "pcb-demo, pcb-pair, a, b"),
    ],
)
def test_a_model_that_is_not_there_says_what_would_be_accepted(filled: ModelStore, wanted: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        find_model(wanted, store=filled)


def test_the_store_is_the_bundled_model_until_another_is_chosen(filled: ModelStore) -> None:
    assert find_model("store", store=filled).name == BUNDLED
    filled.use("b", LABELS)
    found = find_model("store", store=filled)
    assert (found.name, found.path) == ("b", filled.folder / "b" / "model.onnx")
    assert found.sha256 == sha256_of(found.path)


def test_a_name_in_the_configuration_wins_over_the_choice(filled: ModelStore) -> None:
    filled.use("b", LABELS)
    assert find_model("a", store=filled).name == "a"
    assert find_model(BUNDLED, store=filled).name == BUNDLED


def test_rolling_back_goes_through_all_earlier_choices_and_ends(filled: ModelStore) -> None:
    for name in "abcb":
        filled.use(name, LABELS)
    for name in ("c", "a", BUNDLED):
        assert filled.previous() == name
        filled.rollback(name, LABELS)
        assert filled.current() == name
    with pytest.raises(ModelError, match="nothing to roll back to"):
        filled.rollback(BUNDLED, LABELS)


def test_a_rollback_goes_to_the_model_that_was_tested_or_nowhere(filled: ModelStore) -> None:
    filled.use("a", LABELS)
    filled.use("b", LABELS)
    tested = filled.previous()
    filled.use("c", LABELS)  # by another command, while this one was testing
    with pytest.raises(ModelError, match="chosen meanwhile"):
        filled.rollback(tested, LABELS)
    assert filled.current() == "c"


def test_of_two_that_choose_at_once_neither_choice_is_lost(filled: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    other, waiting = ModelStore(filled.folder), threading.Event()
    flock, choices = fcntl.flock, filled._choices

    def choose() -> None:
        other.use("b", LABELS)
        waiting.set()

    thread = threading.Thread(target=choose)

    def noticed(descriptor: int, operation: int) -> None:
        if threading.current_thread() is thread:
            waiting.set()
        flock(descriptor, operation)

    def meanwhile(*, damaged_is_none: bool = False) -> list[str]:
        found = choices(damaged_is_none=damaged_is_none)
        thread.start()
        assert waiting.wait(10)  # for the lock, or it is through already
        return found

    monkeypatch.setattr(fcntl, "flock", noticed)
    monkeypatch.setattr(filled, "_choices", meanwhile)
    filled.use("a", LABELS)
    thread.join(10)
    assert json.loads((filled.folder / "current.json").read_text())["use"] == ["b", "a", BUNDLED]


def test_two_that_write_at_once_do_not_share_a_draft(filled: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a share without locks, where one may write while the other does."""
    other, replace = ModelStore(filled.folder), Path.replace

    def unlocked(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def meanwhile(draft: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        other.use("b", LABELS)
        return replace(draft, target)

    monkeypatch.setattr(fcntl, "flock", unlocked)
    monkeypatch.setattr(Path, "replace", meanwhile)
    filled.use("a", LABELS)
    assert filled.current() == "a"


def test_what_a_killed_import_left_is_cleared_and_what_one_is_making_is_not(filled: ModelStore, tmp_path: Path) -> None:
    left, made = filled.folder / ".importing-left", filled.folder / ".importing-made"
    for draft in (left, made):
        (draft / "model").mkdir(parents=True)
        (draft / "model" / "model.onnx").write_bytes(b"half")
    (filled.folder / ".part-left").touch()
    descriptor = os.open(made, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    model = tmp_path / "d.onnx"
    model.write_bytes(b"d")
    filled.add(card_of("d", model), model=model, boards={})
    os.close(descriptor)
    assert sorted(one.name for one in filled.folder.glob(".*")) == [made.name]
    assert filled.names() == ["a", "b", "c", "d"]


def test_an_import_holds_its_draft_until_it_is_through(
    filled: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"m")
    adopt, names = filled._adopt, ["e", "d"]

    def another_import(path: Path) -> None:
        adopt(path)
        if names[1:]:
            names.pop()
            ModelStore(filled.folder).add(card_of("e", model), model=model, boards={})

    monkeypatch.setattr(filled, "_adopt", another_import)
    filled.add(card_of("d", model), model=model, boards={})
    assert filled.names() == ["a", "b", "c", "d", "e"]
    assert not list(filled.folder.glob(".*"))


def test_a_crash_while_choosing_leaves_the_old_choice(filled: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.use("a", LABELS)

    def crash(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(ModelError, match="No space left"):
        filled.use("b", LABELS)
    monkeypatch.undo()
    assert ModelStore(filled.folder).current() == "a"


@pytest.mark.parametrize("text", ["", "{", '{"use": []}', '{"use": ["../x"]}', '{"use": [1]}', "[]"])
def test_a_damaged_choice_is_an_error_that_a_new_choice_mends(filled: ModelStore, text: str) -> None:
    (filled.folder / "current.json").write_text(text)
    with pytest.raises(ModelError, match="station model use NAME"):
        find_model("store", store=filled)
    filled.use("a", LABELS)
    assert filled.current() == "a"


def test_a_model_that_is_not_there_cannot_be_chosen(filled: ModelStore) -> None:
    with pytest.raises(ModelError, match="there is no model d"):
        filled.use("d", LABELS)
    assert not (filled.folder / "current.json").exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "x y", "a.onnx", "a.pt", "-a", "pcb-demo", "pcb-pair", "store"]
)
def test_a_name_that_could_be_a_path_or_the_stations_own_is_refused(
    store: ModelStore, tmp_path: Path, name: str
) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"m")
    with pytest.raises(ModelError, match="name"):
        store.add(card_of(name, model), model=model, boards={})
    assert not store.folder.exists()


def test_a_taken_name_is_refused_and_the_first_model_stays(filled: ModelStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with pytest.raises(ModelError, match="already"):
        filled.add(card_of("a", other), model=other, boards={})
    assert sha256_of(filled.folder / "a" / "model.onnx") == filled.card("a").sha256


def test_a_model_that_changes_while_it_is_imported_is_not_taken(store: ModelStore, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"before")
    card = card_of("m", model)
    model.write_bytes(b"after!")
    with pytest.raises(ModelError, match="changed while"):
        store.add(card, model=model, boards={})
    assert store.names() == []
    assert list(store.folder.iterdir()) == []


def test_a_card_reads_as_it_was_written(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"m")
    card = dataclasses.replace(
        card_of("m", model, KnownBoard("f", "s", "pass", None, 0.0)),
        timing=Timing(12.5, 20, "CPU"),
        thresholds={"open": 0.3},
        miss_cost=50.0,
        facts={"before": 0.9, "from": "x"},
    )
    (tmp_path / "card.json").write_text(write_card(card))
    assert read_card(tmp_path / "card.json") == card


def test_one_changed_digit_in_a_card_is_noticed(filled: ModelStore) -> None:
    path = filled.folder / "a" / "card.json"
    path.write_text(path.read_text().replace("0.9", "0.8"))
    with pytest.raises(ModelError, match="its checksum is wrong"):
        find_model("a", store=filled)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": "station.model/1", "card_sha256": 1}', "\x00"])
def test_a_card_that_is_none_is_an_error_and_no_traceback(filled: ModelStore, text: str) -> None:
    (filled.folder / "a" / "card.json").write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        filled.card("a")


def test_a_card_of_a_newer_station_is_not_guessed_at(filled: ModelStore) -> None:
    path = filled.folder / "a" / "card.json"
    path.write_text(path.read_text().replace("station.model/1", "station.model/2"))
    with pytest.raises(ModelError, match=r"station\.model/2"):
        filled.card("a")


def test_a_board_of_the_self_test_that_has_changed_is_not_judged(filled: ModelStore) -> None:
    (board,) = filled.card("a").boards
    assert filled.picture("a", board.file, board.sha256) == BOARD
    (filled.folder / "a" / "selftest" / board.file).write_bytes(b"another")
    with pytest.raises(ModelError, match=r"fail-01\.png has changed"):
        filled.picture("a", board.file, board.sha256)
    (filled.folder / "a" / "selftest" / board.file).unlink()
    with pytest.raises(ModelError, match=r"fail-01\.png: No such file"):
        filled.picture("a", board.file, board.sha256)


def test_what_ran_well_is_remembered_last_first(filled: ModelStore) -> None:
    for name in "aba":
        filled.remember(Good(name, "s", ("open",)))
    assert [one.name for one in filled.good()] == ["a", "b"]
    (filled.folder / "good.json").write_text("{")
    assert filled.good() == []


def test_a_converted_pt_is_found_by_its_own_bytes_alone(store: ModelStore, tmp_path: Path) -> None:
    pt, onnx = tmp_path / "best.pt", tmp_path / "made.onnx"
    pt.write_bytes(b"weights")
    onnx.write_bytes(b"network")
    assert store.converted(pt) is None
    kept = store.keep_converted(pt, onnx)
    assert kept.name == "best"
    assert kept.path.read_bytes() == b"network"
    assert store.converted(pt) == kept == find_model(str(pt), store=store)
    kept.path.write_bytes(b"netw0rk")
    assert store.converted(pt) is None, "damaged"
    kept.path.unlink()
    assert store.converted(pt) is None, "gone"
    assert store.keep_converted(pt, onnx) == store.converted(pt) == kept
    pt.write_bytes(b"other weights")
    assert store.converted(pt) is None
    with pytest.raises(ModelError, match="not converted"):
        find_model(str(pt), store=store)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="models"):
        ModelStore(tmp_path / "models").remember(Good("a", "s", ()))


def test_other_things_in_the_folder_are_no_models(filled: ModelStore) -> None:
    (filled.folder / ".importing-x").mkdir()
    (filled.folder / "notes.txt").write_text("x")
    assert filled.names() == ["a", "b", "c"]


def test_the_pointer_is_small_and_readable(filled: ModelStore) -> None:
    filled.use("a", LABELS)
    assert json.loads((filled.folder / "current.json").read_text()) == {
        "use": ["a", BUNDLED],
        "labels": {"a": ["open", "short"]},
    }


def test_the_labels_of_a_model_outlive_its_card_where_it_was_chosen_or_ran(filled: ModelStore) -> None:
    filled.use("a", ("open", "spur"))
    filled.use("b", LABELS)
    filled.rollback("a", ("open", "spur"))
    filled.remember(Good("b", "s", ("open",)))
    assert filled.labels("a") == {"open", "short"}, "its card, while there is one"
    for name in "abc":
        (filled.folder / name / "card.json").write_text("{")
    assert [filled.labels(name) for name in "abc"] == [{"open", "spur"}, {"open"}, None]
    assert filled.labels(BUNDLED) is None


@pytest.mark.parametrize(
    "labels", ["", ', "labels": []', ', "labels": {"a": 1}', ', "labels": {"a": []}', ', "labels": null']
)
def test_a_choice_of_an_older_station_holds_and_says_no_labels(filled: ModelStore, labels: str) -> None:
    (filled.folder / "current.json").write_text(f'{{"use": ["a", "b"]{labels}}}')
    (filled.folder / "a" / "card.json").unlink()
    assert (filled.current(), filled.previous(), filled.labels("a")) == ("a", "b", None)
    filled.use("c", LABELS)
    assert filled.current() == "c"
