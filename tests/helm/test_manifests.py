"""What the chart renders for every ci file: accepted by Kubernetes, without privileges, understood by the exporter."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from kubernetes_validate.utils import schema_contents  # type: ignore[import-untyped]
from referencing import Registry, Resource
from support.chart import CASES, NEWEST, Manifest, container, manifests, notes, one, pod, rendered, values_of
from support.monitoring_kinds import SCHEMAS

from carbon_exporter.config import load, settings_table

VERSIONS = kubernetes_validate.utils.all_versions()
each_case = pytest.mark.parametrize("case", CASES)


@functools.cache
def kind_of(version: str, name: str) -> Any:
    """A kind's strict schema, as kubernetes-validate has it; its own function reads megabytes again for each object."""
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    own, shared = (schema_contents(f"{folder}/{file}.json", version) for file in (name, "_definitions"))
    registry: Registry[Any] = Resource.from_contents(shared) @ (Resource.from_contents(own) @ Registry())
    return jsonschema.Draft202012Validator(own, registry=registry)


@each_case
@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_kubernetes_accepts_every_object_strictly(case: str, version: str) -> None:
    for manifest in rendered(case, version):
        if manifest["kind"] in SCHEMAS:
            continue
        group, _, number = manifest["apiVersion"].rpartition("/")
        name = "-".join(part for part in (manifest["kind"].lower(), group.partition(".")[0], number) if part)
        kind_of(version, name).validate(manifest)


