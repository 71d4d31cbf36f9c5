"""The Modbus servers over real connections, with pymodbus's own client in the PLC's place."""

from __future__ import annotations

import itertools
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.framer import FramerRTU

from station.errors import PortError
from station.health import Health
from station.modbus import MAX_CLIENTS, STALLED_S, ModbusRtu, ModbusTcp
from station.modbus_map import CODES, MIRROR, VERSION, WRITABLE, Control, Faults, Status, Table
from station.modbus_unit import ModbusUnit, Times
from station.types import Answer, Trigger, Verdict
from tests.looping import running
from tests.modbus_plc import ModbusPlc
from tests.mosquitto import free_port
from tests.ports import FakePort, Open
from tests.waiting import until

CHILD = Path(__file__).with_name("modbus_child.py")
DOCUMENT = Path(__file__).parents[1] / "docs" / "modbus.md"


class Served:
    """A unit behind a TCP port; ``judge`` answers what was asked for. *at_once*: it needs no telling."""

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self.asked: list[tuple[int | None, str | None, float]] = []
        self.health = Health()
        self.unit = ModbusUnit(
            Times(heartbeat_s=0.05, valid_s=0),
            alive=lambda: None,
            arrived=self._arrived,
            beat=self.health.beat,
            health=self.health,
        )
        self.server = ModbusTcp(self.unit, host="127.0.0.1", port=0, unit=1, beat=self.health.beat)

    def _arrived(self, number: int | None, board_serial: str | None, at_s: float) -> object:
        self.asked.append((number, board_serial, at_s))
        if self._at_once:
            self.judge()
        return self.asked

    def judge(self, verdict: Verdict = Verdict.PASS) -> None:
        number, serial, at_s = self.asked[-1]
        trigger = Trigger("id", "modbus", datetime.now(timezone.utc), at_s, number, serial)
        self.unit.show(Answer("id", verdict, "no defect found", trigger))

    @contextmanager
    def running(self, *loops: Callable[[threading.Event], None]) -> Iterator[Served]:
        with running(self.unit.run, *loops):
            yield self

    @contextmanager
    def tcp(self) -> Iterator[tuple[str, int]]:
        with self.running(self.server.run):
            until(lambda: self.server.bound)
            assert self.server.bound is not None
            yield self.server.bound


@contextmanager
def client_of(address: tuple[str, int]) -> Iterator[ModbusTcpClient]:
    client = ModbusTcpClient(address[0], port=address[1], timeout=20, retries=0)
    assert client.connect()  # type: ignore[no-untyped-call]  # pymodbus has no types here
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call]  # ditto


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_plc_lets_a_board_pass_by_a_pass_and_by_nothing_else(verdict: Verdict) -> None:
    served = Served()
    with served.tcp() as address, client_of(address) as client:
        plc = ModbusPlc(client)

        def at(step: str) -> None:
            if step == "lowered":
                assert served.asked[-1][0] == 70000
                served.judge(verdict)

        assert plc.may_pass(70000, at=at) is (verdict is Verdict.PASS)


def test_a_block_read_while_results_come_and_go_is_always_whole() -> None:
    served = Served()
    with served.tcp() as address, client_of(address) as client:
        plc = ModbusPlc(client)
        plc.write(0, [Control.TRIGGER, 0, 1])
        enough = threading.Event()

        def judge() -> None:
            for number in itertools.cycle(range(1, 1000)):
                served.asked.append((number, None, float("inf")))
                served.judge(Verdict.PASS if number % 2 else Verdict.FAIL)
                if enough.is_set():
                    return

        thread = threading.Thread(target=judge)
        thread.start()
        seen = 0
        while seen < 100:
            block = plc.block()
            if Status.RESULT_VALID in block.status:
                seen += 1
                assert (block.code == 1) == (Status.PASS in block.status) == (block.number % 2 == 1)
                assert (Status.PASS in block.status) != (Status.REJECT in block.status)
        enough.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda one: one.read_input_registers(0, count=20), 2),
        (lambda one: one.read_input_registers(50, count=1), 2),
        (lambda one: one.write_register(100, 1), 2),
        (lambda one: one.write_register(0, 8), 3),
        (lambda one: one.read_device_information(), 1),
        (lambda one: one.read_input_registers(0, count=1, device_id=9), 11),
    ],
)
def test_what_cannot_be_done_has_its_exception_code(ask: Callable[[ModbusTcpClient], object], code: int) -> None:
    served = Served()
    with served.tcp() as address, client_of(address) as client:
        answer = ask(client)
        assert answer.isError()  # type: ignore[attr-defined]  # pymodbus's own type has no name for all of them
        assert answer.exception_code == code  # type: ignore[attr-defined]  # ditto


