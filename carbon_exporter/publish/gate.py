"""The gate before the endpoints: TLS, passwords, headers and a rate, by the newest web configuration that is good.

Its files are looked at every few seconds and on SIGHUP, on a thread of their own. A broken one changes nothing: what
was good before stays in force, the log says why, and `is_well` turns false.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from carbon_exporter.config.file_watch import identity
from carbon_exporter.errors import CarbonExporterError
from carbon_exporter.publish.basic_auth import BasicAuth, TooManyGuesses
from carbon_exporter.publish.messages import Request, Response
from carbon_exporter.publish.rate import Bucket
from carbon_exporter.publish.tls import Tls
from carbon_exporter.publish.web_config import WebConfig, read_web_config

__all__ = ["HEALTH", "Gate", "health_alone"]

_log = logging.getLogger(__name__)
_PERIOD_SECONDS = 3.0
HEALTH = frozenset({"/-/healthy", "/-/ready"})
"""Open to everybody: a probe has no password, and learns nothing but that the process lives."""
_WHO = Response(
    401,
    b"who are you? this server wants a name and a password\n",
    headers=(("WWW-Authenticate", 'Basic realm="metrics", charset="UTF-8"'),),
)
_LATER = Response(429, b"too many requests; come again\n", headers=(("Retry-After", "1"),))


@dataclass(frozen=True, slots=True)
class _Policy:
    """One web configuration, ready for use."""

    config: WebConfig = field(default_factory=WebConfig)
    tls: Tls | None = None
    auth: BasicAuth | None = None
    rate: Bucket | None = None


class Gate:
    """Stands before a handler. `answer` and `tls` are the server's; `reload` and `close` may come from anywhere."""

    def __init__(
        self, handler: Callable[[Request], Response], file: Path | None, period: float = _PERIOD_SECONDS
    ) -> None:
        """Without a `file` it is open. Raises `ConfigError` for one that cannot be used."""
        self._handler = handler
        self._file = file
        self._period = period
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._seen: dict[Path, tuple[int, ...]] = {}
        """What the files were when they were last read."""
        self._policy = _Policy()
        self.is_well: bool | None = None
        """Whether the files were good when they were last read; None without any."""
        if file is not None:
            self._policy, self.is_well = self._load(file, self._policy), True

    def start(self) -> None:
        """Begin to look after the files."""
        if self._file is not None:
            self._thread = threading.Thread(target=self._watch, args=(self._file,), name="web-config", daemon=True)
            self._thread.start()

    def reload(self) -> None:
        """Read the files again, whether they have changed or not. Returns at once."""
        self._wake.set()

    def close(self) -> None:
        """Stop looking. Who waits for a password to be checked may come again."""
        self._closed = True
        self._wake.set()
        if self._policy.auth is not None:
            self._policy.auth.close()

    def tls(self) -> Tls | None:
        """With what a new connection begins; None in the clear."""
        return self._policy.tls

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """The handler's response, or why there is none; to be awaited if a password must be checked first."""
        policy = self._policy
        if _is_health(request):
            return self._passed(request, policy)
        if policy.rate is not None and not policy.rate.takes_one():
            return _with_headers(_LATER, policy)
        if policy.auth is None:
            return self._passed(request, policy)
        header = request.headers.get("authorization", "")
        known = policy.auth.knows(header)
        if known is None:
            return self._after_check(request, policy, policy.auth.check(header, request.peer))
        return self._passed(request, policy) if known else _with_headers(_WHO, policy)

    def _passed(self, request: Request, policy: _Policy) -> Response:
        return _with_headers(self._handler(request), policy)

    async def _after_check(self, request: Request, policy: _Policy, check: Awaitable[bool]) -> Response:
        try:
            is_right = await check
        except TooManyGuesses:
            return _with_headers(_LATER, policy)
        return self._passed(request, policy) if is_right else _with_headers(_WHO, policy)

    def _watch(self, file: Path) -> None:
        while True:
            asked = self._wake.wait(self._period)
            self._wake.clear()
            if self._closed:
                return
            if asked or any(identity(path) != seen for path, seen in self._seen.items()):
                self._reload(file)

    def _reload(self, file: Path) -> None:
        old = self._policy
        try:
            self._policy = self._load(file, old)
        except CarbonExporterError as error:
            self.is_well = False
            _log.error("web configuration not reloaded, the old one stays in force: %s", error)
            return
        self.is_well = True
        if old.auth is not None and old.auth is not self._policy.auth:
            old.auth.close()
        _log.info("web configuration reloaded")

    def _load(self, file: Path, old: _Policy) -> _Policy:
        """The file's policy; users that are the same keep what is remembered of them."""
        # Each is looked at before it is read: a change meanwhile is then seen the next time.
        self._seen = {path: identity(path) for path in (file, *_files(old.config))}
        config = read_web_config(file)
        self._seen = {file: self._seen[file]} | {path: identity(path) for path in _files(config)}
        tls = Tls.of(config.tls, str(file)) if config.tls else None
        auth = old.auth if old.auth is not None and old.auth.users == config.users else None
        if auth is None and config.users:
            auth = BasicAuth(config.users, str(file))
        _warn(config, file)
        return _Policy(config, tls, auth, Bucket(config.rate_limit) if config.rate_limit.interval else None)


def health_alone(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """A handler that answers probes and nothing else, for a listener of its own."""

    def answer(request: Request) -> Response:
        if _is_health(request):
            return handler(request)
        return Response(404, f"not found; there are {', '.join(sorted(HEALTH))}\n".encode())

    return answer


def _is_health(request: Request) -> bool:
    try:
        return urlsplit(request.target).path in HEALTH
    except ValueError:
        return False


def _with_headers(response: Response, policy: _Policy) -> Response:
    """The configured headers, where the response has none of that name."""
    own = {name.lower() for name, _ in response.headers}
    more = tuple((name, value) for name, value in policy.config.headers.items() if name.lower() not in own)
    return dataclasses.replace(response, headers=response.headers + more) if more else response


def _files(config: WebConfig) -> tuple[Path, ...]:
    return config.tls.files if config.tls else ()


def _warn(config: WebConfig, file: Path) -> None:
    if config.users and config.tls is None:
        _log.warning("%s: basic_auth_users without tls_server_config: passwords cross the network in the clear", file)
    if config.http2:
        _log.info("%s: http_server_config.http2 has no effect: this server speaks HTTP/1.1 alone", file)
