"""Where the server listens, what stands in its way, and how it stops."""

from __future__ import annotations

import http.client
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.clients import BIG, ask, connected, echo, is_well, rest, say, serving, until
from support.other_user import needs_root
from support.tools import need

from carbon_exporter.errors import ListenError
from carbon_exporter.publish.http import Address, Request, Response, Server

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "", "localhost"])
def test_it_listens_where_it_is_told_and_tells_the_real_port(host: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this kernel has no IPv6")
    with serving(address=Address(host)) as server:
        assert server.address.port > 0
        assert str(server.address) == f"{'[::1]' if host == '::1' else host}:{server.address.port}"
        assert is_well(server)


def test_an_empty_host_is_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this kernel has no IPv6")
    with serving(address=Address()) as server:
        for host in ("127.0.0.1", "::1"):
            connection = http.client.HTTPConnection(host, server.address.port, timeout=5)
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"GET /\n"
            connection.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":12011", Address("", 12011)),
        ("localhost:1", Address("localhost", 1)),
        ("[::1]:65535", Address("::1", 65535)),
        ("unix:/run/a:b.sock", Address(path="/run/a:b.sock")),
    ],
)
def test_an_address_is_read_as_it_is_written(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


def test_stop_closes_idle_busy_and_new_connections_at_once_and_may_be_called_twice() -> None:
    with serving() as server, ExitStack() as stack:
        idle, busy, half = (stack.enter_context(connected(server, receive_buffer=4096)) for _ in range(3))
        busy.sendall(ask("/big"))
        half.sendall(b"GET / HT")
        assert len(busy.recv(1000)) == 1000
        until(lambda: server.connections == 3)
        began = time.monotonic()
        server.stop()
        server.stop()
        assert time.monotonic() - began < 2
        assert server.connections == 0
        assert [rest(client) in {b"", b"<reset>"} for client in (idle, half)] == [True, True]
        assert len(rest(busy)) < len(BIG)
        with pytest.raises(ConnectionRefusedError):
            say(server)


def test_stopping_while_clients_arrive_leaves_nothing_behind() -> None:
    for _ in range(20):
        with serving() as server, ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(connected(server)).sendall(ask())
            server.stop()
            assert server.connections == 0


def test_a_stopped_server_can_be_started_again_at_its_address() -> None:
    with serving() as server:
        port = server.address.port
        server.stop()
        server.start()
        assert server.address.port == port
        assert is_well(server)


def test_stopping_what_was_never_started_does_nothing() -> None:
    Server(Address("127.0.0.1"), echo).stop()


def test_a_port_in_use_is_an_error_that_says_who_to_look_for_and_what_to_do() -> None:
    with serving() as server:
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{server.address.port}: Address") as caught:
            Server(server.address, echo).start()
        assert f"ss -ltnp 'sport = :{server.address.port}'" in caught.value.remedy
        assert "--web.listen-address=" in caught.value.remedy


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a" * 70, "..", "::g"])
def test_a_host_that_is_not_here_is_an_error_with_a_remedy(host: str) -> None:
    with pytest.raises(ListenError, match="cannot listen on ") as caught:
        Server(Address(host, 12011), echo).start()
    assert "--web.listen-address=" in caught.value.remedy


def test_a_unix_socket_is_served_to_owner_and_group_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "exporter.sock"
    with serving(address=Address(path=str(path))) as server:
        assert str(server.address) == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert is_well(server)
        with connected(server) as client:
            client.sendall(ask("/1") + ask("/2", "GET", "Connection: close"))
            assert rest(client).count(b"HTTP/1.1 200 ") == 2
    assert not path.exists()


def test_a_unix_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "exporter.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(path)
    with serving(address=Address(path=path)) as server:
        assert is_well(server)


def test_a_unix_socket_that_is_in_use_stays_its_owners(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "exporter.sock"))
    with serving(address=address) as server:
        second = Server(address, echo)
        with pytest.raises(ListenError, match="Address already in use") as caught:
            second.start()
        second.stop()
        assert f"ss -lxp src {address.path}" in caught.value.remedy
        assert is_well(server)


def test_a_server_that_stops_does_not_remove_the_unix_socket_of_its_successor(tmp_path: Path) -> None:
    """A handler that takes its time holds up the end of the first one."""
    path, held = tmp_path / "exporter.sock", threading.Event()

    def slow(request: Request) -> Response:
        held.set()
        time.sleep(0.2)
        return echo(request)

    address = Address(path=str(path))
    with serving(handler=slow, address=address) as first, connected(first) as client:
        client.sendall(ask() * 8)
        held.wait(5)
        stopping = threading.Thread(target=first.stop)
        stopping.start()
        until(lambda: not is_open(path))
        with serving(address=address) as second:
            stopping.join(5)
            assert is_well(second)


def is_open(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) == 0


@needs_root
def test_a_unix_socket_on_a_read_only_file_system_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    script = """
import sys
from carbon_exporter.errors import ListenError
from carbon_exporter.publish.listening import Address, listen
try:
    listen(Address(path=sys.argv[1] + "/exporter.sock"))
except ListenError as error:
    print(error, error.remedy)
"""
    mounted = 'mount -t tmpfs -o ro none "$1" && exec "$2" -c "$3" "$1"'
    command = [need("unshare"), "--mount", "sh", "-c", mounted, "sh", str(tmp_path), sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mounts can be made: {done.stderr.strip()}")
    assert "Read-only file system" in done.stdout
    assert f"allowed to write to the folder {tmp_path}," in done.stdout


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    server = Server(Address(path=str(path)), echo)
    with pytest.raises(ListenError, match="Address already in use") as caught:
        server.start()
    server.stop()
    assert f"mv {path} {path}.old" in caught.value.remedy
    assert path.read_text() == "data"


@pytest.mark.parametrize("name", ["missing/folder.sock", "x" * 200])
def test_a_unix_socket_that_cannot_be_made_is_an_error_with_a_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="cannot listen on unix:") as caught:
        Server(Address(path=str(tmp_path / name)), echo).start()
    assert "--web.listen-address=" in caught.value.remedy
