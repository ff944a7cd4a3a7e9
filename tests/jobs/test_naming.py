"""Naming: which rule names a workload, and what is said of its job beside the name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.facts import BATCH, ID, POD_PATH, UID, at, in_pod, info, labelled, made_by, named, pod

from carbon_exporter.jobs.base import RESERVED, Job
from carbon_exporter.jobs.naming import (
    DEFAULT_ORDER,
    RULES,
    Facts,
    JobInfo,
    Name,
    common_info,
    name_of,
    parse_order,
)
from carbon_exporter.jobs.naming_kubernetes import ANNOTATION, TRAINING_LABELS
from carbon_exporter.jobs.places import place_of
from carbon_exporter.jobs.workload import Container, Owner, Pod, PodContainer, SlurmJob

EVERYTHING = Facts(
    place=replace(at(f"{POD_PATH}/{ID}"), slurm="211", name="x.service"),
    pod=Pod(
        "ml",
        "web-7d764666f9-x2b4d",
        UID,
        labels={"job-name": "by-label", "pod-template-hash": "7d764666f9"},
        annotations={ANNOTATION: "by-annotation"},
        owners=(made_by("ReplicaSet", "owner-7d764666f9"),),
    ),
    pod_container=PodContainer("main", ID, job="by-spec", service="by-otel"),
    slurm=SlurmJob("211", "by-slurm"),
)


def test_the_order_is_annotation_scheduler_variable_labels_owner_pod_container_unit() -> None:
    assert DEFAULT_ORDER == ("annotation", "slurm", "environment", "labels", "owner", "pod", "container", "unit")
    names = [named(EVERYTHING, DEFAULT_ORDER[first:])[:2] for first in range(len(DEFAULT_ORDER))]
    assert names == [
        ("annotation", "by-annotation"),
        ("slurm", "by-slurm"),
        ("environment", "by-spec"),
        ("labels", "by-label"),
        ("owner", "owner"),
        ("pod", "web"),
        ("container", "pod-0cb8ae4c"),
        ("unit", "x.service"),
    ]


def test_another_order_is_respected_and_a_rule_left_out_is_off() -> None:
    assert named(EVERYTHING, ("pod", "annotation"))[:2] == ("pod", "web")
    assert named(EVERYTHING, ("otel", "annotation"))[:2] == ("otel", "by-otel")
    assert named(EVERYTHING, ("slurm-id",))[:2] == ("slurm-id", "slurm-211")
    assert name_of(EVERYTHING, ()) is None
    assert name_of(Facts(environment={"OTEL_SERVICE_NAME": "svc"})) is None


@pytest.mark.parametrize(
    ("text", "order"),
    [
        (",".join(DEFAULT_ORDER), DEFAULT_ORDER),
        (" environment , unit ", ("environment", "unit")),
        ("otel", ("otel",)),
        (",".join(RULES), tuple(RULES)),
    ],
)
def test_an_order_is_read_from_text(text: str, order: tuple[str, ...]) -> None:
    assert parse_order(text) == order


@pytest.mark.parametrize("text", ["", " ", "pod,,unit", "pod,pod", "pods", "pod;unit", "POD"])
def test_an_order_that_cannot_be_meant_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match="out of annotation, slurm, slurm-id, environment, otel, labels, owner, pod"):
        parse_order(text)


def test_in_a_pod_the_spec_speaks_and_no_process() -> None:
    facts = replace(in_pod(pod("train"), PodContainer("main", ID, job="spec")), environment={"CARBON_JOB": "process"})
    assert named(facts) == ("environment", "spec", "CARBON_JOB")
    assert named(replace(facts, pod_container=PodContainer("main", ID)))[:2] == ("pod", "train")
    unknown = Facts(at(f"{POD_PATH}/{ID}"), {"CARBON_JOB": "process"})
    assert named(unknown)[:2] == ("container", "pod-0cb8ae4c")


def test_what_a_pod_uses_beyond_its_containers_has_the_name_that_they_share() -> None:
    main, side, other = PodContainer("main", job="a"), PodContainer("side"), PodContainer("other", job="b")
    assert named(in_pod(pod("p", containers=(main, side))))[:2] == ("environment", "a")
    assert named(in_pod(pod("p", containers=(main, other))))[:2] == ("pod", "p")


def test_outside_kubernetes_the_environment_speaks() -> None:
    for place in (None, at(f"/docker/{ID}"), at("/system.slice/ssh.service")):
        assert named(Facts(place, {"CARBON_JOB": " train "})) == ("environment", "train", "CARBON_JOB")
        assert named(Facts(place, {"OTEL_SERVICE_NAME": "svc"}), ("otel",))[:2] == ("otel", "svc")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/docker/{ID}", "docker-4f5e1d2c3b4a"),
        (f"/machine.slice/libpod-{ID}.scope", "podman-4f5e1d2c3b4a"),
        (f"/system.slice/nerdctl-{ID}.scope", "containerd-4f5e1d2c3b4a"),
        (f"/other/{ID}", "container-4f5e1d2c3b4a"),
        (POD_PATH, "pod-0cb8ae4c"),
        (f"{POD_PATH}/{ID}", "pod-0cb8ae4c"),
    ],
)
def test_a_container_of_which_only_the_path_is_known_has_a_short_name(path: str, name: str) -> None:
    assert named(Facts(at(path)))[:2] == ("container", name)


@pytest.mark.parametrize(
    ("container", "name"),
    [
        (Container(ID, "/trainer", "docker"), "trainer"),
        (Container(ID, "", "podman"), "podman-4f5e1d2c3b4a"),
        (
            Container(
                ID,
                "shop-web-2",
                "docker",
                {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
            ),
            "shop-web",
        ),
        (Container(ID, "shop_web.2.q1w2e3r4t5y6", "docker", {"com.docker.swarm.service.name": "shop_web"}), "shop_web"),
    ],
)
def test_a_container_has_its_engines_name_without_the_number_of_a_replica(container: Container, name: str) -> None:
    assert named(Facts(at(f"/docker/{ID}"), container=container))[:2] == ("container", name)


def test_a_label_of_a_container_is_its_annotation() -> None:
    facts = Facts(at(f"/docker/{ID}"), {"CARBON_JOB": "x"}, container=Container(ID, "c", "docker", {ANNOTATION: "job"}))
    assert named(facts) == ("annotation", "job", ANNOTATION)


@pytest.mark.parametrize(
    ("path", "name", "why"),
    [
        ("/system.slice/ssh.service", "ssh.service", "unit"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", "session"),
        (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope", "vm", "machine"),
    ],
)
def test_units_sessions_and_machines_have_their_own_names(path: str, name: str, why: str) -> None:
    assert named(Facts(at(path))) == ("unit", name, why)


def test_nothing_known_is_no_name() -> None:
    assert name_of(Facts()) is None
    assert name_of(Facts(environment={"CARBON_JOB": " \t"})) is None


SLURM = at("/slurm/uid_1000/job_211/step_0")


def test_a_slurm_job_is_named_as_submitted_and_by_its_number_where_that_is_all_there_is() -> None:
    known = SlurmJob("208_3", "sweep", "ada", "lab", "gpu")
    assert named(Facts(SLURM, {"CARBON_JOB": "x"}, slurm=known)) == ("slurm", "sweep", "SLURM_JOB_NAME")
    assert named(Facts(SLURM)) == ("slurm", "slurm-211", "job id")
    assert named(Facts(SLURM, slurm=SlurmJob("208_3")))[:2] == ("slurm", "slurm-208_3")
    assert named(Facts(SLURM, slurm=known), ("slurm-id",))[:2] == ("slurm-id", "slurm-208_3")


def test_what_is_said_beside_the_name_comes_from_the_scheduler() -> None:
    assert info(Facts(SLURM, slurm=SlurmJob("211", "a", "ada", "lab", "gpu"))) == JobInfo("211", "slurm", "gpu", "ada")
    assert info(Facts(SLURM)) == JobInfo("211", "slurm", "", "1000")
    assert info(in_pod(pod("p"))) == JobInfo(scheduler="kubernetes")
    assert info(Facts(at(POD_PATH))) == JobInfo(scheduler="kubernetes")
    assert info(Facts(at("/user.slice/user-7.slice/session-1.scope"))) == JobInfo(user="7")
    assert info(Facts(at("/system.slice/ssh.service"))) == JobInfo()
    queued = {BATCH: "train", "volcano.sh/queue-name": "gold"}
    assert info(in_pod(labelled("p", queued))) == JobInfo("", "volcano", "gold")


def test_members_are_pods_and_their_containers() -> None:
    found = name_of(in_pod(pod("train-0"), PodContainer("main", ID)))
    assert found == Name(Job("train", "ml"), "pod", "pod name", JobInfo(scheduler="kubernetes"), ("train-0", "main"))
    for facts, member in ((in_pod(pod("train-0")), ("train-0", "")), (Facts(SLURM), ("", ""))):
        name = name_of(facts)
        assert name is not None
        assert name.member == member


def test_workloads_of_one_job_say_together_what_none_denies() -> None:
    one, two = JobInfo("208_1", "slurm", "gpu", "ada"), JobInfo("208_2", "slurm", "", "ada")
    assert common_info([one, two]) == common_info([two, one]) == JobInfo("", "slurm", "gpu", "ada")
    assert common_info([one]) == one
    assert common_info([]) == JobInfo()


TEXT = st.text(st.characters(), max_size=200) | st.sampled_from(
    [
        "",
        " ",
        "_idle_",
        " _unattributed_ ",
        "_overflow_\n",
        "_idle_" + " " * 150 + "x",
        "a\x00b\ud800",
        "-",
        "web-x2b4d",
    ]
)
KEYS = st.sampled_from([ANNOTATION, *TRAINING_LABELS, "pod-template-hash", "kueue.x-k8s.io/queue-name"]) | TEXT
MAPS = st.dictionaries(KEYS, TEXT, max_size=4)
SPECS = st.builds(PodContainer, TEXT, TEXT, TEXT, TEXT)
OWNERS = st.builds(
    Owner, st.sampled_from(["ReplicaSet", "Job", "Node", "Pod", "RayCluster"]) | TEXT, TEXT, st.booleans()
)
PODS = st.builds(
    Pod,
    TEXT,
    TEXT,
    TEXT,
    MAPS,
    MAPS,
    st.lists(OWNERS, max_size=2).map(tuple),
    st.lists(SPECS, max_size=2).map(tuple),
)
ENVIRONMENTS = st.dictionaries(st.sampled_from(["CARBON_JOB", "OTEL_SERVICE_NAME"]) | TEXT, TEXT, max_size=3)
PATHS = st.sampled_from(
    [
        POD_PATH,
        f"{POD_PATH}/{ID}",
        f"/docker/{ID}",
        "/slurm/uid_0/job_1",
        "/system.slice/_idle_.service",
        "/",
    ]
) | TEXT.map(lambda text: f"/{text}.scope")
FACTS = st.builds(
    Facts,
    PATHS.map(place_of),
    ENVIRONMENTS,
    st.none() | PODS,
    st.none() | SPECS,
    st.none() | st.builds(Container, TEXT, TEXT, TEXT, MAPS),
    st.none() | st.builds(SlurmJob, TEXT, TEXT, TEXT, TEXT, TEXT),
)
ORDERS = st.lists(st.sampled_from(list(RULES)), unique=True).map(tuple)


@given(FACTS, ORDERS)
def test_no_facts_make_trouble_or_an_unclean_or_reserved_name(facts: Facts, order: tuple[str, ...]) -> None:
    name = name_of(facts, order)
    assert name == name_of(facts, order)
    if name is None:
        assert all(name_of(facts, (rule,)) is None for rule in order)
        return
    for text in (name.job.name, name.job.namespace, *name.member, name.info.job_id, name.info.queue, name.info.user):
        assert len(text) <= 128
        assert text.isprintable()
    assert name.job.name
    assert Job(name.job.name) not in RESERVED
    assert name.rule == next(rule for rule in order if name_of(facts, (rule,)) is not None)


@given(st.lists(st.sampled_from(["", " ", ",", *RULES]) | TEXT, max_size=5).map(",".join))
def test_no_text_of_an_order_makes_other_trouble_than_a_value_error(text: str) -> None:
    try:
        order = parse_order(text)
    except ValueError:
        return
    assert order
    assert set(order) <= RULES.keys()
