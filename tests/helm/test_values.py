"""The chart's values: each is documented, used, and refused by its name where it is wrong."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support.chart import CASES, CHART, manifests, rendered, values_of
from support.chart_files import CHART_SETS
from support.chart_tables import documented

from carbon_exporter.config import settings_table
from carbon_exporter.errors import ConfigError
from carbon_exporter.publish import web_schema

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
FREE = {
    "/global",  # of charts that have this one within
    "/env/items/valueFrom",
    "/networkPolicy/from/items/ipBlock",
    "/networkPolicy/from/items/namespaceSelector",
    "/networkPolicy/from/items/podSelector",
    "/affinity/nodeAffinity",
    "/affinity/podAffinity",
    "/affinity/podAntiAffinity",
    "/definitions/monitor/tlsConfig/ca",
    "/definitions/monitor/tlsConfig/cert",
    "/definitions/monitor/tlsConfig/keySecret",
    "/definitions/monitor/basicAuth/username",
    "/definitions/monitor/basicAuth/password",
}
"""Objects whose keys are Kubernetes' or the operator's own, which check them."""
DOCUMENTED = list(documented((CHART / "values.yaml").read_text()))


def refusal(values: dict[str, Any]) -> str:
    """What Helm says of values that it refuses."""
    with pytest.raises(Exception, match=r".") as caught:
        manifests(values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "key", "said"),
    [
        ({"mode": "privileged"}, "/mode", "'minimal', 'standard', 'full'"),
        ({"mod": "full"}, "''", "'mod' not allowed"),
        ({"features": {"hostPid": True}}, "/features", "'hostPid' not allowed"),
        ({"features": {"root": "yes"}}, "/features/root", "got string, want "),
        ({"config": {"grid": {"regoin": "FR"}}}, "/config/grid", "'regoin' not allowed"),
        ({"config": {"grid": {"region": False}}}, "/config/grid/region", "want string"),
        ({"config": {"labels.job": "task"}}, "/config/labels.job", "'job_name', 'job', 'hpc_job'"),
        ({"config": {"sample.interval": 5}}, "/config/sample.interval", "want string"),
        ({"config": {"path": {"sysfs": "/s"}}}, "/config", "'path' not allowed"),
        ({"config": {"storage.path": "/s"}}, "/config", "'storage.path' not allowed"),
        ({"image": {"digest": "sha256:0"}}, "/image/digest", "does not match"),
        ({"host": {"sys": ["/sys"]}}, "/host/sys/0", "does not match"),
        ({"host": {"sys": [".."]}}, "/host/sys/0", "does not match"),
        ({"state": {"type": "pvc"}}, "/state/type", "'hostPath', 'emptyDir', 'none'"),
        ({"state": {"path": "state"}}, "/state/path", "does not match"),
        ({"web": {"port": 0}}, "/web/port", "minimum"),
        ({"web": {"config": {"basic_auth_users": {"a": "clear"}}}}, "/web/config/basic_auth_users/a", "does not match"),
        ({"web": {"config": {"tls_server_config": {"file": "a"}}}}, "/web/config/tls_server_config", "'file' not"),
        ({"web": {"config": {"tls_server_config": {"key": "a"}}}}, "/web/config/tls_server_config", "'key' not"),
        ({"web": {"config": {"http_server_config": {"http3": True}}}}, "/web/config/http_server_config", "'http3' not"),
        ({"web": {"config": {"rate_limit": {"bursts": 1}}}}, "/web/config/rate_limit", "'bursts' not allowed"),
        ({"podMonitor": {"relabelings": [{"targetLabel": "region"}]}}, "/podMonitor/relabelings/0/targetLabel", "not"),
        ({"podMonitor": {"relabelings": [{"action": "labelmap"}]}}, "/podMonitor/relabelings/0/action", "one of"),
        ({"podMonitor": {"interval": "often"}}, "/podMonitor/interval", "does not match"),
        ({"prometheusRule": {"files": ["leafs"]}}, "/prometheusRule/files/0", "'leaf', 'global', 'alerts', 'users'"),
        ({"budgets": [{"name": "a", "grams": 0, "window": "1d"}]}, "/budgets/0/grams", "exclusiveMinimum"),
        ({"budgets": [{"name": "a", "grams": 1, "window": "6h"}]}, "/budgets/0/window", "does not match"),
        ({"budgets": [{"grams": 1, "window": "1d"}]}, "/budgets/0", "missing property 'name'"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}, "/updateStrategy/rollingUpdate", "'maxSurge'"),
        ({"tolerations": [{"operator": "Any"}]}, "/tolerations/0/operator", "'Exists', 'Equal'"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key_and_with_what_is_accepted(
    values: dict[str, Any], key: str, said: str
) -> None:
    told = refusal(values)
    assert key in told
    assert said in told


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"features": {"root": False}}, "features.podResources needs features.root"),
        ({"mode": "minimal", "features": {"sdkSocket": True}}, "features.sdkSocket needs features.root"),
        (
            {"web": {"config": {"tls_server_config": {"client_auth_type": "RequireAndVerifyClientCert"}}}},
            "web.healthPort must be set",
        ),
        (
            {"web": {"config": {"basic_auth_users": {}, "http_server_config": {}}, "existingSecret": "a"}},
            "web.config and web.existingSecret",
        ),
        ({"secret": {"files": {"a": "b"}, "existing": "c"}}, "secret.files and secret.existing"),
        ({"web": {"healthPort": 12011}}, "web.healthPort must be another port than web.port"),
        ({"state": {"path": "/sys/carbon"}}, "state.path: /sys/carbon is the kernel's"),
        ({"state": {"path": "/var/../proc"}}, "state.path: /var/../proc is the kernel's"),
        (
            {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
            "podMonitor.enabled and serviceMonitor.enabled",
        ),
        (
            {"serviceMonitor": {"enabled": True}, "service": {"enabled": False}},
            "service.enabled must be true for serviceMonitor.enabled",
        ),
    ],
)
def test_values_that_contradict_each_other_are_both_named(values: dict[str, Any], said: str) -> None:
    assert said in refusal(values)


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of values.yaml, and of its sections."""
    return [(key,) for key in value] + [
        (key, inner)
        for key in value
        if isinstance(value[key], dict) and SCHEMA["properties"][key].get("type") != "array"
        for inner in value[key]
        if not path
    ]


