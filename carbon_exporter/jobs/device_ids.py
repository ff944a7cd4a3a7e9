"""The names that Kubernetes has for boards: which resources are boards, and which board a device's id means. Pure.

| id | from | is |
|---|---|---|
| `GPU-<uuid>`, `MIG-<uuid>` | NVIDIA's device plugin | a board, a slice of one |
| `MIG-GPU-<uuid>/<gi>/<ci>` | the same, with drivers before 470 | a slice, by its board |
| `GPU-<uuid>::<n>`, `-replica-<n>`, `-<n>` | the same, time-sliced or under MPS | the board, of those who share it |
| `nvidia<n>`, `nvidia<n>/gi<g>`, each with `/vgpu<k>` | Google's device plugin | `/dev/nvidia<n>`, a slice of it |
| `0000:c1:00.0`, `amdgpu_xcp_<n>`, each with `-slice-<n>` | AMD's device plugin | a board, a partition |
| `card<n>-<k>` | Intel's device plugin | `/dev/dri/card<n>` |

A claim (DRA) is told by its driver's own name for a device, and by the names of the CDI; neither has the uuid, but for
some names of the CDI (`k8s.device-plugin.nvidia.com/gpu=GPU-<uuid>`):

| driver | device | is |
|---|---|---|
| `gpu.nvidia.com` | `gpu-<n>` | `nvidia<n>`: the minor number, in early versions NVML's index |
| the same | `gpu-<n>-mig-<profile>-<start>-<size>`, all numbers | `nvidia<n>/mig-<profile>-<start>` |
| the same | `gpu-<n>-mig-1g10gb-<profile>-<start>` | the same |
| `gpu.amd.com` | `gpu-<card>-<render>` | `card<card>` |
| `gpu.intel.com` | `0000-03-00-0-0x56c0` | `0000:03:00.0` |

`<profile>` is the id of the GPU instance's profile, `<start>` where its placement begins, both as NVML tells them.
Sources: the source code of those plugins and drivers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

__all__ = ["claimed_devices", "driver_of", "is_board", "unreplicated"]

BOARDS = (
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",
    "nvidia.com/mig-*",
    "amd.com/gpu",
    "amd.com/?px_nps*",
    "gpu.intel.com/*",
    "gpu.nvidia.com",
    "gpu.amd.com",
    "gpu.intel.com",
)
"""Resources, and drivers of claims. NVIDIA's plugin calls a board `gpu.shared` if told to rename what it shares; AMD's
calls partitions by their mode (`cpx_nps4`) if told to name them apart."""
WATCHERS = ("gpu.intel.com/*monitoring",)
"""Given to those who watch all boards and use none."""
LONGEST_ID = 256

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_REPLICA = re.compile(r"(?:::|-replica-|-slice-)\d+\Z", re.ASCII)
_NUMBERED_UUID = re.compile(rf"((?:MIG-)?(?:GPU-)?{_UUID}(?:/\d+/\d+)?)-\d+", re.ASCII)
_SHARED_CARD = re.compile(r"(card\d+)-\d+", re.ASCII)
_GKE = re.compile(r"(nvidia\d+(?:/gi\d+)?)(?:/vgpu\d+)?", re.ASCII)
_CDI = re.compile(r"(?P<vendor>[^/=]+)/[^/=]+=(?P<device>.+)", re.ASCII)
_CDI_UUID = re.compile(rf"(?:GPU|MIG)-{_UUID}", re.ASCII)
_OF_CLAIM = re.compile(rf"{_UUID}-", re.ASCII)
_NVIDIA = re.compile(r"gpu-(\d+)", re.ASCII)
_NVIDIA_MIG = (
    re.compile(r"gpu-(\d+)-mig-(\d+)-(\d+)-\d+", re.ASCII),
    re.compile(r"gpu-(\d+)-mig-.+-(\d+)-(\d+)", re.ASCII),
)
_AMD = re.compile(r"gpu-(\d+)-\d+", re.ASCII)
_INTEL = re.compile(r"([0-9a-f]{4})-([0-9a-f]{2})-([0-9a-f]{2})-([0-7])-0x[0-9a-f]+", re.ASCII)


def is_board(resource: str, more: Sequence[str] = ()) -> bool:
    """Whether a resource, or a driver of claims, gives boards; `more` patterns (`*`, `?`) are accepted, too."""
    if any(fnmatchcase(resource, pattern) for pattern in more):
        return True
    known = any(fnmatchcase(resource, pattern) for pattern in BOARDS)
    return known and not any(fnmatchcase(resource, pattern) for pattern in WATCHERS)


def unreplicated(identifier: str) -> str:
    """The board or the slice that a device plugin's id means, without what tells those who share it apart.

    What is of no known form stays as it is, but printable and at most 256 characters; empty if there is nothing.
    """
    device = _REPLICA.sub("", _clean(identifier))
    for form in (_NUMBERED_UUID, _SHARED_CARD, _GKE):
        match = form.fullmatch(device)
        if match:
            return match[1]
    return device


def driver_of(cdi_names: Iterable[str]) -> str:
    """The driver of a claim by its CDI names, empty if they do not tell: early kubelets do not name it."""
    parsed = (_CDI.fullmatch(_clean(name)) for name in cdi_names)
    return next((one["vendor"].removeprefix("k8s.") for one in parsed if one), "")


def claimed_devices(driver: str, device: str, cdi_names: Iterable[str]) -> tuple[str, ...]:
    """What a claim gives: uuids where the CDI's names hold them, else as the driver's name for the device tells.

    Without a name (early kubelets) NVIDIA's and AMD's are known by their CDI names, which end in it
    (`k8s.gpu.nvidia.com/claim=<uid of the claim>-gpu-0`, earlier `k8s.gpu.nvidia.com/device=gpu-0`); others are not.
    """
    parsed = [match["device"] for name in cdi_names if (match := _CDI.fullmatch(_clean(name)))]
    uuids = [match[0] for one in parsed if (match := _CDI_UUID.search(one))]
    if uuids:
        return tuple(dict.fromkeys(uuids))
    if device:
        return (_of_driver(driver, _clean(device)),)
    names = [_OF_CLAIM.sub("", one, count=1) for one in parsed]
    return tuple(dict.fromkeys(known for one in names if (known := _of_driver(driver, one)) != one))


def _of_driver(driver: str, device: str) -> str:
    """The board behind a driver's name for it; the name itself if its form is not known."""
    if driver == "gpu.nvidia.com":
        if match := _NVIDIA.fullmatch(device):
            return f"nvidia{match[1]}"
        slices = (form.fullmatch(device) for form in _NVIDIA_MIG)
        return next((f"nvidia{one[1]}/mig-{one[2]}-{one[3]}" for one in slices if one), device)
    if driver == "gpu.amd.com" and (match := _AMD.fullmatch(device)):
        return f"card{match[1]}"
    if driver == "gpu.intel.com" and (match := _INTEL.fullmatch(device)):
        return f"{match[1]}:{match[2]}:{match[3]}.{match[4]}"
    return device


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text.strip())[:LONGEST_ID]
