"""The boards on which a framework of this process is at work, by the numbers it gives them; without starting anything.

Only modules that are loaded are asked, and only what they know without a context, a backend or a call that may wait:

- torch: boards on which its allocator holds memory; before there are any, the one on which it has a context. What CUDA
  calls the current device is each thread's own, and a thread that never chose is on the first: it comes last, and only
  counts where it is another.
- jax: the devices of backends that have been made (it takes memory on all of them).
- tensorflow: the boards that its context was made with (likewise).

CuPy tells only the current device, and is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import NamedTuple

__all__ = ["Working", "framework_for_boards", "working_boards"]


class Working(NamedTuple):
    """A board that a framework works on."""

    number: int
    """Its place among those that the framework sees."""
    uuid: str = ""
    """Empty where the framework does not tell."""
    model: str = ""
    """Its name with the framework, which of a MIG slice ends in its profile; empty if not told."""


def working_boards(modules: Mapping[str, ModuleType]) -> tuple[Working, ...]:
    """Boards in use by any framework in `modules` (`sys.modules`). Whatever a framework raises is no board."""
    found: dict[int, Working] = {}
    for ask in (_of_torch, _of_jax, _of_tensorflow):
        try:
            found.update({one.number: one for one in ask(modules)})
        except Exception:  # noqa: BLE001, PERF203, S112 - a framework of any version, from the outside
            continue
    return tuple(found[number] for number in sorted(found))


def framework_for_boards(modules: Mapping[str, ModuleType]) -> bool:
    """Whether a framework is loaded that was built for boards (CUDA or ROCm)."""
    version = getattr(modules.get("torch"), "version", None)
    if getattr(version, "cuda", None) or getattr(version, "hip", None):
        return True
    return any(name in modules for name in ("jax_cuda12_plugin", "jax_cuda13_plugin", "cupy", "pycuda"))


def _of_torch(modules: Mapping[str, ModuleType]) -> Iterable[Working]:
    cuda = getattr(modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return ()
    count = int(cuda.device_count())
    has_context = getattr(getattr(modules["torch"], "_C", None), "_cuda_hasPrimaryContext", lambda _: True)
    present = [number for number in range(count) if has_context(number)]
    holding = [number for number in present if cuda.memory_reserved(number) > 0] or present
    if len(holding) > 1 and not any(cuda.memory_reserved(number) > 0 for number in holding):
        current = int(cuda.current_device())
        holding = [current] if current > 0 else []
    return [_described(cuda, number) for number in holding]


def _described(cuda: object, number: int) -> Working:
    facts = cuda.get_device_properties(number)  # type: ignore[attr-defined]  # torch.cuda
    uuid = str(getattr(facts, "uuid", "") or "")
    known = uuid if not uuid or uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    return Working(number, known, str(getattr(facts, "name", "")))


def _of_jax(modules: Mapping[str, ModuleType]) -> Iterable[Working]:
    backends: Mapping[str, object] = getattr(modules.get("jax._src.xla_bridge"), "_backends", {})
    clients = [client for name, client in tuple(backends.items()) if name in {"cuda", "rocm", "gpu"}]
    return [
        Working(int(device.local_hardware_id))
        for client in clients
        for device in client.local_devices()  # type: ignore[attr-defined]  # jaxlib's client
    ]


def _of_tensorflow(modules: Mapping[str, ModuleType]) -> Iterable[Working]:
    context = getattr(modules.get("tensorflow.python.eager.context"), "_context", None)
    if context is None or not context._initialized:  # noqa: SLF001 - asking officially would start it
        return ()
    numbers = (re.search(r"GPU:(\d+)$", str(device.name)) for device in context._visible_device_list)  # noqa: SLF001
    return [Working(int(number[1])) for number in numbers if number]