@pytest.mark.parametrize(
    "rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 300, b"\xff" * 40, b"\x00\x01\x00\x00\x00\x00\x01\x04"]
)
def test_rubbish_ends_its_connection_and_no_other(rubbish: bytes) -> None:
    served = Served()
    with served.tcp() as address, client_of(address) as client, socket.create_connection(address, timeout=20) as rude:
        rude.sendall(rubbish)
        assert ended(rude)
        assert ModbusPlc(client).block().version == 1


def test_a_client_that_asks_and_never_reads_is_put_out() -> None:
    served = Served()
    asks = bytes.fromhex("000100000006010300000013")
    with served.tcp() as address, client_of(address) as client, closing(socket.socket()) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        rude.settimeout(300)  # it is a lot to answer
        rude.connect(address)
        with pytest.raises(ConnectionError):
            rude.sendall(asks * 1_000_000)
        assert ModbusPlc(client).block().version == 1


@pytest.mark.parametrize(
    ("request_hex", "answer_hex"),
    [
        ("05 0000 1234", "85 03"),
        ("05 0000", "85 03"),
        ("06 0000", "86 03"),
        ("10 0000 0002 02 0001", "90 03"),
        ("10 0000 0003 06 0001 0000", "90 03"),
        ("0f 0000 0004 01 0f", "8f 02"),
        ("16 0000 0000 0008", "96 03"),
        ("08 0000 0000", "88 01"),
        ("80", "80 01"),
    ],
)
def test_a_request_that_is_not_right_is_refused_whole(request_hex: str, answer_hex: str) -> None:
    served, request, answer = Served(), bytes.fromhex(request_hex), bytes.fromhex(answer_hex)
    with served.tcp() as address, socket.create_connection(address, timeout=20) as one:
        one.sendall(bytes([0, 7, 0, 0, 0, len(request) + 1, 1]) + request)
        assert one.recv(100) == bytes([0, 7, 0, 0, 0, 3, 1]) + answer
    assert served.asked == []


def test_a_server_that_was_stopped_ends_its_connections_and_can_have_its_port_again() -> None:
    served = Served()
    served.server = ModbusTcp(served.unit, host="127.0.0.1", port=free_port(), unit=1, beat=served.health.beat)
    with served.tcp() as address, ExitStack() as stack:
        one = stack.enter_context(socket.create_connection(address, timeout=20))
        with client_of(address) as client:
            assert ModbusPlc(client).block().version == 1
        stack.pop_all()
    with closing(one):
        assert ended(one)
    with served.tcp() as again, client_of(again) as client:
        assert again == address
        assert ModbusPlc(client).block().version == 1


def test_half_a_request_is_waited_for_and_hurts_nobody() -> None:
    served = Served()
    with served.tcp() as address, client_of(address) as client, socket.create_connection(address, timeout=20) as slow:
        request = bytes.fromhex("000100000006010400000009")
        slow.sendall(request[:7])
        assert ModbusPlc(client).block().version == 1
        slow.sendall(request[7:])
        assert len(slow.recv(100)) == 9 + 18


def test_one_client_too_many_takes_the_place_of_the_silent_one() -> None:
    served = Served()
    with served.tcp() as address, ExitStack() as stack:
        silent, *_ = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(MAX_CLIENTS)]
        with client_of(address) as last:
            assert ModbusPlc(last).block().version == 1
        assert ended(silent)


