"""TLS for the server: OpenSSL's context from the web configuration, and whose client certificate may come in."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbon_exporter.errors import ConfigError
from carbon_exporter.publish.tls_names import CIPHERS, CURVES
from carbon_exporter.publish.web_config import TlsConfig
from carbon_exporter.publish.web_schema import IF_GIVEN, REQUIRED

__all__ = ["Tls"]

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {IF_GIVEN: ssl.CERT_OPTIONAL, REQUIRED: ssl.CERT_REQUIRED}


@dataclass(frozen=True, slots=True)
class Tls:
    """What new connections are opened with. Never changed: changed files make a new one."""

    context: ssl.SSLContext
    allowed_sans: frozenset[str] = frozenset()
    """Subject alternative names of which a client's certificate needs one; empty: any."""

    @classmethod
    def of(cls, config: TlsConfig, where: str) -> Tls:
        """Reads the files that `config` names; `where` is its own. Raises `ConfigError` for one that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = _VERSIONS[config.min_version], _VERSIONS[config.max_version]
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        if not config.prefer_server_cipher_suites:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        _choose(context, config, where)
        _load_own(context, config, where)
        context.verify_mode = _VERIFY.get(config.client_auth_type, ssl.CERT_NONE)
        if config.client_ca_file is not None:
            _load_authorities(context, config.client_ca_file, where)
        return cls(context, frozenset(map(_canonical, config.client_allowed_sans)))

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client with this verified certificate (as `getpeercert` gives it) may come in."""
        names = (certificate or {}).get("subjectAltName", ())
        return not self.allowed_sans or any(
            isinstance(value, str) and _canonical(value) in self.allowed_sans for _, value in names
        )


def _choose(context: ssl.SSLContext, config: TlsConfig, where: str) -> None:
    """Ciphers and curve. OpenSSL as it is here, or a policy of the system, may lack what others have."""
    key = "cipher_suites"
    try:
        if chosen := [CIPHERS[name] for name in config.cipher_suites if name in CIPHERS]:
            context.set_ciphers(":".join(chosen))
        key = "curve_preferences"
        for curve in config.curve_preferences:
            context.set_ecdh_curve(CURVES[curve])
    except (ssl.SSLError, ValueError) as error:
        given = list(getattr(config, key))
        raise ConfigError(where, f"tls_server_config.{key}", given, "what this machine's OpenSSL has") from error


def _load_own(context: ssl.SSLContext, config: TlsConfig, where: str) -> None:
    for key, path in (("cert_file", config.cert_file), ("key_file", config.key_file)):
        _check_readable(where, key, path)
    try:
        # A password is given lest OpenSSL ask for one at the terminal; it is not that of any key.
        context.load_cert_chain(config.cert_file, config.key_file, password="")
    except (OSError, ValueError) as error:
        accepted = f"a certificate in PEM, and in key_file the key that belongs to it, not encrypted ({_reason(error)})"
        raise ConfigError(where, "tls_server_config.cert_file", str(config.cert_file), accepted) from error


def _load_authorities(context: ssl.SSLContext, path: Path, where: str) -> None:
    _check_readable(where, "client_ca_file", path)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        accepted = f"certificates in PEM ({_reason(error)})"
        raise ConfigError(where, "tls_server_config.client_ca_file", str(path), accepted) from error


def _check_readable(where: str, key: str, path: Path) -> None:
    """OpenSSL does not say which of its files it could not open."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(
            where, f"tls_server_config.{key}", str(path), f"a readable file ({error.strerror})"
        ) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error).lower().replace("_", " ")


def _canonical(name: str) -> str:
    """A name as it is; an address in its one spelling, which Python and OpenSSL do not share."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
