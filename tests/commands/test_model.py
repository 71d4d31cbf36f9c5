"""``station model`` and what a start makes of it: models come in, are tested, chosen, taken back, and give way."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from station.assets import SAMPLES
from station.commands.model import import_model, list_models, rollback, toml_of, use, verify
from station.config import Settings
from station.detectors import backends
from station.detectors.card import sha256_of, write_card
from station.detectors.choices import Choices
from station.detectors.store import BUNDLED, PAIRED, ModelStore
from station.errors import LabelsError, ModelError
from station.model_choice import ready_detector
from station.sections import FolderSection
from tests.daemon import Daemon, ServiceManager, Subscriber, drop, encoded, lasting_broker, picture
from tests.detectors.models import save, save_seeing
from tests.waiting import until

ROOT = Path(__file__).parents[2]
V8_NOTHING = np.zeros((1, 6, 84), np.float32)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "station": {"data_dir": tmp_path / "data"},
            "detector": {"threads": 1, "backend": "onnxruntime"},
        }
    )


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    return ModelStore(settings.station.data_dir / "models")


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    """Six red boards, labelled "open" where the tiny network sees it, and six black ones without a defect."""
    folder = tmp_path / "boards"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(12):
        red = 230 if number < 6 else 0
        cv2.imwrite(str(folder / "images" / f"b{number:02d}.png"), picture(number, red=red))
        if red:
            # The tiny network's box goes from 10 times the blue channel's mean to 20 x 20 pixels of 64 x 64.
            (folder / "labels" / f"b{number:02d}.txt").write_text(f"0 {10 / 64} {10 / 64} {20 / 64} {20 / 64}\n")
    return folder


def quiet() -> Console:
    return Console(quiet=True)


def bring(settings: Settings, file: Path, name: str, *, images: Path | None = None) -> None:
    import_model(settings, file, name=name, images=images, miss_cost=50, trusted=False, console=quiet())


def chosen(settings: Settings) -> tuple[str, str | None]:
    """The model that a start would judge with, and why it is not the one that was asked for."""
    ready = ready_detector(settings, on_progress=lambda _: None)
    return ready.detector.model.name, ready.fallback


def damage(store: ModelStore, name: str) -> None:
    path = store.folder / name / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_an_imported_model_has_a_card_a_self_test_and_thresholds(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(settings, save_seeing(tmp_path / "tiny.onnx"), "tiny", images=boards)
    card = store.card("tiny")
    assert (card.labels, card.width_px, card.height_px) == (("open", "short"), 64, 64)
    assert [one.verdict for one in card.boards] == ["fail", "pass"] * 6
    assert card.timing is not None
    assert 0.1 < card.thresholds["open"] < 0.9
    assert f'"open" = {card.thresholds["open"]:g}' in capsys.readouterr().out
    assert Choices(store).current() == BUNDLED  # importing is not using


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """A board of DeepPCB with its labels, its template, and a second board that has none."""
    folder = tmp_path / "compared"
    for name in ("images", "labels", "templates"):
        (folder / name).mkdir(parents=True)
    shutil.copy(SAMPLES / "fail-open-44000062.jpg", folder / "images" / "44000062.jpg")
    shutil.copy(SAMPLES / "fail-short-44000090.jpg", folder / "images" / "44000090.jpg")
    shutil.copy(SAMPLES / "pass-template-44000062.jpg", folder / "templates" / "44000062.jpg")
    (folder / "labels" / "44000062.txt").write_text(
        "490 118 537 159 1\n312 0 360 45 2\n304 0 341 32 4\n283 199 313 231 5\n138 93 169 124 6\n430 236 453 283 3\n"
    )
    (folder / "labels" / "44000090.txt").write_text("10 10 40 40 2\n")
    return folder


def test_a_model_that_compares_is_judged_on_the_boards_that_have_a_template_which_they_fit(
    settings: Settings, store: ModelStore, compared: Path
) -> None:
    file = SAMPLES.parent / f"{PAIRED}.onnx"
    other = settings.recipe.model_copy(update={"template": SAMPLES / "pass-template-44000103.jpg"})
    fitting = settings.recipe.model_copy(update={"template": SAMPLES / "pass-template-44000062.jpg"})
    beside_other, beside_fitting = (settings.model_copy(update={"recipe": one}) for one in (other, fitting))
    bring(beside_other, file, "pair", images=compared)
    card = store.card("pair")
    assert set(card.thresholds) == set(card.labels)
    assert {(one.verdict, one.template is not None) for one in card.boards} == {("fail", True), ("pass", True)}
    (compared / "templates" / "44000062.jpg").unlink()
    bring(beside_fitting, file, "by-recipe", images=compared)
    assert store.card("by-recipe").thresholds == card.thresholds
    with pytest.raises(LabelsError, match="templates/, under the board's own file name"):
        bring(beside_other, file, "none", images=compared)
    (compared / "labels" / "44000062.txt").write_text("5 300 60 360 1\n5 400 60 460 2\n")
    with pytest.raises(LabelsError, match="misses most defects of a label"):
        bring(beside_fitting, file, "wrong", images=compared)
    assert store.names() == ["by-recipe", "pair"]


def test_a_name_that_is_unknown_is_told_with_those_that_are_known(settings: Settings) -> None:
    for command in (use, verify):
        with pytest.raises(ModelError, match=f"there is no model lin-3, but: {BUNDLED}, {PAIRED}$"):
            command(settings, "lin-3", quiet())


def test_labelled_boards_of_twelve_bits_are_judged_as_the_line_sees_them_and_so_is_the_self_test_for_ever(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path
) -> None:
    for file in (boards / "images").iterdir():
        shallow = cv2.imread(str(file))
        assert shallow is not None
        cv2.imwrite(str(file), shallow.astype(np.uint16) * 16)
    twelve = settings.model_copy(update={"source": FolderSection(depth_bits=12)})
    bring(twelve, save_seeing(tmp_path / "tiny.onnx"), "tiny", images=boards)
    assert 0.1 < store.card("tiny").thresholds["open"] < 0.9
    assert {one.depth_bits for one in store.card("tiny").boards} == {12}
    for any_depth in (twelve, settings):
        use(any_depth, "tiny", quiet())
        assert chosen(any_depth) == ("tiny", None)


def test_a_choice_is_tested_before_it_is_made(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path
) -> None:
    for name in ("one", "two"):
        bring(settings, save_seeing(tmp_path / "tiny.onnx"), name, images=boards)
    use(settings, "one", quiet())
    damage(store, "two")
    with pytest.raises(ModelError, match="damaged"):
        use(settings, "two", quiet())
    assert Choices(store).current() == "one"
    rollback(settings, quiet())
    assert Choices(store).current() == BUNDLED


def test_a_rollback_to_a_damaged_model_changes_nothing(settings: Settings, store: ModelStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        bring(settings, save_seeing(tmp_path / "tiny.onnx"), name)
        use(settings, name, quiet())
    damage(store, "one")
    with pytest.raises(ModelError, match="nothing was changed"):
        rollback(settings, quiet())
    assert Choices(store).current() == "two"


def test_a_self_test_that_has_lost_a_board_is_no_self_test(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path
) -> None:
    bring(settings, save_seeing(tmp_path / "tiny.onnx"), "tiny", images=boards)
    verify(settings, "tiny", quiet())
    (store.folder / "tiny" / "selftest" / "fail-02.png").unlink()
    with pytest.raises(ModelError, match="self-test of tiny is damaged"):
        verify(settings, "tiny", quiet())


def test_a_model_that_fails_its_self_test_gives_way_too(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path
) -> None:
    for name in ("one", "two"):
        bring(settings, save_seeing(tmp_path / "tiny.onnx"), name, images=boards)
        use(settings, name, quiet())
        chosen(settings)
    # A network that is whole but blind, with a card that vouches for it: only the boards can tell.
    blind = save(store.folder / "two" / "model.onnx", V8_NOTHING)
    card = dataclasses.replace(store.card("two"), sha256=sha256_of(blind))
    (store.folder / "two" / "card.json").write_text(write_card(card))
    name, why = chosen(settings)
    assert name == "one"
    assert why is not None
    assert "fail-01.png should fail, and it sees no defect" in why


def test_a_damaged_model_gives_way_to_the_last_that_ran_well(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path
) -> None:
    for name in ("one", "two"):
        bring(settings, save_seeing(tmp_path / "tiny.onnx"), name, images=boards)
        use(settings, name, quiet())
        assert chosen(settings) == (name, None)
    damage(store, "two")
    name, why = chosen(settings)
    assert name == "one"
    assert why is not None
    assert "damaged" in why
    assert Choices(store).good()[0].name == "two"  # the stand-in is no new choice


def test_a_model_that_knows_fewer_labels_never_stands_in(settings: Settings, store: ModelStore, tmp_path: Path) -> None:
    few = save(tmp_path / "few.onnx", np.zeros((1, 5, 84), np.float32), names="{0: 'open'}")
    for file, name in ((few, "few"), (save_seeing(tmp_path / "tiny.onnx"), "tiny")):
        bring(settings, file, name)
        use(settings, name, quiet())
        chosen(settings)
    damage(store, "tiny")
    with pytest.raises(ModelError, match="damaged"):
        chosen(settings)


def away(store: ModelStore, name: str) -> None:
    shutil.rmtree(store.folder / name)


def without_card(store: ModelStore, name: str) -> None:
    (store.folder / name / "card.json").write_text("{")


def of_an_older_station(store: ModelStore, name: str) -> None:
    without_card(store, name)
    (store.folder / "current.json").write_text(json.dumps({"use": [name]}))


def undecided(store: ModelStore, _name: str) -> None:
    (store.folder / "current.json").write_text("")


def forgetful(store: ModelStore, name: str) -> None:
    without_card(store, name)
    (store.folder / "good.json").write_text(
        (store.folder / "good.json").read_text().replace('"open"', '"open", "short"')
    )


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (away, "no other that has run well knows all its labels; choose one with station model use NAME"),
        (without_card, "no other that has run well knows all its labels"),
        (forgetful, "no other that has run well knows all its labels"),
        (of_an_older_station, "nobody knows the labels of new; choose one with station model use NAME"),
        (undecided, "current.json is damaged: choose the model again with station model use NAME"),
    ],
)
def test_no_model_stands_in_for_labels_that_it_lacks_or_that_nobody_knows(
    settings: Settings,
    store: ModelStore,
    tmp_path: Path,
    trouble: Callable[[ModelStore, str], None],
    words: str,
) -> None:
    """The new one was chosen and has never run; the old one passed the boards on which only that sees a short."""
    few = save(tmp_path / "few.onnx", np.zeros((1, 5, 84), np.float32), names="{0: 'open'}")
    bring(settings, few, "old")
    use(settings, "old", quiet())
    assert chosen(settings) == ("old", None)
    bring(settings, save_seeing(tmp_path / "tiny.onnx"), "new")
    use(settings, "new", quiet())
    trouble(store, "new")
    with pytest.raises(ModelError, match=re.escape(words)):
        chosen(settings)


@pytest.mark.parametrize("trouble", [damage, away, without_card])
def test_one_that_knows_the_labels_stands_in_for_a_model_that_has_never_run(
    settings: Settings, store: ModelStore, tmp_path: Path, trouble: Callable[[ModelStore, str], None]
) -> None:
    for name in ("old", "new"):
        bring(settings, save_seeing(tmp_path / "tiny.onnx"), name)
    use(settings, "old", quiet())
    assert chosen(settings) == ("old", None)
    use(settings, "new", quiet())
    trouble(store, "new")
    name, why = chosen(settings)
    assert (name, why is not None) == ("old", True)


def test_without_a_good_one_a_damaged_model_is_an_error(settings: Settings, store: ModelStore, tmp_path: Path) -> None:
    bring(settings, save_seeing(tmp_path / "tiny.onnx"), "tiny")
    use(settings, "tiny", quiet())
    damage(store, "tiny")
    with pytest.raises(ModelError, match="damaged"):
        chosen(settings)


def test_nobody_stands_in_for_a_file(settings: Settings, tmp_path: Path) -> None:
    chosen(settings)  # the bundled model runs well
    (tmp_path / "mine.onnx").write_bytes(b"no network")
    mine = settings.model_copy(
        update={"detector": settings.detector.model_copy(update={"model": str(tmp_path / "mine.onnx")})}
    )
    with pytest.raises(ModelError, match=r"mine\.onnx"):
        chosen(mine)


def test_the_bundled_model_passes_its_self_test(settings: Settings) -> None:
    assert chosen(settings) == (BUNDLED, None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "images"), "images is no folder"),
        (lambda folder: shutil.rmtree(folder / "labels"), "no label"),
        (lambda folder: (folder / "labels" / "b00.txt").write_text("7 0.5 0.5 0.1 0.1\n"), "class 7"),
        (lambda folder: (folder / "labels" / "b00.txt").write_text("a b c\n"), "neither"),
        (lambda folder: (folder / "images" / "b00.png").write_bytes(b"no picture"), "no whole picture"),
    ],
)
def test_a_folder_that_is_not_understood_leaves_the_store_as_it_is(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path, make: object, words: str
) -> None:
    make(boards)  # type: ignore[operator]  # a lambda of the table above
    with pytest.raises(LabelsError, match=words):
        bring(settings, save_seeing(tmp_path / "tiny.onnx"), "tiny", images=boards)
    assert store.names() == []


def test_labels_in_another_order_than_the_models_are_taken_by_name_or_refused(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path
) -> None:
    """The recipe that was printed for them missed every defect."""
    for file in (boards / "labels").iterdir():
        file.write_text(file.read_text().replace("0", "1", 1))
    tiny = save_seeing(tmp_path / "tiny.onnx")
    with pytest.raises(LabelsError, match=r"misses most defects of a label \(short 6 of 6\): .*data\.yaml"):
        bring(settings, tiny, "tiny", images=boards)
    assert store.names() == []
    (boards / "data.yaml").write_text("names:\n  0: 'short'\n  1: 'open'\n")
    bring(settings, tiny, "tiny", images=boards)
    assert 0.1 < store.card("tiny").thresholds["open"] < 0.9


def test_the_list_shows_a_damaged_model_as_such(settings: Settings, store: ModelStore, tmp_path: Path) -> None:
    bring(settings, save_seeing(tmp_path / "tiny.onnx"), "tiny")
    (store.folder / "tiny" / "card.json").write_text("{")
    console = Console(width=200, record=True, file=io.StringIO())
    list_models(settings, console)
    assert "DAMAGED" in console.export_text()


def test_what_the_configuration_names_is_marked_as_used_and_a_choice_that_does_not_count_is_said_to_be_none(
    settings: Settings, store: ModelStore
) -> None:
    """The star stood at the store's choice, and "is used from the next start" was the first that was read."""
    named = settings.model_copy(update={"detector": settings.detector.model_copy(update={"model": PAIRED})})
    console = Console(width=200, record=True, file=io.StringIO())
    use(named, BUNDLED, console)
    list_models(named, console)
    text = console.export_text()
    assert f'{BUNDLED} is chosen, but not used: the configuration says [detector] model = "{PAIRED}"' in text
    assert "from the next start" not in text
    starred, legend = (line for line in text.splitlines() if "*" in line)
    assert PAIRED in starred
    assert legend == "* is the one that the station uses"
    assert "needs [recipe] template" in starred


