"""Basic authentication by bcrypt, which is slow on purpose: what was found once is remembered.

Passwords are checked on a thread of their own, so that a flood of wrong ones holds up no scrape whose password is
known. Who guesses has a quarter of one core for it at most, and a few guesses at a time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import queue
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress

from carbon_exporter.errors import ConfigError

__all__ = ["BasicAuth", "TooManyGuesses"]

_WAITING = 16
_WAITING_OF_ONE = 4
"""Passwords that wait to be checked, in all and of one address."""
_WRONG_KEPT = 1024
_REST = 3.0
"""Pause after a wrong password, in times of what its check took."""
_LONGEST_PASSWORD = 72
"""bcrypt looks at no more bytes than these."""
_MISSING = "basic authentication needs bcrypt: pip install 'carbon-exporter[auth]'"


class TooManyGuesses(Exception):
    """More passwords wait to be checked than is good; the client may come again."""


class BasicAuth:
    """Knows users by their hashes. All methods but `close` are the server's thread's."""

    def __init__(self, users: Mapping[str, bytes], where: str) -> None:
        """`users` are hashes by name. Raises `ConfigError` that names `where` if there is no bcrypt."""
        self.users = users
        self._check = _bcrypt(where)
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._peers: Counter[str] = Counter()
        cost = max(hashed[4:6] for hashed in users.values())
        self._nobody = b"$2b$" + cost + b"$" + b"." * 53
        """The hash of no password: for an unknown user as much is computed as for a known one."""
        self._queue: queue.Queue[tuple[Future[bool], bytes, bytes] | None] = queue.Queue(_WAITING)
        self._closed = False
        self._door = threading.Lock()
        """Held to put something into the queue: once it is closed nothing comes in that nobody would take out."""
        self._thread: threading.Thread | None = None

    def knows(self, header: str) -> bool | None:
        """Whether this Authorization header opens the door; None if its password must be checked first."""
        found = _parsed(header)
        if found is None:
            return False
        user, password = found
        digest = self._digest(user, password)
        if hmac.compare_digest(self._right.get(user, b""), digest):
            return True
        return False if digest in self._wrong else None

    async def check(self, header: str, peer: str) -> bool:
        """The same after a computation on another thread. Raises `TooManyGuesses`."""
        user, password = _parsed(header) or ("", b"")
        if self._peers[peer] >= _WAITING_OF_ONE:
            raise TooManyGuesses
        self._peers[peer] += 1
        try:
            is_right = await asyncio.wrap_future(self._asked(user, password)) and user in self.users
        finally:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
        self._remember(user, self._digest(user, password), is_right)
        return is_right

    def close(self) -> None:
        """Let the thread end after what it does now. For what waits, and what comes, it is `TooManyGuesses`."""
        with self._door:
            self._closed = True
            with suppress(queue.Empty):
                while True:
                    asked = self._queue.get_nowait()
                    if asked is not None and asked[0].set_running_or_notify_cancel():
                        asked[0].set_exception(TooManyGuesses())
            self._queue.put_nowait(None)

    def _asked(self, user: str, password: bytes) -> Future[bool]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="passwords", daemon=True)
            self._thread.start()
        future: Future[bool] = Future()
        with self._door:
            if self._closed or self._queue.full():
                raise TooManyGuesses
            self._queue.put_nowait((future, password, self.users.get(user, self._nobody)))
        return future

    def _work(self) -> None:
        while not self._closed and (asked := self._queue.get()) is not None:
            future, password, hashed = asked
            if not future.set_running_or_notify_cancel():
                continue
            began = time.monotonic()
            is_right = self._check(password, hashed)
            future.set_result(is_right)
            if not is_right:
                time.sleep(_REST * (time.monotonic() - began))

    def _remember(self, user: str, digest: bytes, is_right: bool) -> None:
        if is_right:
            self._right[user] = digest
            return
        self._wrong[digest] = None
        while len(self._wrong) > _WRONG_KEPT:
            self._wrong.popitem(last=False)

    def _digest(self, user: str, password: bytes) -> bytes:
        """What is remembered in the place of a password: worth nothing without a key that only this process has."""
        name = user.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(len(name).to_bytes(4, "big") + name + password, key=self._key, digest_size=32).digest()


def _bcrypt(where: str) -> Callable[[bytes, bytes], bool]:
    try:
        import bcrypt  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(where, "basic_auth_users", "(not shown)", f"nothing yet: {_MISSING}") from error

    def check(password: bytes, hashed: bytes) -> bool:
        try:
            return bcrypt.checkpw(password[:_LONGEST_PASSWORD], hashed)
        except ValueError:  # older versions refuse a zero byte
            return False

    return check


def _parsed(header: str) -> tuple[str, bytes] | None:
    """User and password, None if there are none. RFC 7617."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(token.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user.decode("utf-8", "surrogateescape"), password) if colon else None
