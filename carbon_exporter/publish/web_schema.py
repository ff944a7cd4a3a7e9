"""The keys of the web configuration: what each accepts, and readers of its sections that refuse all else by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbon_exporter.config import duration
from carbon_exporter.errors import ConfigError
from carbon_exporter.publish.tls_names import CIPHERS, CIPHERS_OF_TLS13, CURVES

__all__ = ["IF_GIVEN", "NOT_ASKED", "REQUIRED", "SECTIONS", "mapping", "nearest"]

NOT_ASKED, IF_GIVEN, REQUIRED = "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
_AUTH_TYPES = (NOT_ASKED, "RequestClientCert", IF_GIVEN, REQUIRED)
"""Of Go's five all but RequireAnyClientCert: OpenSSL under Python cannot demand a certificate without verifying it."""
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-8])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
"""22 characters of salt are 132 bits for its 128: of the last one only four are ever written."""
_LONGEST_LIST = 64


@dataclass(frozen=True, slots=True)
class _Field:
    """One key: a parser that raises `ValueError`, and what it accepts."""

    parse: Callable[[Any], Any]
    accepted: str


def mapping(where: str, key: str, content: object) -> dict[str, Any]:
    """A mapping's keys as text; nothing is an empty one. Raises `ConfigError` for anything else."""
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(where, key, type(content).__name__, "a mapping")
    return {str(name): value for name, value in content.items()}


def nearest(key: str, known: Mapping[str, object]) -> str:
    """What to say of a key that is not known."""
    near = difflib.get_close_matches(key, known, n=1)
    return (
        f"no such key here; nearest: {near[0]}" if near else f"no such key here; there are {', '.join(sorted(known))}"
    )


def _section(name: str, fields: Mapping[str, _Field]) -> Callable[[str, object], dict[str, Any]]:
    """A reader of one section: from the file's name and the content to values by key."""

    def read(where: str, content: object) -> dict[str, Any]:
        found = {}
        for key, value in mapping(where, name, content).items():
            if key not in fields:
                raise ConfigError(where, f"{name}.{key}", "(not shown)", nearest(key, fields))
            try:
                found[key] = fields[key].parse(value)
            except ValueError:
                shown = value if key not in _SECRET else "(not shown)"
                raise ConfigError(where, f"{name}.{key}", shown, fields[key].accepted) from None
        return found

    return read


def _http(where: str, content: object) -> dict[str, Any]:
    """`http_server_config`: headers without those left blank, and whether HTTP/2 was asked for."""
    found = _HTTP(where, content)
    given = mapping(where, "http_server_config.headers", found.pop("headers", None))
    filled = {
        name: value for name, value in given.items() if name not in _HEADERS or (value is not None and value != "")
    }
    return {**found, "headers": _section("http_server_config.headers", _HEADERS)(where, filled)}


def _users(where: str, content: object) -> dict[str, bytes]:
    """`basic_auth_users`: hashes by name."""
    users = mapping(where, "basic_auth_users", content)
    for name, hashed in users.items():
        if not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed) or ":" in name or not name:
            accepted = "a bcrypt hash of cost 4 to 18, as htpasswd -nBC 10 NAME prints it; no colon in the name"
            raise ConfigError(where, f"basic_auth_users.{name}", "(not shown)", accepted)
    return {name: hashed.encode() for name, hashed in users.items()}


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(value)
    return value


def _ascii(value: object) -> str:
    text = _text(value)
    if not text.isascii() or text != text.strip():
        raise ValueError(value)
    return text


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004 - a parser's one error
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _pause(value: object) -> float:
    """Go's durations; those longer than an hour, or in smaller units than milliseconds, are not."""
    return 0.0 if value == 0 else duration(0.0, 3600.0)(str(value))


def _refused(value: object) -> Any:
    raise ValueError(value)


def _one_of(*names: str, accepted: str = "") -> _Field:
    def parse(value: object) -> str:
        if value not in names:
            raise ValueError(value)
        return str(value)

    return _Field(parse, accepted or " or ".join(names))


def _several(accepted: str, names: Mapping[str, object] | None = None, most: int = _LONGEST_LIST) -> _Field:
    """A list of texts, of these names if there are any."""

    def parse(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(value)
        if names is not None and not set(map(str, value)) <= set(names):
            raise ValueError(value)
        return tuple(_text(one) for one in value)

    return _Field(parse, accepted)


def _inline(file: str) -> _Field:
    return _Field(_refused, f"nothing: Python reads certificates and keys from files alone; name one with {file}")


_PATH = _Field(lambda value: Path(_text(value)), "a path, relative to this file's directory")
_VERSION = _one_of("TLS12", "TLS13", accepted="TLS12 or TLS13; OpenSSL as it is shipped refuses older ones (RFC 8996)")
_SWITCH = _Field(_boolean, "true or false")
_HEADER = _Field(_ascii, "text of printable ASCII, no space at its ends")
_SECRET = frozenset({"key", "cert", "client_ca"})
_TLS = {
    "cert": _inline("cert_file"),
    "key": _inline("key_file"),
    "client_ca": _inline("client_ca_file"),
    "cert_file": _PATH,
    "key_file": _PATH,
    "client_ca_file": _PATH,
    "client_auth_type": _one_of(
        *_AUTH_TYPES,
        accepted=f"{', '.join(_AUTH_TYPES[:-1])} or {_AUTH_TYPES[-1]}; Python's ssl cannot demand a certificate "
        "without verifying it, as RequireAnyClientCert does",
    ),
    "client_allowed_sans": _several("a list of names, addresses or URIs"),
    "min_version": _VERSION,
    "max_version": _VERSION,
    "cipher_suites": _several(
        f"a list of {', '.join(sorted(CIPHERS))}; those of TLS 1.3 have no effect",
        {**CIPHERS, **dict.fromkeys(CIPHERS_OF_TLS13)},
    ),
    "prefer_server_cipher_suites": _SWITCH,
    "curve_preferences": _several(
        f"a list of one of {', '.join(CURVES)}: Python's ssl can choose one; without it OpenSSL's own, X25519 first",
        CURVES,
        most=1,
    ),
}
_HTTP = _section("http_server_config", {"http2": _SWITCH, "headers": _Field(lambda value: value, "a mapping")})
_HEADERS = {
    "Content-Security-Policy": _HEADER,
    "Strict-Transport-Security": _HEADER,
    "X-Content-Type-Options": _one_of("nosniff"),
    "X-Frame-Options": _one_of("deny", "sameorigin"),
    "X-XSS-Protection": _HEADER,
}
_RATE = {
    "interval": _Field(_pause, "a duration from 1ms to 1h, or 0 for no limit"),
    "burst": _Field(_whole, "a whole number"),
}
SECTIONS: dict[str, Callable[[str, object], dict[str, Any]]] = {
    "tls_server_config": _section("tls_server_config", _TLS),
    "http_server_config": _http,
    "basic_auth_users": _users,
    "rate_limit": _section("rate_limit", _RATE),
}
"""Readers of the sections: from the file's name and the content to values by key. They raise `ConfigError`."""
