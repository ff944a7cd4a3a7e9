"""Privacy: what is published by name, and users as hashes."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.jobs.base import RESERVED, Job
from carbon_exporter.jobs.privacy import Privacy, hashed_user, parse_key, parse_patterns

KEY = b"a key that nobody can guess"


@pytest.mark.parametrize(
    ("pattern", "shown", "other"),
    [
        ("train", [Job("train"), Job("train", "a")], [Job("trainer"), Job("Train"), Job("a/train")]),
        ("train-*", [Job("train-1"), Job("train-", "a")], [Job("train"), Job("x-train-1")]),
        ("run-?", [Job("run-1")], [Job("run-10"), Job("run-")]),
        ("run-[0-9]", [Job("run-1")], [Job("run-a")]),
        ("team-*/train", [Job("train", "team-a"), Job("team-a/train")], [Job("train"), Job("train", "other")]),
        ("kube-system/*", [Job("etcd", "kube-system")], [Job("etcd"), Job("kube-system"), Job("x", "kube-public")]),
        ("/train", [Job("train")], [Job("train", "a"), Job("x")]),
        ("*", [Job("train"), Job("train", "a"), Job("a/b")], []),
        ("*/*", [Job("train", "a"), Job("train"), Job("a/b")], []),
        ("[", [Job("[")], [Job("x")]),
        ("a|b", [Job("a|b")], [Job("a"), Job("b")]),
    ],
)
def test_a_pattern_chooses_jobs(pattern: str, shown: list[Job], other: list[Job]) -> None:
    include, exclude = Privacy(include=parse_patterns(pattern)), Privacy(exclude=parse_patterns(pattern))
    for job in shown:
        assert include.shows(job)
        assert not exclude.shows(job)
    for job in other:
        assert not include.shows(job)
        assert exclude.shows(job)


def test_what_is_excluded_is_hidden_though_it_is_included() -> None:
    privacy = Privacy(parse_patterns("train-*, eval"), parse_patterns("*-secret"))
    jobs = [Job(name) for name in ("train-a", "train-secret", "eval", "other")]
    assert [privacy.shows(job) for job in jobs] == [True, False, True, False]


def test_by_default_all_is_shown_as_it_is() -> None:
    assert Privacy().shows(Job("train"))
    assert Privacy().user("ada") == "ada"


@pytest.mark.parametrize("pattern", ["*", "_*", "[_]idle_"])
def test_what_is_nobodys_cannot_be_hidden(pattern: str) -> None:
    privacy = Privacy(include=parse_patterns("none"), exclude=parse_patterns(pattern))
    assert all(privacy.shows(job) for job in RESERVED)


@pytest.mark.parametrize("text", ["a,,b", ",", "a,", "x" * 257, ",".join("a" * 257)])
def test_patterns_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="separated by commas"):
        parse_patterns(text)


def test_no_patterns_are_none() -> None:
    assert parse_patterns("") == parse_patterns("  ") == ()
    assert [one.text for one in parse_patterns(" a , b/c ")] == ["a", "b/c"]


def test_a_user_is_hashed_as_rfc_2104_says() -> None:
    # test case 2 of RFC 4231
    assert hashed_user("what do ya want for nothing?", b"Jefe") == "5bdcc146bf60"


def test_a_users_hash_is_the_same_everywhere_another_by_another_key_and_nobody_stays_nobody() -> None:
    one = Privacy(key=KEY)
    assert one.user("ada") == Privacy(key=parse_key(f"{KEY.decode()}\n")).user("ada")
    assert re.fullmatch("[0-9a-f]{12}", one.user("ada"))
    assert len({one.user("ada"), one.user("Ada"), one.user("1000"), Privacy(key=KEY + b"!").user("ada")}) == 4
    assert one.user("") == ""


@pytest.mark.parametrize("text", ["", " \n", "short", " " * 40 + "fifteen letters"])
def test_a_key_that_could_be_guessed_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="at least 16") as error:
        parse_key(text)
    assert not text.strip() or text.strip() not in str(error.value)


def test_the_key_is_in_no_picture_of_the_settings() -> None:
    privacy = Privacy(parse_patterns("a"), parse_patterns("b,c"), KEY)
    assert repr(privacy) == str(privacy) == "Privacy(include='a', exclude='b,c', users=hashed)"
    assert "users=named" in repr(Privacy())


TEXT = st.text(st.characters(), max_size=60)
GLOBS = st.text(st.characters() | st.sampled_from("*?[]!-/,ab"), max_size=40)


@given(GLOBS, TEXT, TEXT)
def test_no_pattern_makes_other_trouble_than_a_value_error(text: str, name: str, namespace: str) -> None:
    try:
        patterns = parse_patterns(text)
    except ValueError:
        return
    privacy = Privacy(exclude=patterns)
    for job in (Job(name), Job(name, namespace)):
        assert privacy.shows(job) != any(pattern.matches(job) for pattern in patterns) or job in RESERVED


@given(st.text("ab*?/", min_size=1, max_size=10), st.text("ab", max_size=6))
def test_a_pattern_without_a_slash_is_a_shells_glob_of_the_name(pattern: str, name: str) -> None:
    pattern = pattern.replace("/", "")
    expected = bool(pattern) and fnmatch.fnmatchcase(name, pattern)
    assert any(one.matches(Job(name, "x")) for one in parse_patterns(pattern)) == expected


@given(TEXT, st.binary(min_size=16, max_size=64))
def test_any_user_has_a_hash(user: str, key: bytes) -> None:
    assert len(hashed_user(user, key)) == (12 if user else 0)


@given(TEXT)
def test_no_key_makes_other_trouble_than_a_value_error(text: str) -> None:
    try:
        key = parse_key(text)
    except ValueError:
        return
    assert len(key) >= 16


def test_a_long_pattern_takes_no_long_time() -> None:
    pattern = parse_patterns("*a" * 60 + "b")[0]
    assert not pattern.matches(Job("a" * 128))
