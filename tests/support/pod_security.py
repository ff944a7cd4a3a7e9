"""The Pod Security Standards of Kubernetes, for the fields that the chart can set.

Checks and allowed values: https://kubernetes.io/docs/concepts/security/pod-security-standards/. A field of a pod's spec
or security context that is not known here is an error, so that a new one cannot pass unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["level", "violations"]

_BASELINE_VOLUMES = frozenset({"configMap", "downwardAPI", "emptyDir", "projected", "secret"})
"""Of the kinds that a pod may have by `restricted`, those that this chart could use."""
_SELINUX = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_PROFILES = ("RuntimeDefault", "Localhost")
_BASELINE_CAPABILITIES = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
_KNOWN = frozenset(
    (
        *("allowPrivilegeEscalation", "capabilities", "fsGroup", "privileged", "readOnlyRootFilesystem"),
        *("runAsGroup", "runAsNonRoot", "runAsUser", "seLinuxOptions", "seccompProfile"),
    )
)
_KNOWN_SPEC = frozenset(
    (
        *("affinity", "automountServiceAccountToken", "containers", "enableServiceLinks", "imagePullSecrets"),
        *("hostIPC", "hostNetwork", "hostPID", "nodeSelector", "priorityClassName", "runtimeClassName"),
        *("securityContext", "serviceAccountName", "terminationGracePeriodSeconds", "tolerations", "volumes"),
    )
)


def level(pod: dict[str, Any]) -> str:
    """The strictest level that a pod keeps to."""
    if violations(pod, "baseline"):
        return "privileged"
    return "baseline" if violations(pod, "restricted") else "restricted"


def violations(pod: dict[str, Any], wanted: str) -> list[str]:
    """Fields of a pod that a level forbids, in the standard's order. Raises `ValueError` for a field not known here."""
    spec = pod["spec"]
    contexts = [spec.get("securityContext", {}), *(one.get("securityContext", {}) for one in spec["containers"])]
    unknown = {key for context in contexts for key in context if key not in _KNOWN} | (spec.keys() - _KNOWN_SPEC)
    if unknown:
        raise ValueError(f"no check knows {', '.join(sorted(unknown))}")
    found = [*_baseline(spec, contexts)]
    return found if wanted == "baseline" else [*found, *_restricted(spec, contexts)]


def _baseline(spec: dict[str, Any], contexts: list[dict[str, Any]]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"`{key}`"
    if any(context.get("privileged") for context in contexts):
        yield "`privileged`"
    if any(set(context.get("capabilities", {}).get("add", ())) - _BASELINE_CAPABILITIES for context in contexts):
        yield "`capabilities.add`"
    if any("hostPath" in volume for volume in spec.get("volumes", ())):
        yield "`hostPath` volumes"
    if any(port.get("hostPort") for one in spec["containers"] for port in one.get("ports", ())):
        yield "`hostPort`"
    if any(_is_foreign(context.get("seLinuxOptions", {})) for context in contexts):
        yield "`seLinuxOptions`"
    if any(context.get("seccompProfile", {}).get("type") == "Unconfined" for context in contexts):
        yield "`seccompProfile`"


def _is_foreign(options: dict[str, str]) -> bool:
    """Whether SELinux options are others than containers have."""
    return options.get("type", "") not in _SELINUX or bool(options.get("user") or options.get("role"))


def _restricted(spec: dict[str, Any], contexts: list[dict[str, Any]]) -> Iterator[str]:
    whole, *own = contexts
    kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
    if kinds - _BASELINE_VOLUMES - {"hostPath"}:
        yield "kinds of volumes"
    if any(one.get("allowPrivilegeEscalation") is not False for one in own):
        yield "`allowPrivilegeEscalation`"
    if any({**whole, **one}.get("runAsNonRoot") is not True for one in own):
        yield "`runAsNonRoot`"
    if any(context.get("runAsUser") == 0 for context in contexts):
        yield "`runAsUser: 0`"
    if any({**whole, **one}.get("seccompProfile", {}).get("type") not in _PROFILES for one in own):
        yield "`seccompProfile`"
    for one in own:
        capabilities = one.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield "`capabilities`"
