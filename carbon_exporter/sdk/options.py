"""What a script may say of the SDK before its first span. Costs nothing to load."""

from __future__ import annotations

__all__ = ["PATHS", "Options"]

PATHS = ("auto", "exporter", "opentelemetry", "page", "pushgateway", "off")


class Options:
    """What `configure` was told; empty where the environment decides."""

    __slots__ = ("first_run", "job", "path", "pue", "pushgateway", "rank", "region", "run", "socket", "whole_tree")

    def __init__(
        self,
        *,
        path: str = "",
        job: str = "",
        run: str = "",
        rank: str = "",
        region: str = "",
        pue: float = 1.0,
        socket: str = "",
        pushgateway: str = "",
        whole_tree: bool = False,
    ) -> None:
        """Raises `ConfigError` for a path that there is not, or a PUE that cannot be."""
        if path and path not in PATHS:
            raise _refused("path", path, ", ".join(PATHS))
        if not 1.0 <= pue <= 10.0:  # noqa: PLR2004 - as site.pue of the exporter
            raise _refused("pue", pue, "a number from 1 to 10")
        self.path, self.job, self.run, self.rank = path, job, run, rank
        self.region, self.pue, self.socket, self.pushgateway = region, pue, socket, pushgateway
        self.whole_tree = whole_tree
        self.first_run = ""
        """Of a `CarbonRun` that was entered before anything else was measured: its name is then the process's run."""


def _refused(key: str, value: object, accepted: str) -> Exception:
    from carbon_exporter.errors import ConfigError  # noqa: PLC0415 - only for who needs it

    return ConfigError("carbon_exporter.configure", key, value, accepted)
