"""Slurm's jobs from the environments and paths of their steps, as Slurm 22.05 was seen to make them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.facts import step_of

from carbon_exporter.jobs.base import RESERVED, Job
from carbon_exporter.jobs.slurm import VARIABLES, slurm_job, slurm_number
from carbon_exporter.jobs.workload import SlurmJob

BATCH = {
    "SLURM_JOB_ID": "211",
    "SLURM_JOBID": "211",
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_USER": "ada",
    "SLURM_JOB_ACCOUNT": "vision",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_JOB_NODELIST": "node[03-05,9]",
    "SLURMD_NODENAME": "node03",
}
ARRAY = {"SLURM_ARRAY_JOB_ID": "208", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "5"}
GIVEN = {"SLURM_JOB_GPUS": "2,3", "SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1", "GPU_DEVICE_ORDINAL": "0,1"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_GPUS": "3", "SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "0"}
SLICE = "MIG-41b36413-fc2b-5eb1-9c43-1c6a2e4d3b77"
UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"


def job(*parts: dict[str, str]) -> SlurmJob:
    found = slurm_job({key: value for part in parts for key, value in part.items()})
    assert found is not None
    return found


def test_a_step_says_whose_it_is() -> None:
    assert job(BATCH) == SlurmJob("211", "train", "ada", "vision", "gpu")


def test_a_task_of_an_array_is_called_by_array_and_task() -> None:
    assert job(BATCH, ARRAY).id == "208_3"
    assert slurm_number({**BATCH, **ARRAY}) == "211"


@pytest.mark.parametrize(
    "array",
    [
        {**ARRAY, "SLURM_ARRAY_JOB_ID": "212"},
        {**ARRAY, "SLURM_ARRAY_TASK_COUNT": "1"},
        {**ARRAY, "SLURM_ARRAY_TASK_ID": "x"},
        {**ARRAY, "SLURM_ARRAY_TASK_ID": ""},
        {"SLURM_ARRAY_TASK_ID": "3"},
        {"SLURM_ARRAY_JOB_ID": "208"},
    ],
)
def test_an_array_that_cannot_hold_the_job_is_not_believed(array: dict[str, str]) -> None:
    assert job(BATCH, array).id == "211"


@pytest.mark.parametrize("number", ["", "0", "-1", "x", "1e3", "٣", "99999999999", "2 1"])
def test_what_has_no_number_is_no_job_of_slurms(number: str) -> None:
    assert slurm_job({"SLURM_JOB_ID": number, "SLURM_JOB_NAME": "train"}) is None
    assert slurm_job({"SLURM_JOBID": number}) is None
    assert slurm_job({}) is None


def test_old_slurm_spells_its_number_in_another_way() -> None:
    assert slurm_job({"SLURM_JOBID": "17"}) == SlurmJob("17")


@pytest.mark.parametrize(
    ("environment", "boards"),
    [
        ({}, ()),
        (GIVEN, ("2", "3")),
        ({**GIVEN, **STEP}, ("2", "3")),
        ({**GIVEN, **STEP, "SLURMD_NODENAME": "node04"}, ("3",)),
        ({**GIVEN, "SLURMD_NODENAME": "node04"}, ()),
        (STEP, ("3",)),
        ({"SLURM_JOB_GPUS": "2,3", "SLURM_STEP_ID": "1"}, ("2", "3")),
        ({"SLURM_STEP_GPUS": "0", "SLURM_STEP_ID": "0"}, ()),
        ({**STEP, "SLURM_JOB_GPUS": "1", "SLURM_STEP_GPUS": "0"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "2"}, ("2",)),
        ({"CUDA_VISIBLE_DEVICES": UUID}, (UUID,)),
        ({"CUDA_VISIBLE_DEVICES": "all"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({"GPU_DEVICE_ORDINAL": "1"}, ("1",)),
        ({"SLURM_JOB_GPUS": "4", "CUDA_VISIBLE_DEVICES": SLICE}, (SLICE,)),
        ({"SLURM_JOB_GPUS": "4", "CUDA_VISIBLE_DEVICES": UUID}, ("4",)),
        ({"SLURM_JOB_GPUS": "x"}, ()),
    ],
    ids=[
        "no boards",
        "script: the node's numbers, not those inside the fence",
        "step on the script's node: all that the job has",
        "step on another node: its own",
        "script's list on another node",
        "srun without a script",
        "step without boards of a job with some",
        "a job without boards that was submitted from a step with some",
        "a job with a board that was submitted from a step with another",
        "Slurm does not manage boards: a number",
        "Slurm does not manage boards: a uuid",
        "all is nothing that was given",
        "no device files",
        "AMD's spelling",
        "slices are named by their uuids",
        "a user's own choice among what was given",
        "no list",
    ],
)
def test_boards_are_those_that_slurm_gave(environment: dict[str, str], boards: tuple[str, ...]) -> None:
    assert job(BATCH, environment).boards == boards


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("vm", "vm"),
        ("a,b", "a"),
        ("node[03-05,9]", "node03"),
        ("node[7,9],x", "node7"),
        ("rack1-n[01-02]-ib", "rack1-n01-ib"),
        ("", "anything"),
    ],
)
def test_the_first_node_of_a_list_is_where_the_script_runs(nodes: str, first: str) -> None:
    there = {**BATCH, **GIVEN, **STEP, "SLURM_JOB_NODELIST": nodes}
    assert job(there, {"SLURMD_NODENAME": first}).boards == ("2", "3")
    assert job(there, {"SLURMD_NODENAME": "elsewhere"}).boards == (("3",) if nodes else ("2", "3"))


POD = "/kubepods.slice/kubepods-pod0cb8ae4c_8b4a_4d4e_a1a0_3a2b1c0d9e8f.slice/cri-containerd-" + "ab" * 32 + ".scope"
PATHS = [
    ("/slurm/uid_1000/job_211", ("211", "")),
    ("/slurm/uid_1000/job_211/step_0", ("211", "0")),
    ("/slurm/uid_1000/job_211/step_0/task_0", ("211", "0")),
    ("/slurm/uid_1000/job_211/step_batch/task_0", ("211", "batch")),
    ("/slurm_node7/uid_0/job_6/step_extern", ("6", "extern")),
    ("/slurm_vm/uid_0/job_6/step_interactive/task_0", ("6", "interactive")),
    ("/system.slice/slurmstepd.scope/job_211", ("211", "")),
    ("/system.slice/slurmstepd.scope/job_211/step_extern/user/task_0", ("211", "extern")),
    ("/system.slice/slurmstepd.scope/job_211/step_0/slurm", ("211", "0")),
    ("/system.slice/slurmstepd.scope/job_211/step_0/user/task_special", ("211", "0")),
    ("/system.slice/node7_slurmstepd.scope/job_211/step_batch/user/task_0", ("211", "batch")),
    (POD + "/system.slice/slurmstepd.scope/job_9/step_0/user/task_0", ("9", "0")),
    ("/slurm/uid_1/job_1/step_0/task_0/system.slice/slurmstepd.scope/job_2/step_3", ("2", "3")),
    ("/", None),
    ("", None),
    ("/slurm", None),
    ("/slurm/uid_1000", None),
    ("/slurm/job_x", None),
    ("/slurmish/uid_0/job_6", None),
    ("/system.slice/slurmd.service", None),
    ("/system.slice/slurmstepd.scope/system", None),
    ("/job_6/step_0", None),
    ("/slurm/uid_0/job_6x/step_0", None),
]


@pytest.mark.parametrize(("path", "place"), PATHS)
def test_a_path_names_job_and_step(path: str, place: tuple[str, str] | None) -> None:
    assert step_of(path) == place


def test_values_are_bounded_and_never_pass_for_reserved_names() -> None:
    found = job(BATCH, {"SLURM_JOB_NAME": "_idle_", "SLURM_JOB_USER": "a\nb{" + "x" * 500})
    assert Job(found.name) not in RESERVED
    assert found.user.startswith("a?b{")
    assert len(found.user) == 128


values = st.text(max_size=20) | st.sampled_from(["0", "1", "7", "0,1", "0-3", "node[1-2]", "vm", SLICE, UUID])


@given(st.dictionaries(st.sampled_from(VARIABLES), values))
def test_any_environment_is_a_clean_job_or_none(environment: dict[str, str]) -> None:
    found = slurm_job(environment)
    if found is None:
        assert slurm_number(environment) is None
        return
    assert found.id.replace("_", "").isdecimal()
    for text in (found.name, found.user, found.account, found.partition):
        assert len(text) <= 128
        assert Job(text) not in RESERVED


@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from([part for path, _ in PATHS for part in path.split("/")])).map("/".join)
)
def test_any_path_is_a_place_or_none(path: str) -> None:
    place = step_of(path)
    assert place is None or (place[0].isdecimal() and len(place[1]) <= 32)
