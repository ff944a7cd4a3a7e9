"""The processes of one training: what they tell each other through the store of `torch.distributed`. One without it.

A store has no collective calls: a rank without our callback is not waited for, and its own calls are not disturbed.
Each rank says that it is here when its training begins; only those that did are asked later.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import timedelta
from typing import Any

__all__ = ["gathered", "rank", "told"]

NAME_PATIENCE = timedelta(seconds=10)
"""How long others wait for the name that the first one has."""
_asked: Counter[str] = Counter()
"""How often each question was put: the same number in all ranks, for they go through the same training."""


def rank() -> int:
    """Which one this is; 0 where it is alone."""
    group = _group()
    return int(group.get_rank()) if group is not None else 0


def told(name: str) -> str:
    """What the first one says, to the others. Raises `RuntimeError` if it says nothing for a while."""
    group = _group()
    if group is None:
        return name
    store, key, mine = _store(group), _key("name"), int(group.get_rank())
    store.set(f"carbon/here/{mine}", "")
    if mine == 0:
        store.set(key, name)
        return name
    store.wait([key], NAME_PATIENCE)
    return str(store.get(key).decode())


def gathered(question: str, mine: Any, patience: timedelta) -> list[Any]:
    """What each has to say, as JSON has it, this one first. Raises `RuntimeError` if one that is here says nothing."""
    group = _group()
    if group is None:
        return [mine]
    store, key, own = _store(group), _key(question), int(group.get_rank())
    store.set(f"{key}/{own}", json.dumps(mine))
    others = [one for one in range(group.get_world_size()) if one != own and store.check([f"carbon/here/{one}"])]
    if others:
        store.wait([f"{key}/{one}" for one in others], patience)
    return [mine, *(json.loads(store.get(f"{key}/{one}")) for one in others)]


def _key(question: str) -> str:
    _asked[question] += 1
    return f"carbon/{question}/{_asked[question]}"


def _group() -> Any:
    """`torch.distributed`, if this process has loaded it and is one of several."""
    module = sys.modules.get("torch.distributed")
    if module is None or not module.is_available() or not module.is_initialized():
        return None
    return module if module.get_world_size() > 1 else None


def _store(group: Any) -> Any:
    """By which the processes have found each other; PyTorch has no public name for it."""
    return group.distributed_c10d._get_default_store()  # noqa: SLF001 - as said
