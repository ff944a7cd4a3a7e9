"""Runs the chart's container here as a node would: its mounts, user, capabilities and process ids, from the manifest.

The root is a new, read-only one with this Python and what the manifest mounts, and nothing of the host's but a tree
that stands for it. Mounts are as runtimes make them: what is mounted below comes along, and stays writable unless the
manifest asks for recursiveReadOnly. What Kubernetes adds besides, seccomp's profile, images and the network, is not
played.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.chart import Manifest, container, one, pod
from support.exporter import Exporter
from support.tools import need

__all__ = ["run_pod"]

_ENTER = """\
set -e
new=$0 root=$1; shift
for path in {mounted}; do mount --bind "$path" "$path"; done
mount -t tmpfs -o mode=755 tmpfs "$new"
for path in /usr /dev "$root" {python}; do
  mkdir -p "$new$path" && mount --rbind "$path" "$new$path"
done
for link in bin lib lib64 sbin; do [ -L "/$link" ] && cp -P "/$link" "$new/$link"; done
mkdir "$new/proc" "$new/sys" && {proc}
{mounts}
mount -o remount,bind,ro "$new"
cd "$new" && exec chroot . "$@"
"""
_BIND = """\
mkdir -p "$new{to}" && mount --rbind '{source}' "$new{to}" && mount -o remount,bind,{mode} "$new{to}"
"""
_RECURSIVE = """\
findmnt -Rrno TARGET "$new{to}" | while read -r below; do mount -o remount,bind,ro "$below"; done
"""


@contextmanager
def run_pod(
    found: Sequence[Manifest],
    host: Path,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    shared: Mapping[str, Path] | None = None,
    mounted: Sequence[Path] = (),
) -> Iterator[Exporter]:
    """The DaemonSet's container on a node whose files are below `host`, killed in the end; `flags` come after its own.

    Its address alone is another: a free port of this machine. `environ` and the directories `shared`, by where they are
    seen, are what a kubelet and a runtime for boards add. The directories `mounted` of the host are mounts of
    their own, as controllers of version 1 are.
    """
    spec, own = pod(found)["spec"], container(found)
    see_all = spec.get("hostPID", False)
    added = (_BIND.format(to=to, source=source, mode="rw") for to, source in (shared or {}).items())
    script = _ENTER.format(
        mounted=_quoted(mounted),
        python=_quoted({sys.prefix, sys.base_prefix}),
        proc='mount --rbind /proc "$new/proc"' if see_all else 'mount -t proc proc "$new/proc"',
        mounts="".join((*_mounts(spec, own, found, host), *added)),
    )
    apart = () if see_all else ("--pid", "--fork", "--kill-child")
    new = host / ".root"
    new.mkdir(exist_ok=True)
    root = str(Path(__file__).parents[2])
    prefix = (need("unshare"), "--mount", *apart, "sh", "-c", script, str(new), root, *_as_told(spec, own))
    its_flags = [flag for flag in own["args"][1:] if not flag.startswith("--web.listen-address")]
    variables = {entry["name"]: entry["value"] for entry in own["env"] if "value" in entry} | dict(environ or {})
    with Exporter(*its_flags, *flags, prefix=prefix, environ={**variables, "PYTHONPATH": root}) as exporter:
        try:
            yield exporter
        finally:
            exporter.kill()  # unshare passes no SIGTERM on


def _mounts(spec: Manifest, own: Manifest, found: Sequence[Manifest], host: Path) -> Iterator[str]:
    """The commands of the container's mounts."""
    volumes = {volume["name"]: _source(volume, found, host) for volume in spec["volumes"]}
    for mount in own["volumeMounts"]:
        to, mode = mount["mountPath"], "ro" if mount["readOnly"] else "rw"
        yield _BIND.format(to=to, source=volumes[mount["name"]], mode=mode)
        if mount.get("recursiveReadOnly") == "IfPossible":
            yield _RECURSIVE.format(to=to)


def _quoted(paths: Iterable[Path | str]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def _as_told(spec: Manifest, own: Manifest) -> tuple[str, ...]:
    """Setpriv for the security contexts of pod and container."""
    context: dict[str, Any] = {**spec["securityContext"], **own["securityContext"]}
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    user, group = (str(context[key]) for key in ("runAsUser", "runAsGroup"))
    groups = f"--groups={context['fsGroup']}" if "fsGroup" in context else "--clear-groups"
    numbers = (f"--reuid={user}", f"--regid={group}", groups)
    return (need("setpriv"), *numbers, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--pdeathsig=KILL")


def _source(volume: Manifest, found: Sequence[Manifest], host: Path) -> Path:
    """The directory that the kubelet would mount. Raises `FileNotFoundError` where it would not start the pod."""
    if "hostPath" in volume:
        place: Path = host / volume["hostPath"]["path"].lstrip("/")
        if volume["hostPath"]["type"] == "DirectoryOrCreate":
            place.mkdir(parents=True, exist_ok=True)
        return place.resolve(strict=True)
    place = host / ".volumes" / volume["name"]
    place.mkdir(parents=True, exist_ok=True)
    if "emptyDir" in volume:
        place.chmod(0o777)
    elif "configMap" in volume:
        _write(place, one("ConfigMap", found)["data"], 0o644)
    else:
        secrets = {each["metadata"]["name"]: each["stringData"] for each in found if each["kind"] == "Secret"}
        _write(place, secrets[volume["secret"]["secretName"]], volume["secret"]["defaultMode"])
    return place


def _write(place: Path, files: Mapping[str, str], mode: int) -> None:
    """As the kubelet does it for the group of fsGroup."""
    for name, text in files.items():
        (place / name).write_text(text)
        (place / name).chmod(mode)
        os.chown(place / name, 0, 65534)
