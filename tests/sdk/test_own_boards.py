"""What a process pays of each board: the first that knows says it, and never a neighbour's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sdk.base import BoardUse
from carbon_exporter.sdk.own_boards import own_boards
from carbon_exporter.sdk.visible_boards import Sight, boards_in_sight
from carbon_exporter.sensors.base import Device

A100 = "NVIDIA A100-SXM4-40GB"


def nvidia(number: int, model: str = A100) -> Device:
    return Device(f"gpu{number}", "gpu", "nvidia", vendor="NVIDIA", model=model, uuid=uuid(number))


def uuid(number: int) -> str:
    return f"GPU-{number:08x}-1111-2222-3333-444444444444"


FOUR = [Device("cpu0", "cpu", "rapl"), *(nvidia(number) for number in range(4))]
ONE = FOUR[:2]
MI300 = [Device(f"gpu{n}", "gpu", "amd", vendor="AMD", model="MI300X", uuid=f"0x{n:016x}") for n in range(4)]
MI250 = [Device(f"gpu{n}", "gpu", "amd", vendor="AMD", model="AMD Instinct MI250X") for n in range(2)]
PVC = [Device(f"gpu{n}", "gpu", "intel_gpu", vendor="Intel", model="PCI device 8086:0bd5") for n in range(2)]
ARC = [Device(f"gpu{n}", "gpu", "intel_gpu", vendor="Intel", model="PCI device 8086:56a0") for n in range(2)]


def module(name: str, **contents: object) -> ModuleType:
    """A module that is none of the real ones."""
    made = ModuleType(name)
    for key, value in contents.items():
        setattr(made, key, value)
    return made


def torch(
    held: Sequence[int] = (), *, boards: int = 4, current: int = 0, initialized: bool = True, model: str = A100
) -> Mapping[str, ModuleType]:
    """A stand-in for torch with CUDA, of a version that does not tell uuids."""
    cuda = SimpleNamespace(
        is_initialized=lambda: initialized,
        device_count=lambda: boards,
        memory_reserved=lambda number: 4096 if number in held else 0,
        current_device=lambda: current,
        get_device_properties=lambda _: SimpleNamespace(name=model),
    )
    return {"torch": module("torch", cuda=cuda, version=SimpleNamespace(cuda="12.4", hip=None))}


def use(
    devices: Sequence[Device] = FOUR,
    *,
    told: BoardUse | None = None,
    wanted: Sequence[str | int] | None = None,
    modules: Mapping[str, ModuleType] | None = None,
    sight: Sight = Sight(),  # noqa: B008 - a tuple
    **environ: str,
) -> tuple[dict[str, float], bool]:
    """Shares and whether they are certain."""
    found = own_boards(devices, told, environ, wanted, modules or {}, sight=lambda: sight)
    return dict(found.shares), found.certain


def shares(*args: Sequence[Device], **how: object) -> dict[str, float]:
    return use(*args, **how)[0]  # type: ignore[arg-type]  # as `use` has them


@pytest.mark.parametrize(
    ("wanted", "environ", "expected"),
    [
        (["gpu2"], {}, {"gpu2": 1.0}),
        ([uuid(3)], {}, {"gpu3": 1.0}),
        (["gpu-00000003"], {}, {"gpu3": 1.0}),
        ([1], {}, {"gpu1": 1.0}),
        ([1], {"CUDA_VISIBLE_DEVICES": "3,2"}, {"gpu2": 1.0}),
        (["cuda:0", "1"], {"CUDA_VISIBLE_DEVICES": "3,2"}, {"gpu3": 1.0, "gpu2": 1.0}),
        ([], {"CUDA_VISIBLE_DEVICES": "0"}, {}),
    ],
)
def test_the_script_has_the_first_word(
    wanted: list[str | int], environ: dict[str, str], expected: dict[str, float]
) -> None:
    found = own_boards(FOUR, None, environ, wanted, torch([0]), sight=Sight)
    assert (found.shares, found.certain) == (expected, True)


@pytest.mark.parametrize("wanted", ["gpu9", 9, "GPU-9", "", "GPU-0", "all", -1, True])
def test_what_the_script_asks_for_and_is_not_there_is_no_other_board(wanted: str | int) -> None:
    assert use(wanted=[wanted], told=BoardUse({"gpu0": 1.0})) == ({}, False)


def test_the_driver_knows_who_shares_what_the_script_asked_for() -> None:
    told = BoardUse({"gpu1": 0.25, "gpu2": 1.0}, certain=False)
    assert use(wanted=[1, 3], told=told) == ({"gpu1": 0.25, "gpu3": 1.0}, False)
    assert use(wanted=[3], told=told) == ({"gpu3": 1.0}, True)


def test_the_driver_has_the_next_word() -> None:
    told = BoardUse({"gpu1": 0.5, "cpu0": 1.0, "gpu7": 1.0, "gpu3": 0.0})
    assert use(told=told, modules=torch([0]), CUDA_VISIBLE_DEVICES="2") == ({"gpu1": 0.5}, True)


def test_where_the_driver_does_not_list_us_the_framework_knows() -> None:
    assert use(told=BoardUse(), modules=torch([1, 2]), CUDA_VISIBLE_DEVICES="0,2,3") == (
        {"gpu2": 1.0, "gpu3": 1.0},
        False,
    )


def test_a_thread_that_never_chose_a_board_is_on_the_first_for_cuda_and_that_says_nothing() -> None:
    assert shares(modules=torch(current=0)) == {}
    assert shares(modules=torch(current=3)) == {"gpu3": 1.0}
    assert shares(ONE, modules=torch(boards=1)) == {"gpu0": 1.0}


def test_a_context_without_memory_does_not_make_a_board_ours_beside_one_with_memory() -> None:
    modules = torch([3])
    modules["torch"]._C = SimpleNamespace(_cuda_hasPrimaryContext=lambda number: number in (0, 3))  # type: ignore[attr-defined]
    assert shares(modules=modules) == {"gpu3": 1.0}


def test_a_framework_that_tells_the_uuid_is_believed_whatever_the_order() -> None:
    facts = {0: SimpleNamespace(name=A100, uuid=uuid(2)[4:]), 1: SimpleNamespace(name=A100, uuid="f" * 36)}
    modules = torch([0, 1])
    modules["torch"].cuda.get_device_properties = facts.__getitem__
    assert shares(modules=modules) == {"gpu2": 1.0}, "the second is not among those that are measured"


def test_frameworks_are_not_started_and_their_troubles_are_theirs() -> None:
    def trouble(*_: object) -> int:
        raise RuntimeError("CUDA error: unspecified launch failure")

    assert shares(modules=torch([1], initialized=False)) == {}
    modules = torch([1])
    modules["torch"].cuda.memory_reserved = trouble
    assert shares(modules=modules, CUDA_VISIBLE_DEVICES="2") == {"gpu2": 1.0}
    assert shares(modules={"torch": module("torch"), "jax": module("jax")}) == {}


def test_jax_and_tensorflow_are_asked_once_they_have_taken_boards() -> None:
    client = SimpleNamespace(local_devices=lambda: [SimpleNamespace(local_hardware_id=n) for n in (0, 1)])
    jax = module("jax._src.xla_bridge", _backends={"cpu": SimpleNamespace(), "cuda": client})
    assert shares(modules={jax.__name__: jax}, CUDA_VISIBLE_DEVICES="2,3") == {"gpu2": 1.0, "gpu3": 1.0}
    assert shares(modules={jax.__name__: module(jax.__name__, _backends={})}) == {}
    context = SimpleNamespace(
        _initialized=True,
        _visible_device_list=[SimpleNamespace(name=f"/physical_device:{name}") for name in ("CPU:0", "GPU:1")],
    )
    name = "tensorflow.python.eager.context"
    assert shares(modules={name: module(name, _context=context)}) == {"gpu1": 1.0}
    context._initialized = False
    assert shares(modules={name: module(name, _context=context)}) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", {"gpu0"}),
        ("2,0", {"gpu2", "gpu0"}),
        (uuid(1), {"gpu1"}),
        ("GPU-00000001,3", {"gpu1", "gpu3"}),
        ("1,9,2", {"gpu1"}),
        ("GPU-0", set()),
        ("", set()),
        ("-1", set()),
        ("NoDevFiles", set()),
    ],
)
def test_cudas_list_is_read_as_cuda_reads_it(text: str, expected: set[str]) -> None:
    assert use(CUDA_VISIBLE_DEVICES=text) == (dict.fromkeys(expected, 1.0), not expected)


def test_an_explicit_list_of_no_board_is_believed() -> None:
    assert use(ONE, modules=torch(initialized=False), CUDA_VISIBLE_DEVICES="") == ({}, True)


def test_numbers_of_boards_of_several_models_mean_nothing_without_an_order() -> None:
    mixed = [nvidia(0, "NVIDIA RTX A2000"), nvidia(1, "NVIDIA GeForce RTX 4090")]
    assert shares(mixed, CUDA_VISIBLE_DEVICES="0") == {}
    assert shares(mixed, modules=torch([0], boards=2)) == {}
    assert shares(mixed, wanted=[0]) == {}
    assert shares(mixed, CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID") == {"gpu0": 1.0}
    assert shares(mixed, CUDA_VISIBLE_DEVICES=uuid(1)) == {"gpu1": 1.0}


def test_boards_are_numbered_by_number_not_by_spelling() -> None:
    boards = [nvidia(number) for number in (10, 2, 9, 0, 1, 3, 4, 5, 6, 7, 8, 11)]
    assert shares(boards, CUDA_VISIBLE_DEVICES="10") == {"gpu10": 1.0}


def test_all_names_nobodys_boards() -> None:
    assert use(NVIDIA_VISIBLE_DEVICES="all") == ({}, False)
    assert shares(modules=torch(initialized=False), NVIDIA_VISIBLE_DEVICES="all") == {}


def test_a_container_counts_the_boards_it_was_given() -> None:
    given = {"NVIDIA_VISIBLE_DEVICES": f"{uuid(3)},{uuid(1)}"}
    assert shares(**given) == {"gpu1": 1.0, "gpu3": 1.0}
    assert shares(**given, CUDA_VISIBLE_DEVICES="1") == {"gpu3": 1.0}
    assert shares(**given, wanted=[0]) == {"gpu1": 1.0}
    assert shares(NVIDIA_VISIBLE_DEVICES="2") == {"gpu2": 1.0}
    assert shares(ONE, NVIDIA_VISIBLE_DEVICES="5") == {"gpu0": 1.0}, "its own driver lists only what it was given"


def test_a_container_counts_the_boards_that_the_kernel_shows_it() -> None:
    sight = Sight((uuid(2), uuid(3)))
    assert shares(sight=sight, CUDA_VISIBLE_DEVICES="0") == {"gpu2": 1.0}
    assert shares(sight=sight, modules=torch([1], boards=2), NVIDIA_VISIBLE_DEVICES="all") == {"gpu3": 1.0}
    assert shares(sight=sight, NVIDIA_VISIBLE_DEVICES="void") == {}
    assert shares(sight=Sight(("", uuid(3))), CUDA_VISIBLE_DEVICES="0") == {}, "which it is, is not known"
    assert shares(sight=Sight((uuid(2),)), modules=torch(initialized=False)) == {"gpu2": 1.0}


def test_a_slice_is_a_part_of_its_board() -> None:
    old = f"MIG-{uuid(2)}/3/0"
    new = "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
    assert use(CUDA_VISIBLE_DEVICES=old) == ({"gpu2": 1 / 7}, False)
    assert shares(ONE, CUDA_VISIBLE_DEVICES=new) == {"gpu0": 1 / 7}
    assert shares([nvidia(0, "NVIDIA A30")], CUDA_VISIBLE_DEVICES=new) == {"gpu0": 0.25}
    assert shares(CUDA_VISIBLE_DEVICES=new) == {}, "of which board, nobody tells"
    assert shares(sight=Sight((uuid(1),)), NVIDIA_VISIBLE_DEVICES=new) == {"gpu1": 1 / 7}
    assert shares(ONE, told=BoardUse({"gpu0": 3 / 7}), CUDA_VISIBLE_DEVICES=new) == {"gpu0": 3 / 7}


def test_a_slices_profile_is_in_the_name_that_the_framework_has_for_it() -> None:
    new = "MIG-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
    modules = torch([0], boards=1, model=f"{A100} MIG 3g.20gb")
    assert use(ONE, modules=modules, CUDA_VISIBLE_DEVICES=new) == ({"gpu0": 3 / 7}, False)


@pytest.mark.parametrize(
    ("devices", "environ", "expected"),
    [
        (MI300, {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, {"gpu3": 1.0}),
        (MI300, {"HIP_VISIBLE_DEVICES": "0,1"}, {"gpu0": 1.0, "gpu1": 1.0}),
        (MI300, {"CUDA_VISIBLE_DEVICES": "2"}, {"gpu2": 1.0}),
        (MI300, {"ROCR_VISIBLE_DEVICES": "GPU-0000000000000001"}, {"gpu1": 1.0}),
        (MI300, {"HIP_VISIBLE_DEVICES": ""}, {}),
        (MI250, {"HIP_VISIBLE_DEVICES": "2"}, {"gpu1": 0.5}),
        (MI250, {"HIP_VISIBLE_DEVICES": "0,1"}, {"gpu0": 1.0}),
        (ARC, {"ZE_AFFINITY_MASK": "1"}, {"gpu1": 1.0}),
        (PVC, {"ZE_AFFINITY_MASK": "3"}, {"gpu1": 0.5}),
        (PVC, {"ZE_AFFINITY_MASK": "0.1,0.0", "ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}, {"gpu0": 1.0}),
        (PVC, {"ZE_AFFINITY_MASK": "1", "ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}, {"gpu1": 1.0}),
        (PVC, {"ZE_AFFINITY_MASK": "nonsense,7"}, {}),
        (ARC, {"CUDA_VISIBLE_DEVICES": "0"}, {}),
    ],
)
def test_other_makers_lists_are_read_as_they_mean_them(
    devices: list[Device], environ: dict[str, str], expected: dict[str, float]
) -> None:
    assert shares(devices, **environ) == expected


def test_a_container_with_few_render_nodes_does_not_know_which_boards_its_numbers_mean() -> None:
    assert shares(MI300, sight=Sight(None, 1), HIP_VISIBLE_DEVICES="0") == {}
    assert shares(MI300, sight=Sight(None, 4), HIP_VISIBLE_DEVICES="0") == {"gpu0": 1.0}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, {"gpu1": 1.0}),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, {"gpu2": 1.0, "gpu3": 1.0}),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "CUDA_VISIBLE_DEVICES": "2"}, {"gpu2": 1.0}),
        ({"LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8", "CUDA_VISIBLE_DEVICES": "2"}, {"gpu2": 0.5}),
        ({"SLURM_LOCALID": "3", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, {"gpu3": 1}),
        ({"LOCAL_RANK": "x", "LOCAL_WORLD_SIZE": "4", "CUDA_VISIBLE_DEVICES": "0"}, {"gpu0": 1.0}),
        ({"LOCAL_RANK": "4", "LOCAL_WORLD_SIZE": "4", "CUDA_VISIBLE_DEVICES": "0"}, {"gpu0": 1.0}),
    ],
)
def test_ranks_that_see_the_same_boards_divide_them(environ: dict[str, str], expected: dict[str, float]) -> None:
    assert shares(**environ) == expected


def test_the_only_board_is_ours_if_a_framework_for_boards_is_loaded_and_no_driver_can_be_asked() -> None:
    loaded = torch(initialized=False)
    assert use(ONE, modules=loaded) == ({"gpu0": 1.0}, False)
    assert use(ONE, modules=loaded, LOCAL_RANK="0", LOCAL_WORLD_SIZE="4") == ({"gpu0": 0.25}, False)
    assert use(ONE, modules=loaded, told=BoardUse()) == ({}, True)
    assert use(ONE) == ({}, False)
    assert use(FOUR, modules=loaded) == ({}, False)
    assert use([], modules=loaded) == ({}, True)


def board_directory(root: Path, address: str, minor: int, told: str, *, node: bool) -> None:
    directory = root / "proc/driver/nvidia/gpus" / address
    directory.mkdir(parents=True)
    (directory / "information").write_text(f"Model: \t\t {A100}\nGPU UUID: \t {told}\nDevice Minor: \t {minor}\n")
    if node:
        (root / "dev/dri").mkdir(parents=True, exist_ok=True)
        (root / f"dev/nvidia{minor}").touch()
        (root / f"dev/dri/renderD{128 + minor}").touch()


def test_the_kernel_shows_which_boards_a_container_has(tmp_path: Path) -> None:
    board_directory(tmp_path, "0000:47:00.0", 0, uuid(1), node=True)
    board_directory(tmp_path, "0000:07:00.0", 1, uuid(0), node=True)
    board_directory(tmp_path, "0000:87:00.0", 2, uuid(2), node=False)
    board_directory(tmp_path, "0000:c7:00.0", 3, "GPU-????????-????", node=True)
    assert boards_in_sight(tmp_path / "proc", tmp_path / "dev") == Sight((uuid(0), uuid(1), ""), 3)
    assert boards_in_sight(tmp_path, tmp_path) == Sight(None, None)


names = st.sampled_from(["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
entries = st.one_of(
    st.sampled_from(["all", "0", "3", "1:0", "void", "", uuid(1), "MIG-1", f"MIG-{uuid(2)}/1/0", "GPU-", "²"]),
    st.integers(0, 12).map(str),
    st.text(max_size=4),
)
lists = st.lists(entries, max_size=4).map(",".join)
machines = st.sampled_from([FOUR, ONE, MI300, MI250, PVC, [], FOUR[:1]])
sights = st.sampled_from([Sight(), Sight((uuid(2), "")), Sight((uuid(9),), 1), Sight(tuple(map(uuid, range(4))), 4)])
asked = st.one_of(st.none(), st.lists(st.one_of(st.integers(-2, 9), entries), max_size=3))


@given(
    devices=machines,
    environ=st.dictionaries(names, lists),
    sight=sights,
    wanted=asked,
    loaded=st.sampled_from([lambda: None, torch, lambda: torch([1])]),
)
def test_whatever_the_environment_holds_a_share_is_one_of_a_measured_board(
    devices: list[Device],
    environ: dict[str, str],
    sight: Sight,
    wanted: list[str | int] | None,
    loaded: Callable[[], Mapping[str, ModuleType] | None],
) -> None:
    found = own_boards(devices, None, environ, wanted, loaded() or {}, sight=lambda: sight)
    boards = {device.name for device in devices if device.kind == "gpu"}
    assert all(name in boards and 0 < share <= 1 for name, share in found.shares.items())


@given(
    size=st.integers(1, 8),
    text=st.lists(st.integers(0, 3), unique=True, min_size=1).map(lambda some: ",".join(map(str, some))),
)
def test_the_ranks_of_a_node_never_pay_more_than_all_its_boards_together(size: int, text: str) -> None:
    paid: dict[str, float] = {}
    for rank in range(size):
        ranks = {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
        for name, share in shares(CUDA_VISIBLE_DEVICES=text, **ranks).items():
            paid[name] = paid.get(name, 0.0) + share
    assert sum(paid.values()) <= 4 + 1e-9
