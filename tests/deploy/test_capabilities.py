"""What the unit's two capabilities give: the names of other users' jobs, with both of them and with nothing less."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.exporter import Exporter
from support.other_user import as_nobody, needs_root
from support.tools import need

pytestmark = needs_root

SLEEP = "import sys; sys.stdin.read()"
JOB = "of-another-user"


@pytest.fixture(scope="module", autouse=True)
def foreign() -> Iterator[int]:
    """A process of user 65534 that says whose it is."""
    command = [*as_nobody(), sys.executable, "-I", "-S", "-c", SLEEP]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={"CARBON_JOB": JOB}) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    ("capabilities", "sees"),
    [
        (["+sys_ptrace", "+dac_read_search"], True),
        (["+sys_ptrace"], False),
        (["+dac_read_search"], False),
        ([], False),
    ],
    ids=["both", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "none"],
)
def test_names_of_other_users_jobs_need_both_capabilities(capabilities: list[str], *, sees: bool) -> None:
    kept = f"--bounding-set={','.join(['-all', *capabilities])}"
    prefix = (need("setpriv"), kept, "--inh-caps=-all", "--no-new-privs")
    with Exporter("--sample.interval=200ms", "--storage.path=", prefix=prefix) as exporter:
        exporter.wait_for_samples(3)
        series = exporter.series()
        jobs = {dict(labels).get("job_name") for _, labels in series}
        assert (JOB in jobs) == sees
        assert series["carbon_resolver_success", frozenset({("resolver", "environment")})] == sees
        told = next(one for one in exporter.status()["resolvers"] if one["resolver"] == "environment")
        assert ("CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH" in told["remedy"]) != sees
        if not sees:
            assert "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH" in exporter.wait_for_log("CARBON_JOB")
