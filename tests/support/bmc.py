"""A management controller: a real HTTP or HTTPS server that speaks Redfish, with trees of several makers and faults."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from support.tools import need

__all__ = ["PASSWORD", "USER", "Answer", "BmcServer", "Certificate", "idrac", "ilo", "make_certificate", "openbmc"]
__all__ += ["chassis", "collection", "power", "supermicro", "tree_of"]

USER, PASSWORD = "watcher", "s3cret-Größe-x9"
Tree = dict[str, Any]
Answer = Callable[["_Handler"], None]
"""Writes a whole answer by itself."""


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path


def make_certificate(directory: Path, name: str = "IP:127.0.0.1", days: int = 2) -> Certificate:
    """A self-signed one for `name` (as subjectAltName has it)."""
    made = Certificate(directory / "bmc.crt", directory / "bmc.key")
    command = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate), "-days", str(days)]
    subject = ["-subj", "/CN=bmc", "-addext", f"subjectAltName={name}"]
    subprocess.run([*command, *files, *subject], check=True, capture_output=True)
    return made


@dataclass
class BmcServer:
    """Serves `tree` on a free port of this machine while the block lasts."""

    tree: Tree
    certificate: Certificate | None = None
    password: str = PASSWORD
    watts: Callable[[], object] = lambda: 400.0
    """What stands wherever the tree says `"@watts"`."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """By path: what is sent instead of the resource."""
    sessions_enabled: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of all."""
    logins: int = 0
    tokens: dict[str, str] = field(default_factory=dict)
    """Sessions that live: path by token."""

    def __enter__(self) -> BmcServer:  # noqa: PYI034 - Self is of Python 3.11
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.bmc = self
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.certificate, self.certificate.key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def count(self, method: str, path: str) -> int:
        return self.requests.count((method, path))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    bmc: BmcServer

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True

    @property
    def bmc(self) -> BmcServer:
        return cast("_Server", self.server).bmc

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._noted()
        path = self.path.partition("?")[0]
        instead = self.bmc.answers.get(path) or self.bmc.answers.get("*")
        if instead is not None:
            instead(self)
        elif path.rstrip("/") != "/redfish/v1" and not self._is_allowed():
            self.send(401, {"error": {"code": "Base.1.0.NoValidSession"}})
        elif path.rstrip("/") in self.bmc.tree:
            self.send(200, _filled(self.bmc.tree[path.rstrip("/")], self.bmc.watts))
        else:
            self.send(404, {"error": {}})

    def do_POST(self) -> None:
        self._noted()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.rstrip("/")
        instead = self.bmc.answers.get(f"POST {path}")
        if instead is not None:
            instead(self)
            return
        if path != "/redfish/v1/SessionService/Sessions" or not self.bmc.sessions_enabled:
            self.send(404, {"error": {}})
            return
        self.bmc.logins += 1
        if json.loads(body) != {"UserName": USER, "Password": self.bmc.password}:
            self.send(401, {"error": {"@Message.ExtendedInfo": [{"MessageArgs": [body.decode()]}]}})
            return
        token = f"t0ken-{self.bmc.logins}-of-this-session"
        self.bmc.tokens[token] = f"{path}/{self.bmc.logins}"
        self.send(201, {}, {"X-Auth-Token": token, "Location": self.bmc.url + self.bmc.tokens[token]})

    def do_DELETE(self) -> None:
        self._noted()
        token = self.headers.get("X-Auth-Token", "")
        known = self.bmc.tokens.get(token) == self.path
        if known:
            del self.bmc.tokens[token]
        self.send(204 if known else 401, None)

    def send(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        """A JSON body, or these bytes, or none at all."""
        body = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drip(self, seconds: float) -> None:
        """A body of which a byte comes every tenth of a second."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        until = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                self.wfile.write(b" ")
                time.sleep(0.1)

    def break_off(self, body: bytes) -> None:
        """Half of what was promised."""
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _noted(self) -> None:
        self.bmc.requests.append((self.command, self.path))

    def _is_allowed(self) -> bool:
        pair = base64.b64encode(f"{USER}:{self.bmc.password}".encode()).decode()
        return (
            self.headers.get("X-Auth-Token") in self.bmc.tokens or self.headers.get("Authorization") == f"Basic {pair}"
        )


def _filled(value: Any, watts: Callable[[], object]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, watts) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, watts) for inner in value]
    return watts() if value == "@watts" else value


def _link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def collection(*paths: str) -> dict[str, Any]:
    return {"Members": [_link(path) for path in paths], "Members@odata.count": len(paths)}


def chassis(
    ident: str, kind: str = "RackMount", *, meter: str = "Power", within: str = "", holds: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A chassis that tells its power in `meter`: Power, EnvironmentMetrics, both (with a blank between), or none."""
    path = f"/redfish/v1/Chassis/{ident}"
    links: dict[str, Any] = {"ComputerSystems": [_link("/redfish/v1/Systems/1")]}
    if within:
        links["ContainedBy"] = _link(f"/redfish/v1/Chassis/{within}")
    if holds:
        links["Contains"] = [_link(f"/redfish/v1/Chassis/{inner}") for inner in holds]
    meters = {name: _link(f"{path}/{name}") for name in meter.split()}
    return {**_link(path), "Id": ident, "ChassisType": kind, "Manufacturer": "Maker", "Links": links, **meters}


def power(watts: object = "@watts", *, name: str = "System Power Control", **more: object) -> dict[str, Any]:
    return {"PowerControl": [{"MemberId": "0", "Name": name, "PowerConsumedWatts": watts, **more}]}


def tree_of(*listed: dict[str, Any], **meters: dict[str, Any]) -> Tree:
    """A tree of these chassis. `meters` by the chassis' id: what stands in each of its meters."""
    root = "/redfish/v1"
    tree: Tree = {
        root: {
            **_link(root),
            "RedfishVersion": "1.15.0",
            "Chassis": _link(f"{root}/Chassis"),
            "SessionService": _link(f"{root}/SessionService"),
            "Links": {"Sessions": _link(f"{root}/SessionService/Sessions")},
        },
        f"{root}/Chassis": collection(*(one["@odata.id"] for one in listed)),
    }
    for one in listed:
        tree[one["@odata.id"]] = one
        for schema in ("Power", "EnvironmentMetrics"):
            if schema in one:
                default = power() if schema == "Power" else {"PowerWatts": {"Reading": "@watts"}}
                tree[one[schema]["@odata.id"]] = meters.get(one["Id"], default)
    return tree


def idrac() -> Tree:
    """Dell: the system, and storage enclosures and backplanes beside it, which have no power."""
    system = {**chassis("System.Embedded.1", holds=("Enclosure.Internal.0-1",)), "Manufacturer": "Dell Inc."}
    tree = tree_of(
        {**system, "Model": "PowerEdge XE9680"},
        chassis("Enclosure.Internal.0-1", "StorageEnclosure", meter="", within="System.Embedded.1"),
    )
    tree["/redfish/v1/Chassis/System.Embedded.1/Power"] = power(
        MemberId="PowerControl",
        PowerCapacityWatts=16800,
        PowerMetrics={"AverageConsumedWatts": 1, "IntervalInMin": 1, "MaxConsumedWatts": 2},
        PowerLimit={"LimitInWatts": None},
    )
    return tree


def ilo() -> Tree:
    """HPE: every path ends with a slash, and a drive enclosure tells its own power."""
    slashed = json.loads(json.dumps(tree_of(chassis("1"), chassis("DE07C000", "StorageEnclosure"))))
    for resource in slashed.values():
        for link in _links(resource):
            link["@odata.id"] += "/"
    slashed["/redfish/v1/Chassis/DE07C000/Power"] = power(31)
    return cast("Tree", slashed)


def supermicro() -> Tree:
    """Supermicro and Lenovo: processors and memory as power controls beside the system."""
    tree = tree_of(chassis("1"), chassis("HA-RAID.0.StorageEnclosure.0", "Enclosure", meter=""))
    controls = [
        {"MemberId": "1", "Name": "CPU Sub-system Power", "PowerConsumedWatts": 150, "PhysicalContext": "CPU"},
        *power()["PowerControl"],
        {"MemberId": "2", "Name": "Memory Sub-system Power", "PowerConsumedWatts": 40, "PhysicalContext": "Memory"},
    ]
    tree["/redfish/v1/Chassis/1/Power"] = {"PowerControl": controls}
    return tree


def openbmc() -> Tree:
    """An accelerator board on OpenBMC: the tray, and in it modules that tell their own power; newer schema only."""
    boards = tuple(f"GPU_{number}" for number in range(1, 5))
    return tree_of(
        *(chassis(board, "Module", meter="EnvironmentMetrics", within="Tray_0") for board in boards),
        {**chassis("Tray_0", meter="EnvironmentMetrics Power", holds=boards), "Model": "Tray"},
        chassis("ERoT_0", "Component", meter=""),
        Tray_0={"PowerWatts": {"Reading": "@watts"}, "EnergykWh": {"Reading": 1.5}, "EnergyJoules": {"Reading": 9}},
    )


def _links(value: object) -> list[dict[str, str]]:
    """All links in a resource."""
    if isinstance(value, list):
        return [link for inner in value for link in _links(inner)]
    if not isinstance(value, dict):
        return []
    own = [value] if isinstance(value.get("@odata.id"), str) and not value["@odata.id"].endswith("/") else []
    return own + [link for inner in value.values() for link in _links(inner)]
