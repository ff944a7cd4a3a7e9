"""The roll: one info for a job, whoever it consists of, for as long as it is published."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.jobs.base import IDLE, RESERVED, Job
from carbon_exporter.jobs.naming import JobInfo, Name
from carbon_exporter.jobs.privacy import Privacy, hashed_user
from carbon_exporter.jobs.roll import MOST_MEMBERS, JobRoll, JobTold

A, B = Job("a"), Job("b", "ml")
NOTHING = JobInfo()
KEY = b"a key of sixteen characters"


def name(
    job: Job = A, info: JobInfo = NOTHING, member: tuple[str, str] = ("", ""), rule: str = "unit", why: str = "unit"
) -> Name:
    return Name(job, rule, why, info, member)


def called(*names: Name, privacy: Privacy | None = None) -> JobTold:
    """What is told of job a, once."""
    roll = JobRoll(privacy or Privacy())
    roll.call({A: set(names)}, {A})
    return roll.told[A]


def test_a_job_has_one_info_what_its_parts_agree_upon() -> None:
    one = JobInfo(job_id="208_1", scheduler="slurm", queue="gpu", user="ada")
    two = JobInfo(job_id="208_2", scheduler="slurm", user="ada")
    assert called(name(info=one), name(info=two)).info == JobInfo("", "slurm", "gpu", "ada")


def test_it_says_by_which_rules_and_why() -> None:
    told = called(name(rule="unit", why="unit"), name(rule="environment", why="CARBON_JOB"))
    assert (told.rules, told.why) == (("environment", "unit"), "CARBON_JOB")
    roll = JobRoll(Privacy())
    roll.call({A: {name()}}, {A})
    assert (roll.why(A), roll.why(B)) == ("unit", "")


def test_members_are_told_while_they_run_and_the_info_as_long_as_the_job_is_published() -> None:
    roll, info = JobRoll(Privacy()), JobInfo(user="ada")
    said = {name(info=info, member=("p", "")), name(info=info, member=("p", "main"))}
    roll.call({A: said}, {A})
    assert roll.told[A].members == (("p", ""), ("p", "main"))
    roll.call({}, {A})
    assert roll.told == {A: JobTold(info, (), ("unit",), "unit")}
    roll.call({A: said}, {A})
    assert roll.told[A].members == (("p", ""), ("p", "main")), "it has come back as it was"
    roll.call({A: said}, set())
    assert roll.told == {}
    assert roll.why(A) == ""


def test_what_changes_is_told_anew() -> None:
    roll = JobRoll(Privacy())
    roll.call({A: {name(member=("p-1", ""))}}, {A})
    first = roll.told[A]
    roll.call({A: {name(member=("p-1", ""))}}, {A})
    assert roll.told[A] is first, "nothing new, nothing made anew"
    roll.call({A: {name(member=("p-2", ""), info=JobInfo(queue="gpu"))}}, {A})
    assert (roll.told[A].members, roll.told[A].info.queue) == ((("p-2", ""),), "gpu")


def test_no_more_than_thirty_two_members_are_told_the_first_by_name() -> None:
    pods = [name(member=(f"p-{number:03}", "main")) for number in range(100)]
    assert called(*pods).members == tuple((f"p-{number:03}", "main") for number in range(MOST_MEMBERS))
    assert MOST_MEMBERS == 32


def test_outside_kubernetes_there_are_no_members() -> None:
    assert called(name(), name(rule="environment")).members == ()


def test_users_are_shown_as_their_hashes_where_there_is_a_key() -> None:
    ada, nobody = name(info=JobInfo(user="ada")), name()
    assert called(ada, privacy=Privacy(key=KEY)).info.user == hashed_user("ada", KEY)
    assert called(nobody, privacy=Privacy(key=KEY)).info.user == ""
    assert called(ada, name(info=JobInfo(user="bob")), privacy=Privacy(key=KEY)).info.user == ""


def test_reserved_names_and_unpublished_jobs_are_not_told_of() -> None:
    roll = JobRoll(Privacy())
    roll.call({IDLE: {name(IDLE)}, A: {name()}, B: {name(B)}}, {IDLE, B})
    assert roll.told.keys() == {B}


texts = st.sampled_from(["", "x", "y"])
names = st.builds(
    Name,
    st.just(A),
    st.sampled_from(["unit", "pod"]),
    texts,
    st.builds(JobInfo, texts, texts, texts, texts),
    st.tuples(texts, texts),
)
jobs = st.sampled_from([A, B, IDLE])


@given(st.lists(st.tuples(st.dictionaries(jobs, st.sets(names, min_size=1, max_size=4)), st.sets(jobs)), max_size=5))
def test_the_same_is_told_however_it_came_about(calls: list[tuple[Mapping[Job, Collection[Name]], set[Job]]]) -> None:
    roll = JobRoll(Privacy())
    for said, published in calls:
        roll.call(said, published)
        fresh = JobRoll(Privacy())
        fresh.call(said, published)
        assert {job: roll.told[job] for job in fresh.told} == fresh.told
        assert roll.told.keys() <= published - RESERVED
