"""What a kubelet's list of pods tells of boards: the pure part, and any bytes in its place."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from support.kubelet import claim, container, devices, pod, pods

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.kubelet import Listing, parse_listing
from carbon_exporter.jobs.workload import DeviceGrant

GPU = "GPU-3c2f1a9e-0b1d-4f6a-9c3e-77a1b2c3d4e5"


def test_replicas_of_a_board_given_to_one_container_are_one_grant() -> None:
    both = devices("nvidia.com/gpu", f"{GPU}::0", f"{GPU}::1")
    answer = pod("ml", "train", container("a", both), container("b", devices("nvidia.com/gpu", f"{GPU}::2")))
    assert [(one.container, one.device) for one in parse_listing(answer).grants] == [("a", GPU), ("b", GPU)]


def test_claims_without_a_driver_are_known_by_the_cdis_names() -> None:
    name = "k8s.gpu.nvidia.com/claim=dab5ab50-d59a-42a6-af16-cfd4628c0f7a-gpu-0-mig-1g10gb-19-4"
    other = claim(cdi=["vendor.com/nic=eth0"])
    grants = parse_listing(pod("ml", "train", container("main", claim(cdi=[name]), other))).grants
    assert grants == (DeviceGrant("ml", "train", "main", "nvidia0/mig-19-4", "gpu.nvidia.com"),)


def test_further_resources_are_read_when_told_so() -> None:
    answer = pod("ml", "train", container("main", devices("habana.ai/gaudi", "AC0"), claim("tpu.google.com", "tpu-0")))
    assert parse_listing(answer).grants == ()
    grants = parse_listing(answer, ("habana.ai/*", "tpu.google.com")).grants
    assert [(one.device, one.resource) for one in grants] == [("AC0", "habana.ai/gaudi"), ("tpu-0", "tpu.google.com")]


def uuid(board: int) -> str:
    return f"GPU-{board:08x}-0000-4000-8000-000000000000"


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@given(st.sets(st.tuples(NAMES, NAMES, NAMES, st.integers(0, 7), st.integers(0, 3)), max_size=12))
def test_what_a_kubelet_writes_is_read(given_boards: set[tuple[str, str, str, int, int]]) -> None:
    answer = b"".join(
        pod(
            namespace,
            name,
            container(box, devices("nvidia.com/gpu", f"GPU-{board:08x}-0000-4000-8000-000000000000::{n}")),
        )
        for namespace, name, box, board, n in given_boards
    )
    listing = parse_listing(answer)
    found = {(one.namespace, one.pod, one.container, one.device) for one in listing.grants}
    assert found == {(a, b, c, uuid(board)) for a, b, c, board, _ in given_boards}
    assert len(listing.grants) == len(found)
    assert listing.pods == {(namespace, name) for namespace, name, *_ in given_boards}


VALID = pods(f"{GPU}::1", "a", "b") + pod("ml", "c", container("main", claim("gpu.nvidia.com", "gpu-0", ["x/y=z"])))


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda tail: VALID + tail)))
def test_any_answer_is_a_listing_or_our_error(answer: bytes) -> None:
    try:
        assert isinstance(parse_listing(answer), Listing)
    except JobResolutionError as error:
        assert error.reason.isprintable()


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255), st.integers(0, len(VALID)))
def test_a_damaged_answer_is_a_listing_or_our_error(at: int, byte: int, end: int) -> None:
    damaged = bytearray(VALID)
    damaged[at] = byte
    with contextlib.suppress(JobResolutionError):
        for grant in parse_listing(bytes(damaged[:end])).grants:
            assert grant.device.isprintable()
            assert grant.pod.isprintable()
