"""Privacy: which jobs are published by name, and how users are shown. Pure.

An excluded job is one that the exporter knows and must not name. Its energy is counted in `_overflow_`, with all that
is counted together, so that jobs still add up to devices; not in `_unattributed_`, which would say that its owner is
not known, and would hide real gaps in attribution behind a wish for privacy.

A user's name can be published as a keyed hash: the same on every node that has the same key, and of use to who must
tell users apart without knowing them. Names are easy to guess, so that it is the key that keeps them: keep it secret.
It is HMAC-SHA-256, so that an administrator who has the key's file finds a user's hash with any tool, such as

    python3 -c 'import hmac, sys; key = open(sys.argv[1], "rb").read().strip()
    print(hmac.new(key, sys.argv[2].encode(), "sha256").hexdigest()[:12])' KEYFILE USER
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import re
from dataclasses import dataclass

from carbon_exporter.jobs.base import RESERVED, Job

__all__ = ["JobPattern", "Privacy", "hashed_user", "parse_key", "parse_patterns"]

HASH_DIGITS = 12
LEAST_KEY_CHARACTERS = 16
MOST_PATTERNS = 256
LONGEST_PATTERN = 256


@dataclass(frozen=True, slots=True)
class JobPattern:
    """A glob for jobs: `*`, `?` and `[…]` as in a shell, upper and lower case apart.

    `train-*` is any job of that name, in whatever namespace. `team-a/train-*` is of that namespace, `/train-*` of none;
    outside Kubernetes, where a job's name may hold a slash, the whole of it counts as well.
    """

    text: str
    name: re.Pattern[str]
    namespace: re.Pattern[str] | None
    whole: re.Pattern[str]

    def matches(self, job: Job) -> bool:
        """Whether it is one of these."""
        if self.namespace is None:
            return bool(self.name.match(job.name))
        if not job.namespace and self.whole.match(job.name):
            return True
        return bool(self.namespace.match(job.namespace) and self.name.match(job.name))


def parse_patterns(text: str) -> tuple[JobPattern, ...]:
    """Patterns from a setting's text, separated by commas; none from an empty one. Raises `ValueError`."""
    if not text.strip():
        return ()
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_PATTERNS or not all(0 < len(part) <= LONGEST_PATTERN for part in parts):
        raise ValueError(f"at most {MOST_PATTERNS} patterns of 1 to {LONGEST_PATTERN} characters, separated by commas")
    return tuple(_pattern(part) for part in parts)


def parse_key(text: str) -> bytes:
    """The key of the hashes from its file's text, without what surrounds it. Raises `ValueError`, without the text."""
    key = text.strip()
    if len(key) < LEAST_KEY_CHARACTERS:
        raise ValueError(f"a key of at least {LEAST_KEY_CHARACTERS} characters")
    return key.encode("utf-8", "surrogatepass")


def hashed_user(user: str, key: bytes) -> str:
    """The first 12 hex digits of HMAC-SHA-256 (RFC 2104) of a user's name; an unknown user stays empty.

    With 12 digits two of 10,000 users share a hash with a probability of 2e-7.
    """
    if not user:
        return ""
    return hmac.new(key, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:HASH_DIGITS]


@dataclass(frozen=True, slots=True)
class Privacy:
    """What may be published."""

    include: tuple[JobPattern, ...] = ()
    """Only these jobs; all if empty."""
    exclude: tuple[JobPattern, ...] = ()
    """But none of these."""
    key: bytes = b""
    """Users are shown as hashes by this key; as they are if it is empty."""

    def shows(self, job: Job) -> bool:
        """Whether a job is published by name; the others are counted in `_overflow_`. Reserved names always are."""
        if job in RESERVED:
            return True
        if any(pattern.matches(job) for pattern in self.exclude):
            return False
        return not self.include or any(pattern.matches(job) for pattern in self.include)

    def user(self, name: str) -> str:
        """How a user is shown."""
        return hashed_user(name, self.key) if self.key else name

    def __repr__(self) -> str:
        """Without the key, which must not get into a log."""
        include, exclude = (",".join(one.text for one in some) for some in (self.include, self.exclude))
        return f"Privacy(include={include!r}, exclude={exclude!r}, users={'hashed' if self.key else 'named'})"


def _pattern(text: str) -> JobPattern:
    namespace, slash, name = text.partition("/")
    try:
        return JobPattern(
            text, _glob(name if slash else text), _glob(namespace) if slash else None, _glob(text.removeprefix("/"))
        )
    except re.error:
        raise ValueError(f"a glob with * ? [...], not {text!r}") from None


def _glob(text: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(text))
