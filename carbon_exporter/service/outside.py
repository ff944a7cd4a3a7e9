"""Who is asked about jobs outside of this machine's files, and how names come about, as the settings have it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from carbon_exporter.config import Settings
from carbon_exporter.errors import ConfigError, JobResolutionError
from carbon_exporter.jobs.engines import Engines, default_sockets
from carbon_exporter.jobs.hpc_mapping import HpcMapping
from carbon_exporter.jobs.kubelet import PodResources
from carbon_exporter.jobs.namer import Directories
from carbon_exporter.jobs.naming import parse_order
from carbon_exporter.jobs.privacy import JobPattern, Privacy, parse_key, parse_patterns

if TYPE_CHECKING:
    from carbon_exporter.jobs.pod_watch import PodWatch

__all__ = ["directories_of", "order_of", "privacy_of"]

_log = logging.getLogger(__name__)
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
_NODE_NAME = "NODE_NAME"


def order_of(settings: Settings) -> tuple[str, ...]:
    """The rules that name jobs. Raises `ConfigError`."""
    try:
        return parse_order(settings.naming)
    except ValueError as error:
        raise ConfigError("settings", "jobs.naming", settings.naming, str(error)) from None


def privacy_of(settings: Settings) -> Privacy:
    """What may be published of jobs and users. Raises `ConfigError`."""
    return Privacy(
        include=_patterns("jobs.include", settings.include),
        exclude=_patterns("jobs.exclude", settings.exclude),
        key=_key(settings.user_key_file),
    )


def directories_of(settings: Settings, environ: Mapping[str, str]) -> Directories:
    """Those that the settings and the environment ask for; none is started."""
    return Directories(
        pods=_pods(settings, environ),
        kubelet=_kubelet(settings, environ),
        engines=_engines(settings, environ),
        mapping=HpcMapping(settings.mapping_directory) if settings.mapping_directory else None,
    )


def _pods(settings: Settings, environ: Mapping[str, str]) -> PodWatch | None:
    if settings.pods == "off" or _IN_CLUSTER not in environ:
        return None
    from carbon_exporter.jobs.api_server import ApiAddress  # noqa: PLC0415 - only in a cluster is TLS loaded for it
    from carbon_exporter.jobs.pod_watch import PodWatch  # noqa: PLC0415

    try:
        api = ApiAddress.from_environment(environ)
    except JobResolutionError as error:
        _log.warning("pods: %s", error)
        return None
    node = settings.node_name or environ.get(_NODE_NAME, "")
    if api is not None and not node:
        _log.warning(
            "pods: this node's name is not known, so its pods are not followed; in the pod's spec set NODE_NAME from "
            "fieldRef spec.nodeName, or kubernetes.node-name, or kubernetes.pods=off"
        )
    return PodWatch(api, node) if api is not None and node else None


def _kubelet(settings: Settings, environ: Mapping[str, str]) -> PodResources | None:
    if settings.pod_resources is None:
        return None
    more = tuple(word.strip() for word in settings.board_resources.split(",") if word.strip())
    return PodResources(settings.pod_resources, more=more, expected=_IN_CLUSTER in environ)


def _engines(settings: Settings, environ: Mapping[str, str]) -> Engines | None:
    if settings.engine_sockets == "auto":
        return Engines(default_sockets(environ))
    sockets = tuple(word.strip() for word in settings.engine_sockets.split(",") if word.strip())
    wrong = next((path for path in sockets if not path.startswith("/")), None)
    if wrong is not None:
        raise ConfigError("settings", "containers.sockets", wrong, "absolute paths separated by commas, or auto")
    return Engines(sockets) if sockets else None


def _patterns(key: str, text: str) -> tuple[JobPattern, ...]:
    try:
        return parse_patterns(text)
    except ValueError as error:
        raise ConfigError("settings", key, text, str(error)) from None


def _key(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        return parse_key(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError("settings", "jobs.user-key-file", str(file), f"a readable file ({reason})") from None
    except ValueError as error:
        raise ConfigError("settings", "jobs.user-key-file", str(file), str(error)) from None
