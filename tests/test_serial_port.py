"""The serial port on a real pty: unplugged, renamed, taken by somebody else, silent or loud."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from station.errors import GateError, PortError
from station.serial_port import SILENCE_S, STALLED_S, SerialOptions, SerialPort
from tests.plc import Plc
from tests.ports import Open
from tests.waiting import until


@pytest.fixture
def plc(tmp_path: Path) -> Iterator[Plc]:
    with Plc(tmp_path) as plc:
        yield plc


def taking(into: list[bytes], *, only: set[bytes] | None = None) -> Callable[[bytes, float], bool]:
    """A listener that takes every line, or those in *only*."""

    def take(line: bytes, _at_s: float) -> bool:
        if only is not None and line not in only:
            return False
        into.append(line)
        return True

    return take


def test_lines_come_and_go(plc: Plc) -> None:
    got: list[bytes] = []
    with Open(plc.port) as line:
        line.port.listen(taking(got))
        until(lambda: line.port.connected)
        plc.say(b"T1\rT2")
        plc.say(b"\r\nT3\r")
        until(lambda: len(got) == 3)
        line.port.write(b"P1\r")
        plc.wait_for("P1")
    assert got == [b"T1", b"T2", b"T3"]
    assert not line.port.connected


def test_a_line_belongs_to_the_first_that_takes_it_and_one_that_nobody_takes_is_noise(plc: Plc) -> None:
    first: list[bytes] = []
    second: list[bytes] = []
    with Open(plc.port) as line:
        line.port.listen(taking(first, only={b"a"}))
        line.port.listen(taking(second, only={b"a", b"b"}))
        until(lambda: line.port.connected)
        plc.say(b"a\rb\rc\r")
        until(lambda: line.port.counts.noise == 1)
    assert (first, second) == ([b"a"], [b"b"])
    assert line.port.counts.lines == 3


def test_what_lay_in_the_port_before_it_was_opened_is_not_heard(plc: Plc) -> None:
    got: list[bytes] = []
    plc.say(b"T-old\r")
    line = Open(plc.port)
    line.port.listen(taking(got))
    with line:
        until(lambda: line.port.connected)
        plc.say(b"T-new\r")
        until(lambda: got)
    assert got == [b"T-new"]


def test_a_port_that_was_unplugged_is_a_fault_and_comes_back_under_its_name(plc: Plc) -> None:
    opened: list[bool] = []
    line = Open(plc.port)
    line.port.listen(lambda _text, _at_s: True, lambda: opened.append(True))
    with line:
        until(lambda: opened)
        plc.unplug()
        until(lambda: "serial_failing" in line.faults())
        until(lambda: not line.port.connected)
        with pytest.raises(GateError, match="is away"):
            line.port.write(b"P1\r")
        until(lambda: "is not there" in line.faults()["serial_failing"], what="the fault names the port")
        plc.plug()
        until(lambda: len(opened) == 2)
        line.port.write(b"P2\r")
        plc.wait_for("P2")


def test_a_port_does_not_count_as_connected_before_its_listeners_heard_of_it(plc: Plc) -> None:
    """A gate said READY to a PLC, and then went into its safe state because the port "was opened"."""
    line = Open(plc.port)
    seen: list[bool] = []
    line.port.listen(lambda _text, _at_s: True, lambda: seen.append(line.port.connected))
    with line:
        until(lambda: line.port.connected)
    assert seen == [False]


def test_half_a_line_before_the_plug_was_pulled_does_not_join_the_next(plc: Plc) -> None:
    got: list[bytes] = []
    with Open(plc.port) as line:
        line.port.listen(taking(got))
        until(lambda: line.port.connected)
        plc.say(b"T1")
        until(lambda: line.port.counts.bytes == 2)
        plc.unplug()
        until(lambda: not line.port.connected)
        plc.plug()
        until(lambda: line.port.connected)
        plc.say(b"7\r")
        until(lambda: got)
    assert got == [b"7"]


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_what_came_while_the_port_was_not_read_is_dropped_and_its_listeners_begin_anew(plc: Plc) -> None:
    """A process that was stopped for 8 s took the trigger that lay in the port for a new one, and said PASS to it."""
    clock, got, opened = Clock(), list[bytes](), list[float]()
    line = Open(plc.port, monotonic=clock)

    def take(text: bytes, _at_s: float) -> bool:
        got.append(text)
        if text == b"T1":  # from here on the loop stands still, and T2 comes meanwhile
            plc.say(b"T2\rT")
            until(lambda: line.port._port.in_waiting == 4)  # type: ignore[union-attr]  # it is open
            clock.now_s += STALLED_S + 0.1
        return True

    line.port.listen(take, lambda: opened.append(clock.now_s))
    with line:
        until(lambda: line.port.connected)
        plc.say(b"T1\r")
        until(lambda: len(opened) == 2)
        plc.say(b"T3\r")
        until(lambda: len(got) == 2)
        assert line.port.connected
        assert line.faults() == {}
    assert got == [b"T1", b"T3"]


def test_a_port_that_was_not_read_while_nothing_came_goes_on(plc: Plc) -> None:
    clock, got, opened = Clock(), list[bytes](), list[bool]()
    line = Open(plc.port, monotonic=clock)
    line.port.listen(taking(got), lambda: opened.append(True))
    with line:
        until(lambda: line.port.connected)
        clock.now_s += 8.0
        turns = line.turns
        until(lambda: line.turns >= turns + 2, what="a look at the port since")
        plc.say(b"T1\r")
        until(lambda: got)
    assert (got, opened) == ([b"T1"], [True])


def test_half_a_line_before_a_silence_does_not_join_the_next(plc: Plc) -> None:
    """ "T1", three seconds of nothing and "8" were the trigger 18."""
    clock, got = Clock(), list[bytes]()
    with Open(plc.port, monotonic=clock) as line:
        line.port.listen(taking(got))
        until(lambda: line.port.connected)
        plc.say(b"T1")
        until(lambda: line.port.counts.bytes == 2)
        clock.now_s += SILENCE_S + 0.1
        until(lambda: line.port.counts.noise == 1)
        plc.say(b"8\r")
        until(lambda: got)
    assert got == [b"8"]


def test_a_line_that_is_typed_by_hand_is_one_line(plc: Plc) -> None:
    clock, got = Clock(), list[bytes]()
    with Open(plc.port, monotonic=clock) as line:
        line.port.listen(taking(got))
        until(lambda: line.port.connected)
        for at, one in enumerate((b"T", b"1", b"8", b"\r"), start=1):
            plc.say(one)
            until(lambda at=at: line.port.counts.bytes == at)  # type: ignore[misc]  # at once
            clock.now_s += SILENCE_S - 0.1
            turns = line.turns
            until(lambda turns=turns: line.turns >= turns + 2)  # type: ignore[misc]  # ditto
    assert got == [b"T18"]


def trouble(where: Path | str) -> str:
    port = SerialPort(SerialOptions(str(where)), name="serial", beat=lambda _: None)
    with pytest.raises(PortError) as caught:
        port.run(threading.Event())
    return str(caught.value)


def test_a_port_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert "is it plugged in?" in trouble(tmp_path / "ttyUSB7")


def test_a_port_that_another_program_has_is_not_shared(plc: Plc) -> None:
    with plc.port.open("rb", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "in use by another program" in trouble(plc.port)


def test_a_file_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be opened" in trouble(tmp_path / "file")


def test_a_url_that_nobody_knows_is_said() -> None:
    assert "the serial port gopher://x: " in trouble("gopher://x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open any port")
def test_a_port_that_may_not_be_opened_names_the_group(plc: Plc) -> None:
    plc.port.chmod(0)
    assert "dialout" in trouble(plc.port)


def test_a_write_that_nobody_takes_fails_in_time(plc: Plc) -> None:
    with Open(plc.port) as line:
        until(lambda: line.port.connected)
        plc._stop.set()  # it reads no more, and the line fills up
        with pytest.raises(GateError, match="took no bytes"):
            line.port.write(b"x" * 1_000_000)


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_all_kinds_is_counted_and_survived(plc: Plc, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # no secret
    got: list[bytes] = []
    with Open(plc.port, max_line_bytes=32) as line:
        line.port.listen(taking(got, only={b"T%d" % number for number in range(20)}))
        until(lambda: line.port.connected)
        for number in range(20):
            junk = bytes(one for one in chance.randbytes(chance.randrange(200)) if one not in b"\r\nT")
            plc.say(junk + b"\rT%d\r" % number)
        until(lambda: len(got) == 20)
    assert got == [b"T%d" % number for number in range(20)]
    assert line.port.counts.overlong > 0
    assert line.faults() == {}


def test_a_network_converter_is_a_port_too() -> None:
    got: list[bytes] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Open(f"socket://127.0.0.1:{server.getsockname()[1]}") as line,
    ):
        line.port.listen(taking(got))
        until(lambda: line.port.connected)
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"T1\r")
            until(lambda: got)
            line.port.write(b"P1\r")
            assert peer.recv(16) == b"P1\r"
        until(lambda: "serial_failing" in line.faults())
    assert got == [b"T1"]
