"""
Runs three stations for hours (a folder at full rate, a triggered line, an idle one) and shows that nothing grows.

    scripts/soak [--minutes 60] [--csv FILE] [--plot FILE.png]

What is kept for days in a factory is kept for minutes here (KEEP_MIN), so that what must level off does so within the
run. Memory, file handles, threads, ledger and disk are sampled; after the warm-up each must stay flat. --plot needs
matplotlib, which the ``ultralytics`` extra brings. The bundled model and samples, a real mosquitto, a PLC on a pty.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import stat
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from station.assets import SAMPLES
from tests import synced_station
from tests.daemon import Daemon, Subscriber, drop
from tests.mosquitto import Mosquitto
from tests.plc import Plc

SYNCED = Path(synced_station.__file__)  # by a clock that nobody keeps nothing is forgotten by its age
KEEP_MIN = 5.0
EVIDENCE_MB = 100
EVERY_S = 5.0
WARM_UP = 0.4  # of the run: until then what is kept for KEEP_MIN has not levelled off
SLACK = {"memory_mb": 1.05, "handles": 1.0, "threads": 1.0, "ledger_mb": 1.05, "disk_mb": 1.10}
SLACK_ABOVE = {"memory_mb": 5.0, "handles": 3, "threads": 1, "ledger_mb": 0.5, "disk_mb": 5.0}
WAITING = 8  # files that wait in the inbox: enough that the station never does


@dataclass(frozen=True, slots=True)
class Sample:
    """What one station holds at one moment; memory and handles are those of its child processes too."""

    station: str
    minute: float
    boards: int
    memory_mb: float
    handles: int
    threads: int
    ledger_mb: float
    disk_mb: float
    owed: int


def size_of(path: Path) -> int:
    """Of a file, in bytes; 0 of a folder, and of what was just cleared away."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def sampled(name: str, station: Daemon, *, minute: float) -> Sample:
    """Raises psutil.Error when the station is gone."""
    own = psutil.Process(station.process.pid)
    memory_bytes, handles, threads = own.memory_full_info().uss, own.num_fds(), own.num_threads()
    for child in own.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a camera's program that is just opened anew
            memory_bytes += child.memory_full_info().uss
            handles += child.num_fds()
            threads += child.num_threads()
    files = [size_of(one) for one in station.data_dir.rglob("*")]
    ledger = [size_of(one) for one in station.data_dir.glob("ledger.db*") if not one.name.endswith("-shm")]
    return Sample(
        station=name,
        minute=round(minute, 2),
        boards=int(sum_of(station, "station_inspections_total")),
        memory_mb=round(memory_bytes / 1e6, 1),
        handles=handles,
        threads=threads,
        ledger_mb=round(sum(ledger) / 1e6, 2),
        disk_mb=round(sum(files) / 1e6, 1),
        owed=int(station.metric("station_outbox_events")),
    )


def sum_of(station: Daemon, metric: str) -> float:
    lines = station.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


