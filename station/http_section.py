"""The section of the configuration that opens the HTTP port: who may ask, how much, and how often."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from station.sections import Megabytes, Port, Section

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


class HttpSection(Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8000
    commands: tuple[Literal["recipe", "challenge"], ...] = ()
    metrics: bool = True
    auth: Literal["off", "required"] = "off"
    jwt_algorithm: Literal["HS256", "RS256", "EdDSA"] = "HS256"
    jwt_secret_file: Path | None = None
    jwt_public_key_file: Path | None = None
    token_minutes: int = Field(30, ge=1, le=525_600)
    requests_per_minute: int = Field(600, ge=0)
    trusted_proxies: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    cert_file: Path | None = None
    key_file: Path | None = None
    max_file_mb: Megabytes = 10.0
    max_pixels_mp: Megabytes = 50.0
    queue: int = Field(16, ge=1, le=1000)
    cache_mb: float = Field(64.0, ge=0, le=100_000)
    redis: str = ""
    redis_password_file: Path | None = None

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not _is_network(one):
                raise ValueError(f'"{one}" is no address or network: write 10.0.0.5 or 10.0.0.0/24')
        return value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        """The deployment guide writes them in one line, with commas."""
        return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value

    @field_validator("redis")
    @classmethod
    def _no_login(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://")):
            raise ValueError("write redis://HOST:PORT/NUMBER")
        if "@" in value:
            raise ValueError(
                "no login in the address: put the password into a file, and name that in redis_password_file"
            )
        return value

    @model_validator(mode="after")
    def _shut_to_strangers(self) -> HttpSection:
        if self.host not in LOOPBACK and self.auth == "off":
            raise ValueError(
                f'host = "{self.host}" is open to the network and auth is "off": set auth = "required" and make a key '
                "(station key create NAME --scope predict), or listen on 127.0.0.1"
            )
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file belong together: give both or none")
        if self.jwt_public_key_file is not None and self.jwt_algorithm == "HS256":
            raise ValueError('jwt_public_key_file goes with jwt_algorithm = "RS256" or "EdDSA"')
        if self.jwt_algorithm != "HS256" and self.jwt_public_key_file is None:
            raise ValueError(f'jwt_algorithm = "{self.jwt_algorithm}" needs jwt_public_key_file')
        if self.jwt_algorithm != "HS256" and self.jwt_secret_file is not None:
            raise ValueError('jwt_secret_file goes with jwt_algorithm = "HS256"')
        return self
