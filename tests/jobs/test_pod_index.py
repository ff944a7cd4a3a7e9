"""What is known of pods while they come and go."""

from __future__ import annotations

from support.apiserver import container_id, uid_of

from carbon_exporter.jobs.pod_index import GONE_SECONDS, MOST_GONE, MOST_PODS, PodIndex
from carbon_exporter.jobs.workload import Pod, PodContainer


def pods(*names: str) -> list[Pod]:
    return [
        Pod("default", name, uid_of(name), containers=(PodContainer("main", container_id(name)),)) for name in names
    ]


def test_a_pod_that_is_gone_stays_known_for_ten_minutes() -> None:
    index, (a, b) = PodIndex(), pods("a", "b")
    index.replace([a, b], 0.0)
    index.remove(a, 10.0)
    index.purge(10.0 + GONE_SECONDS - 1)
    index.publish()
    assert index.by_uid(a.uid) is index.by_name("default", "a") is index.by_container(container_id("a")) is a
    assert index.is_gone(a.uid)
    assert not index.is_gone(b.uid)
    index.purge(10.0 + GONE_SECONDS)
    index.publish()
    assert index.by_uid(a.uid) is index.by_name("default", "a") is index.by_container(container_id("a")) is None
    assert not index.is_gone(a.uid)
    assert index.by_uid(b.uid) is b


def test_a_pod_is_never_unknown_between_its_end_and_the_next_picture() -> None:
    index, (a,) = PodIndex(), pods("a")
    index.put(a, 0.0)
    index.publish()
    index.remove(a, 1.0)
    assert index.by_uid(a.uid) is a
    index.publish()
    assert index.by_uid(a.uid) is a


def test_what_a_new_list_lacks_is_gone() -> None:
    index, (a, b, c) = PodIndex(), pods("a", "b", "c")
    index.replace([a, b], 0.0)
    index.replace([b, c], 5.0)
    index.publish()
    assert [index.is_gone(pod.uid) for pod in (a, b, c)] == [True, False, False]
    assert [index.by_uid(pod.uid) for pod in (a, b, c)] == [a, b, c]


def test_a_pod_that_was_missing_in_one_list_alone_lives_on() -> None:
    index, (a,) = PodIndex(), pods("a")
    for listed, now in (([a], 0.0), ([], 1.0), ([a], 2.0)):
        index.replace(listed, now)
        index.publish()
    assert not index.is_gone(a.uid)
    index.purge(1e6)
    assert index.by_uid(a.uid) is a
    index.remove(a, 1e6)
    index.publish()
    index.purge(1e6 + 1)
    assert index.is_gone(a.uid)


def test_a_new_pod_of_an_old_name_takes_the_name_and_leaves_the_uid() -> None:
    index, old = PodIndex(), Pod("default", "train-0", "old")
    new = Pod("default", "train-0", "new")
    index.put(old, 0.0)
    index.put(new, 1.0)
    index.remove(old, 2.0)  # told late
    index.publish()
    assert (index.by_name("default", "train-0"), index.by_uid("old")) == (new, old)
    assert index.is_gone("old")
    index.purge(1e6)
    assert (index.by_name("default", "train-0"), index.by_uid("old")) == (new, None)


def test_the_end_of_a_pod_never_met_takes_nothing_from_a_living_one() -> None:
    index, living = PodIndex(), Pod("default", "a", "living", mirror_of="hash")
    index.put(living, 0.0)
    index.remove(Pod("default", "a", "stranger", mirror_of="hash"), 1.0)
    index.publish()
    assert index.by_name("default", "a") is index.by_uid("hash") is living


def test_a_change_of_what_nobody_asks_about_is_no_change() -> None:
    index, (a,) = PodIndex(), pods("a")
    index.put(a, 0.0)
    index.publish()
    index.put(pods("a")[0], 1.0)
    index.publish()
    assert index.revision == 1


def test_a_container_that_was_replaced_is_forgotten() -> None:
    index = PodIndex()
    for number in range(100):
        container = PodContainer("main", container_id("a", str(number)))
        index.put(Pod("default", "a", "uid", containers=(container,)), float(number))
    index.publish()
    assert index.by_container(container_id("a", "98")) is None
    assert index.by_container(container_id("a", "99")) is not None
    assert len(index._living.containers) == 1


def test_no_flood_of_pods_grows_without_end() -> None:
    index = PodIndex()
    assert index.replace(pods(*(f"p{i}" for i in range(MOST_PODS + 5))), 0.0) == 5
    for round_number in range(3):
        index.replace(pods(*(f"r{round_number}-{i}" for i in range(MOST_PODS))), 1.0)
        index.purge(1.0)
    assert (len(index._gone.uids), len(index._since), len(index._living.uids)) == (MOST_GONE, MOST_GONE, MOST_PODS)
    assert len(index._gone.containers) == MOST_GONE
