"""Questions to a Prometheus, or to what answers like one (Thanos, Mimir, VictoriaMetrics), over its HTTP API.

Everything goes to the one address that was given: no redirect is followed, and proxies, netrc and other settings of the
environment have no say. What may be secret never stands in a message.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from carbon_exporter.errors import QueryError, QueryTooLarge

if TYPE_CHECKING:
    import requests

__all__ = ["Access", "PrometheusClient", "Series"]

CONNECT_SECONDS = 5.0
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, UNPROCESSABLE, UNAVAILABLE = 401, 403, 404, 422, 503
REDIRECTS = range(300, 400)
_TROUBLES = ("too many samples", "timed out", "exceed", "limit", "cannot select more", "too large")
"""Words by which engines say that a question is too large; the same one in parts may be answered."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a Prometheus is and how it lets us in."""

    url: str
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    bearer_token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    tenant: str = ""
    """`X-Scope-OrgID`, by which Mimir and its like tell tenants apart."""
    timeout: float = 60.0
    """Seconds that an answer may keep us waiting."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels, and its values at Unix seconds."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    def label(self, name: str) -> str:
        """The label's value, empty where it is absent."""
        return self.labels.get(name, "")


class PrometheusClient:
    """One server. Every question raises `QueryError` if it is not answered, `QueryTooLarge` if a smaller one may be."""

    def __init__(self, access: Access) -> None:
        """Nothing is sent before the first question. Raises `QueryError` for a CA file that cannot be read."""
        self._access = access
        self._http: requests.Session | None = None
        self.warnings: dict[str, None] = {}
        """What the server said beside its answers, in order, each once."""

    def instant(self, expression: str, at: float) -> list[Series]:
        """The value of an expression at one time; of a range such as `x[5m]` its raw samples."""
        return _series(self._ask("query", {"query": expression, "time": f"{at:.3f}"}))

    def windows(self, expression: str, begin: float, end: float, step: float) -> list[Series]:
        """Its values at `begin` + `step`, `begin` + 2 `step`, …, `end`: at the end of each window of `step` seconds."""
        arguments = {"query": expression, "start": f"{begin + step:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        # VictoriaMetrics would round the edges to what it has cached.
        return _series(self._ask("query_range", {**arguments, "nocache": "1"}))

    def label_values(self, label: str, matching: str, begin: float, end: float) -> list[str]:
        """The values that a label has in the series that match, sorted."""
        arguments = {"match[]": matching, "start": f"{begin:.3f}", "end": f"{end:.3f}"}
        told = self._ask(f"label/{label}/values", arguments)
        if not isinstance(told, (list, NoneType)):
            raise _not_theirs()
        return sorted(map(str, told or []))

    def _ask(self, path: str, arguments: Mapping[str, str]) -> Any:
        import requests  # noqa: PLC0415 - --help needs none

        try:
            answer = self._session().get(
                f"{self._access.url.rstrip('/')}/api/v1/{path}",
                params=dict(arguments),
                timeout=(CONNECT_SECONDS, self._access.timeout),
                allow_redirects=False,
            )
            body = answer.content
        except (requests.RequestException, OSError, ValueError) as error:
            raise _unreachable(error, self._access) from None
        return self._data(answer.status_code, body)

    def _data(self, status: int, body: bytes) -> Any:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or value.get("status") not in {"success", "error"}:
            raise _stranger(status, self._access)
        for warning in [*(value.get("warnings") or []), *(value.get("infos") or [])]:
            self.warnings[str(warning)] = None
        if value.get("isPartial"):
            self.warnings["some of the storage did not answer: the numbers may be too low"] = None
        if value["status"] == "success":
            return value.get("data")
        raise _refusal(status, str(value.get("error", "")))

    def _session(self) -> requests.Session:
        if self._http is None:
            import requests  # noqa: PLC0415

            access, http = self._access, requests.Session()
            http.trust_env = False
            http.verify = str(access.ca_file) if access.ca_file else True
            http.headers["User-Agent"] = "carbon-exporter"
            if access.username:
                pair = f"{access.username}:{access.password}".encode()
                http.headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
            elif access.bearer_token:
                http.headers["Authorization"] = f"Bearer {access.bearer_token}"
            if access.tenant:
                http.headers["X-Scope-OrgID"] = access.tenant
            self._http = http
        return self._http


def _series(data: Any) -> list[Series]:
    """The series of a vector or a matrix; a scalar or a string is nothing that we ask for."""
    try:
        return [_one(row) for row in data["result"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _not_theirs() from None


def _not_theirs() -> QueryError:
    return QueryError("the answer is not one of Prometheus's", remedy="--prometheus is the address of one")


def _one(row: Any) -> Series:
    points = row["values"] if "values" in row else [row["value"]]
    return Series(dict(row["metric"]), [(float(at), float(value)) for at, value in points])


def _unreachable(error: Exception, access: Access) -> QueryError:
    import requests  # noqa: PLC0415

    if isinstance(error, requests.exceptions.SSLError):
        return QueryError(f"{access.url} is not trusted: {_root(error)}", remedy="--ca-file=FILE names its authority")
    if isinstance(error, requests.exceptions.ReadTimeout):
        remedy = "give it longer by --timeout, or ask for less by --from and --to"
        return QueryError(f"{access.url} did not answer within {access.timeout:g} s", remedy=remedy)
    if isinstance(error, (requests.exceptions.ConnectionError, requests.exceptions.Timeout)):
        return QueryError(
            f"{access.url} cannot be reached: {_root(error)}", remedy="is Prometheus there, at this port?"
        )
    return QueryError(f"{access.url} cannot be asked: {_root(error)}")


def _root(error: BaseException) -> str:
    """The innermost reason, without the names of classes and addresses of objects around it."""
    seen: BaseException = error
    while inner := next(
        (part for part in (*seen.args, seen.__cause__, getattr(seen, "reason", None)) if _is(part)), None
    ):
        seen = inner
    words = getattr(seen, "strerror", None) or str(seen)
    return str(words).partition(">: ")[2] or str(words)


def _is(part: object) -> bool:
    return isinstance(part, BaseException)


def _stranger(status: int, access: Access) -> QueryError:
    if status in {UNAUTHORIZED, FORBIDDEN}:
        remedy = "--bearer-token-file, or --username with --password-file, say who asks"
        return QueryError(f"{access.url} refuses with HTTP status {status}", remedy=remedy)
    if status in REDIRECTS:
        return QueryError(
            f"{access.url} redirects elsewhere", remedy="--prometheus is the final address, with its path"
        )
    if status == UNAVAILABLE:
        return QueryError(f"{access.url} is not ready (HTTP status {status})", remedy="try again in a minute")
    remedy = "--prometheus is the address before /api/v1, such as http://localhost:9090"
    return QueryError(f"{access.url} is no Prometheus (HTTP status {status})", remedy=remedy)


def _refusal(status: int, error: str) -> QueryError:
    large = status in {UNPROCESSABLE, UNAVAILABLE} and any(word in error for word in _TROUBLES)
    return (QueryTooLarge if large else QueryError)(f"the server refuses the question (HTTP status {status}): {error}")
