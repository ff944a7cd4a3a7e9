"""Who a process is: the first that says something, in the order that the documentation states."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sdk.baggage import JOB, RUN, Carried, baggage_of
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.identity import new_run, own_identity, script_name
from carbon_exporter.sdk.ranks import world_of

SLURM = {"SLURM_JOB_ID": "211", "SLURM_JOB_NAME": "vit"}


def identity(environ: dict[str, str], **told: str) -> Identity:
    return own_identity(environ, ["path/train.py"], new="new", **told)


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({}, "train"),
        ({"OTEL_SERVICE_NAME": "service"}, "service"),
        ({"OTEL_SERVICE_NAME": "service", **SLURM}, "vit"),
        ({"SLURM_JOB_ID": "211"}, "slurm-211"),
        ({"CARBON_JOB": "mine", **SLURM}, "mine"),
        ({"CARBON_JOB": " \t"}, "train"),
        ({"CARBON_JOB": "_idle_"}, "idle"),
    ],
)
def test_the_job_is_the_first_that_is_named(environ: dict[str, str], job: str) -> None:
    assert identity(environ).job == job
    assert identity(environ, job="argument").job == "argument"


def test_the_run_is_the_schedulers_unless_it_is_said() -> None:
    task = {**SLURM, "SLURM_ARRAY_JOB_ID": "208", "SLURM_ARRAY_TASK_ID": "3"}
    assert [identity(one).run for one in ({}, SLURM, task)] == ["new", "211", "208_3"]
    assert identity({**SLURM, "CARBON_RUN": "seven"}).run == "seven"
    assert identity({"CARBON_RUN": "seven"}, run="eight").run == "eight"


def test_ranks_share_the_name_that_their_launcher_has_for_the_run_and_a_restart_keeps_it() -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "7f3a", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert identity(torchrun).run == "7f3a"
    assert identity({"TORCHELASTIC_RUN_ID": "none"}).run == "new", "what torchrun calls a run without a name"
    assert identity({**torchrun, **SLURM}).run == "211"
    assert identity({"PMIX_NAMESPACE": "prterun-n1-77@1"}).run == "prterun-n1-77@1"


def test_baggage_names_job_and_run_after_what_is_said_and_before_the_scheduler() -> None:
    carried = {"BAGGAGE": "a=b, carbon.job.name=t%C3%A4glich;p=1 , carbon.run = r%2C7,broken,=x"}
    assert identity({**carried, **SLURM}) == Identity("täglich", "", "r,7", "")
    told = identity({**carried, "CARBON_JOB": "mine", "CARBON_RUN": "seven"})
    assert (told.job, told.run) == ("mine", "seven")


@given(st.text(max_size=40))
def test_no_baggage_can_do_harm(text: str) -> None:
    assert identity({"BAGGAGE": text}).run
    assert baggage_of({"BAGGAGE": "x" * 9000}) == {}


@given(st.text(max_size=20), st.text(max_size=20).filter(str.strip))
def test_what_is_carried_arrives(job: str, run: str) -> None:
    arrived = baggage_of(Carried(job, run, {"BAGGAGE": "tenant=a"}).variables())
    assert (arrived.get(JOB, ""), arrived[RUN], arrived["tenant"]) == (job, run, "a")


@pytest.mark.parametrize(("size", "several"), [("8", 8), ("1", 1), ("", 1)])
def test_the_world_is_as_large_as_the_launcher_says(size: str, several: int) -> None:
    assert world_of({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": size}) == several


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, ""),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ""),
        ({"RANK": "3"}, ""),
        ({"RANK": "03", "WORLD_SIZE": "8"}, "3"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, "2"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, ""),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "1"),
        ({"PMI_RANK": "5"}, "5"),
        ({"RANK": "-1", "WORLD_SIZE": "8", "PMIX_RANK": "6"}, "6"),
        ({"RANK": "9" * 40, "WORLD_SIZE": "8"}, ""),
    ],
)
def test_a_rank_is_told_in_distributed_runs_only(environ: dict[str, str], rank: str) -> None:
    assert identity(environ).rank == rank


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/home/a/train.py"], "train"),
        (["/lib/trainer/__main__.py"], "trainer"),
        (["-c"], ""),
        ([""], ""),
        ([], ""),
        (["/usr/bin/torchrun"], "torchrun"),
    ],
)
def test_a_script_has_the_name_of_its_file(argv: list[str], name: str) -> None:
    assert script_name(argv) == name


def test_a_run_that_nobody_names_tells_its_start_and_is_unique() -> None:
    assert new_run(0.0).startswith("19700101T000000Z-")
    assert new_run(0.0) != new_run(0.0)


@given(st.dictionaries(st.sampled_from(["CARBON_JOB", "CARBON_RUN", "RANK", "WORLD_SIZE", *SLURM]), st.text()))
def test_no_environment_makes_it_fail_or_leaves_the_job_empty(environ: dict[str, str]) -> None:
    found = own_identity(environ, ["-c"], new="new")
    assert found.job
    assert found.run
    assert found.rank == "" or found.rank.isdecimal()