def test_a_damaged_model_is_told_and_imported_again_under_its_name(
    settings: Settings, store: ModelStore, tmp_path: Path
) -> None:
    """It said "install it again", and then that there is a model of that name already."""
    path = save_seeing(tmp_path / "tiny.onnx")
    bring(settings, path, "tiny")
    with pytest.raises(ModelError, match="there is a model tiny already"):
        bring(settings, path, "tiny")
    (store.folder / "tiny" / "model.onnx").write_bytes(b"damaged")
    console = Console(width=200, record=True, file=io.StringIO())
    list_models(settings, console)
    text = console.export_text()
    assert "DAMAGED" in text
    assert "import the model again, under the same name" in text
    bring(settings, path, "tiny")
    assert store.damage("tiny") is None
    (aside,) = store.folder.glob(".damaged-tiny-*")
    assert (aside / "model.onnx").read_bytes() == b"damaged", "nothing is deleted"
    assert store.names() == ["tiny"]


def test_thresholds_are_printed_as_toml_that_reads_back(tmp_path: Path) -> None:
    from station.config import load

    path = tmp_path / "station.toml"
    thresholds = {"open": 0.25, 'a "b" \\c': 0.5, "Zinn-Br\u00fccke \U0001f525": 0.4, "two\nlines \x1b[2J\x7f": 0.3}
    path.write_text(f"[recipe]\n{toml_of(thresholds)}\nmin_area_px = 9\n", encoding="utf-8")
    assert load(path).recipe.thresholds == thresholds