def test_a_port_in_use_says_what_to_do() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        served = Served()
        server = ModbusTcp(served.unit, host="127.0.0.1", port=taken.getsockname()[1], unit=1, beat=lambda _: None)
        with pytest.raises(PortError, match="is in use by another program"):
            server.run(threading.Event())
    server = ModbusTcp(served.unit, host="192.0.2.1", port=free_port(), unit=1, beat=lambda _: None)
    with pytest.raises(PortError, match="no address of this computer"):
        server.run(threading.Event())


@pytest.mark.parametrize("step", ["ready", "triggered", "lowered", "valid"])
def test_killed_at_any_step_of_the_handshake_the_board_is_rejected(step: str) -> None:
    with child() as (station, order, client):

        def at(now: str) -> None:
            if now == "lowered":
                order("busy")
                order("show pass")
            if now == step:
                station.send_signal(signal.SIGKILL)
                station.wait(30)

        assert ModbusPlc(client).may_pass(7, at=at) is False


@pytest.mark.parametrize(("after", "passes"), [("busy", True), ("safe", False), ("show fail", False)])
def test_a_pass_is_taken_back_by_what_comes_before_the_plc_has_read_it(after: str, passes: bool) -> None:
    with child() as (_, order, client):

        def at(now: str) -> None:
            if now == "lowered":
                order("show pass")
            if now == "valid":
                order(after)

        assert ModbusPlc(client).may_pass(7, at=at) is passes


