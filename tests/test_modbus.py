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
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from pymodbus.client import ModbusSerialClient, ModbusTcpClient

from station.errors import PortError
from station.health import Health
from station.modbus import MAX_CLIENTS, ModbusRtu, ModbusTcp
from station.modbus_map import CODES, MIRROR, VERSION, WRITABLE, Control, Faults, Status
from station.modbus_unit import ModbusUnit, Times
from station.types import Answer, Trigger, Verdict
from tests.modbus_plc import ModbusPlc
from tests.mosquitto import free_port
from tests.ports import Open
from tests.waiting import until

CHILD = Path(__file__).with_name("modbus_child.py")


class Served:
    """A unit behind a TCP port; ``judge`` answers what was asked for."""

    def __init__(self) -> None:
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
        self.failed: list[BaseException] = []

    def _arrived(self, number: int | None, board_serial: str | None, at_s: float) -> object:
        self.asked.append((number, board_serial, at_s))
        return self.asked

    def judge(self, verdict: Verdict = Verdict.PASS) -> None:
        number, serial, at_s = self.asked[-1]
        trigger = Trigger("id", "modbus", datetime.now(timezone.utc), at_s, number, serial)
        self.unit.show(Answer("id", verdict, "no defect found", trigger))

    @contextmanager
    def running(self, *loops: Callable[[threading.Event], None]) -> Iterator[Served]:
        stop = threading.Event()
        threads = [threading.Thread(target=one, args=(stop,)) for one in (self.unit.run, *loops)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()

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
    child = subprocess.Popen(
        [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdin as orders, child.stdout as said, client_of(("127.0.0.1", int(said.readline()))) as client:

            def at(now: str) -> None:
                if now == "lowered":
                    print("show pass", file=orders, flush=True)
                    said.readline()
                if now == step:
                    child.send_signal(signal.SIGKILL)
                    child.wait(30)

            assert ModbusPlc(client).may_pass(7, at=at) is False
    finally:
        child.kill()
        child.wait(30)


def test_rtu_over_a_serial_line_that_was_unplugged_is_served_again(tmp_path: Path) -> None:
    served = Served()
    master, slave = pty.openpty()
    other_master, other_slave = pty.openpty()
    for one in (slave, other_slave):
        tty.setraw(one)
    link = tmp_path / "plc"
    link.symlink_to(os.ttyname(slave))
    stop = threading.Event()
    relay = threading.Thread(target=wire, args=(master, other_master, stop))
    relay.start()
    client = ModbusSerialClient(os.ttyname(other_slave), baudrate=19200, timeout=20, retries=0)
    try:
        with Open(link, terminator="", baud=19200) as port, served.running():
            ModbusRtu(served.unit, port.port, unit=1)
            until(lambda: port.port.connected)
            assert client.connect()
            plc = ModbusPlc(client)
            assert plc.block().version == 1

            def at(step: str) -> None:
                if step == "lowered":
                    served.judge()

            assert plc.may_pass(9, at=at)
            os.write(master, b"\xff\x00rubbish\x01\x04")
            until(lambda: port.port.counts.bytes > 0)
    finally:
        client.close()  # type: ignore[no-untyped-call]  # ditto
        stop.set()
        relay.join(30)
        for one in (master, slave, other_master, other_slave):
            os.close(one)


def wire(one: int, other: int, stop: threading.Event) -> None:
    """Joins two pty masters."""
    while not stop.is_set():
        for ready in select.select([one, other], [], [], 0.05)[0]:
            os.write(other if ready == one else one, os.read(ready, 4096))


def test_the_register_map_in_the_document_is_the_one_that_is_served() -> None:
    text = (Path(__file__).parents[1] / "docs" / "modbus.md").read_text()
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
