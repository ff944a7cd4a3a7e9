"""Ids of devices and names of resources, as plugins and drivers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.jobs.device_ids import claimed_devices, driver_of, is_board, unreplicated

UUID = "3c2f1a9e-0b1d-4f6a-9c3e-77a1b2c3d4e5"
GPU, MIG = f"GPU-{UUID}", f"MIG-{UUID}"
CLAIM = "dab5ab50-d59a-42a6-af16-cfd4628c0f7a"


@pytest.mark.parametrize(
    ("identifier", "device"),
    [
        (GPU, GPU),
        (f"{GPU}::0", GPU),
        (f"{GPU}::17", GPU),
        (f"{GPU}-replica-3", GPU),
        (f"{GPU}-0", GPU),
        (f"{UUID}-0", UUID),
        (UUID, UUID),
        (MIG, MIG),
        (f"{MIG}::2", MIG),
        (f"{MIG}-1", MIG),
        (f"MIG-{GPU}/7/0", f"MIG-{GPU}/7/0"),
        (f"MIG-{GPU}/7/0::1", f"MIG-{GPU}/7/0"),
        ("nvidia0", "nvidia0"),
        ("nvidia12", "nvidia12"),
        ("nvidia0/vgpu3", "nvidia0"),
        ("nvidia0/gi5", "nvidia0/gi5"),
        ("nvidia0/gi5/vgpu2", "nvidia0/gi5"),
        ("0000:c1:00.0", "0000:c1:00.0"),
        ("0000:c1:00.0-slice-2", "0000:c1:00.0"),
        ("amdgpu_xcp_30", "amdgpu_xcp_30"),
        ("card0-1", "card0"),
        ("card0", "card0"),
        (f" {GPU}\n", GPU),
        ("", ""),
        ("nvidia0/gpu5", "nvidia0/gpu5"),
        ("nvidia\u0663", "nvidia\u0663"),
        ("one\ntwo", "one?two"),
        ("x" * 999, "x" * 256),
    ],
)
def test_an_id_means_its_board_without_the_replica(identifier: str, device: str) -> None:
    assert unreplicated(identifier) == device


def test_the_last_block_of_a_uuid_is_no_replica() -> None:
    digits = "GPU-3c2f1a9e-0b1d-4f6a-9c3e-771122334455"
    assert unreplicated(digits) == digits
    assert unreplicated("00000000-0000-4000-8000-000000000000") == "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    "resource",
    [
        "nvidia.com/gpu",
        "nvidia.com/gpu.shared",
        "nvidia.com/mig-1g.10gb",
        "nvidia.com/mig-1g.10gb.shared",
        "amd.com/gpu",
        "amd.com/cpx_nps4",
        "amd.com/spx_nps1",
        "gpu.intel.com/i915",
        "gpu.intel.com/xe",
        "gpu.nvidia.com",
        "gpu.amd.com",
        "gpu.intel.com",
    ],
)
def test_boards_are_known_by_their_resource(resource: str) -> None:
    assert is_board(resource)


@pytest.mark.parametrize(
    "resource",
    [
        "",
        "cpu",
        "nvidia.com/gpumem",
        "compute-domain.nvidia.com",
        "gpu.intel.com/i915_monitoring",
        "gpu.intel.com/monitoring",
        "rdma/hca",
        "squat.ai/video",
        "NVIDIA.COM/GPU",
    ],
)
def test_other_resources_and_those_of_watchers_are_no_boards(resource: str) -> None:
    assert not is_board(resource)


def test_further_resources_are_boards_when_told_so() -> None:
    assert not is_board("habana.ai/gaudi")
    assert is_board("habana.ai/gaudi", ("example.com/*", "habana.ai/*"))
    assert is_board("gpu.intel.com/i915_monitoring", ("gpu.intel.com/*",))


@pytest.mark.parametrize(
    ("driver", "device", "board"),
    [
        ("gpu.nvidia.com", "gpu-0", "nvidia0"),
        ("gpu.nvidia.com", "gpu-11", "nvidia11"),
        ("gpu.nvidia.com", "gpu-0-mig-9-4-4", "nvidia0/mig-9-4"),
        ("gpu.nvidia.com", "gpu-3-mig-1g10gb-19-2", "nvidia3/mig-19-2"),
        ("gpu.nvidia.com", "gpu-3-mig-1g10gb-me-20-0", "nvidia3/mig-20-0"),
        ("gpu.nvidia.com", "gpu-vfio-0", "gpu-vfio-0"),
        ("gpu.amd.com", "gpu-1-129", "card1"),
        ("gpu.intel.com", "0000-03-00-0-0x56c0", "0000:03:00.0"),
        ("example.com", "gpu-0", "gpu-0"),
    ],
)
def test_a_claimed_device_is_the_board_behind_its_drivers_name(driver: str, device: str, board: str) -> None:
    assert claimed_devices(driver, device, ()) == (board,)
    assert claimed_devices(driver, device, (f"k8s.{driver}/claim={CLAIM}-{device}",)) == (board,)


@pytest.mark.parametrize(
    ("names", "boards"),
    [
        ([f"k8s.gpu.nvidia.com/claim={CLAIM}-gpu-0"], ("nvidia0",)),
        (["k8s.gpu.nvidia.com/device=gpu-1", f"k8s.gpu.nvidia.com/claim={CLAIM}-gpu-1"], ("nvidia1",)),
        ([f"k8s.gpu.nvidia.com/claim={CLAIM}-gpu-0-mig-19-2-1"], ("nvidia0/mig-19-2",)),
        (["k8s.gpu.nvidia.com/device=gpu-0", "k8s.gpu.nvidia.com/device=gpu-1"], ("nvidia0", "nvidia1")),
        (["k8s.gpu.amd.com/gpu=common", f"k8s.gpu.amd.com/gpu={CLAIM}-gpu-1-129"], ("card1",)),
        ([f"k8s.device-plugin.nvidia.com/gpu={GPU}"], (GPU,)),
        ([f"k8s.gpu.nvidia.com/claim={CLAIM}-{MIG}"], (MIG,)),
        (["nvidia.com/gpu=all", "not a name", ""], ()),
    ],
)
def test_without_a_device_the_names_of_the_cdi_tell(names: list[str], boards: tuple[str, ...]) -> None:
    assert claimed_devices(driver_of(names), "", names) == boards


def test_a_claims_uid_is_not_taken_for_a_board() -> None:
    assert claimed_devices("gpu.nvidia.com", "", [f"k8s.gpu.nvidia.com/claim={CLAIM}"]) == ()


def test_the_driver_is_known_by_the_cdis_vendor() -> None:
    assert driver_of(["broken", f"k8s.gpu.nvidia.com/claim={CLAIM}-gpu-0"]) == "gpu.nvidia.com"
    assert driver_of([]) == ""


@given(st.text(max_size=400), st.text(max_size=20))
def test_any_text_is_an_id_and_stays_printable(text: str, driver: str) -> None:
    for device in (unreplicated(text), *claimed_devices(driver, text, (text, f"a/b={text}"))):
        assert len(device) <= 300
        assert device.isprintable()
    assert is_board(text) in {True, False}


@given(st.sampled_from([GPU, MIG, "nvidia0", "nvidia0/gi3", "0000:c1:00.0"]), st.integers(0, 9999))
def test_taking_the_replica_away_once_is_enough(device: str, replica: int) -> None:
    assert unreplicated(f"{device}::{replica}") == device
    assert unreplicated(unreplicated(f"{device}::{replica}")) == device
