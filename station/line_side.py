"""Builds what stands at the line: where pictures and triggers come from, and where the answers go."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from station.answers import Answers
from station.config import Settings
from station.folders import check_apart, lock_inbox
from station.gates.relay import LCUS, Relay, RelayGate
from station.gates.serial import SerialGate, Texts, Times
from station.gates.tower import Lamps, Tower
from station.health import Health
from station.journal_writer import JournalWriter
from station.ledger import SqliteLedger
from station.line_parts import build_folder, make_camera, make_port, make_rtu_port, need_modbus
from station.line_sections import (
    AskedTrigger,
    CameraSection,
    FreeTrigger,
    IntervalTrigger,
    ModbusGateSection,
    ModbusRtuSection,
    ModbusTcpSection,
    ModbusTrigger,
    OffGate,
    OffModbus,
    OffScanner,
    PatliteTower,
    RelayGateSection,
    SerialGateSection,
    SerialPortSection,
    SerialScanner,
    SerialTrigger,
)
from station.metrics import Metrics
from station.modbus_unit import ModbusUnit
from station.modbus_unit import Times as UnitTimes
from station.sections import FolderSection
from station.serial_port import SerialPort
from station.sources.camera import Camera, CameraOptions
from station.sources.folder import SILENT_S
from station.sources.free import FreeSource
from station.sources.marks import IN_FLIGHT
from station.sources.scanner import Scanner
from station.sources.serial_trigger import SerialTriggers, dialect_of
from station.sources.triggered import TriggeredSource
from station.trigger_journal import NAME, TriggerJournal, open_journal
from station.triggers import Triggers
from station.types import Frame, Gate, Order, Source, Stop


@dataclass(frozen=True, slots=True)
class Loop:
    """
    A loop that a Worker runs, and how long it may go without a beat before only a restart helps.

    *port*: other loops speak through it, so it stops after them.
    """

    run: Callable[[Stop], None]
    limit_s: float = 30.0
    port: bool = False


@dataclass(frozen=True, slots=True)
class LineSide:
    """
    What the line works with. *loops* start in their order, and stop in it after the line has.

    *gate* is None where nobody asks and nothing is shown. *triggers* is None where nothing triggers from outside, and
    *journal* with it. *inbox* (a descriptor) holds the watched folder for this process.
    """

    source: Source
    where: str
    gate: Gate | None = None
    loops: dict[str, Loop] = field(default_factory=dict)
    triggers: Triggers | None = None
    journal: TriggerJournal | None = None
    inbox: int | None = None


def build_line_side(
    settings: Settings,
    *,
    ledger: SqliteLedger,
    health: Health,
    metrics: Metrics,
    on_backlog: Callable[[int], None],
    foresee: Callable[[Frame], None],
    look: Callable[[], Lamps],
    worked: Callable[[str], None],
) -> LineSide:
    """
    The line's side as configured. Raises ConfigError, LedgerError.

    *foresee* hears of frames that the line will want soon; *look* is what a light tower shows; *worked* hears the name
    of a loop that has done a unit of work.
    """
    side = _Side(settings, health=health, metrics=metrics, worked=worked)
    side.add_tower(look)
    match settings.source:
        case FolderSection() as wanted:
            check_apart(settings.station.data_dir, wanted.path)
            source: Source = build_folder(
                wanted,
                in_flight=settings.station.data_dir / IN_FLIGHT,
                ledger=ledger,
                on_backlog=on_backlog,
                on_silence=partial(tell_silence, health, str(wanted.path)),
                foresee=foresee,
            )
            return side.built(source, str(wanted.path), gate=side.gate(), inbox=lock_inbox(wanted.path))
        case CameraSection() as wanted:
            camera = side.camera(wanted)
            where = CameraOptions(wanted.device).shown
            match settings.trigger:
                case FreeTrigger():
                    source = FreeSource(camera, on_skipped=metrics.skipped)
                    return side.built(source, where, gate=side.gate())
                case IntervalTrigger(interval_s=interval_s):
                    return side.built(FreeSource(camera, interval_s=interval_s), where, gate=side.gate())
                case AskedTrigger() as trigger:
                    return side.triggered(camera, where, trigger)


class _Side:
    """What is being built: the loops, in the order in which they stop."""

    def __init__(self, settings: Settings, *, health: Health, metrics: Metrics, worked: Callable[[str], None]) -> None:
        self._worked = worked
        self._settings = settings
        self._health = health
        self._metrics = metrics
        self._loops: dict[str, Loop] = {}
        self._port: SerialPort | None = None
        self._asked: Callable[[int | None, str | None, float], object] = lambda _number, _serial, _at_s: None

    def built(
        self,
        source: Source,
        where: str,
        *,
        gate: Gate | None,
        triggers: Triggers | None = None,
        journal: TriggerJournal | None = None,
        inbox: int | None = None,
    ) -> LineSide:
        # Ports last: what is said at the end still needs them.
        loops = dict(sorted(self._loops.items(), key=lambda one: one[1].port))
        return LineSide(source, where, gate, loops, triggers, journal, inbox)

    def camera(self, wanted: CameraSection) -> Camera:
        camera = make_camera(
            wanted,
            triggered=isinstance(self._settings.trigger, AskedTrigger),
            health=self._health,
            worked=partial(self._worked, "camera"),
        )
        self._loops["camera"] = Loop(camera.run)
        return camera

    def gate(self) -> Gate | None:
        match self._settings.gate:
            case OffGate():
                return None
            case SerialGateSection() as wanted:
                texts = Texts(
                    passed=wanted.pass_text,
                    failed=wanted.fail_text,
                    unknown=wanted.unknown_text,
                    ready=wanted.ready_text,
                    busy=wanted.busy_text,
                    safe=wanted.safe_text,
                    end=wanted.end_text,
                    heartbeats=wanted.heartbeat_texts,
                    ack=wanted.ack_text,
                )
                times = Times(wanted.heartbeat_s, wanted.ack_ms / 1e3, wanted.valid_ms / 1e3)
                gate = SerialGate(
                    self._serial(),
                    texts,
                    times,
                    terminator=self._settings.serial.terminator,
                    alive=self._trouble,
                    beat=self._moves,
                )
                self._loops["gate"] = Loop(gate.run)
                return gate
            case RelayGateSection() as wanted:
                relay = LCUS
                if wanted.preset == "custom":
                    relay = Relay(bytes.fromhex(wanted.on_hex), bytes.fromhex(wanted.off_hex))
                relay_gate = RelayGate(
                    self._open("relay_port", wanted),
                    relay,
                    pulse_s=wanted.pulse_ms / 1e3,
                    alive=self._trouble,
                    beat=self._moves,
                    health=self._health,
                )
                self._loops["gate"] = Loop(relay_gate.run)
                return relay_gate
            case ModbusGateSection():
                return self._modbus_unit()

    def triggered(self, camera: Camera, where: str, wanted: AskedTrigger) -> LineSide:
        answer_s = wanted.answer_ms / 1e3
        path = self._settings.station.data_dir / NAME
        journal, damaged = open_journal(path)
        if damaged is not None:
            self._health.begin(
                "trigger_journal_damaged", f"the journal of the triggers was damaged and lies in {damaged}"
            )
        writer = JournalWriter(journal, health=self._health, beat=self._moves)

        def order(at_s: float) -> Order:
            return camera.order(since_s=at_s, until_s=at_s + answer_s)

        answers = Answers(
            self.gate(),
            answer_s=answer_s,
            journal=writer,
            beat=self._moves,
            on_late=partial(self._metrics.missed, "late"),
        )

        def taken(missed: str | None) -> None:
            answers.tell_busy()
            self._metrics.triggered(missed)

        scanner, by_serial = self._scanner(), isinstance(wanted, SerialTrigger)
        triggers = Triggers(
            kind=wanted.kind,
            limit=wanted.queue,
            journal=writer,
            order=order,
            answer_s=answer_s,
            expect=answers.expect,
            code_for=no_code if scanner is None or by_serial else scanner.code_for,  # those ask at the trigger's byte
            on_arrived=taken,
            on_close=answers.close,
        )
        first: dict[str, Loop] = {}
        if isinstance(wanted, SerialTrigger):
            heard = SerialTriggers(
                self._serial(),
                dialect_of(wanted.preset, wanted.pattern),
                terminator=self._settings.serial.terminator,
                arrived=triggers.arrived,
                order=order,
                beat=self._moves,
                code_for=no_code if scanner is None else scanner.code_for,
            )
            first["trigger"] = Loop(heard.run)  # it stops first: what was heard is answered
        if scanner is not None:
            scanner.listen(self._scanner_port())  # last: what is a trigger is no code
        if isinstance(wanted, ModbusTrigger):
            self._asked = triggers.arrived
        # The writer stops last: until then there is something to write.
        self._loops = {**first, "answers": Loop(answers.run), **self._loops, "journal": Loop(writer.run)}
        source = TriggeredSource(triggers, answer_s=answer_s)
        return self.built(source, where, gate=answers, triggers=triggers, journal=journal)

    def add_tower(self, look: Callable[[], Lamps]) -> None:
        wanted = self._settings.tower
        if isinstance(wanted, PatliteTower):
            tower = Tower(self._open("tower_port", wanted), look=look, beat=self._moves)
            self._loops["tower"] = Loop(tower.run)

    def _scanner(self) -> Scanner | None:
        wanted = self._settings.scanner
        if isinstance(wanted, OffScanner):
            return None
        return Scanner(
            pattern=re.compile(wanted.pattern),
            no_read=wanted.no_read,
            window_s=wanted.window_ms / 1e3,
            required=wanted.required,
            health=self._health,
        )

    def _scanner_port(self) -> SerialPort:
        wanted = self._settings.scanner
        return self._open("scanner", wanted) if isinstance(wanted, SerialScanner) else self._serial()

    def _modbus_unit(self) -> ModbusUnit:
        wanted = self._settings.modbus
        assert not isinstance(wanted, OffModbus)  # noqa: S101  # the settings refuse that
        need_modbus()
        from station.modbus import ModbusRtu, ModbusTcp  # only where it is used: pymodbus is an extra

        unit = ModbusUnit(
            UnitTimes(wanted.heartbeat_s, wanted.ack_ms / 1e3, wanted.valid_ms / 1e3),
            alive=self._trouble,
            arrived=self._on_asked,
            beat=self._moves,
            health=self._health,
        )
        self._loops["gate"] = Loop(unit.run)
        match wanted:
            case ModbusTcpSection():
                server = ModbusTcp(unit, host=wanted.host, port=wanted.tcp_port, unit=wanted.unit, beat=self._moves)
                self._loops["modbus"] = Loop(server.run, port=True)
            case ModbusRtuSection():
                port = make_rtu_port(wanted, beat=self._moves)
                self._loops["modbus"] = Loop(port.run, port=True)
                ModbusRtu(unit, port, unit=wanted.unit)
        return unit

    def _on_asked(self, number: int | None, board_serial: str | None, at_s: float) -> object:
        """Looked up at call time: the Modbus unit is built before the Triggers it reports to."""
        return self._asked(number, board_serial, at_s)

    def _serial(self) -> SerialPort:
        """The PLC's port, which trigger, scanner and gate share."""
        if self._port is None:
            self._port = self._open("serial", self._settings.serial)
        return self._port

    def _open(self, name: str, wanted: SerialPortSection) -> SerialPort:
        port = make_port(wanted, name=name, beat=self._moves)
        self._loops[name] = Loop(port.run, port=True)
        return port

    def _moves(self, loop: str) -> None:
        """These loops have no other work than to turn."""
        self._health.beat(loop)
        self._worked(loop)

    def _trouble(self) -> str | None:
        """Why the gate must be safe, or None: the station inspects, and every loop moves."""
        stalled = self._health.stalled()
        if stalled:
            return f"stalled: {', '.join(stalled)}"
        return next((f"{what}: {why}" for what, why in self._health.not_ready().items()), None)


def tell_silence(health: Health, path: str, silent: bool) -> None:
    """While the inbox at *path* does not answer, no board can be inspected, and that is a fault."""
    if silent:
        why = f"{path} has not answered for {SILENT_S:g} s: is the share's server there? It goes on by itself"
        health.cannot("inbox", why)
        health.begin("inbox_silent", why)
    else:
        health.cannot("inbox", None)
        health.end("inbox_silent")


def no_code(_at_s: float) -> str | None:
    """Where there is no scanner."""
    return None
