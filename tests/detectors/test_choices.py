"""Which model is used, what was used before, and what ran well."""

from __future__ import annotations

import errno
import fcntl
import json
import threading
from pathlib import Path

import pytest

from station.detectors.choices import Choices, Good
from station.detectors.find import find_model
from station.detectors.store import BUNDLED, ModelStore
from station.errors import ModelError
from tests.detectors.stores import LABELS


def test_rolling_back_goes_through_all_earlier_choices_and_ends(filled: ModelStore) -> None:
    for name in "abcb":
        Choices(filled).use(name, LABELS)
    for name in ("c", "a", BUNDLED):
        assert Choices(filled).previous() == name
        Choices(filled).rollback(name, LABELS)
        assert Choices(filled).current() == name
    with pytest.raises(ModelError, match="nothing to roll back to"):
        Choices(filled).rollback(BUNDLED, LABELS)


def test_a_rollback_goes_to_the_model_that_was_tested_or_nowhere(filled: ModelStore) -> None:
    Choices(filled).use("a", LABELS)
    Choices(filled).use("b", LABELS)
    tested = Choices(filled).previous()
    Choices(filled).use("c", LABELS)  # by another command, while this one was testing
    with pytest.raises(ModelError, match="chosen meanwhile"):
        Choices(filled).rollback(tested, LABELS)
    assert Choices(filled).current() == "c"


def test_of_two_that_choose_at_once_neither_choice_is_lost(filled: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Choices(filled), Choices(ModelStore(filled.folder))
    flock, choices, waiting = fcntl.flock, one._choices, threading.Event()

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
    monkeypatch.setattr(one, "_choices", meanwhile)
    one.use("a", LABELS)
    thread.join(10)
    assert json.loads((filled.folder / "current.json").read_text())["use"] == ["b", "a", BUNDLED]


def test_two_that_write_at_once_do_not_share_a_draft(filled: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a share without locks, where one may write while the other does."""
    other, replace = Choices(ModelStore(filled.folder)), Path.replace

    def unlocked(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def meanwhile(draft: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        other.use("b", LABELS)
        return replace(draft, target)

    monkeypatch.setattr(fcntl, "flock", unlocked)
    monkeypatch.setattr(Path, "replace", meanwhile)
    Choices(filled).use("a", LABELS)
    assert Choices(filled).current() == "a"


def test_a_crash_while_choosing_leaves_the_old_choice(filled: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    Choices(filled).use("a", LABELS)

    def crash(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(ModelError, match="No space left"):
        Choices(filled).use("b", LABELS)
    monkeypatch.undo()
    assert Choices(ModelStore(filled.folder)).current() == "a"


@pytest.mark.parametrize("text", ["", "{", '{"use": []}', '{"use": ["../x"]}', '{"use": [1]}', "[]"])
def test_a_damaged_choice_is_an_error_that_a_new_choice_mends(filled: ModelStore, text: str) -> None:
    (filled.folder / "current.json").write_text(text)
    with pytest.raises(ModelError, match="station model use NAME"):
        find_model("store", store=filled)
    Choices(filled).use("a", LABELS)
    assert Choices(filled).current() == "a"


def test_a_model_that_is_not_there_cannot_be_chosen(filled: ModelStore) -> None:
    with pytest.raises(ModelError, match="there is no model d"):
        Choices(filled).use("d", LABELS)
    assert not (filled.folder / "current.json").exists()


def test_what_ran_well_is_remembered_last_first(filled: ModelStore) -> None:
    for name in "aba":
        Choices(filled).remember(Good(name, "s", ("open",)))
    assert [one.name for one in Choices(filled).good()] == ["a", "b"]
    (filled.folder / "good.json").write_text("{")
    assert Choices(filled).good() == []


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="models"):
        Choices(ModelStore(tmp_path / "models")).remember(Good("a", "s", ()))


def test_the_pointer_is_small_and_readable(filled: ModelStore) -> None:
    Choices(filled).use("a", LABELS)
    assert json.loads((filled.folder / "current.json").read_text()) == {
        "use": ["a", BUNDLED],
        "labels": {"a": ["open", "short"]},
    }


def test_the_labels_of_a_model_outlive_its_card_where_it_was_chosen_or_ran(filled: ModelStore) -> None:
    Choices(filled).use("a", ("open", "spur"))
    Choices(filled).use("b", LABELS)
    Choices(filled).rollback("a", ("open", "spur"))
    Choices(filled).remember(Good("b", "s", ("open",)))
    assert Choices(filled).labels("a") == {"open", "short"}, "its card, while there is one"
    for name in "abc":
        (filled.folder / name / "card.json").write_text("{")
    assert [Choices(filled).labels(name) for name in "abc"] == [{"open", "spur"}, {"open"}, None]
    assert Choices(filled).labels(BUNDLED) is None


@pytest.mark.parametrize(
    "labels", ["", ', "labels": []', ', "labels": {"a": 1}', ', "labels": {"a": []}', ', "labels": null']
)
def test_a_choice_of_an_older_station_holds_and_says_no_labels(filled: ModelStore, labels: str) -> None:
    (filled.folder / "current.json").write_text(f'{{"use": ["a", "b"]{labels}}}')
    (filled.folder / "a" / "card.json").unlink()
    assert (Choices(filled).current(), Choices(filled).previous(), Choices(filled).labels("a")) == ("a", "b", None)
    Choices(filled).use("c", LABELS)
    assert Choices(filled).current() == "c"
