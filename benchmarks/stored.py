"""A real Prometheus that answers questions about blocks and does nothing else: no scrape, no rule, no compaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.demo.server import Server, prometheus

__all__ = ["stored"]


@contextmanager
def stored(folder: Path, samples: int = 50_000_000) -> Iterator[Server]:
    """Serves the blocks in `folder` while the block runs; a query may hold so many samples, Prometheus' own default."""
    flags = {
        "storage.tsdb.path": str(folder),
        "query.max-samples": str(samples),
        # Equal, so that blocks stay as they are; and none is too old.
        "storage.tsdb.min-block-duration": "2h",
        "storage.tsdb.max-block-duration": "2h",
        "storage.tsdb.retention.time": "100y",
    }
    with prometheus(folder, flags=flags) as server:
        yield server
