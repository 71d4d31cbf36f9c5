"""API keys: made once, shown once, kept as hashes, and revoked at once."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import structlog

from station.durable import adopt, write_kept
from station.errors import ConfigError
from station.locks import hold
from station.types import Scope

log = structlog.get_logger(__name__)

PREFIX = "st"
NAME = "keys.json"
LOCK = ".keys.lock"
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
    """
    The keys in the file *path* (mode 0600), which other processes may change. Any thread.

    A file that is there and cannot be read, or is damaged, raises ConfigError: it opens to nobody, and is not replaced.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, AccessKey] = {}
        self._trouble: str | None = None

    def create(self, name: str, scopes: Iterable[Scope]) -> str:
        """Makes a key and returns it: nobody can ever read it again. Raises ConfigError."""
        wanted = frozenset(scopes)
        if not name or len(name) > 64 or not name.isprintable():
            raise ConfigError("a key's name has 1 to 64 printable characters")
        if not wanted:
            raise ConfigError("a key needs a scope: --scope read, predict or command; it may be repeated")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = AccessKey(key_id, name, wanted, self._now().isoformat(timespec="seconds"), _digest(secret))
        with self._alone():
            if any(name in {one.name, one.id} for one in self.all()):
                raise ConfigError(f'there is a key "{name}" already: revoke it first, or choose another name')
            self._write([*self.all(), key])
        return f"{PREFIX}_{key_id}_{secret}"

    def revoke(self, name: str) -> AccessKey:
        """Ends the key of that name or id. Raises ConfigError when there is none."""
        keys = self.all()
        found = next((one for one in keys if name in {one.name, one.id}), None)
        if found is None:
            known = ", ".join(one.name for one in keys) or "none"
            raise ConfigError(f'there is no key "{name}"; known are: {known}')
        with self._alone():
            self._write([one for one in self.all() if one.id != found.id])
        return found

    def all(self) -> list[AccessKey]:
        """Every key, oldest first."""
        return list(self._look().values())

    def by_id(self, key_id: str) -> AccessKey | None:
        return self._look().get(key_id)

    def find(self, text: str) -> AccessKey | None:
        """The key that *text* is, or None. It takes as long for a wrong secret as for an unknown key."""
        prefix, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self.by_id(key_id) if prefix == PREFIX else None
        same = hmac.compare_digest(_digest(secret).encode(), (key.digest if key else _NOBODY).encode())
        return key if same else None

    def _look(self) -> dict[str, AccessKey]:
        """The keys; read again if the file is another one, or belongs to another user."""
        with self._lock:
            try:
                stat = self._path.stat()
            except FileNotFoundError:
                self._seen, self._keys, self._trouble = None, {}, None
                return self._keys
            except OSError as error:
                raise ConfigError(f"{self._path} cannot be read: {error.strerror}") from None
            seen = (stat.st_ctime_ns, stat.st_size, stat.st_ino)  # ctime: a chown mends it too
            if seen != self._seen:
                self._seen, self._keys, self._trouble = seen, {}, None
                try:
                    self._keys = _read(self._path)
                except ConfigError as error:
                    self._trouble = str(error)
                    log.error("keys cannot be read", reason=self._trouble)
            if self._trouble is not None:
                raise ConfigError(self._trouble)
            return self._keys

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two who make keys at the same time must not lose one that was shown already."""
        path = self._path.with_name(LOCK)
        try:
            descriptor = hold(path, os.O_WRONLY | os.O_CREAT, mode=0o600, wait=True)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror}): {_WHO}") from None
        try:
            adopt(path)
            yield
        finally:
            os.close(descriptor)

    def _write(self, keys: Iterable[AccessKey]) -> None:
        document = {
            one.id: {"name": one.name, "scopes": sorted(one.scopes), "made_at": one.made_at, "sha256": one.digest}
            for one in keys
        }
        try:
            write_kept(self._path, document, private=True, adopted=True)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written ({error.strerror}): {_WHO}") from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(path: Path) -> dict[str, AccessKey]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            key_id: AccessKey(key_id, one["name"], frozenset(one["scopes"]), one["made_at"], str(one["sha256"]))
            for key_id, one in document.items()
        }
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): {_WHO}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path} is damaged: put it back from a backup, or move it away and make new keys (station key create)"
        ) from None


_WHO = "run this as the user of the service (or as root), to whom the folder belongs"
