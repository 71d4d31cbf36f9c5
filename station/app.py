"""THE wiring: builds every part from Settings, starts them in order, waits, and stops them in order."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from queue import Full, Queue
from types import FrameType
from typing import TYPE_CHECKING

import structlog

from station import __version__
from station.benches import build_recipes, guest, turns_at
from station.challenge import Announcement
from station.clock import Clock
from station.config import Settings
from station.disk import Disks, Room
from station.errors import LedgerError
from station.events import to_bytes, utc_text
from station.evidence import FolderEvidence
from station.fault_news import FaultNews
from station.folders import lock_folder, make_folder
from station.foresight import Foresight
from station.gates.tower import Lamps, lamps_of
from station.health import Health
from station.heartbeat import Vitals, heartbeat_of
from station.housekeeping import Housekeeping
from station.judge import ready_judge
from station.ledger import SqliteLedger, open_ledger
from station.left_open import settle_left_open
from station.line import Listeners, log_inspection, run_line
from station.line_sections import AskedTrigger, HttpTrigger, MqttTrigger, PatliteTower
from station.line_side import build_line_side
from station.memory import give_back, share_one_heap
from station.metrics import Gauges, Metrics
from station.outbox import SqliteOutbox
from station.parts import build_link, check_labels
from station.publish import run_publish
from station.remote import MAX_BYTES, Command, Commands
from station.reviews import Reviews
from station.sdnotify import Notifier
from station.sections import MB, FolderSection
from station.showing import Line, Showing
from station.stop_signal import StopSignal
from station.supervise import Worker
from station.today import Books, today
from station.trigger_journal import TriggerJournal
from station.types import Inspection, Stop, Verdict

if TYPE_CHECKING:
    from station.web.server import WebServer

log = structlog.get_logger(__name__)

TICK_S = 1.0
LINE_STOP_S = 2.0
DRAIN_S = 5.0
RUDE_S = 0.5
WEB_STOP_S = 2.0
HOUSEKEEPING_S = 60.0
CONVERTING_S = 60.0  # more time to start for a child that converts a model, each time it has moved on
UNSURE = 100_000  # boards that are kept, however old they look, while nobody keeps the clock: 270 MB
# Whatever ends a station ends it in order: left to themselves, a terminal that is closed and Ctrl-\ would kill it, and
# leave a relay as it is at that moment.
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
UNLESS_IGNORED = (signal.SIGHUP, signal.SIGQUIT)  # as nohup and shells' background jobs are started
COMMANDS = 10_000  # that wait, as many as triggers may; what comes beyond is noise, and refused in the log

# How long a loop may go without a beat before only a restart helps. The line beats once a board, and a board on a busy
# machine takes seconds at the most; the link's longest wait is the resolver's.
LIMITS_S = {"line": 30.0, "publish": 30.0, "mqtt": 180.0, "commands": 30.0}


class Station:
    """
    One station, from Settings. ``run`` blocks until a signal asks it to stop.

    Raises ConfigError, ModelError or LedgerError before READY; afterwards nothing but a signal ends it.
    """

    def __init__(self, settings: Settings) -> None:
        share_one_heap()
        self._settings = settings
        self._started_s = time.monotonic()
        self._notifier = Notifier(os.environ)
        self._asked = StopSignal()
        self._owes = threading.Event()
        self._counts = dict.fromkeys((verdict.value for verdict in Verdict), 0)
        self._last: Verdict | None = None
        self._backlog = 0

        # Config -> ledger -> model -> link -> workers -> web: what the next part needs is there, and safe.
        data_dir = make_folder(settings.station.data_dir, "[station] data_dir")
        self._lock = lock_folder(data_dir)
        opened = open_ledger(data_dir / "ledger.db")
        self._ledger: SqliteLedger = opened.ledger
        self._outbox = SqliteOutbox(data_dir / "ledger.db")
        self._disks = Disks(
            [data_dir, *_inbox(settings)],
            evidence_floor_bytes=int(settings.evidence.stop_below_mb * MB),
            stop_floor_bytes=int(settings.ledger.stop_below_mb * MB),
        )
        self._news = FaultNews(
            self._ledger,
            station=settings.station.name,
            has_room=lambda: self._disks.room() is not Room.FULL,
            on_owed=self._owes.set,
        )
        self._news.end_left_open()
        self._health = Health(on_fault=self._news.heard)
        self._clock = Clock()
        self._evidence = FolderEvidence(
            data_dir / "evidence",
            keep=settings.evidence.keep,
            allowed=lambda: self._disks.room() is Room.PLENTY,
            max_bytes=int(settings.evidence.max_mb * MB),
            keep_days=settings.evidence.keep_days,
            clock_synced=self._clock.synced,
        )
        ready = ready_judge(settings, on_progress=lambda doing: self._notifier.extend_timeout(CONVERTING_S, doing))
        self._detector = ready.detector
        check_labels(settings, self._detector.labels)
        if ready.fallback is not None:
            self._health.begin("model_fallback", ready.fallback)
        self._announcement = Announcement()
        self._recipes = build_recipes(
            settings,
            self._detector,
            ledger=self._ledger,
            health=self._health,
            announcement=self._announcement,
            clock_synced=self._clock.synced,
        )
        last = self._ledger.latest(1)
        self._metrics = Metrics(
            version=__version__,
            model=self._detector.model.name,
            read=self._gauges,
            last_s=last[0].recorded_at.timestamp() if last else None,
        )
        self._turns = turns_at(settings, guests_abreast=False)
        self._foresight = Foresight(choose=self._recipes.choose, turns=self._turns)
        self._showing = Showing(
            self._ledger,
            Reviews(self._ledger, station=settings.station.name, on_new=self._owes.set),
            self._vitals,
            recipe=lambda: self._recipes.in_force,
            line=Line(
                settings.source.kind,
                settings.gate.kind,
                f"{settings.mqtt.host}:{settings.mqtt.port}" if settings.mqtt.enabled else "off",
            ),
        )
        self._commands: Queue[Command] = Queue(COMMANDS)
        self._link = build_link(settings, self._health, self._on_link_change, self._on_command)
        self._side = build_line_side(
            settings,
            ledger=self._ledger,
            health=self._health,
            metrics=self._metrics,
            on_backlog=self._on_backlog,
            foresee=self._foresight.begin,
            look=self._lamps,
            worked=lambda loop: self._workers[loop].worked(),
        )
        if opened.quarantined:
            self._health.begin(
                "ledger_quarantined",
                f"the ledger was damaged ({opened.damage}) and lies in {opened.quarantined}; "
                f"{opened.salvaged} events that were owed could be saved",
            )
        if self._side.journal is not None:
            settle_left_open(self._side.journal, self._ledger, self._recipes.choose)
        self._housekeeping = self._build_housekeeping()
        self._workers = self._build_workers()

    def run(self) -> None:
        """Starts everything, says READY, ticks until asked to stop, and stops everything in order."""
        for number in ENDS:
            if number not in UNLESS_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        self._health.cannot("station", "it is starting")  # the port is open before the loops run
        web = None
        if self._settings.http.enabled:
            web = self._build_web()
            web.start()
        give_back()
        for name, worker in self._workers.items():
            self._health.watch(name, limit_s=self._limit_s(name))
            worker.start()
        self._health.cannot("station", None)
        self._notifier.ready()
        log.info(
            "station ready",
            station=self._settings.station.name,
            version=__version__,
            model=self._detector.model.name,
            source=self._side.where,
            start_s=round(time.monotonic() - self._started_s, 2),
        )
        self._tick_until_asked()

        log.info("station stopping")
        self._notifier.stopping()
        if web is not None:
            web.stop(within_s=WEB_STOP_S)
        # Upstream first. The line's side answers what is still open before its gate goes safe and its ports close.
        self._stop_worker("commands", 1.0)
        self._stop_worker("trigger", 1.0)
        if self._side.triggers is not None:
            self._side.triggers.close()
        self._stop_worker("line", LINE_STOP_S)
        self._foresight.close()
        self._stop_worker("answers", 1.0)
        if self._side.gate is not None:
            self._side.gate.safe("the station was stopped")
        for name in self._side.loops:
            self._stop_worker(name, 1.0)
        self._stop_worker("publish", DRAIN_S + 1.0)
        self._stop_worker("mqtt", 5.0)
        if self._side.journal is not None:
            self._side.journal.close()
        self._news.catch_up()
        self._outbox.close()
        self._ledger.close()
        self._lock.close()
        if self._side.inbox is not None:
            os.close(self._side.inbox)
        log.info("station stopped")
        if self._health.restart_wanted is not None:
            raise LedgerError(f"stopped to be started anew: {self._health.restart_wanted}")

    def _stop_worker(self, name: str, within_s: float) -> None:
        worker = self._workers.get(name)
        if worker is not None and not worker.stop(within_s=within_s):
            log.warning("loop did not stop in time", loop=name, within_s=within_s)

    def _limit_s(self, loop: str) -> float:
        side = self._side.loops.get(loop)
        return LIMITS_S[loop] if side is None else side.limit_s

    def _build_web(self) -> WebServer:
        from station.web_side import build_web  # and with it FastAPI: only where there is a port

        return build_web(
            self._settings,
            health=self._health,
            vitals=self._vitals,
            metrics=self._metrics,
            carry_out=self._commands_of(HttpTrigger, self._settings.http.commands).carry_out,
            choose=lambda frame: guest(self._recipes.choose(frame), self._turns),
            labels=self._detector.labels,
            showing=self._showing,
            stopping=self._asked.is_set,
        )

    def _build_workers(self) -> dict[str, Worker]:
        workers: dict[str, Worker] = {}

        def add(name: str, run: Callable[[Stop], None]) -> None:
            workers[name] = Worker(name, run, health=self._health, on_restart=self._metrics.restarted)

        def line(stop: Stop) -> None:
            self._foresight.forget()
            run_line(
                stop,
                source=self._side.source,
                choose=self._recipes.choose,
                look=self._foresight.look,
                gate=self._side.gate,
                ledger=self._ledger,
                evidence=self._evidence,
                may_take=lambda: self._disks.room() is not Room.FULL,
                beat=self._health.beat,
                listeners=Listeners(
                    inspected=self._on_inspected, worked=workers["line"].worked, committed=self._on_committed
                ),
            )

        for name, loop in self._side.loops.items():
            add(name, loop.run)
        add("line", line)
        if self._link is not None:
            link = self._link
            if link.commands:
                commands = self._commands_of(MqttTrigger, self._settings.mqtt.commands)
                add("commands", partial(commands.run, queue=self._commands, beat=self._health.beat))

            def publish(stop: Stop) -> None:
                run_publish(
                    stop,
                    outbox=self._outbox,
                    link=link,
                    topic=self._settings.station.topic,
                    beat=self._health.beat,
                    wake=self._owes,
                    health=self._health,
                    on_outcome=self._metrics.published,
                    worked=workers["publish"].worked,
                    drain_s=DRAIN_S,
                )

            add("publish", publish)
            add("mqtt", link.run)
        return workers

    def _build_housekeeping(self) -> Housekeeping:
        source, keep_days = self._settings.source, self._settings.ledger.keep_days
        keep_ids = isinstance(source, FolderSection) and source.after == "leave"

        def prune_outbox() -> int:
            return self._outbox.prune(keep_days=keep_days, keep_ids=keep_ids, keep_newest=self._unsure())

        def prune_journal() -> int:
            journal = self._side.journal
            return 0 if journal is None else journal.prune(keep_days=keep_days, keep_newest=self._unsure())

        return Housekeeping(
            self._disks,
            self._health,
            stop_below_mb=self._settings.ledger.stop_below_mb,
            evidence_below_mb=self._settings.evidence.stop_below_mb,
            sweep=self._evidence.sweep,
            prunes=[prune_outbox, prune_journal],
        )

    def _unsure(self) -> int:
        """How many of the newest are kept, however old they look: none by this rule once the clock is synchronised."""
        return 0 if self._clock.synced() else UNSURE

    def _tick_until_asked(self) -> None:
        beat_every_s = self._settings.mqtt.heartbeat_s
        feed_every_s = self._notifier.watchdog_interval_s()
        next_beat_s = next_feed_s = next_housekeeping_s = time.monotonic()
        while not self._asked.wait(TICK_S) and self._health.restart_wanted is None:
            now_s = time.monotonic()
            self._housekeeping.look()
            self._news.catch_up()
            if feed_every_s is not None and now_s >= next_feed_s and not self._health.stalled():
                self._notifier.feed()
                next_feed_s = now_s + feed_every_s - TICK_S
            try:
                if self._link is not None and now_s >= next_beat_s:
                    next_beat_s = now_s + beat_every_s
                    self._link.tell(f"{self._settings.station.topic}/heartbeat", heartbeat_of(self._vitals()))
                if now_s >= next_housekeeping_s:
                    next_housekeeping_s = now_s + HOUSEKEEPING_S
                    self._clock.look()
                    self._housekeeping.clear()
            except LedgerError as error:  # the line will say so itself, when it needs the ledger
                log.warning("housekeeping put off", reason=str(error))

    def _on_inspected(self, inspection: Inspection) -> None:
        self._last = inspection.decision.verdict
        self._counts[inspection.decision.verdict.value] += 1
        self._metrics.inspected(inspection)
        self._showing.saw(inspection)
        log_inspection(inspection)

    def _on_committed(self) -> None:
        self._owes.set()
        self._showing.changed()

    def _lamps(self) -> Lamps:
        """What a light tower shows."""
        tower = self._settings.tower
        piled_up = isinstance(tower, PatliteTower) and self._outbox.depth().owed >= tower.owed_events
        return lamps_of(self._last, trouble=bool(self._health.faults() or self._health.not_ready()), piled_up=piled_up)

    def _on_backlog(self, files: int) -> None:
        self._backlog = files
        self._metrics.backlog(files)

    def _on_link_change(self) -> None:
        """There is an answer or a new connection: the link is well, and the publisher has something to do."""
        self._owes.set()
        self._workers["mqtt"].worked()

    def _commands_of(self, trigger: type[AskedTrigger], allowed: tuple[str, ...]) -> Commands:
        """What may be done by a way whose triggers are of the kind *trigger*."""
        triggers = self._side.triggers if isinstance(self._settings.trigger, trigger) else None
        return Commands(
            trigger=None if triggers is None else triggers.arrived,
            recipe=self._recipes.use if "recipe" in allowed else None,
            challenge=self._announcement.announce if "challenge" in allowed else None,
        )

    def _on_command(self, name: str, payload: bytes, respond: Callable[[bytes], None]) -> None:
        """In the link's thread, within paho's locks: it only queues."""
        try:
            held = payload[: MAX_BYTES + 1]  # enough to see that it is too long
            self._commands.put_nowait(Command(name, held, lambda document: respond(to_bytes(document))))
        except Full:
            log.error("command refused", command=name, reason=f"{COMMANDS} wait already")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked.is_set():
            # The ledger is durable, so the second Ctrl-C may be rude, but not to the line. In a thread: what that needs
            # may be held by the very one that is interrupted here.
            if self._side.gate is not None:
                rude = threading.Thread(target=self._side.gate.safe, args=("the station was interrupted",), daemon=True)
                rude.start()
                rude.join(RUDE_S)
            os._exit(0)
        self._asked.set()

    def _gauges(self) -> Gauges:
        depth = self._outbox.depth()
        connected = self._link is not None and self._link.connected
        faults = tuple(fault.code for fault in self._health.faults())
        ready, free_bytes = not self._health.not_ready(), self._disks.free_bytes()
        return Gauges(depth.owed, depth.oldest_age_s, connected, ready, faults, free_bytes)

    def _vitals(self) -> Vitals:
        depth, last = self._outbox.depth(), self._ledger.latest(1)
        link, model = self._link, self._detector.model
        return Vitals(
            station=self._settings.station.name,
            version=__version__,
            model=model.name,
            model_sha256=model.sha256,
            recipe=self._recipes.in_force,
            at=utc_text(datetime.now(timezone.utc)),
            uptime_s=time.monotonic() - self._started_s,
            inspections=dict(self._counts),
            last_seq=last[0].seq if last else 0,
            owed=depth.owed,
            owed_oldest_s=depth.oldest_age_s,
            refused=depth.refused,
            connected=link is not None and link.connected,
            protocol=None if link is None else link.protocol_in_use,
            beats_s=self._health.ages_s(),
            stalled=tuple(self._health.stalled()),
            not_ready=self._health.not_ready(),
            faults=tuple(self._health.faults()),
            free_mb=self._disks.free_bytes() / MB,
            backlog=self._backlog,
            today=today(
                datetime.now(timezone.utc),
                boards_since=self._ledger.boards_since,
                books=None if self._side.journal is None else partial(_books, self._side.journal),
            ),
        )


def _books(journal: TriggerJournal, since_s: float) -> Books:
    return journal.books(since_s=since_s)


def _inbox(settings: Settings) -> list[Path]:
    """The inbox whose disk must have room; one that may only be read is not ours to keep free."""
    wanted = settings.source
    return [wanted.path] if isinstance(wanted, FolderSection) and wanted.after == "move" else []
