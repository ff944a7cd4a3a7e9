"""The chart's values: each is documented, used, and refused by its name where it is wrong."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from support.chart import CASES, CHART, manifests, rendered, values_of
from support.chart_files import CHART_SETS
from support.chart_tables import documented

from carbon_exporter.config import settings_table

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
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


def closed(schema: Any, at: str = "") -> None:
    """Every object that names its keys accepts no other."""
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema.get("type"), str):
            assert schema.get("additionalProperties") is False, at
        for key, inner in schema.items():
            closed(inner, f"{at}/{key}")


def test_no_object_of_the_schema_accepts_unknown_keys() -> None:
    closed(SCHEMA)
    assert SCHEMA["additionalProperties"] is False


def test_the_settings_are_the_exporters_own_but_for_those_that_the_chart_sets() -> None:
    keys = {setting.key for setting in settings_table().values()}
    assert keys >= CHART_SETS
    accepted = {key for key in SCHEMA["definitions"]["settings"]["properties"] if "." in key}
    assert accepted == keys - CHART_SETS


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
