"""JSON Web Tokens (RFC 7519): signed by us for half an hour, or by somebody else whose public key we were given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal, get_args

from station.errors import AccessError, ConfigError, ExpiredTokenError
from station.types import Scope

Algorithm = Literal["HS256", "RS256", "EdDSA"]

LEEWAY_S = 10.0  # clocks on a plant network differ a little
LEAST_BYTES = 32  # of an HS256 secret: RFC 7518, 3.2
GUESSABLE = frozenset({"your-secret-key-here", "your-secret-key"})  # the deployment guide's own
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says: for whom, with which rights, and by which key it was asked for (None: none of ours)."""

    subject: str
    scopes: frozenset[Scope]
    key_id: str | None


class Tokens:
    """
    Signs (HS256 only) and checks tokens for *audience*, the station's name.

    *secret* is HS256's; *public_key* (PEM) that of RS256 or EdDSA. Raises ConfigError for a secret that can be guessed,
    and for a key that is none.
    """

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        audience: str,
        secret: str | None = None,
        public_key: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        if secret is not None and secret in GUESSABLE:
            raise ConfigError(f'the secret for tokens is "{secret}", which stands in a public guide: {_ADVICE}')
        if secret is not None and len(secret.encode()) < LEAST_BYTES:
            raise ConfigError(f"the secret for tokens has fewer than {LEAST_BYTES} bytes: {_ADVICE}")
        self._algorithm = algorithm
        self._audience = audience
        self._secret = secret
        self._now = now
        import jwt  # late, and so below: with its cryptography it takes 10 MB, and most stations ask nobody for a token

        key = secret if algorithm == "HS256" else public_key
        try:
            self._key = jwt.get_algorithm_by_name(algorithm).prepare_key(key or "")
        except (jwt.InvalidKeyError, ValueError, TypeError) as error:
            raise ConfigError(f"[http] jwt_public_key_file is no public key for {algorithm}: {error}") from None

    @property
    def signs(self) -> bool:
        return self._secret is not None

    def issue(self, subject: str, scopes: frozenset[Scope], *, minutes: int, key_id: str | None = None) -> str:
        """Raises AccessError where somebody else signs."""
        if self._secret is None:
            raise AccessError(f"this station only checks tokens ({self._algorithm}): ask those who sign them")
        now = self._now()
        claims = {
            "iss": "station",
            "aud": self._audience,
            "sub": subject,
            "scope": " ".join(sorted(scopes)),
            "iat": now,
            "exp": now + timedelta(minutes=minutes),
        }
        if key_id is not None:
            claims["key"] = key_id
        import jwt

        return jwt.encode(claims, self._secret, algorithm=self._algorithm)

    def check(self, token: str) -> Claims:
        """Raises AccessError: why it is not believed; ExpiredTokenError if nothing else is wrong with it."""
        import jwt

        try:
            found = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise ExpiredTokenError("the token has expired: ask for another one") from None
        except jwt.PyJWTError as error:
            raise AccessError(f"the token is not believed: {error}") from None
        said = found.get("scope", "")
        words = set(said.split()) if isinstance(said, str) else set()
        key_id = found.get("key")
        return Claims(
            str(found["sub"]),
            frozenset(one for one in SCOPES if one in words),
            key_id if isinstance(key_id, str) else None,
        )


_ADVICE = "make one with: openssl rand -hex 32"