def growth(samples: list[Sample]) -> list[str]:
    """
    What was not flat after the warm-up, in words: the median of the last tenth against that of the first.

    What is kept on the disk for a while is as much as there were boards in it: it is flat when it is so by board.
    """
    found = []
    end = samples[-1].minute
    warm = [one for one in samples if one.minute >= WARM_UP * end]
    tenth = max(1, len(warm) // 10)
    busiest = [_busiest(samples, until=one.minute) for one in (warm[tenth // 2], warm[-1])]
    more = busiest[1] / busiest[0] if busiest[0] else 1.0
    for figure, slack in SLACK.items():
        before = statistics.median(getattr(one, figure) for one in warm[:tenth])
        after = statistics.median(getattr(one, figure) for one in warm[-tenth:])
        allowed = before * slack * (more if figure in {"ledger_mb", "disk_mb"} else 1.0)
        if after > allowed + SLACK_ABOVE[figure]:
            found.append(f"{samples[0].station}: {figure} grew from {before:g} to {after:g}")
    return found


def _busiest(samples: list[Sample], *, until: float) -> int:
    """The most boards that came in KEEP_MIN minutes."""
    most, first = 0, 0
    for one in samples:
        while one.minute - samples[first].minute > KEEP_MIN:
            first += 1
        if one.minute <= until:
            most = max(most, one.boards - samples[first].boards)
    return most


def feed(station: Daemon, over: threading.Event) -> None:
    """Keeps the inbox full, and takes away what is done, as a plant's own clean-up does."""
    whole = [one for one in sorted(SAMPLES.glob("*.jpg")) if not one.name.startswith("unknown")]  # those wait for 30 s
    boards = [one.read_bytes() for one in whole]
    for number in itertools.count():
        while len(station.files()) >= WAITING and not over.wait(0.01):
            pass
        if over.is_set():
            return
        drop(station.inbox, f"board-{number}.jpg", boards[number % len(boards)])
        if number % 100 == 0:
            for done in station.inbox.glob("done/*/*.jpg"):
                with suppress(FileNotFoundError):
                    done.unlink()
            for failed in station.inbox.glob("failed/*"):
                with suppress(FileNotFoundError):
                    failed.unlink()


def trigger(plc: Plc, over: threading.Event) -> None:
    """The next trigger as soon as the last one was answered; a PLC that waits for an answer for 5 s at most."""
    for number in itertools.count(1):
        if over.is_set():
            return
        plc.say(b"T%d\r" % number)
        deadline_s = time.monotonic() + 5.0
        while not any(one.text[1:] == str(number) for one in plc.heard[-20:]) and time.monotonic() < deadline_s:
            time.sleep(0.002)
        del plc.heard[:-50]
        plc.raw.clear()


def stations(folder: Path, broker: Mosquitto, stack: ExitStack, over: threading.Event) -> dict[str, Daemon]:
    """All three, running."""
    shared: dict[str, Mapping[str, object]] = {
        "detector": {"model": None, "threads": None, "backend": "onnxruntime"},
        "ledger": {"keep_days": KEEP_MIN / 1440, "stop_below_mb": 1},
        "evidence": {"keep": "all", "keep_days": KEEP_MIN / 1440, "max_mb": EVIDENCE_MB, "stop_below_mb": 2},
    }
    plc = stack.enter_context(Plc(folder))
    line: dict[str, Mapping[str, object]] = {
        "source": {"kind": "camera", "path": None, "scan_s": None, "device": str(SAMPLES), "fps": 30, "frozen_s": 0},
        "serial": {"port": str(plc.port)},
        "trigger": {"kind": "serial", "answer_ms": 4000},
        "gate": {"kind": "serial"},
    }
    made: dict[str, Daemon] = {}
    for name, more in (("folder", {}), ("line", line), ("idle", {})):
        own = {"station": {"topic": f"soak/{name}", "name": name}}
        changes = {**shared, **more, **own}
        made[name] = Daemon(folder / name, broker_port=broker.port, changes=changes, program=[str(SYNCED)])
        stack.callback(made[name].kill)
        made[name].start()
    jobs: list[Callable[[], None]] = [lambda: feed(made["folder"], over), lambda: trigger(plc, over)]
    for job in jobs:
        thread = threading.Thread(target=job, daemon=True)
        thread.start()
        stack.callback(thread.join, 10.0)
    stack.callback(over.set)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.splitlines()[1] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--csv", type=Path, help="every sample")
    parser.add_argument("--plot", type=Path, help="a picture of them")
    arguments = parser.parse_args()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="station-soak-") as text, ExitStack() as stack:
        folder, over = Path(text), threading.Event()
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        listener = stack.enter_context(Subscriber(broker.port, topic="soak"))
        made = stations(folder, broker, stack, over)
        begun_s = time.monotonic()
        while (passed_s := time.monotonic() - begun_s) < 60 * arguments.minutes:
            samples += [sampled(name, one, minute=passed_s / 60) for name, one in made.items()]
            listener.messages.clear()
            if arguments.csv is not None:
                save(samples, arguments.csv)
            if len(samples) % 36 == 0:
                print(*(_line(one) for one in samples[-3:]), sep="\n", flush=True)
            over.wait(EVERY_S)
    found = [text for name in made for text in growth([one for one in samples if one.station == name])]
    print(*(_line(one) for one in samples[-3:]), sep="\n")
    print("\n".join(found) or "nothing grew after the warm-up")
    if arguments.plot is not None:
        from charts import soak  # matplotlib is only there with the ultralytics extra

        soak([asdict(one) for one in samples], arguments.plot)
    return 1 if found else 0


def save(samples: list[Sample], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [one.name for one in fields(Sample)])
        table.writeheader()
        table.writerows(asdict(one) for one in samples)


def _line(one: Sample) -> str:
    return (
        f"{one.minute:6.1f} min {one.station:7} {one.boards:7} boards {one.memory_mb:6.1f} MB {one.handles:4} handles "
        f"{one.threads:3} threads  ledger {one.ledger_mb:6.2f} MB  disk {one.disk_mb:6.1f} MB  owed {one.owed}"
    )


if __name__ == "__main__":
    sys.exit(main())
