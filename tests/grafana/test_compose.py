"""The stack of deploy/compose.yaml, as far as it can be looked at without containers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tools import need

from carbon_exporter import cli
from carbon_exporter.config import settings_table
from deploy.demo.mix import scenario
from deploy.demo.recordings import BOARDS, RECORDING, prepare

DEPLOY = Path(__file__).parents[2] / "deploy"
STACK: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = STACK["services"]

each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_every_service_is_read_only_without_privileges_and_of_a_stated_version(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    tag = service["image"].rpartition(":")[2]
    assert tag == "local" if "build" in service else tag.lstrip("v").replace(".", "").isdigit()
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_exporters_image_is_the_locked_one_with_the_demonstration_and_a_name_of_its_own() -> None:
    lines = [line for line in (DEPLOY / "compose/Dockerfile").read_text().splitlines() if not line.startswith("#")]
    built = re.findall(r"\$\{IMAGE:-(.+?)\}", (DEPLOY.parent / ".ci/image").read_text())
    assert lines[:2] == [f"ARG BASE={built[0]}", "FROM ${BASE}"]
    assert [line for line in lines if line.startswith(("COPY", "ADD"))] == ["COPY deploy/demo /demo/deploy/demo"]
    assert not any("pip" in line for line in lines)
    tags = {service["image"] for service in SERVICES.values() if "build" in service}
    assert tags == {"carbon-exporter-demo:local"}


@each_service
def test_every_volume_is_declared_and_every_mounted_file_is_here(name: str) -> None:
    for mount in SERVICES[name].get("volumes", ()):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert mount.endswith(":ro")
        elif not source.startswith("/"):
            assert source in STACK["volumes"]
        else:
            assert mount.endswith(":ro")


@pytest.mark.parametrize(
    "name", [name for name, service in SERVICES.items() if "command" in service and "build" in service]
)
def test_every_exporter_is_started_with_flags_that_exist(name: str) -> None:
    command, *flags = SERVICES[name]["command"]
    assert command in cli.COMMANDS
    assert {flag.partition("=")[0] for flag in flags} <= {setting.flag for setting in settings_table().values()}


def test_prometheus_accepts_its_configuration_and_rules(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "compose/prometheus.yml", tmp_path)
    shutil.copytree(DEPLOY.parent / "grafana/rules", tmp_path / "rules")
    check("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
    scraped = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert {target.partition(":")[0] for one in scraped for target in one["targets"]} <= set(SERVICES)


def test_alertmanager_accepts_its_configuration() -> None:
    check("amtool", "check-config", str(DEPLOY / "compose/alertmanager.yml"))


def test_grafana_is_given_the_boards_and_the_datasource() -> None:
    mounts = dict(mount.split(":")[:2][::-1] for mount in SERVICES["grafana"]["volumes"])
    boards = yaml.safe_load((DEPLOY / "compose/grafana/dashboards/carbon.yml").read_text())["providers"][0]
    assert sorted((DEPLOY / mounts[boards["options"]["path"]]).glob("*.json"))
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / mounts[str(Path(home).parent)] / Path(home).name).exists()
    source = yaml.safe_load((DEPLOY / "compose/grafana/datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


def test_the_recordings_lie_where_the_exporters_look(tmp_path: Path) -> None:
    for node in scenario(0.0, days=1).nodes:
        prepare(node, tmp_path / node.name, 60)
        flags = SERVICES[node.name]["command"]
        assert f"--replay.file=/recordings/{node.name}/{RECORDING}" in flags
        assert f"--slurm.mapping-directory=/recordings/{node.name}/{BOARDS}" in flags
        assert (tmp_path / node.name / RECORDING).exists()
        assert len(list((tmp_path / node.name / BOARDS).iterdir())) in {6, 7}


def check(*command: str) -> None:
    program = need(command[0])
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
