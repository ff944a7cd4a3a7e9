"""What Weights & Biases wrote in offline mode: a log in LevelDB's format, of records that are protocol buffers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["rows", "settings"]

_FILE_HEADER, _BLOCK, _RECORD_HEADER = 7, 32768, 7
_FULL, _LAST = 1, 4


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the one run below a folder, with `_step`; in the order in which they were closed."""
    items = [record.history.item for record in _records(folder) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in one} for one in items]


def settings(folder: Path) -> dict[str, Any]:
    """Its configuration, as it was in the end."""
    changed = [record.config.update for record in _records(folder) if record.WhichOneof("record_type") == "config"]
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for one in changed for item in one}


def _records(folder: Path) -> Iterator[Any]:
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    (file,) = folder.rglob("*.wandb")
    for body in _bodies(file.read_bytes()):
        yield record.FromString(body)


def _bodies(data: bytes) -> Iterator[bytes]:
    """The log's records, whose parts may stand in several blocks."""
    at, body = _FILE_HEADER, b""
    while at + _RECORD_HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD_HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        body += data[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        at += _RECORD_HEADER + length
        if kind in {_FULL, _LAST}:
            yield body
            body = b""
