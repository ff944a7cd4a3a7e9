"""A file in YAML, read with care: what cannot be read is named, and of a key given twice neither value wins."""

from __future__ import annotations

from pathlib import Path

import yaml

from carbon_exporter.errors import ConfigError

__all__ = ["read_yaml"]

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of several equal keys; YAML 1.2, and Go's readers, have none of it."""

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def read_yaml(file: Path, where: str, key: str) -> object:
    """The content. Raises `ConfigError`: for a file that cannot be opened of the setting `key` that `where` gave."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(where, key, str(file), f"a readable file ({error})") from error
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except Exception as error:  # noqa: BLE001 - of a date that is none ValueError, of `!!bool maybe` KeyError, and so on
        mark = getattr(error, "problem_mark", None)  # not the error's text: it quotes the file, with its secrets
        line = f"broken near line {mark.line + 1}" if mark else "broken"
        raise ConfigError(str(file), "(whole file)", line, "YAML in which no key stands twice") from None
