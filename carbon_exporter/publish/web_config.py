"""The web configuration: the file that exporters on Prometheus' exporter-toolkit take as --web.config.file.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. What Python's ssl cannot do as
Go's does is an error that says so, never something weaker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carbon_exporter.errors import ConfigError
from carbon_exporter.publish.tls_names import CIPHERS_OF_TLS13
from carbon_exporter.publish.web_schema import IF_GIVEN, NOT_ASKED, REQUIRED, SECTIONS, mapping, nearest

__all__ = ["RateLimit", "TlsConfig", "WebConfig", "read_web_config"]

_VERIFIED = frozenset({IF_GIVEN, REQUIRED})


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """`tls_server_config`; names are Go's."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    client_auth_type: str = NOT_ASKED
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it names."""
        return (self.cert_file, self.key_file, *((self.client_ca_file,) if self.client_ca_file else ()))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`rate_limit`: one request each `interval` seconds, and up to `burst` at once. 0 seconds: no limit."""

    interval: float = 0.0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The whole file. An empty one changes nothing."""

    tls: TlsConfig | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, bytes] = field(default_factory=dict)
    """Hashes by bcrypt, by name."""
    rate_limit: RateLimit = RateLimit()
    http2: bool = False
    """Asked for in so many words; this server has none, and clients agree on HTTP/1.1 with it."""


def read_web_config(file: Path) -> WebConfig:
    """The file's contents, checked. Raises `ConfigError` that names the file, the key and what is accepted."""
    from carbon_exporter.config.yaml_file import read_yaml  # noqa: PLC0415 - only those with a file pay for it

    where = str(file)
    sections = mapping(where, "(whole file)", read_yaml(file, "settings", "web.config.file"))
    for key in sections:
        if key not in SECTIONS:
            raise ConfigError(where, key, "(not shown)", nearest(key, SECTIONS))
    parts = {name: read(where, sections.get(name)) for name, read in SECTIONS.items()}
    tls = parts["tls_server_config"]
    return WebConfig(
        _tls(file, tls) if tls else None,
        users=parts["basic_auth_users"],
        rate_limit=_rate_limit(where, parts["rate_limit"]),
        **parts["http_server_config"],
    )


def _tls(file: Path, given: dict[str, Any]) -> TlsConfig:
    """Paths from the file's own directory, and nothing that contradicts itself."""
    for key in ("cert_file", "key_file"):
        if key not in given:
            raise ConfigError(
                str(file), f"tls_server_config.{key}", "", "a file in PEM: TLS needs cert_file and key_file"
            )
    paths = {key: file.parent / path for key, path in given.items() if isinstance(path, Path)}
    tls = TlsConfig(**{**given, **paths})
    verified = tls.client_auth_type in _VERIFIED
    without_tls12 = set(tls.cipher_suites) <= CIPHERS_OF_TLS13 and tls.min_version == "TLS12"
    contradictions = {
        "client_ca_file": (tls.client_ca_file and not verified, f"only with client_auth_type {IF_GIVEN} or {REQUIRED}"),
        "client_auth_type": (verified and not tls.client_ca_file, "together with client_ca_file"),
        "client_allowed_sans": (
            tls.client_allowed_sans and tls.client_auth_type != REQUIRED,
            f"only with client_auth_type {REQUIRED}: without a certificate there are no names to compare",
        ),
        "min_version": (tls.min_version > tls.max_version, "a version not above max_version"),
        "cipher_suites": (tls.cipher_suites and without_tls12, "one of TLS 1.2 at least, or min_version: TLS13"),
    }
    for key, (is_wrong, accepted) in contradictions.items():
        if is_wrong:
            raise ConfigError(str(file), f"tls_server_config.{key}", given.get(key, str(getattr(tls, key))), accepted)
    return tls


def _rate_limit(where: str, given: dict[str, Any]) -> RateLimit:
    limit = RateLimit(**given)
    if limit.interval and not limit.burst:
        raise ConfigError(where, "rate_limit.burst", limit.burst, "at least 1, together with rate_limit.interval")
    return limit
