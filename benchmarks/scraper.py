"""A scraper as Prometheus is one: one connection kept alive, the whole body read, and each scrape timed."""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection

__all__ = ["FLOOR_PATH", "OPENMETRICS_GZIP", "PLAIN_TEXT", "Scrapes", "scrape_for", "series_on_page"]

OPENMETRICS_GZIP = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
"""What Prometheus 2.42, Debian 12's, sends."""
PLAIN_TEXT = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}
FLOOR_PATH = "/-/healthy"
_METRICS = "/metrics"
_PERIOD_SECONDS = 0.01
"""Between the starts of two scrapes, unless the first takes longer. Without a pace the few slow scrapes during a tick
would drown in the many fast ones between ticks, and no percentile would show them."""


@dataclass(frozen=True, slots=True)
class Scrapes:
    """A series of scrapes of one page."""

    seconds: tuple[float, ...]
    """From sending the request to having the whole body, still compressed."""
    body_bytes: int
    """Of the last body, as it came."""
    floor: tuple[float, ...] = ()
    """Seconds of requests to `FLOOR_PATH` in between: what machine and Python take for a few bytes."""


def scrape_for(port: int, headers: Mapping[str, str], seconds: float, *, floor: bool = False) -> Scrapes:
    """Scrape again and again for a while; for 0 seconds, once, untimed. Raises `OSError` for an answer but 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    times: dict[str, list[float]] = {_METRICS: [], **({FLOOR_PATH: []} if floor else {})}
    body = _get(connection, _METRICS, headers)
    due = time.perf_counter()
    until = due + seconds
    while due < until:
        for path, taken in times.items():
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            answer = _get(connection, path, headers)
            ended = time.perf_counter()
            taken.append(ended - began)
            body = answer if path == _METRICS else body
            due = max(due + _PERIOD_SECONDS / len(times), ended)
    connection.close()
    return Scrapes(tuple(times[_METRICS]), len(body), tuple(times.get(FLOOR_PATH, ())))


def series_on_page(port: int) -> int:
    """How many samples the page has."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    lines = gzip.decompress(_get(connection, _METRICS, OPENMETRICS_GZIP)).splitlines()
    connection.close()
    return sum(not line.startswith(b"#") for line in lines)


def _get(connection: HTTPConnection, path: str, headers: Mapping[str, str]) -> bytes:
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise OSError(f"{path} answered {answer.status}")
    return body
