"""A session with NVML that boards share: who may call now, and how it begins anew.

No lock is held over a call, for a call may hang. Each user says that it is inside; the session ends only if nobody is,
and begins anew in any case: NVML counts its users. A number, the generation, tells all that their handles are old.

After a fork the child's session is none, and it begins one of its own with its first call; it never ends the parent's.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref

from carbon_exporter.sensors.nvidia.nvml import Code, Library, NvmlError

__all__ = ["Session"]

_PATIENCE_SECONDS = 0.5
"""How long the end of a session waits for calls under way; one that hangs does not hold it up for longer."""
_STEP_SECONDS = 0.005

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """Begun by `renew`; a context in which NVML may be called. For any thread."""

    def __init__(self, library: Library) -> None:
        """Not begun yet."""
        self.library = library
        self.generation = 0
        """Changes whenever handles of before become useless."""
        self._ready = False
        self._forked = False
        self._begun = 0
        self._inside: set[int] = set()
        self._renewing = threading.Lock()
        _sessions.add(self)

    def __enter__(self) -> int:
        """Call NVML inside; gives the generation. Raises `NvmlError` if there is no session now."""
        if self._forked:
            self.renew()
        self._inside.add(threading.get_ident())
        if not self._ready:
            self._leave()
            raise NvmlError(Code.UNINITIALIZED, "nvmlInit")
        return self.generation

    def __exit__(self, *_: object) -> None:
        """No call of this thread is under way any more."""
        self._leave()

    def renew(self) -> None:
        """End the session if nobody is inside, and begin it anew. Raises `NvmlError`.

        Returns at once if another thread is about it.
        """
        if not self._renewing.acquire(blocking=False):
            return
        try:
            self._end()
            self.library.begin()
            self._begun += 1
            self.generation += 1
            self._ready, self._forked = True, False
        finally:
            self._renewing.release()

    def close(self) -> None:
        """Give the library back, unless a call hangs in it."""
        if self._renewing.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._renewing.release()

    def _leave(self) -> None:
        self._inside.discard(threading.get_ident())

    def _end(self) -> None:
        self._ready = False
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._begun and self._inside:
            if time.monotonic() >= until:
                return
            time.sleep(_STEP_SECONDS)
        while self._begun:
            self._begun -= 1
            with contextlib.suppress(NvmlError):
                self.library.end()

    def _after_fork(self) -> None:
        self._renewing = threading.Lock()
        self._inside = set()
        self._ready, self._forked, self._begun = False, True, 0
        self.generation += 1


def _forget_parent() -> None:
    for session in list(_sessions):
        session._after_fork()  # noqa: SLF001 - the same file


os.register_at_fork(after_in_child=_forget_parent)