@contextmanager
def child() -> Iterator[tuple[subprocess.Popen[str], Callable[[str], None], ModbusTcpClient]]:
    """A station of its own that can be killed, what gives it orders, and a client that is connected to it."""
    station = subprocess.Popen(
        [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert station.stdin is not None
        assert station.stdout is not None
        with station.stdin as orders, station.stdout as said, client_of(("127.0.0.1", int(said.readline()))) as client:

            def order(what: str) -> None:
                print(what, file=orders, flush=True)
                assert said.readline() == "done\n"

            yield station, order, client
    finally:
        station.kill()
        station.wait(30)


def test_rtu_over_a_serial_line_that_was_unplugged_is_served_again(tmp_path: Path) -> None:
    served = Served()
    line = Open(tmp_path / "plc", terminator="", baud=19200)
    ModbusRtu(served.unit, line.port, unit=1)

    def at(step: str) -> None:
        if step == "lowered":
            served.judge()

    with far_end() as (far, client), line, served.running():
        plc = ModbusPlc(client)
        with plugged(tmp_path / "plc", far):
            until(lambda: line.port.connected)
            assert plc.may_pass(9, at=at)
        until(lambda: "serial_failing" in line.faults())
        until(lambda: not line.port.connected)
        with plugged(tmp_path / "plc", far) as near:
            until(lambda: line.port.connected)
            before = line.port.counts.noise
            os.write(near, frame(1, "06 0000 0001")[:-1] + b"\0")
            until(lambda: line.port.counts.noise > before, what="a request with a wrong checksum is noise")
            assert plc.may_pass(10, at=at)
    assert [number for number, *_ in served.asked] == [9, 10]


@contextmanager
def far_end() -> Iterator[tuple[int, ModbusSerialClient]]:
    """The PLC's end of a serial line: what its cable is joined to, and a client that is connected."""
    far, far_slave = pty.openpty()
    tty.setraw(far_slave)
    client = ModbusSerialClient(os.ttyname(far_slave), baudrate=19200, timeout=5, retries=3)
    try:
        assert client.connect()
        yield far, client
    finally:
        client.close()  # type: ignore[no-untyped-call]  # pymodbus has no types here
        os.close(far)
        os.close(far_slave)


@contextmanager
def plugged(where: Path, far: int) -> Iterator[int]:
    """The station's adapter at *where*, with its cable to *far*; yields a descriptor that writes to the station too."""
    near, near_slave = pty.openpty()
    tty.setraw(near_slave)
    where.symlink_to(os.ttyname(near_slave))
    stop = threading.Event()
    cable = threading.Thread(target=join, args=(near, far, stop))
    cable.start()
    try:
        yield near
    finally:
        stop.set()
        cable.join(30)
        where.unlink()
        os.close(near)
        os.close(near_slave)


def join(one: int, other: int, stop: threading.Event) -> None:
    while not stop.is_set():
        for ready in select.select([one, other], [], [], 0.05)[0]:
            os.write(other if ready == one else one, os.read(ready, 4096))


def frame(unit: int, request: str) -> bytes:
    body = bytes([unit]) + bytes.fromhex(request)
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


READ = frame(1, "04 0008 0001")
VERSION_READ = frame(1, f"04 02 {VERSION:04x}")


@pytest.mark.parametrize(
    ("before", "pause_s"),
    [
        ([], 0.0),
        ([frame(1, "06 0000 0001")[:5]], 1.0),
        ([frame(1, "06 0000 0001")[:-1] + b"\0"], 0.0),
        ([frame(2, "06 0000 0001")], 0.0),
        ([frame(0, "06 0000 0001")], 0.0),
        ([b"\x01\x10\x00\x00\x00\x03\xff", b"\xff" * 100], 1.0),
        ([b"\xff" * 200] * 3, 1.0),
    ],
    ids=["nothing", "half a request", "wrong checksum", "another unit", "all units", "endless request", "noise"],
)
def test_rubbish_on_a_serial_line_triggers_nothing_and_the_next_request_is_answered(
    before: list[bytes], pause_s: float
) -> None:
    served, port = Served(), FakePort()
    ModbusRtu(served.unit, port, unit=1)
    for one in before:
        port.say(one, 100.0)
    assert (port.sent, served.asked) == ([], [])
    port.say(READ, 100.0 + pause_s)
    assert port.sent == [VERSION_READ]


EXCHANGE = [frame(2, "03 0000 0001"), frame(2, "03 02 1234")]  # of the master and another unit
TRIGGERS = frame(1, "06 0000 0001")


@pytest.mark.parametrize(
    "before",
    [
        EXCHANGE,
        EXCHANGE * 100,
        [frame(2, "03 0000 000a"), frame(2, "03 14" + "a7" * 20)],
        [frame(2, "03 0000 000a"), frame(2, "03 14" + "01" * 20)],
        [frame(2, "03 0000 0001"), frame(2, "83 02")],
        [b"\xff"],
        [b"\x01"],
        [b"\xff" * 500],
        [READ[:-1] + b"\0"],
    ],
    ids=["another's", "all the time", "long", "like ours", "refused", "a byte", "our unit", "noise", "wrong checksum"],
)
@pytest.mark.parametrize("pieces", [1, 1000])
def test_on_a_line_that_is_shared_and_never_silent_our_request_is_found(before: list[bytes], pieces: int) -> None:
    served, port = Served(), FakePort()
    ModbusRtu(served.unit, port, unit=1)
    now_s = itertools.count(100.0, 0.02)
    for one in before:
        for at in range(0, len(one), pieces):
            port.say(one[at : at + pieces], next(now_s))
    assert port.sent == []
    port.say(READ, next(now_s))
    port.say(EXCHANGE[0], next(now_s))
    port.say(READ, next(now_s))
    assert port.sent == [VERSION_READ] * 2


@pytest.mark.parametrize("cut", [5, 9, 14, 1000])
@pytest.mark.parametrize("began", [b"", b"\xff"], ids=["silence", "noise"])
def test_what_looks_like_our_request_within_a_frame_of_others_is_left_alone(began: bytes, cut: int) -> None:
    served, port = Served(), FakePort()
    ModbusRtu(served.unit, port, unit=1)
    for holds in ("10 0000 0004 08", "03 08"):  # a request that writes it, an answer that has it
        one = began + frame(2, holds + TRIGGERS.hex())
        port.say(one[:cut], 100.0)
        port.say(one[cut:], 100.0)
        port.say(EXCHANGE[0], 100.0)
    assert (port.sent, served.asked) == ([], [])


def test_a_byte_that_the_line_itself_makes_after_a_request_hurts_nobody() -> None:
    served, port = Served(), FakePort()
    ModbusRtu(served.unit, port, unit=1)
    port.say(READ + b"\0", 100.0)
    assert port.sent == [VERSION_READ]


def test_a_damaged_request_is_noise_once() -> None:
    served, port = Served(), FakePort()
    ModbusRtu(served.unit, port, unit=1)
    said = [port.say(one, 100.0) for one in (READ[:6], READ[6:-1] + b"\0", EXCHANGE[0], b"\xff" * 300)]
    assert said == [True, False, True, True]


def test_a_request_that_comes_in_pieces_is_one_and_a_new_connection_forgets_them() -> None:
    served, port = Served(), FakePort()
    ModbusRtu(served.unit, port, unit=1)
    for at, one in enumerate(READ):
        port.say(bytes([one]), 100.0 + at / 100)
    assert port.sent == [VERSION_READ]
    port.say(READ[:4], 200.0)
    port.open()
    port.say(READ, 200.0)
    assert port.sent == [VERSION_READ] * 2


def test_an_answer_that_the_serial_line_does_not_take_hurts_nobody() -> None:
    served, port = Served(), FakePort()
    ModbusRtu(served.unit, port, unit=1)
    port.connected = False
    assert port.say(READ)
    port.connected = True
    port.say(READ)
    assert port.sent == [VERSION_READ]


def test_the_example_in_the_document_reads_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    served = Served(at_once=True)
    code = DOCUMENT.read_text().partition("```python\n")[2].partition("```")[0]
    with served.tcp() as address:
        until(lambda: Faults.NOT_WORKING not in faults_of(served))
        exec(code.replace("port=5020", f"port={address[1]}"), {})  # noqa: S102  # our own document
    assert "PASS for board 17\n" in capsys.readouterr().out


def faults_of(served: Served) -> Faults:
    words = served.unit.read(Table.INPUT_REGISTERS, 1, 1)
    assert isinstance(words, list)
    return Faults(words[0])


def test_the_register_map_in_the_document_is_the_one_that_is_served() -> None:
    text = DOCUMENT.read_text()
    holding, inputs = text.partition("| holding register |")[2].split("| input register |")
    said = {int(bit): name for bit, name in re.findall(r"bit (\d) ([A-Z_]+)", holding)}
    assert said == {one.bit_length() - 1: one.name for one in Control}
    status, faults = (line for line in inputs.splitlines() if "bit 0" in line)
    for line, flags in ((status, Status), (faults, Faults)):
        assert {int(bit): name for bit, name in re.findall(r"bit (\d) ([A-Z_]+)", line)} == {
            one.bit_length() - 1: one.name for one in flags
        }
    assert f"version of this map: {VERSION}" in inputs
    assert f"| {MIRROR} to {MIRROR + 8} |" in holding
    assert f"| 3 to {WRITABLE - 1} |" in holding
    assert ", ".join(f"{code} {verdict.name}" for verdict, code in CODES.items()) in inputs


class Halting(Served):
    """From *halt* on it stands still until *go* is set."""

    def __init__(self) -> None:
        super().__init__()
        self.halt, self.halted, self.go = threading.Event(), threading.Event(), threading.Event()
        self.server = ModbusTcp(self.unit, host="127.0.0.1", port=0, unit=1, beat=self._turn)

    def _turn(self, loop: str) -> None:
        self.health.beat(loop)
        if self.halt.is_set():
            self.halt.clear()
            self.halted.set()
            assert self.go.wait(30)


def test_what_came_while_nothing_was_read_is_dropped_and_its_sender_put_out() -> None:
    """A station that had been halted for eight seconds took a trigger of then for one of now."""
    served = Halting()
    with served.tcp() as address:
        with socket.create_connection(address, timeout=30) as late:
            served.halt.set()
            assert served.halted.wait(30)
            halted_s = time.monotonic()
            late.sendall(bytes.fromhex("0001 0000 000D 01 10 0000 0003 06 0001 0000 0001"))
            until(lambda: time.monotonic() > halted_s + 2 * STALLED_S, what="the standstill to be long")
            served.go.set()
            assert ended(late)
        with client_of(address) as client:
            assert ModbusPlc(client).block().triggers == 0
    assert served.asked == []
