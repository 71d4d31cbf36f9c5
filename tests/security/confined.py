"""
Runs ``station`` under the unit's protection without a service manager: ``python -m tests.security.confined``.

What is real here: the unit's own SystemCallFilter, RestrictAddressFamilies and NoNewPrivileges as one seccomp filter;
with root's rights also no capabilities, a system that is read-only but for $WRITABLE, and a /dev without devices.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).parents[2] / "systemd" / "station@.service"
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
CMP_EQ = 4
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")  # what DevicePolicy=closed leaves
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}

_libc = ctypes.CDLL(None, use_errno=True)


def unit_lines(key: str) -> list[str]:
    """What stands behind *key*, line by line."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def calls_of(name: str) -> set[str]:
    """The system calls of *name*, a set such as @mount, or one call."""
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    inner = [line.strip() for line in said.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*(calls_of(one) for one in inner))


def allowed_calls() -> set[str]:
    """What the unit's filter lets through: what a first line allows, less what later lines with ~ take away."""
    allowed = calls_of("@default")
    for line in unit_lines("SystemCallFilter"):
        for name in line.removeprefix("~").split():
            allowed = allowed - calls_of(name) if line.startswith("~") else allowed | calls_of(name)
    return allowed | {"execve", "exit", "exit_group", "rt_sigreturn"}  # as systemd does: nothing starts without them


def may_mount() -> bool:
    """Whether this process may make a mount namespace, as a child of ours finds out."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    given = [None if one is None else one.encode() for one in (source, target, kind)]
    if _libc.mount(*given, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}: {os.strerror(ctypes.get_errno())}")


def _shut_the_disk(writable: list[str]) -> None:
    """ProtectSystem=strict, PrivateTmp (as /var/tmp: the test's own folder is in /tmp) and DevicePolicy=closed."""
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", "/var/tmp", "tmpfs", 0)  # noqa: S108  # a mount of our own
    dev = Path("/var/tmp/dev")  # noqa: S108  # ditto
    for name in ("pts", "shm"):
        (dev / name).mkdir(parents=True)
        _mount(f"/dev/{name}", str(dev / name), None, MS_BIND)
    for name in DEVICES:
        (dev / name).touch()
        _mount(f"/dev/{name}", str(dev / name), None, MS_BIND)
    for name, goal in (("fd", "/proc/self/fd"), ("ptmx", "pts/ptmx")):
        (dev / name).symlink_to(goal)
    _mount(str(dev), "/dev", None, MS_BIND | MS_REC)
    for one in writable:
        _mount(one, one, None, MS_BIND)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for one in sorted(set(mounts)):
        if one not in writable and not one.startswith(("/dev", "/proc", "/sys", "/var/tmp")):  # noqa: S108  # ditto
            _mount("none", one, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def _drop_capabilities() -> None:
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


class _Argument(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _filter_calls(allowed: set[str]) -> None:
    """A filter that refuses with the unit's own error what is not *allowed*, in this process and its children."""
    (refuses_with,) = unit_lines("SystemCallErrorNumber")
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)  # systemd needs it, so it is there
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ERRNO | getattr(errno, refuses_with))))

    def add(action: int, call: str, *arguments: _Argument) -> None:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # a negative one is of another kind of machine
            array = (_Argument * len(arguments))(*arguments)
            done = seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(arguments), array)
            assert done == 0, (call, os.strerror(-done))

    for call in allowed - {"socket"}:
        add(ALLOW, call)
    for family in " ".join(unit_lines("RestrictAddressFamilies")).split():
        add(ALLOW, "socket", _Argument(0, CMP_EQ, FAMILIES[family], 0))
    assert seccomp.seccomp_load(context) == 0


def main() -> None:
    allowed = allowed_calls()
    if os.environ.get("WRITABLE"):
        _shut_the_disk(os.environ["WRITABLE"].split(":"))
        _drop_capabilities()
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _filter_calls(allowed)
    what = sys.argv[1:] if sys.argv[1] == "-c" else ["-m", "station", *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, *what])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
