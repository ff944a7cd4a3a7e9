"""What a recording may say of a machine, and what it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sensors.redaction import Redaction

redact = Redaction(["node17", "alice", "bmc17"])


@pytest.mark.parametrize(
    "text",
    [
        "energy counter /sys/class/powercap/intel-rapl:0/energy_uj (package-0)",
        "/host/sys/class/hwmon/hwmon3/power1_input cannot be read: No such file or directory",
        "GPU at 0000:3b:00.0 fell off the bus",
        "libnvidia-ml.so.1: cannot open shared object file",
        "0.375 W per GiB at any load, 16 GiB installed (MemTotal)",
        "TDP 125 W x c(load), 20 cores: Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz",
        "NVIDIA H100 80GB HBM3, AMD Instinct MI300X, EPYC 9654",
        "±5 % (the maker's tolerance)",
        "/redfish/v1/Chassis/System.Embedded.1/Power answered 503",
        "intel-rapl:0:2",
        "hwmon/power_meter/Grace Power Socket 0",
        "gpu0",
    ],
)
def test_what_the_kernel_the_maker_and_the_standard_have_named_is_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/carol/sys/class/drm/card0 is empty", "<path>/sys/class/drm/card0 is empty"),
        ("cannot open /home/carol/run.txt, ~carol/x or ~/x", "cannot open <path>, <path> or <path>"),
        ("/proc/4711/stat vanished (pid 4711)", "/proc/<id>/stat vanished (pid <id>)"),
        ("https://admin:pw@bmc.example.org:443/redfish/v1/ refused", "<url> refused"),
        ("Pool(host='rack4', port=443) timed out", "Pool(host=<address>, port=443) timed out"),
        ("bmc.cluster.local, BMC17, alice@example.org", "<address>, <name>, <address>"),
        ("node17: 10.2.3.4:623, fe80::1%eth0, 3c:ec:ef:01:02:03", "<name>: <address>, <address>, <address>"),
        ("2001:db8:0:0:0:0:0:1 has no route", "<address> has no route"),
        ("GPU-12345678-1234-1234-1234-123456789abc is lost", "<uuid> is lost"),
        ("MIG-GPU-12345678/3/0 and 0f0e0d0c-1234-1234-1234-123456789abc", "MIG-<uuid> and <uuid>"),
        ("redfish/FCH2310V0B8", "redfish/<serial>"),
        ("Serial Number: 1322-AB", "Serial Number <serial>"),
        ("token 0123456789abcdef0123", "token <id>"),
    ],
)
def test_what_tells_whose_machine_it_is_is_taken_out(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_word_is_taken_out_where_it_stands_alone() -> None:
    assert Redaction(["gpu", "x", ""])("gpu gpu0 my-gpu; x") == "<name> gpu0 my-<name>; x"
    assert Redaction()("nothing to say") == "nothing to say"


def test_an_answer_that_is_long_is_cut() -> None:
    assert len(redact("word " * 1000)) == 500


@given(st.text(max_size=600), st.lists(st.text(max_size=5), max_size=3))
def test_any_text_can_be_redacted(text: str, words: list[str]) -> None:
    assert isinstance(Redaction(words)(text), str)


tokens = st.sampled_from(
    ["/", "home", "sys", ":", "::", "-", ".", "GPU-", "0f", "https://", "@", " ", "'", "host=", "1", "~", "=", "%", "<"]
)
noise = st.lists(tokens, max_size=40).map("".join)


@given(noise, noise)
def test_a_home_is_taken_out_of_any_mixture(before: str, after: str) -> None:
    assert "carol" not in redact(f"{before} /home/carol{after}")
