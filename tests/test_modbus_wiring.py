"""How Modbus is put together from a configuration, and what a technician reads when that cannot be."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from station.commands.check_line import modbus
from station.config import Settings, load
from station.errors import ConfigError
from station.line_parts import need_modbus
from tests.mosquitto import free_port

TRIGGER = '[source]\nkind = "camera"\ndevice = "0"\n[trigger]\nkind = "modbus"\n'
GATE = '[gate]\nkind = "modbus"\n'


def loaded(folder: Path, text: str) -> Settings:
    path = folder / "station.toml"
    path.write_text(text)
    return load(path)


def tcp(port: int, host: str = "127.0.0.1") -> str:
    return f'[modbus]\nkind = "tcp"\nhost = "{host}"\ntcp_port = {port}\n'


def test_pymodbus_is_imported_only_where_modbus_is_used() -> None:
    code = "import sys, station.cli, station.app, station.line_side; sys.exit('pymodbus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_without_the_extra_both_start_and_check_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymodbus", None)
    with pytest.raises(ConfigError, match=r"/bin/pip install 'pymodbus"):
        need_modbus()
    (finding,) = modbus(loaded(tmp_path, GATE + tcp(5020)))
    assert finding.needed
    assert not finding.works
    assert "/bin/pip install 'pymodbus" in finding.seen


def test_check_says_what_modbus_is_for_and_is_silent_when_it_is_off(tmp_path: Path) -> None:
    port = free_port()
    (finding,) = modbus(loaded(tmp_path, TRIGGER + GATE + tcp(port)))
    assert (finding.works, finding.seen) == (True, f"127.0.0.1:{port} can be opened, as unit 1, for trigger and gate")
    (finding,) = modbus(loaded(tmp_path, GATE + tcp(port)))
    assert (finding.works, finding.seen) == (True, f"127.0.0.1:{port} can be opened, as unit 1, for gate")
    assert list(modbus(loaded(tmp_path, ""))) == []


def test_check_says_that_a_port_is_taken_or_not_ours(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        (finding,) = modbus(loaded(tmp_path, GATE + tcp(taken.getsockname()[1])))
    assert (finding.works, finding.needed) == (False, False)
    assert "is in use by another program, or another station" in finding.seen
    (finding,) = modbus(loaded(tmp_path, GATE + tcp(5020, "192.0.2.1")))
    assert "192.0.2.1 is no address of this computer" in finding.seen


def test_check_opens_the_serial_port_of_rtu(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    try:
        where = os.ttyname(slave)
        (finding,) = modbus(loaded(tmp_path, f'{GATE}[modbus]\nkind = "rtu"\nport = "{where}"\nunit = 7\n'))
        assert (finding.works, finding.seen) == (True, f"{where} can be opened, as unit 7, for gate")
    finally:
        os.close(master)
        os.close(slave)
    (finding,) = modbus(loaded(tmp_path, GATE + '[modbus]\nkind = "rtu"\nport = "/dev/serial-away"\n'))
    assert (finding.works, finding.needed) == (False, False)
    assert "/dev/serial-away is not there" in finding.seen