def test_every_value_is_documented_and_in_the_schema() -> None:
    told = {name for name, _, meaning in DOCUMENTED if meaning}
    for section, *inner in leaves(VALUES):
        assert section in SCHEMA["properties"], section
        name = ".".join((section, *inner))
        assert name in told or section in told or any(key.startswith(f"{name}.") for key in told), name
    assert SCHEMA["properties"].keys() - {"global"} == VALUES.keys()


def open_objects(schema: Any, at: str = "") -> Iterator[str]:
    """Where a schema takes objects and does not say which keys, or what values, it takes."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if (kind == "object" or (isinstance(kind, list) and "object" in kind)) and "additionalProperties" not in schema:
        yield at
    inner = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, value in inner:
        yield from open_objects(value, f"{at}/{key}")


def test_no_object_of_the_schema_accepts_unknown_keys_but_those_of_kubernetes_and_the_operator() -> None:
    assert {place.replace("/properties", "") for place in open_objects(SCHEMA)} == FREE
    assert SCHEMA["additionalProperties"] is False


def test_the_settings_are_the_exporters_own_but_for_those_that_the_chart_sets() -> None:
    keys = {setting.key for setting in settings_table().values()}
    assert keys >= CHART_SETS
    accepted = {key for key in SCHEMA["definitions"]["settings"]["properties"] if "." in key}
    assert accepted == keys - CHART_SETS


def test_the_web_configuration_has_the_exporters_own_keys() -> None:
    sections = SCHEMA["definitions"]["webConfig"]["properties"]
    assert sections.keys() == web_schema.SECTIONS.keys()
    assert web_schema.SECTIONS["tls_server_config"]("web.yml", {"cert_file": "a"})
    for key in sections["tls_server_config"]["properties"]:
        with pytest.raises(ConfigError) as refused:
            web_schema.SECTIONS["tls_server_config"]("web.yml", {key: object()})
        assert "no such key" not in str(refused.value), key


def test_the_memory_limit_is_above_what_the_worst_clients_take() -> None:
    """At rest as much as docs/cost.md allows, and the growth that the ten minutes of bad clients are held to."""
    root = CHART.parents[1]
    soak, cost = (root / "tests/publish/test_abuse_http.py").read_text(), (root / "docs/cost.md").read_text()
    growth = re.search(r'"rss_most"\] - before < (\d+)', soak)
    at_rest = re.search(r"^\| resident memory .*\| (\d+) MiB \|$", cost, re.MULTILINE)
    assert growth is not None
    assert at_rest is not None
    assert int(VALUES["resources"]["limits"]["memory"].removesuffix("Mi")) > int(growth[1]) + int(at_rest[1])


def without(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """The same without one key, None if it is not there."""
    copied = copy.deepcopy(values)
    inner: Any = copied
    for key in path[:-1]:
        inner = inner.get(key, {})
    if path[-1] not in inner:
        return None
    del inner[path[-1]]
    return copied


@pytest.mark.parametrize("name", [name for name, _, meaning in DOCUMENTED if meaning])
def test_a_value_that_is_set_changes_what_is_rendered(name: str) -> None:
    path = tuple(name.split("."))
    for case in CASES:
        whole = values_of(case)
        reduced = without(whole, path)
        if reduced is None:
            continue
        try:
            if manifests(reduced) != rendered(case):
                return
        except Exception as error:  # noqa: BLE001 - Helm refuses it, so the value is looked at
            assert path[-1] in str(error) or re.search("must|needs", str(error))
            return
    pytest.fail(f"no ci file shows what {name} does")
