"""Files of /proc, read by path: what the process table does not hold."""

from __future__ import annotations

import os

from carbon_exporter.jobs.procfs import parse_environ

__all__ = ["read_environment", "read_file"]

LONGEST_ENVIRONMENT = 2 * 1024 * 1024


def read_file(path: str, most: int) -> bytes:
    """Up to `most` bytes. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while most > 0 and (chunk := os.read(handle, min(most, 131072))):
            chunks.append(chunk)
            most -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(handle)


def read_environment(procfs: str, pid: int, wanted: tuple[bytes, ...]) -> dict[str, str]:
    """A process's environment as it was started; empty if none of the `wanted` names is in it. Raises `OSError`."""
    text = read_file(f"{procfs}/{pid}/environ", LONGEST_ENVIRONMENT)
    return parse_environ(text) if any(name in text for name in wanted) else {}
