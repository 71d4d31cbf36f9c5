"""API keys: made once, shown once, kept as hashes, and revoked at once."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from station.errors import ConfigError
from station.kept_file import read_kept, write_kept
from station.types import Scope

PREFIX = "st"
NAME = "keys.json"
_NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One key. *digest* is the SHA-256 of its secret, whose 256 random bits need no slow hash."""

    id: str
    name: str
    scopes: frozenset[Scope]
    made_at: str
    digest: str


class AccessKeys:
    """The keys in the file *path* (mode 0600), which other processes may change. Any thread."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, AccessKey] = {}

    def create(self, name: str, scopes: Iterable[Scope]) -> str:
        """Makes a key and returns it: nobody can ever read it again. Raises ConfigError."""
        wanted = frozenset(scopes)
        if not name or len(name) > 64 or not name.isprintable():
            raise ConfigError("a key's name has 1 to 64 printable characters")
        if not wanted:
            raise ConfigError("a key needs a scope: --scope read, predict or command; it may be repeated")
        if any(one.name == name for one in self.all()):
            raise ConfigError(f'there is a key "{name}" already: revoke it first, or choose another name')
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = AccessKey(key_id, name, wanted, self._now().isoformat(timespec="seconds"), _digest(secret))
        self._write([*self.all(), key])
        return f"{PREFIX}_{key_id}_{secret}"

    def revoke(self, name: str) -> AccessKey:
        """Ends the key of that name or id. Raises ConfigError when there is none."""
        keys = self.all()
        found = next((one for one in keys if name in {one.name, one.id}), None)
        if found is None:
            known = ", ".join(one.name for one in keys) or "none"
            raise ConfigError(f'there is no key "{name}"; known are: {known}')
        self._write([one for one in keys if one != found])
        return found

    def all(self) -> list[AccessKey]:
        """Every key, oldest first."""
        self._look()
        return list(self._keys.values())

    def by_id(self, key_id: str) -> AccessKey | None:
        self._look()
        return self._keys.get(key_id)

    def find(self, text: str) -> AccessKey | None:
        """The key that *text* is, or None. It takes as long for a wrong secret as for an unknown key."""
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self.by_id(key_id) if prefix == PREFIX else None
        same = hmac.compare_digest(_digest(secret), key.digest if key else _NOBODY)
        return key if same else None

    def _look(self) -> None:
        """Reads the file again if it is another one."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            seen = None
        with self._lock:
            if seen == self._seen and seen is not None:
                return
            self._seen, self._keys = seen, {}
            for key_id, one in read_kept(self._path).items() if seen else ():
                self._keys[key_id] = AccessKey(
                    key_id, one["name"], frozenset(one["scopes"]), one["made_at"], one["sha256"]
                )

    def _write(self, keys: Iterable[AccessKey]) -> None:
        document = {
            one.id: {"name": one.name, "scopes": sorted(one.scopes), "made_at": one.made_at, "sha256": one.digest}
            for one in keys
        }
        try:
            write_kept(self._path, document, private=True)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
