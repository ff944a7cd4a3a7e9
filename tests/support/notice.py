"""Makes NOTICE: `python -m support.notice > NOTICE` in tests/, after requirements/image.txt or a shipped table changed.

Releases are those of the lock, licences what the installed packages say of themselves.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

from support.requirements import Package, locked

__all__ = ["as_text", "licence_of"]

ROOT = Path(__file__).parents[2]
_OURS = """\
carbon-exporter

Licensed under the Apache License, Version 2.0: see the file LICENSE.
This file is made by tests/support/notice.py; a test fails if it differs from the lock, the packages or the tables.
"""
_DATA = """\
Data in carbon_exporter/data, each under the licence of its source. What was changed is in PROVENANCE.md there.
"""
_PACKAGES = """\
Packages of which the image consists besides its base. They are not part of the wheel or the source archive. The text
of each licence, and notices where there are some, lie in the package's *.dist-info directory, below
/opt/carbon-exporter/lib in the image; that of nvidia-ml-py stands at the top of pynvml.py. The base brings its own, in
/usr/share/doc/*/copyright where it is Debian's.
"""
_SPDX = {"BSD": "BSD-3-Clause", "3-Clause BSD License": "BSD-3-Clause"}
"""What two packages call the licence that their texts are."""

_PLACES = ("source", "source code", "repository", "code", "homepage")


def licence_of(package: Package) -> str:
    """A package's licence as an SPDX expression. Raises `LookupError` for one that tells none."""
    told = metadata(package.name)
    stated = next((told[key] for key in ("License-Expression", "License") if key in told), "")
    if not stated or "\n" in stated:
        raise LookupError(f"{told['Name']} does not state its licence in a word")
    return _SPDX.get(stated, stated)


def as_text() -> str:
    """The whole file."""
    packages = [
        f"{package.name} {package.version}: {licence_of(package)}, {_home(package)}" for package in locked("image")
    ]
    notices = (ROOT / "carbon_exporter/data/PROVENANCE.md").read_text().partition("## Notices\n\n")[2]
    parts = (_OURS, _DATA, "\n".join(_sources()), _plain(notices), _PACKAGES, "\n".join(packages) + "\n")
    return "\n".join(parts)


def _sources() -> Iterator[str]:
    """A line for each source of the tables."""
    with (ROOT / "carbon_exporter/data/sources.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield f"{row['key']}: {row['licence']}, {row['citation']}"
    yield ""


def _plain(markdown: str) -> str:
    """Without the fence around a licence."""
    return re.sub(r"^```\w*\n", "", markdown, flags=re.MULTILINE)


def _home(package: Package) -> str:
    """Where its source is, or else its home page."""
    told = metadata(package.name)
    links = (link.split(", ", 1) for link in told.get_all("Project-URL") or ())
    known = {label.lower(): place for label, place in links}
    return next((known[label] for label in _PLACES if label in known), "") or told["Home-page"]


if __name__ == "__main__":
    sys.stdout.write(as_text())
