"""Takes out of a text what tells whose machine it came from, so that a recording can be shown to anybody.

What is left are the names of devices and chips, the kernel's own files, error codes and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["Redaction"]

_KEPT_ROOTS = re.compile(r"/(?:host/)?(?:sys|proc|dev)(?:/|$)|/redfish/v1(?:/|$)")
"""Where the kernel and the Redfish standard choose the names, not the owner of the machine."""
_KERNEL_TAIL = re.compile(r"/(?:sys|proc|dev)/.*|/(?:class|devices|cray)/.*")

_LONGEST = 500
"""Characters; a reason that is longer holds somebody's whole answer."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\",;()<>]+")
_PATH = re.compile(r"(?<![\w.<>*)])(?:~[\w.-]*)?/[^\s'\",;()<>]+")
_HEX = "[0-9a-fA-F]"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<address>"),
    (re.compile(r"\bhost=(?:'[^']*'|\"[^\"]*\")"), "host=<address>"),
    (re.compile(rf"\b(?:[A-Z]{{3}}-)?{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}\b"), "<uuid>"),
    (re.compile(rf"\b(?:GPU|MIG)-{_HEX}[0-9a-fA-F/-]{{6,}}"), "<uuid>"),
    (re.compile(rf"\b(?:{_HEX}{{2}}[:-]){{5}}{_HEX}{{2}}\b"), "<address>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(rf"(?<![\w:])(?={_HEX}*:[0-9a-fA-F:]*::|{_HEX}*::)[0-9a-fA-F:]{{3,}}(?:%\w+)?"), "<address>"),
    (re.compile(rf"(?<![\w:])(?:{_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}(?![\w:])"), "<address>"),
    (re.compile(r"\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}(?=:\d|\b)(?<!\.so)(?<!\.ko)(?<!\.py)"), "<address>"),
    (re.compile(r"(?i)\b(serial(?: number)?|service tag|asset tag)[ :=]+[^\s,;]+"), r"\1 <serial>"),
    (re.compile(r"\b(?=[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-Z0-9]{8,}\b"), "<serial>"),
    (re.compile(rf"\b(?:0x)?{_HEX}{{16,}}\b"), "<id>"),
    (re.compile(r"\b(pid|process|uid|user)[ =:]+\d+\b"), r"\1 <id>"),
    (re.compile(r"/proc/\d+"), "/proc/<id>"),
)


class Redaction:
    """Call it with a text; it gives the text without addresses, paths of people, serial numbers and the given words."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        """`words` are names of this machine and of its people, to be taken out where they stand alone."""
        wanted = sorted({re.escape(word) for word in words if len(word) > 1}, key=len, reverse=True)
        self._words = re.compile(rf"(?i)(?<![A-Za-z0-9_])(?:{'|'.join(wanted)})(?![A-Za-z0-9_])") if wanted else None

    def __call__(self, text: str) -> str:
        """The redacted text, cut to 500 characters."""
        text = _PATH.sub(_path, _URL.sub("<url>", text[:_LONGEST]))
        for pattern, stand_in in _PATTERNS:
            text = pattern.sub(stand_in, text)
        return self._words.sub("<name>", text) if self._words else text


def _path(found: re.Match[str]) -> str:
    """A path of the kernel as it is; of another its end, where that is the kernel's, or nothing."""
    path = found[0]
    if _KEPT_ROOTS.match(path):
        return path
    tail = _KERNEL_TAIL.search(path)
    return f"<path>{tail[0]}" if tail else "<path>"
