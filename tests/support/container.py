"""The image as a container: podman with runc, which also run where there is no systemd and no control groups v2."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from support.tools import need

__all__ = ["IMAGE", "LIMITS", "RUNTIME", "Container", "podman"]

IMAGE = "localhost/carbon-exporter:test"
RUNTIME = ("--runtime=runc", "--cgroup-manager=cgroupfs")
LIMITS = ("--no-healthcheck", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
"""Options of `run`: limits of a machine that may not raise its own, no timer of systemd's, as health checks need."""


def podman(*arguments: str) -> str:
    """What a command prints; it must succeed."""
    command = [need("podman"), *RUNTIME, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Container:
    """A hardened container of the image, on a port of this host; gone when the block ends."""

    def __init__(self, port: int, *flags: str, options: tuple[str, ...] = ()) -> None:
        self.port = port
        self.name = f"carbon-exporter-{uuid.uuid4().hex[:8]}"
        hardened = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", f"--name={self.name}")
        listen = ("--env", f"CARBON_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:{port}")
        self._began = time.monotonic()
        podman("run", "--detach", *LIMITS, *hardened, *listen, *options, IMAGE, "serve", "--sdk.socket=", *flags)

    def __enter__(self) -> Container:  # noqa: PYI034 - Self is of Python 3.11
        try:
            self.seconds_to_ready = self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        podman("rm", "--force", self.name)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
        return body.decode()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command within it."""
        full = [need("podman"), *RUNTIME, "exec", self.name, *command]
        return subprocess.run(full, capture_output=True, text=True, check=False, timeout=60)

    def process(self) -> dict[str, str]:
        """What the kernel says of its first process."""
        pid = json.loads(podman("inspect", self.name))[0]["State"]["Pid"]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        podman("stop", "--time=10", self.name)
        state: dict[str, Any] = json.loads(podman("inspect", self.name))[0]["State"]
        return int(state["ExitCode"])

    def log(self) -> str:
        full = [need("podman"), *RUNTIME, "logs", self.name]
        return subprocess.run(full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout

    def _wait(self) -> float:
        """Seconds from `podman run` to ready."""
        until = self._began + 30
        while time.monotonic() < until:
            try:
                self.get("/-/ready")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
            else:
                return time.monotonic() - self._began
        raise AssertionError(self.log())
