"""HTTP to a baseboard management controller: one connection, one login, and every trouble as one of our errors.

Redfish is JSON over HTTPS (DMTF DSP0266). Controllers are small computers: they have room for a handful of sessions,
lock an account after a few wrong passwords, and answer slowly. So the session is kept and given back, a refused login
is repeated after growing pauses only, and nothing waits for long.

No text of the library leaves this file: its exceptions and log lines may quote headers, and those hold the password.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Bmc
from carbon_exporter.sensors.redfish_trouble import Hushed, explain, is_broken_connection, refusal

if TYPE_CHECKING:
    import requests

__all__ = ["ROOT", "RedfishClient", "parse_object", "resource_path"]

ROOT = "/redfish/v1/"
SESSIONS = "/redfish/v1/SessionService/Sessions"
"""Where a controller has its sessions that does not say so in its root."""

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0
"""For each piece of an answer."""
ANSWER_SECONDS = 10.0
"""For all of a body: one that comes in drips would never end otherwise."""
CLOSE_SECONDS = 2.0
MOST_BYTES = 1 << 20
MOST_REDIRECTS = 3
MOST_PASSWORD_BYTES = 4096

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 300.0
"""Seconds after a refused login, doubled each time. Accounts are often locked after three to five in a row."""

UNAUTHORIZED, FORBIDDEN = 401, 403
BUSY = frozenset({429, 503})
KEEPS_METHOD = frozenset({307, 308})
REDIRECTS = frozenset({301, 302, 303, *KEEPS_METHOD})
NO_SESSIONS = frozenset({404, 405, 501})


class RedfishClient:
    """One controller. Not for use from several threads. Nothing is sent before the first `get`."""

    def __init__(self, bmc: Bmc, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds, for the pauses after a refusal."""
        self._bmc = bmc
        self._clock = clock
        self._base = bmc.url.rstrip("/")
        self._origin = _origin(self._base)
        self._host = urlsplit(self._base).hostname or ""
        self._http: requests.Session | None = None
        self._pid = 0
        self._token = ""
        self._session_path = ""
        self._refusals = 0
        self._paused_until: float | None = None
        self._refused_with: object = None
        self._why = SensorReadError("nothing was asked yet")

    def get(self, path: str) -> dict[str, Any]:
        """The resource at a path, logged in if there are credentials. Raises `SensorReadError`.

        In a pause after a refusal nothing is sent: the refusal is raised again.
        """
        self._keep_pause()
        renewed = self._authenticate()
        status, body, _ = self._send("GET", path)
        if status == UNAUTHORIZED and self._token and not renewed:
            self._token = self._session_path = ""  # ended by the controller: once anew
            self._authenticate()
            status, body, _ = self._send("GET", path)
        if status == UNAUTHORIZED or (status == FORBIDDEN and self._bmc.authentication == "basic"):
            self._refused(status)
        if not 200 <= status < 300:  # noqa: PLR2004 - HTTP's own classes
            raise refusal(self._host, status, path)
        if path != ROOT:  # which is open to all
            self._refusals = 0
        return parse_object(body, f"{self._host}{path}")

    def close(self) -> None:
        """End the session on the controller, which has room for few, and the connection. Waits 2 s at most a step."""
        http, self._http = self._http, None
        if http is None or self._pid != os.getpid():
            return
        path, token, self._session_path, self._token = self._session_path, self._token, "", ""
        with Hushed():
            try:
                if path:
                    headers = {"X-Auth-Token": token}
                    http.delete(
                        self._base + path, headers=headers, timeout=CLOSE_SECONDS, allow_redirects=False, stream=True
                    ).close()
                http.close()
            except Exception:  # noqa: BLE001, S110 - a controller that is gone has ended the session itself
                pass

    def _authenticate(self) -> bool:
        """Have a session if one is needed; true if it is a new one."""
        if not self._bmc.username or self._bmc.authentication == "basic" or (self._token and self._is_ours()):
            return False
        password = self._password()
        path = self._sessions()
        login = json.dumps({"UserName": self._bmc.username, "Password": password}).encode()
        status, _, headers = self._send("POST", path, login, authorized=False)
        if status in {400, UNAUTHORIZED, FORBIDDEN}:
            self._refused(status)
        if status in NO_SESSIONS:
            raise SensorReadError(f"{self._host} has no sessions", remedy="set redfish.authentication=basic")
        token = headers.get("X-Auth-Token", "")
        if not 200 <= status < 300 or not re.fullmatch(r"[!-~]{1,4096}", token):  # noqa: PLR2004
            raise refusal(self._host, status, path)
        self._token, self._session_path = token, self._own_path(headers.get("Location", ""))
        return True

    def _sessions(self) -> str:
        """Where to log in, by the root, which needs no login: a password goes to what speaks Redfish only."""
        status, body, _ = self._send("GET", ROOT, authorized=False)
        if status in {UNAUTHORIZED, FORBIDDEN}:
            return SESSIONS
        if not 200 <= status < 300:  # noqa: PLR2004
            raise refusal(self._host, status, ROOT)
        links = parse_object(body, f"{self._host}{ROOT}").get("Links")
        return resource_path(links.get("Sessions") if isinstance(links, dict) else None) or SESSIONS

    def _is_ours(self) -> bool:
        """Whether the connection was made by this process: a forked child must not speak on its parent's."""
        return self._pid == os.getpid()

    def _keep_pause(self) -> None:
        if self._paused_until is None:
            return
        waiting = self._clock() < self._paused_until
        if waiting and self._refused_with == self._credentials_stamp():
            raise self._why
        self._paused_until = None

    def _pause(self, seconds: float, why: SensorReadError, stamp: object) -> NoReturn:
        self._paused_until, self._why, self._refused_with = self._clock() + seconds, why, stamp
        raise why

    def _refused(self, status: int) -> NoReturn:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._refusals)
        self._refusals = min(self._refusals + 1, 8)
        why = refusal(self._host, status, f"; tried again in {pause:g} s, or when the password file changes")
        self._pause(pause, why, self._credentials_stamp())

    def _credentials_stamp(self) -> object:
        """What changes when the password file is replaced."""
        if self._bmc.password_file is None:
            return None
        try:
            status = self._bmc.password_file.stat()
        except (OSError, ValueError):
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _password(self) -> str:
        """What the file holds, without the newline at its end."""
        file = self._bmc.password_file
        remedy = "redfish.password-file is the path of a file that holds the password alone, in UTF-8, readable here"
        if file is None:
            raise SensorReadError("there is a redfish.username and no redfish.password-file", remedy=remedy)
        try:
            with file.open("rb") as stream:
                password = stream.read(MOST_PASSWORD_BYTES + 1).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SensorReadError(f"{file} is not UTF-8", remedy=remedy) from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no such path can be"
            raise SensorReadError(f"{file} cannot be read: {why}", remedy=remedy) from None
        if not password or len(password) > MOST_PASSWORD_BYTES:
            raise SensorReadError(f"{file} is {'too long' if password else 'empty'}", remedy=remedy)
        return password

    def _headers(self, authorized: bool) -> dict[str, str]:
        headers = {"Accept": "application/json", "OData-Version": "4.0"}
        if authorized and self._token:
            headers["X-Auth-Token"] = self._token
        elif authorized and self._bmc.username:
            pair = f"{self._bmc.username}:{self._password()}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return headers

    def _send(
        self, method: str, path: str, body: bytes | None = None, *, authorized: bool = True
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers; redirects within the same controller are followed, others never."""
        headers = self._headers(authorized)
        if body is not None:
            headers["Content-Type"] = "application/json"
        for _ in range(MOST_REDIRECTS + 1):
            status, content, answered = self._exchange(method, path, body, headers)
            if status not in REDIRECTS:
                if status in BUSY:
                    self._busy(status, path, answered.get("Retry-After", ""))
                return status, content, answered
            path = self._own_path(answered.get("Location", ""))
            if not path or (method != "GET" and status not in KEEPS_METHOD):
                break
        remedy = "redfish.url is the controller's own address, https://HOST[:PORT]; credentials go nowhere else"
        raise SensorReadError(f"{self._host} redirects elsewhere, or in a circle", remedy=remedy)

    def _busy(self, status: int, path: str, retry_after: str) -> NoReturn:
        seconds = int(retry_after) if re.fullmatch(r"[0-9]{1,6}", retry_after) else 0
        why = refusal(self._host, status, path)
        self._pause(min(LONGEST_PAUSE, seconds), why, self._credentials_stamp())

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """One request; a GET once more if the controller had closed the idle connection meanwhile."""
        try:
            return self._transfer(method, path, body, headers)
        except SensorReadError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises may quote a header, and must not leave
            if method != "GET" or not is_broken_connection(error):
                raise explain(error, self._host) from None
        try:
            return self._transfer(method, path, body, headers)
        except SensorReadError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise explain(error, self._host) from None

    def _transfer(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        with Hushed():
            http, until = self._open(), time.monotonic() + ANSWER_SECONDS
            with http.request(
                method,
                self._base + path,
                data=body,
                headers=dict(headers),
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = bytearray()
                while piece := answer.raw.read1(1 << 16, decode_content=True):
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise SensorReadError(f"{self._host}{path} answers with more than 1 MiB")
                    if time.monotonic() > until:
                        raise SensorReadError(f"{self._host}{path} takes longer than {ANSWER_SECONDS:g} s to answer")
                return answer.status_code, bytes(content), answer.headers

    def _open(self) -> requests.Session:
        """The connection of this process; environment proxies, netrc and the like have no say."""
        if self._http is not None and self._is_ours():
            return self._http
        import requests  # noqa: PLC0415 - only those with a controller pay for it

        class Direct(requests.Session):
            """Looks at no redirect: the library would read all of its body first, however long that is."""

            def get_redirect_target(self, _: requests.Response) -> None:
                return None

        http = Direct()
        http.trust_env = False
        http.verify = _trusted(self._bmc)
        http.headers["User-Agent"] = "carbon-exporter"
        self._http, self._pid, self._token, self._session_path = http, os.getpid(), "", ""
        return http

    def _own_path(self, location: str) -> str:
        """The path of a `Location` if it is on this controller, else nothing."""
        try:
            if not location.startswith("/") and _origin(location) != self._origin:
                return ""
            parts = urlsplit(location)
        except ValueError:
            return ""
        return "" if parts.netloc and location.startswith("/") else resource_path({"@odata.id": parts.path})


def parse_object(body: bytes, where: str) -> dict[str, Any]:
    """The JSON object that is `body`, whatever it is. Raises `SensorReadError`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    page = body.lstrip()[:1] == b"<"
    raise SensorReadError(
        f"{where} answers with {'a web page' if page else 'something that is not JSON, or half of it'}",
        remedy="is redfish.url the controller's own address, and is Redfish switched on there?" if page else "",
    )


def resource_path(link: object) -> str:
    """The path that a link such as `{"@odata.id": "/redfish/v1/Chassis"}` points to, empty if to none on this host."""
    path = link.get("@odata.id") if isinstance(link, dict) else None
    if not isinstance(path, str):
        return ""
    path = path.partition("#")[0]
    return path if re.fullmatch(r"/(?!/)[!-~]{1,511}", path) else ""


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _trusted(bmc: Bmc) -> bool | str:
    """What `requests` shall check certificates with: a file or directory, its own list, or nothing."""
    import ssl  # noqa: PLC0415 - loads OpenSSL

    if not bmc.verify:
        import urllib3  # noqa: PLC0415

        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # said once, in the sensor's notes
        return False
    if bmc.ca_file is None:
        system = ssl.get_default_verify_paths()
        directory = system.capath if system.capath and any(Path(system.capath).glob("*")) else None
        return system.cafile or directory or True
    try:
        ssl.create_default_context(cafile=bmc.ca_file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it holds no certificate"
        why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else why
        raise SensorReadError(
            f"{bmc.ca_file} cannot be used: {why}", remedy="redfish.ca-file is a file of certificates in PEM"
        ) from None
    return str(bmc.ca_file)
