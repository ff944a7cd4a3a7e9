"""A certificate authority of the test's own, made by openssl, and certificates that it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.tools import need

__all__ = ["Authority"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Keeps its files in a directory; `certificate` is what others have to trust."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self.certificate, self._key = directory / f"{name}.crt", directory / f"{name}.key"
        usage = ("-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl("req", "-x509", *_KEY, *usage, "-keyout", self._key, "-out", self.certificate)

    def sign(self, name: str, san: str) -> tuple[Path, Path]:
        """Certificate and key for `san` (as openssl writes it: `DNS:prometheus`), replaced if they are there."""
        made = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        issuer = ("-CA", self.certificate, "-CAkey", self._key, "-addext", "basicConstraints=CA:FALSE")
        names = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={san}")
        self._openssl("req", "-x509", *_KEY, *issuer, "-keyout", made[1], "-out", made[0], *names)
        return made

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run([need("openssl"), *arguments], check=True, capture_output=True)