def test_labels_that_look_like_markup_are_printed_as_they_are(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The import ended in a traceback, after the model was in the store."""
    label = "[/b] [red]open[/] :x:"
    tiny = save_seeing(tmp_path / "tiny.onnx", metadata={"names": repr({0: label, 1: "short"})})
    console = Console(width=200, record=True, file=io.StringIO())
    import_model(settings, tiny, name="tiny", images=boards, miss_cost=50, trusted=False, console=console)
    use(settings, "tiny", console)
    rollback(settings, console)
    list_models(settings, console)
    text = console.export_text()
    assert text.count(label) == 3
    assert "\x1b" not in text + capsys.readouterr().out
    assert store.card("tiny").labels[0] == label


def test_a_template_is_for_boards_of_its_product_and_not_for_what_a_model_is_tested_on(
    settings: Settings, store: ModelStore, tmp_path: Path, boards: Path
) -> None:
    template = SAMPLES / "pass-template-44000062.jpg"
    recipe = settings.recipe.model_copy(update={"template": template})
    beside = settings.model_copy(update={"recipe": recipe})
    for name in ("one", "two"):
        bring(beside, save_seeing(tmp_path / "tiny.onnx"), name, images=boards)
        use(beside, name, quiet())
    assert 0.1 < store.card("one").thresholds["open"] < 0.9
    verify(beside, BUNDLED, quiet())
    verify(beside, PAIRED, quiet())
    rollback(beside, quiet())
    assert Choices(store).current() == "one"
    assert chosen(beside) == ("one", None)


def test_a_station_whose_model_is_damaged_runs_with_the_last_good_one_and_says_so(tmp_path: Path) -> None:
    with (
        lasting_broker(tmp_path) as broker,
        Subscriber(broker.port) as subscriber,
        Daemon(tmp_path / "station", broker_port=broker.port) as daemon,
    ):
        daemon.configure({"detector": {"model": "store", "backend": "onnxruntime"}})
        for name in ("one", "two"):
            assert daemon.call("model", "import", str(daemon.folder / "tiny.onnx"), "--name", name).returncode == 0
            assert daemon.call("model", "use", name).returncode == 0
            daemon.start()
            assert daemon.get("/health").json()["faults"] == []
            daemon.stop()
        damage(ModelStore(daemon.data_dir / "models"), "two")
        daemon.start()
        health = daemon.get("/health").json()
        assert (health["status"], health["faults"][0]["code"]) == ("warn", "model_fallback")
        drop(daemon.inbox, "board.png", encoded(picture(1)))
        until(subscriber.events, what="the event")
        until(lambda: subscriber.faults("model_fallback", "began"), what="the fault")
        (event,) = subscriber.events()
        assert (event["verdict"], event["model"]["name"]) == ("fail", "one")
        done = daemon.call("model", "verify", "two")
        assert (done.returncode, "Traceback" in done.stderr) == (3, False)


def test_the_first_import_remembers_what_it_measured_for_those_that_follow(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contests = list[Path]()

    def contest(path: Path, **_: object) -> backends.Choice:
        contests.append(path)
        return backends.Choice("onnxruntime", {"onnxruntime": 1.0, "openvino": 2.0})

    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    monkeypatch.setattr(backends, "_contest", contest)
    auto = settings.model_copy(update={"detector": settings.detector.model_copy(update={"backend": "auto"})})
    assert not auto.station.data_dir.exists()
    bring(auto, save_seeing(tmp_path / "tiny.onnx"), "one")
    use(auto, "one", quiet())
    assert len(contests) == 1


ULTRALYTICS = """
import shutil
from types import SimpleNamespace
import numpy as np

class YOLO:
    # Stands for the real one: its network answers as the tiny ONNX file does that lies beside this package.
    task, overrides = "detect", {"imgsz": 64}
    def __init__(self, path): assert open(path, "rb").read() == b"weights"
    def export(self, **_): return shutil.copy(__file__.replace("__init__.py", "tiny.onnx"), "made.onnx")
    def predict(self, frame, **_):
        blue, _, red = frame.mean(axis=(0, 1)) / 255
        boxes = SimpleNamespace(xyxy=np.array([[10 * blue, 0, 20, 20]]), conf=np.array([red + OFF]), cls=np.array([0]))
        return [SimpleNamespace(names={0: "open"}, boxes=boxes)]
"""


def with_ultralytics(tmp_path: Path, *, off: float = 0.0) -> Daemon:
    """A station configured with a .pt, and an ultralytics (a stand-in) whose original scores are *off* by so much."""
    daemon = Daemon(tmp_path / "station")
    package = tmp_path / "site" / "ultralytics"
    package.mkdir(parents=True)
    shutil.copy(daemon.folder / "tiny.onnx", package)
    (package / "__init__.py").write_text(f"OFF = {off}\n{ULTRALYTICS}")
    (daemon.folder / "best.pt").write_bytes(b"weights")
    daemon.configure({"detector": {"model": "best.pt", "backend": "onnxruntime"}, "mqtt": {"enabled": False}})
    daemon.environment_extra(PYTHONPATH=f"{package.parent}:{ROOT}")
    return daemon


def test_a_configured_pt_is_converted_once_and_the_start_is_given_time_for_it(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as manager, with_ultralytics(tmp_path) as daemon:
        daemon.environment_extra(NOTIFY_SOCKET=str(manager.path))
        daemon.start()
        assert any(one.startswith("EXTEND_TIMEOUT_USEC=") for one in manager.said)
        drop(daemon.inbox, "board.png", encoded(picture(1)))
        until(lambda: daemon.files("done"), what="the board")
        assert daemon.log("station ready")[0]["model"] == "best"
        daemon.stop()
        daemon.start()
        assert len(daemon.log("converting a .pt, once")) == 1
        assert len(daemon.log("station ready")) == 2


def test_a_conversion_that_does_not_agree_is_exit_3_and_kept_nowhere(tmp_path: Path) -> None:
    with with_ultralytics(tmp_path, off=0.1) as daemon:
        daemon.start(wait=False)
        assert daemon.wait() == 3
        assert "does not agree with the original" in daemon.text()
        assert not list(daemon.data_dir.rglob("*.onnx"))


def test_a_pt_without_ultralytics_is_exit_3_and_says_what_to_install(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        (daemon.folder / "best.pt").write_bytes(b"weights")
        # Also where it is installed, it is not there for this child.
        (daemon.folder / "ultralytics.py").write_text("raise ImportError('not here')")
        daemon.environment_extra(PYTHONPATH=f"{daemon.folder}:{ROOT}")
        for arguments in (("model", "import", "best.pt", "--yes"), ("run", "--set", "detector.model=best.pt")):
            done = daemon.call(*arguments)
            assert done.returncode == 3
            assert "/bin/pip install 'onnx>=" in done.stderr
            assert "'ultralytics>=" in done.stderr
            assert "Traceback" not in done.stderr
        done = daemon.call("model", "import", "best.pt")
        assert (done.returncode, "--yes" in done.stderr) == (3, True)
        assert "can run any code" in done.stdout
