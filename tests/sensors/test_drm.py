"""Cards of Linux's DRM class on trees as the kernel lays them out, and on broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.drm import AMD_FILES, XE_FILES, DrmTree
from support.other_user import needs_root, public_directory, run_as_nobody

from carbon_exporter.sensors.drm import Card, count_of, find_cards, find_chip, is_asleep, parse_uevent, text_of


@pytest.fixture
def tree(tmp_path: Path) -> DrmTree:
    return DrmTree(tmp_path / "sys")


def test_cards_are_known_by_their_pci_address_and_not_by_their_number(tree: DrmTree) -> None:
    tree.add("0000:83:00.0", "amdgpu", AMD_FILES)
    tree.add("0000:03:00.0", "amdgpu", AMD_FILES, device_id=0x740F)
    first, second = find_cards(tree.sysfs, {"amdgpu"})
    assert first == Card(tree.device("0000:03:00.0").resolve(), "0000:03:00.0", "amdgpu", 0x740F)
    assert second.address == "0000:83:00.0"


def test_connectors_and_cards_of_other_drivers_are_passed_over(tree: DrmTree) -> None:
    tree.add("0000:03:00.0", "amdgpu", AMD_FILES)
    tree.add("0000:04:00.0", "xe", XE_FILES)
    tree.add("0000:05:00.0", "ast", {})
    assert [card.address for card in find_cards(tree.sysfs, {"xe", "i915"})] == ["0000:04:00.0"]


def test_a_virtual_function_is_a_part_of_another_card(tree: DrmTree) -> None:
    tree.add("0000:03:00.0", "xe", XE_FILES)
    tree.add("0000:03:00.1", "xe", XE_FILES)
    (tree.device("0000:03:00.1") / "physfn").symlink_to("../0000:03:00.0")
    assert [card.address for card in find_cards(tree.sysfs, {"xe"})] == ["0000:03:00.0"]


def test_no_class_no_cards(tmp_path: Path) -> None:
    assert find_cards(tmp_path, {"amdgpu"}) == ()
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "drm").write_text("")
    assert find_cards(tmp_path, {"amdgpu"}) == ()


def test_a_card_without_an_address_is_left_out(tree: DrmTree) -> None:
    tree.add("0000:03:00.0", "amdgpu", AMD_FILES)
    (tree.device("0000:03:00.0") / "uevent").write_text("DRIVER=amdgpu\n")
    (tree.links / "card9").symlink_to("../../nowhere")
    assert find_cards(tree.sysfs, {"amdgpu"}) == ()


def test_the_chip_is_the_one_with_exactly_that_name(tree: DrmTree) -> None:
    tree.add("0000:03:00.0", "i915", {}, chip_name="i915_gt0")
    (card,) = find_cards(tree.sysfs, {"i915"})
    assert find_chip(card, "i915") is None
    chip = tree.add_chip("0000:03:00.0", "i915", {})
    assert find_chip(card, "i915") == chip.resolve()
    tree.remove("0000:03:00.0")
    assert find_chip(card, "i915") is None


def test_a_suspended_card_is_asleep(tree: DrmTree) -> None:
    tree.add("0000:03:00.0", "amdgpu", AMD_FILES)
    (card,) = find_cards(tree.sysfs, {"amdgpu"})
    assert not is_asleep(card)
    (card.path / "power").mkdir()
    (card.path / "power" / "runtime_status").write_text("suspended\n")
    assert is_asleep(card)


@needs_root
def test_a_class_that_may_not_be_listed_is_an_error() -> None:
    with public_directory() as directory:
        tree = DrmTree(directory / "sys")
        tree.links.chmod(0o700)

        def refused() -> None:
            with pytest.raises(PermissionError):
                find_cards(tree.sysfs, {"amdgpu"})

        run_as_nobody(refused)


@given(st.text())
def test_any_text_is_a_uevent(text: str) -> None:
    assert all(isinstance(value, str) for value in parse_uevent(text).values())


@given(st.binary(max_size=300))
def test_any_bytes_in_its_files_are_no_card_or_a_card(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    tree = DrmTree(tmp_path_factory.mktemp("drm") / "sys")
    tree.add("0000:03:00.0", "amdgpu", AMD_FILES)
    device = tree.device("0000:03:00.0")
    (device / "uevent").write_bytes(b"DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\nPCI_ID=" + content)
    assert len(find_cards(tree.sysfs, {"amdgpu"})) <= 1
    (device / "uevent").write_bytes(content)
    assert not find_cards(tree.sysfs, {"amdgpu"})
    assert isinstance(text_of(device / "uevent"), str)
    assert count_of(device / "uevent") is None or content.strip().isdigit()
