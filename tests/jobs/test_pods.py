"""Pods: what is read of an API server's JSON."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.apiserver import NODE, container_id, make_pod, uid_of

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.pods import decode_event, decode_page, decode_pod, parse_cpus
from carbon_exporter.jobs.workload import Owner, Pod, PodContainer


def pod_of(raw: dict[str, Any]) -> Pod:
    pod = decode_pod(json.dumps(raw).encode(), NODE)
    assert pod is not None
    return pod


def env_of(*variables: dict[str, Any], **more: Any) -> PodContainer:
    pod = make_pod("train", containers=[{"name": "main", "env": list(variables)}], **more)
    return pod_of(pod).containers[0]


def cpu(request: str, **more: Any) -> dict[str, Any]:
    return {"name": f"c{request}", "resources": {"requests": {"cpu": request, "memory": "1Gi"}}, **more}


def test_a_pod_is_read_with_what_names_it() -> None:
    raw = make_pod(
        "train-0",
        "team",
        labels={"app": "train"},
        annotations={"carbon-exporter.io/job": "nightly"},
        owners=[
            {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "train", "uid": "1", "controller": True},
            {"kind": "Other", "name": "x"},
        ],
    )
    pod = pod_of(raw)
    assert (pod.namespace, pod.name, pod.uid) == ("team", "train-0", uid_of("team/train-0"))
    assert pod.labels == {"app": "train"}
    assert pod.annotations == {"carbon-exporter.io/job": "nightly"}
    assert pod.owners == (Owner("PyTorchJob", "train", controller=True), Owner("Other", "x"))
    assert pod.containers == (PodContainer("main", container_id("train-0")),)
    assert (pod.cpus_requested, pod.mirror_of) == (0.0, "")


def test_a_pod_that_is_not_placed_yet_or_elsewhere_is_not_ours() -> None:
    assert decode_pod(json.dumps(make_pod("a", node="node-2")).encode(), NODE) is None
    assert decode_pod(json.dumps(make_pod("a", nodeName=None)).encode(), NODE) is None


@pytest.mark.parametrize("lack", ["name", "namespace", "uid"])
@pytest.mark.parametrize("value", [None, "", "-", "a b", 'x"y', "a" * 300, "\n", "../x"])
def test_a_pod_without_a_proper_name_is_refused(lack: str, value: str | None) -> None:
    raw = make_pod("train")
    raw["metadata"][lack] = value
    with pytest.raises(JobResolutionError, match="usable name"):
        pod_of(raw)


def test_what_is_missing_or_null_is_no_error() -> None:
    raw: dict[str, Any] = {"metadata": {"name": "a", "namespace": "b", "uid": "c"}, "spec": {"nodeName": NODE}}
    assert pod_of(raw) == Pod("b", "a", "c")
    for part in ("labels", "annotations", "ownerReferences"):
        raw["metadata"][part] = None
    for part in ("containers", "initContainers", "ephemeralContainers", "overhead", "resources"):
        raw["spec"][part] = None
    raw["status"] = {"containerStatuses": None, "phase": None}
    assert pod_of(raw) == Pod("b", "a", "c")


def test_init_and_ephemeral_containers_are_its_containers_too() -> None:
    raw = make_pod("a", initContainers=[{"name": "init"}], ephemeralContainers=[{"name": "debug"}])
    ids = {name: container_id("a", name) for name in ("init", "debug")}
    raw["status"]["initContainerStatuses"] = [{"name": "init", "containerID": f"cri-o://{ids['init']}"}]
    raw["status"]["ephemeralContainerStatuses"] = [{"name": "debug", "containerID": f"docker://{ids['debug']}"}]
    found = {one.name: one.id for one in pod_of(raw).containers}
    assert found == {"main": container_id("a"), **ids}


@pytest.mark.parametrize("text", ["", None, "containerd://", "containerd://abc", "x" * 64, f"containerd://{'g' * 64}"])
def test_a_container_that_does_not_run_yet_has_no_id(text: str | None) -> None:
    raw = make_pod("a")
    raw["status"]["containerStatuses"][0]["containerID"] = text
    assert pod_of(raw).containers == (PodContainer("main"),)


def test_the_environment_names_job_and_service() -> None:
    found = env_of({"name": "CARBON_JOB", "value": "nightly"}, {"name": "OTEL_SERVICE_NAME", "value": "api"})
    assert (found.job, found.service) == ("nightly", "api")


def test_the_last_of_several_variables_of_one_name_counts() -> None:
    assert env_of({"name": "CARBON_JOB", "value": "a"}, {"name": "CARBON_JOB", "value": "b"}).job == "b"
    assert env_of({"name": "CARBON_JOB", "value": "a"}, {"name": "CARBON_JOB"}).job == ""


@pytest.mark.parametrize(
    ("path", "job"),
    [
        ("metadata.name", "train"),
        ("metadata.namespace", "default"),
        ("metadata.uid", uid_of("default/train")),
        ("metadata.labels['app']", "trainer"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['team/job']", "nightly"),
        ("spec.nodeName", NODE),
        ("status.podIP", ""),
        ("metadata.labels", ""),
        ("nonsense['", ""),
    ],
)
def test_a_variable_may_refer_to_the_pod_itself(path: str, job: str) -> None:
    variable = {"name": "CARBON_JOB", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
    assert env_of(variable, labels={"app": "trainer"}, annotations={"team/job": "nightly"}).job == job


@pytest.mark.parametrize("source", ["secretKeyRef", "configMapKeyRef", "resourceFieldRef"])
def test_what_only_the_node_knows_is_not_guessed(source: str) -> None:
    secret = {"name": "RUN", "valueFrom": {source: {"name": "x", "key": "y"}}}
    assert env_of({**secret, "name": "CARBON_JOB"}).job == ""
    assert env_of(secret, {"name": "CARBON_JOB", "value": "train-$(RUN)"}).job == ""


@pytest.mark.parametrize(
    ("value", "job"),
    [
        ("train-$(RUN)", "train-7"),
        ("$(RUN)$(RUN)", "77"),
        ("$$(RUN)", "$(RUN)"),
        ("$RUN", "$RUN"),
        ("a$", "a$"),
        ("$(LATER)", ""),
        ("$(no end", "$(no end"),
    ],
)
def test_a_variable_may_refer_to_earlier_ones(value: str, job: str) -> None:
    variables = [{"name": "RUN", "value": "7"}, {"name": "CARBON_JOB", "value": value}, {"name": "LATER", "value": "8"}]
    assert env_of(*variables).job == job


def test_variables_that_double_each_other_stay_small() -> None:
    laughs = [{"name": "V0", "value": "ha" * 200}]
    laughs += [{"name": f"V{i}", "value": f"$(V{i - 1})$(V{i - 1})"} for i in range(1, 60)]
    assert len(env_of(*laughs, {"name": "CARBON_JOB", "value": "$(V59)"}).job) == 512


def test_labels_annotations_and_containers_are_bounded() -> None:
    many = {f"key-{i:04}": "x" * 10_000 for i in range(1000)}
    pod = pod_of(
        make_pod(
            "a",
            labels=many,
            annotations={"k" * 600: "v", **many},
            owners=[{"kind": "K" * 9999, "name": "n" * 9999}] * 1000,
            containers=[{"name": f"c{i}" + "x" * 9999} for i in range(1000)],
        )
    )
    for entries in (pod.labels, pod.annotations):
        assert (len(entries), {len(value) for value in entries.values()}) == (256, {512})
    assert (len(pod.owners), len(pod.owners[0].kind), len(pod.owners[0].name)) == (256, 512, 512)
    assert (len(pod.containers), len(pod.containers[0].name)) == (256, 512)


def test_a_static_pod_tells_the_uid_of_its_control_group() -> None:
    marks = {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef", "kubernetes.io/config.mirror": "x"}
    assert pod_of(make_pod("etcd-node-1", annotations=marks)).mirror_of == "0123456789abcdef0123456789abcdef"


def test_an_ordinary_pod_cannot_claim_the_control_group_of_a_static_one() -> None:
    assert pod_of(make_pod("a", annotations={"kubernetes.io/config.hash": "0" * 32})).mirror_of == ""


@pytest.mark.parametrize(
    ("quantity", "cpus"),
    [
        ("500m", 0.5), ("2", 2.0), ("1e3m", 1.0), ("0.1", 0.1), (".5", 0.5), ("1.", 1.0), ("+3", 3.0), ("1k", 1000.0),
        ("250000u", 0.25), ("100n", 1e-7), ("1Ki", 1024.0), ("1e2", 100.0), ("1E2", 100.0), ("12e-1", 1.2), (4, 4.0),
        (1.5, 1.5), ("-1", 0.0), ("1E", 0.0), ("1e999", 0.0), ("", 0.0), ("m", 0.0), ("1 ", 0.0), ("two", 0.0),
        ("\u0663", 0.0), ("1e3mm", 0.0), (float("nan"), 0.0), (-4, 0.0), (10**400, 0.0),
    ],
)  # fmt: skip
def test_a_quantity_of_cpus_is_read(quantity: str | float, cpus: float) -> None:
    assert parse_cpus(quantity) == pytest.approx(cpus)


def test_cpus_are_counted_as_the_scheduler_does() -> None:
    def requested(**spec: Any) -> float:
        return pod_of(make_pod("a", **spec)).cpus_requested

    both = [cpu("500m"), cpu("1500m"), {"name": "none"}]
    assert requested(containers=both) == pytest.approx(2.0)
    assert requested(containers=both, initContainers=[cpu("1"), cpu("3")]) == pytest.approx(3.0)
    sidecar = cpu("1", restartPolicy="Always")
    assert requested(containers=both, initContainers=[sidecar]) == pytest.approx(3.0)
    assert requested(containers=both, initContainers=[sidecar, cpu("4")]) == pytest.approx(5.0)
    assert requested(containers=both, initContainers=[cpu("2.5"), sidecar]) == pytest.approx(3.0)
    assert requested(containers=both, overhead={"cpu": "250m"}) == pytest.approx(2.25)
    assert requested(containers=both, resources={"requests": {"cpu": "8"}}) == pytest.approx(8.0)


def test_a_list_gives_its_pods_its_version_and_what_cannot_be_read() -> None:
    items = [make_pod("a"), make_pod("b", node="other"), {"metadata": 7}, make_pod("c"), None]
    text = json.dumps({"metadata": {"resourceVersion": "42", "continue": "abc"}, "items": items}).encode()
    page = decode_page(text, NODE)
    assert (page.version, page.more, page.unreadable) == ("42", "abc", 2)
    assert [pod.name for pod in page.pods] == ["a", "c"]
    assert decode_page(b'{"metadata":{"resourceVersion":"1"},"items":null}', NODE).pods == ()


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"<html>", b'{"metadata":{}}', b'{"metadata":{"resourceVersion":7}}']
)
def test_an_answer_that_is_no_list_is_refused(text: bytes) -> None:
    with pytest.raises(JobResolutionError):
        decode_page(text, NODE)


def test_an_event_tells_what_happened_and_where_the_watch_stands() -> None:
    raw = make_pod("a")
    raw["metadata"]["resourceVersion"] = "43"
    event = decode_event(json.dumps({"type": "ADDED", "object": raw}).encode(), NODE)
    assert (event.kind, event.version, event.pod) == ("ADDED", "43", pod_of(raw))
    event = decode_event(b'{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"44"}}}', NODE)
    assert (event.kind, event.version, event.pod) == ("BOOKMARK", "44", None)
    event = decode_event(b'{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410}}', NODE)
    assert (event.kind, event.code) == ("ERROR", 410)
    event = decode_event(b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"45","labels":[]}}}', NODE)
    assert (event.version, event.pod, event.unreadable) == ("45", None, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def spoilt_pods(draw: st.DrawFn) -> Any:
    """A pod with any value anywhere."""
    raw = json.loads(
        json.dumps(
            make_pod(
                "train",
                labels={"app": "x"},
                initContainers=[cpu("1")],
                containers=[{"name": "main", "env": [{"name": "CARBON_JOB", "value": "$(A)"}], **cpu("1m")}],
            )
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        at: Any = raw
        while isinstance(at, (dict, list)) and at:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if draw(st.integers(0, 2)) == 0 or not isinstance(at[key], (dict, list)) or not at[key]:
                at[key] = draw(JSON)
                break
            at = at[key]
    return raw


@given(JSON | spoilt_pods())
def test_any_value_is_a_pod_or_refused(value: Any) -> None:
    for text in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")):
        with contextlib.suppress(JobResolutionError):
            pod = decode_pod(text, NODE)
            assert pod is None or 0 <= pod.cpus_requested < 1e9
            if pod is not None:
                json.dumps([dict(pod.labels), dict(pod.annotations), str(pod)], ensure_ascii=False).encode()
        for kind in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "?"):
            with contextlib.suppress(JobResolutionError):
                decode_event(b'{"type":"%s","object":%s}' % (kind.encode(), text), NODE)
        with contextlib.suppress(JobResolutionError):
            decode_page(b'{"metadata":{"resourceVersion":"1"},"items":[%s]}' % text, NODE)


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
@example(b"[" * 100_000)
@example(b'{"type":"ADDED","object":' + b"[" * 50_000)
@example(b'{"type":"ADDED","object":{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}}")
@example(b'{"metadata":{"name":"\\ud800"}}')
def test_any_bytes_are_told_apart_from_pods(text: bytes) -> None:
    for decode in (decode_pod, decode_event, decode_page):
        with contextlib.suppress(JobResolutionError):
            decode(text, NODE)


@given(
    st.text(max_size=30)
    | st.from_regex(r"[-+]?[0-9.]{0,30}([eE][-+]?[0-9]{0,5})?[a-zA-Z]{0,2}")
    | st.floats()
    | st.integers()
)
def test_any_quantity_is_a_number_of_cpus(quantity: str | float) -> None:
    assert 0.0 <= parse_cpus(quantity) <= 1e6