def test_a_misspelt_field_is_not_accepted() -> None:
    daemonset = one("DaemonSet", manifests({}))
    daemonset["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    for version in (VERSIONS[0], VERSIONS[-1]):
        with pytest.raises(jsonschema.ValidationError, match="readOnlyRootFileSystem"):
            kind_of(version, "daemonset-apps-v1").validate(daemonset)
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(daemonset, VERSIONS[-1], strict=True)


@each_case
def test_the_operator_accepts_monitors_and_rules(case: str) -> None:
    for manifest in rendered(case):
        if manifest["kind"] in SCHEMAS:
            jsonschema.Draft7Validator(SCHEMAS[manifest["kind"]]).validate(manifest)


@each_case
def test_no_pod_is_ever_privileged(case: str) -> None:
    spec, own = pod(rendered(case))["spec"], container(rendered(case))["securityContext"]
    assert "hostNetwork" not in spec
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert "privileged" not in own
    assert not any("gpu" in name for kind in container(rendered(case))["resources"].values() for name in kind)


@each_case
def test_all_mounts_of_the_host_but_state_and_socket_are_read_only(case: str) -> None:
    values = values_of(case)
    spec = pod(rendered(case))["spec"]
    places = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
    writable = {
        places[mount["name"]]
        for mount in container(rendered(case))["volumeMounts"]
        if mount["name"] in places and not mount["readOnly"]
    }
    run = values.get("host", {}).get("run", "/run/carbon-exporter")
    assert writable <= {values.get("state", {}).get("path", "/var/lib/carbon-exporter"), run, f"{run}/jobs"}
    assert "/sys" not in places.values()
    assert "/proc" not in places.values()


@each_case
def test_the_api_server_is_asked_only_where_it_is_allowed(case: str) -> None:
    found = rendered(case)
    rules = [rule for each in found if each["kind"] == "ClusterRole" for rule in each["rules"]]
    asks = "--kubernetes.pods=auto" in container(found)["args"]
    assert pod(found)["spec"]["automountServiceAccountToken"] is asks
    if values_of(case).get("serviceAccount", {}).get("create", True):
        expected = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
        assert rules == (expected if asks else [])


@each_case
def test_the_exporter_understands_its_flags_and_settings(case: str, tmp_path: Path) -> None:
    found = rendered(case)
    file = tmp_path / "config.yml"
    file.write_text(one_settings(found))
    command, *arguments = container(found)["args"]
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    assert command == "serve"
    assert given.pop("config.file") == "/etc/carbon-exporter/settings/config.yml"
    assert given.keys() <= {setting.key for setting in settings_table().values()}
    load(given, {}, file)
    assert (yaml.safe_load(file.read_text()) or {}) == values_of(case).get("config", {}), "it is written as it stands"


def one_settings(found: list[Manifest]) -> str:
    """The settings file, which the pod mounts where the flag says."""
    (name,) = (volume["configMap"]["name"] for volume in pod(found)["spec"]["volumes"] if "configMap" in volume)
    (config,) = (each for each in found if each["kind"] == "ConfigMap" and each["metadata"]["name"] == name)
    return str(config["data"]["config.yml"])


@each_case
def test_every_file_that_a_flag_names_is_mounted(case: str) -> None:
    found = rendered(case)
    mounts = [mount["mountPath"] for mount in container(found)["volumeMounts"]]
    for argument in container(found)["args"][1:]:
        path = argument.partition("=")[2]
        if path.startswith("/"):
            assert any(f"{path}/".startswith(f"{mount}/") or mount.startswith(f"{path}/") for mount in mounts), path


@each_case
def test_probes_and_ports_are_where_it_listens(case: str) -> None:
    found = rendered(case)
    ports = {port["name"]: port["containerPort"] for port in container(found)["ports"]}
    flags = container(found)["args"]
    assert f"--web.listen-address=:{ports['http']}" in flags
    assert ("health" in ports) == any(flag.startswith("--web.health-address") for flag in flags)
    for probe in ("livenessProbe", "readinessProbe"):
        assert container(found)[probe]["httpGet"]["port"] == ("health" if "health" in ports else "http")


def endpoint(found: list[Manifest]) -> Any:
    for kind, key in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
        for manifest in found:
            if manifest["kind"] == kind:
                return manifest["spec"][key][0]
    return None


@pytest.mark.parametrize("monitor", ["podMonitor", "serviceMonitor"])
@pytest.mark.parametrize(
    ("config", "honors"),
    [
        ({}, False),
        ({"labels": {"job": "job"}}, True),
        ({"labels.job": "job"}, True),
        ({"labels.job": "hpc_job"}, False),
    ],
)
def test_labels_are_honored_exactly_where_jobs_are_called_job(monitor: str, config: Any, honors: bool) -> None:
    assert endpoint(manifests({"config": config, monitor: {"enabled": True}}))["honorLabels"] is honors


@each_case
def test_no_target_label_is_called_region(case: str) -> None:
    found = endpoint(rendered(case))
    for relabeling in found["relabelings"] if found else []:
        assert relabeling.get("targetLabel") != "region"
        assert relabeling.get("action") != "labelmap"


def test_a_series_goes_on_when_its_pod_is_another() -> None:
    found = endpoint(manifests({"podMonitor": {"enabled": True}}))
    named, dropped = found["relabelings"]
    assert named == {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"}
    assert dropped == {"action": "labeldrop", "regex": "pod|container|endpoint|service"}


@pytest.mark.parametrize(("version", "asked"), [("1.30.9", None), ("1.31.0", "IfPossible"), (NEWEST, "IfPossible")])
def test_what_is_mounted_below_the_hosts_directories_is_read_only_too(version: str, asked: str | None) -> None:
    found = manifests({"mode": "full"}, version)
    of_host = {volume["name"] for volume in pod(found)["spec"]["volumes"] if "hostPath" in volume}
    for mount in container(found)["volumeMounts"]:
        expected = asked if mount["name"] in of_host and mount["readOnly"] else None
        assert mount.get("recursiveReadOnly") == expected, mount["name"]


def test_a_service_account_of_another_name_changes_nothing_else() -> None:
    plain, named = (manifests({"serviceAccount": {"name": name}}) for name in ("", "meter"))
    account = one("ServiceAccount", named)["metadata"]
    assert account["name"] == "meter"
    assert account["labels"] == one("ServiceAccount", plain)["metadata"]["labels"]
    assert one("ClusterRoleBinding", named)["subjects"][0]["name"] == "meter"
    assert pod(named)["spec"]["serviceAccountName"] == "meter"
    assert one("ClusterRole", named) == one("ClusterRole", plain)


def test_the_policy_lets_through_what_is_named_in_the_example_with_tls() -> None:
    rules = one("NetworkPolicy", rendered("tls"))["spec"]["egress"]
    ports = {(port["port"], port.get("protocol", "TCP")) for rule in rules for port in rule["ports"]}
    assert "http://collector:4318" in {entry.get("value") for entry in container(rendered("tls"))["env"]}
    assert {(4318, "TCP"), (53, "UDP"), (53, "TCP"), (443, "TCP")} <= ports


def test_the_notes_warn_of_what_cannot_work() -> None:
    budget = {"budgets": [{"name": "a", "grams": 1, "window": "1d"}]}
    told = notes({**budget, "prometheusRule": {"enabled": True, "files": ["global"]}})
    assert "prometheusRule.files has no leaf" in told
    assert "has no leaf" not in notes({**budget, "prometheusRule": {"enabled": True}})
    assert "control groups of version 1" in notes({})
    parts = {"host": {"sys": ["bus", "class", "devices", "fs/cgroup/cpuacct"]}}
    assert "control groups of version 1" not in notes(parts)


@each_case
def test_an_upgrade_changes_neither_the_selector_nor_where_totals_are(case: str) -> None:
    before = rendered(case)
    after = manifests({**values_of(case), "image": {"tag": "9.9.9"}, "podLabels": {"new": "label"}})
    assert one("DaemonSet", before)["spec"]["selector"] == one("DaemonSet", after)["spec"]["selector"]
    state = [
        [volume for volume in pod(found)["spec"]["volumes"] if volume["name"] == "state"] for found in (before, after)
    ]
    assert state[0] == state[1]


def test_a_change_of_any_file_rolls_the_pods() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"config": {"site": {"pue": 1.1}}},
        {"secret": {"files": {"key": "a"}}},
        {"web": {"config": {"basic_auth_users": {"a": "$2y$10$x"}}}},
    ]
    sums = {pod(manifests(change))["metadata"]["annotations"]["checksum/files"] for change in changes}
    assert len(sums) == len(changes)


@each_case
def test_the_notes_say_what_was_chosen_and_what_to_check(case: str) -> None:
    said = notes(values_of(case))
    assert "kubectl -n monitoring rollout status" in said
    assert ("config.grid.region is not set" in said) == ("region" not in str(values_of(case).get("config", {})))
    assert ('must allow the level "privileged"' in said) == any(
        "hostPath" in volume for volume in pod(rendered(case))["spec"]["volumes"]
    )
