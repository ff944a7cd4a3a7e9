"""Log lines as Prometheus people know them: logfmt (`ts=… level=… msg="…"`) or JSON, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Literal, TextIO

__all__ = ["LineFormatter", "configure"]


class LineFormatter(logging.Formatter):
    """One line a record; a traceback becomes one more field."""

    def __init__(self, style: Literal["logfmt", "json"]) -> None:
        """`style` is the setting log.format."""
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
        fields = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "caller": record.name.rpartition(".")[2],
            "msg": record.getMessage(),
        }
        if record.exc_info:
            fields["err"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(fields, ensure_ascii=False)
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())


def configure(level: str, style: Literal["logfmt", "json"], stream: TextIO | None = None) -> None:
    """Send the package's log to `stream` (standard error), from `level` up."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(style))
    logger = logging.getLogger("carbon_exporter")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


def _quoted(value: str) -> str:
    """A logfmt value, in quotes where it needs them."""
    plain = value and all(c.isprintable() and c not in ' "=' for c in value)
    return value if plain else json.dumps(value, ensure_ascii=False)
