"""Schemas of the Prometheus operator's kinds, for the fields that the chart uses: anything else is refused.

Field names and types: the operator's API reference, monitoring.coreos.com/v1.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SCHEMAS"]

_TEXT = {"type": "string", "minLength": 1}
_DURATION = {
    "type": "string",
    "pattern": "^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def _closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


_KEY = _closed(("name", "key"), name=_TEXT, key=_TEXT)
_SOURCE = _closed(secret=_KEY, configMap=_KEY)
_VERSION = {"enum": ["TLS10", "TLS11", "TLS12", "TLS13"]}
_RELABELINGS = _list(
    _closed(
        sourceLabels=_list(_TEXT),
        separator={"type": "string"},
        targetLabel=_TEXT,
        regex={"type": "string"},
        modulus={"type": "integer"},
        replacement={"type": "string"},
        action={
            "enum": [
                "replace",
                "keep",
                "drop",
                "hashmod",
                "labeldrop",
                "labelkeep",
                "lowercase",
                "uppercase",
                "keepequal",
                "dropequal",
            ]
        },
    )
)
_ENDPOINT = _closed(
    ("port", "honorLabels"),
    port=_TEXT,
    scheme={"enum": ["http", "https"]},
    interval=_DURATION,
    scrapeTimeout=_DURATION,
    honorLabels={"type": "boolean"},
    relabelings=_RELABELINGS,
    metricRelabelings=_RELABELINGS,
    basicAuth=_closed(username=_KEY, password=_KEY),
    tlsConfig=_closed(
        ca=_SOURCE,
        cert=_SOURCE,
        keySecret=_KEY,
        serverName=_TEXT,
        insecureSkipVerify={"type": "boolean"},
        minVersion=_VERSION,
        maxVersion=_VERSION,
    ),
)
_RULE = {
    **_closed(
        ("expr",),
        record={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"},
        alert=_TEXT,
        expr=_TEXT,
        **{"for": _DURATION},
        keep_firing_for=_DURATION,
        labels=_TEXTS,
        annotations=_TEXTS,
    ),
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}],
}
_METADATA = _closed(
    ("name", "namespace", "labels"),
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
    namespace=_TEXT,
    labels=_TEXTS,
)


def _kind(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    version = {"const": "monitoring.coreos.com/v1"}
    names = ("apiVersion", "kind", "metadata", "spec")
    return _closed(names, apiVersion=version, kind={"const": kind}, metadata=_METADATA, spec=spec)


def _monitor(endpoints: str) -> dict[str, Any]:
    selector = _closed(("matchLabels",), matchLabels=_TEXTS)
    more: dict[str, Any] = {endpoints: _list(_ENDPOINT)}
    return _closed(("selector", endpoints), jobLabel=_TEXT, sampleLimit={"type": "integer"}, selector=selector, **more)


SCHEMAS = {
    "PodMonitor": _kind("PodMonitor", _monitor("podMetricsEndpoints")),
    "ServiceMonitor": _kind("ServiceMonitor", _monitor("endpoints")),
    "PrometheusRule": _kind(
        "PrometheusRule",
        _closed(
            ("groups",),
            groups=_list(
                _closed(
                    ("name", "rules"), name=_TEXT, interval=_DURATION, limit={"type": "integer"}, rules=_list(_RULE)
                )
            ),
        ),
    ),
}
"""By kind."""
