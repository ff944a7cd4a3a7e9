"""A real exporter process through its life: start, reload, stop, and whatever happens to its sensors and its state."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.driven import two_sockets
from support.exporter import Exporter, Series, state_of
from support.other_user import as_nobody, needs_root, public_directory
from support.powercap import PowercapTree

from carbon_exporter.energy.store import Store

FAST = "--sample.interval=200ms"


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    """Two sockets whose counters stand still unless a test moves them."""
    return two_sockets(tmp_path / "sys", range_uj=262_143_328_850, limit_watts=200)


def value(series: Series, name: str, **labels: str) -> float:
    """The sum of all samples of `name` with these labels."""
    found = [v for (n, own), v in series.items() if n == name and labels.items() <= dict(own).items()]
    assert found, f"no {name} with {labels}"
    return sum(found)


def test_without_settings_it_is_ready_at_once_and_says_what_it_found(tmp_path: Path) -> None:
    with Exporter(environ={"STATE_DIRECTORY": str(tmp_path)}) as exporter:
        assert exporter.get("/-/healthy") == b"carbon-exporter is healthy\n"
        assert exporter.get("/-/ready") == b"carbon-exporter is ready\n"
        time.sleep(1.5)
        assert value(exporter.series(), "carbon_device_power_watts") > 0
        assert (tmp_path / "totals.json").exists()
        assert exporter.stop() == 0
    table = "".join(exporter.out)
    assert table.startswith("SENSOR")
    for sensor in ("rapl", "model"):
        assert sensor in table


@needs_root
def test_without_privileges_it_estimates_and_names_the_permissions_it_lacks(tree: PowercapTree) -> None:
    with public_directory() as place:
        shutil.copytree(tree.sysfs, place / "sys", symlinks=True)
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            PowercapTree(place / "sys").deny(zone)
        home = place / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        with Exporter(f"--path.sysfs={place / 'sys'}", environ={"HOME": str(home)}, prefix=as_nobody()) as exporter:
            series = exporter.series()
            assert value(series, "carbon_sensor_success", sensor="rapl") == 0
            assert value(series, "carbon_device_info", device="cpu0", sensor="model") == 1
            assert value(series, "carbon_resolver_success", resolver="environment") == 0
            exporter.wait_for_log("energy_uj")
            exporter.wait_for_log("CAP_SYS_PTRACE")
            assert exporter.stop() == 0
        assert (home / ".local/state/carbon-exporter/totals.json").exists()
    assert "setpriv --bounding-set=-all" in exporter.text


def test_a_device_that_disappears_keeps_its_total_and_stops_no_other(tree: PowercapTree, tmp_path: Path) -> None:
    flags = (FAST, f"--path.sysfs={tree.sysfs}", f"--storage.path={tmp_path / 'state'}")
    with Exporter(*flags) as exporter:
        for joules in range(1, 6):
            tree.set_energy("intel-rapl:0", 87_381_109_616 + joules * 4_000_000)
            exporter.wait_for_samples(1)
        exporter.wait_for_samples(2)
        before = exporter.series()
        assert value(before, "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(20 / 3.6e6)
        hidden = tree.directory("intel-rapl:0") / "energy_uj"
        content = hidden.read_text()
        hidden.unlink()
        exporter.wait_for_log("energy_uj")
        exporter.wait_for_samples(5)
        away = exporter.series()
        assert value(away, "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(20 / 3.6e6)
        assert value(away, "carbon_sensor_success", sensor="rapl") == 0
        assert value(away, "carbon_sensor_errors_total", sensor="rapl", reason="read") >= 3
        powered = {dict(labels)["device"] for name, labels in away if name == "carbon_device_power_watts"}
        assert powered == {"cpu1", "dram0", "dram1"}
        hidden.write_text(content)
        exporter.wait_for_log("gives readings again")
        tree.set_energy("intel-rapl:0", int(content) + 3_000_000)
        exporter.wait_for_samples(4)
        assert value(exporter.series(), "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(23 / 3.6e6)


def test_no_sysfs_at_all_is_no_reason_to_stop(tmp_path: Path) -> None:
    with Exporter(FAST, f"--path.sysfs={tmp_path / 'nothing'}", f"--storage.path={tmp_path / 'state'}") as exporter:
        exporter.wait_for_samples(4)
        assert value(exporter.series(), "carbon_device_power_watts", device="cpu0") > 0
        assert value(exporter.series(), "carbon_resolver_success", resolver="cgroup") == 0
        exporter.wait_for_log("--path.sysfs=/host/sys")


def test_no_procfs_is_said_and_energy_goes_to_nobody_known(tree: PowercapTree, tmp_path: Path) -> None:
    flags = (FAST, f"--path.sysfs={tree.sysfs}", f"--path.procfs={tmp_path}", f"--storage.path={tmp_path / 'state'}")
    with Exporter(*flags) as exporter:
        exporter.wait_for_log("--path.procfs=DIR")
        tree.set_energy("intel-rapl:1", 87_381_109_616 + 5_000_000)
        exporter.wait_for_samples(4)
        series = exporter.series()
        whole = value(series, "carbon_device_energy_kwh_total", device="cpu1")
        assert whole == pytest.approx(5 / 3.6e6)
        assert value(series, "carbon_job_energy_kwh_total", device="cpu1", job_name="_unattributed_") == whole
        assert value(series, "carbon_resolver_success", resolver="processes") == 0


def test_sigterm_takes_a_last_sample_and_ends_with_zero_within_two_seconds(tree: PowercapTree, tmp_path: Path) -> None:
    flags = ("--sample.interval=5m", f"--path.sysfs={tree.sysfs}", f"--storage.path={tmp_path / 'state'}")
    with Exporter(*flags) as exporter:
        time.sleep(1.5)
        tree.set_energy("intel-rapl:0", 87_381_109_616 + 50_000_000)
        began = time.monotonic()
        assert exporter.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 2
    state = state_of(tmp_path / "state")
    assert sum(row[5] for row in state["pending"] if row[2] == "cpu0") == pytest.approx(50)
    assert "msg=stopped" in exporter.log[-1]


def test_sigint_is_no_error(tmp_path: Path) -> None:
    with Exporter(FAST, f"--storage.path={tmp_path}") as exporter:
        assert exporter.stop(signal.SIGINT) == 0


def test_sighup_applies_the_file_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("grid: {region: FR}\n")
    with Exporter(FAST, f"--config.file={file}", f"--storage.path={tmp_path / 'state'}") as exporter:
        exporter.wait_for_samples(4)
        french = value(exporter.series(), "carbon_device_energy_kwh_total", region="FR")
        assert french > 0
        file.write_text("grid: {region: PL}\nsite: {pue: 1.5}\nlabels: {job: hpc_job}\n")
        exporter.process.send_signal(signal.SIGHUP)
        exporter.wait_for_log("settings reloaded")
        exporter.wait_for_log("labels.job changed; it takes effect after a restart")
        exporter.wait_for_samples(2)
        settled = exporter.series()
        exporter.wait_for_samples(3)
        after = exporter.series()
        assert value(after, "carbon_device_energy_kwh_total", region="FR") >= french
        for name in ("carbon_device_energy_kwh_total", "carbon_job_co2e_grams_total"):
            assert value(after, name, region="FR") == value(settled, name, region="FR")
            assert value(after, name, region="PL") > value(settled, name, region="PL")
        assert value(after, "carbon_pue_ratio", region="PL") == 1.5
        file.write_text("grid: {region: Atlantis}\n")
        exporter.process.send_signal(signal.SIGHUP)
        exporter.wait_for_log("settings not reloaded, the old ones stay in force")
        exporter.wait_for_samples(1)
        assert value(exporter.series(), "carbon_pue_ratio", region="PL") == 1.5


def test_an_unknown_region_is_said_loudly_in_metric_log_and_status(tmp_path: Path) -> None:
    with Exporter(FAST, f"--storage.path={tmp_path}", environ={"TZ": "Etc/UTC", "CARBON_REGION": ""}) as exporter:
        exporter.wait_for_log("world's average")
        exporter.wait_for_samples(1)
        assert value(exporter.series(), "carbon_grid_intensity_info", quality="world", located_by="nothing") == 1
        assert "--grid.region=FR" in exporter.status()["grid"]["note"]


def test_a_time_zone_is_a_guess_that_says_so(tmp_path: Path) -> None:
    with Exporter(FAST, f"--storage.path={tmp_path}", environ={"TZ": "Europe/Paris"}) as exporter:
        exporter.wait_for_log("guess")
        exporter.wait_for_samples(1)
        assert value(exporter.series(), "carbon_grid_intensity_info", region="FR", located_by="timezone") == 1


@pytest.fixture
def life(tmp_path: Path) -> Path:
    """A state file that a real life has left: 20 J on cpu0."""
    tree = two_sockets(tmp_path / "sys", range_uj=262_143_328_850, limit_watts=200)
    state = tmp_path / "state"
    with Exporter(FAST, f"--path.sysfs={tree.sysfs}", f"--storage.path={state}") as exporter:
        for joules in range(1, 6):
            tree.set_energy("intel-rapl:0", 87_381_109_616 + joules * 4_000_000)
            exporter.wait_for_samples(1)
        exporter.wait_for_samples(2)
        exporter.stop()
    return tmp_path


def restarted(place: Path) -> Exporter:
    return Exporter(FAST, f"--path.sysfs={place / 'sys'}", f"--storage.path={place / 'state'}")


def test_a_clean_restart_goes_on_and_catches_up_what_the_counter_kept(life: Path) -> None:
    PowercapTree(life / "sys").set_energy("intel-rapl:0", 87_381_109_616 + 25_000_000)
    with restarted(life) as exporter:
        exporter.wait_for_samples(3)
        series = exporter.series()
        assert value(series, "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(25 / 3.6e6)
        away = value(series, "carbon_job_energy_kwh_total", device="cpu0", job_name="_unattributed_")
        assert away >= 5 / 3.6e6


def test_a_downtime_longer_than_the_counters_range_is_a_gap(life: Path) -> None:
    file = life / "state" / "totals.json"
    rewrite(file, lambda body: body.replace('"marks":{"cpu0":{"at":', '"marks":{"cpu0":{"at":-'))
    with restarted(life) as exporter:
        exporter.wait_for_samples(3)
        series = exporter.series()
        assert value(series, "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(20 / 3.6e6)
        assert value(series, "carbon_energy_gap_seconds_total", device="cpu0") > 262143 / 400


def test_after_a_reboot_totals_go_on_and_the_time_between_is_a_gap(life: Path) -> None:
    file = life / "state" / "totals.json"
    rewrite(file, lambda body: body.replace('"boot_id":"', '"boot_id":"another-'))
    PowercapTree(life / "sys").set_energy("intel-rapl:0", 87_381_109_616 + 90_000_000)
    with restarted(life) as exporter:
        exporter.wait_for_samples(3)
        series = exporter.series()
        assert value(series, "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(20 / 3.6e6)
        assert value(series, "carbon_energy_gap_seconds_total", device="cpu0") > 0


def rewrite(file: Path, change: Callable[[str], str]) -> None:
    """Change the body of a state file, and its checksum with it."""
    store = Store(file.parent)
    body = (store.open() or b"").decode()
    text = change(body)
    assert text != body
    store.save(text.encode())
    store.close()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[: len(content) // 2], "truncated or corrupt"),
        (lambda content: content.replace(b'"boot_id"', b'"boot-id"'), "truncated or corrupt"),
        (lambda _: b"", "is not a totals file"),
        (lambda _: b"\x7fELF\x02\x01\x01" + bytes(100), "is not a totals file"),
        (lambda content: content.replace(b"totals 2 ", b"totals 0 ", 1), "has schema 0, and this version reads"),
        (lambda content: content.replace(b"totals 2 ", b"totals 7 ", 1), "has schema 7, and this version reads"),
    ],
    ids=["truncated", "corrupt", "empty", "foreign", "older schema", "newer schema"],
)
def test_a_state_that_cannot_be_believed_is_set_aside(life: Path, damage: object, says: str) -> None:
    file = life / "state" / "totals.json"
    assert callable(damage)
    spoilt = damage(file.read_bytes())
    file.write_bytes(spoilt)
    with restarted(life) as exporter:
        line = exporter.wait_for_log(says)
        assert str(file) in line
        PowercapTree(life / "sys").set_energy("intel-rapl:0", 87_381_109_616 + 27_000_000)
        exporter.wait_for_samples(3)
        assert value(exporter.series(), "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(7 / 3.6e6)
        assert says in exporter.status()["store"]["reason"]
    (kept,) = file.parent.glob("totals.json.unusable-*")
    assert kept.read_bytes() == spoilt
    assert state_of(file.parent)["devices"]


def test_a_save_that_was_cut_short_is_said_once_and_the_one_before_goes_on(life: Path) -> None:
    file = life / "state" / "totals.json"
    content = file.read_bytes()
    number, length = max(struct.unpack_from("<QQ", content, at) for at in (4096, 4096 + (len(content) - 4096) // 2))
    assert number > 1
    end = content.index(struct.pack("<QQ", number, length)) + 48 + length
    file.write_bytes(content[: end - 100] + bytes(100) + content[end:])
    with restarted(life) as exporter:
        exporter.wait_for_log("holds a save that was cut short; going on from the other one")
        assert value(exporter.series(), "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(20 / 3.6e6)
        exporter.stop()
    assert list(file.parent.glob("totals.json.unusable-*")) == []
    with restarted(life) as exporter:
        exporter.wait_for_samples(1)
        assert "cut short" not in exporter.text


def test_a_state_with_an_impossible_number_is_not_believed(life: Path) -> None:
    rewrite(life / "state" / "totals.json", lambda body: body.replace('"folded_total":0', '"folded_total":-1'))
    with restarted(life) as exporter:
        exporter.wait_for_log("holds something else than this version writes")
        assert value(exporter.series(), "carbon_device_energy_kwh_total", device="cpu0") == 0


def test_a_second_exporter_on_the_same_state_counts_in_memory_and_names_the_first(life: Path) -> None:
    with restarted(life) as first, restarted(life) as second:
        line = second.wait_for_log("is in use by another carbon-exporter")
        assert f"pid {first.process.pid}" in line
        second.wait_for_samples(2)
        series = second.series()
        assert value(series, "carbon_device_energy_kwh_total", device="cpu0") == 0
        assert value(series, "carbon_store_last_write_timestamp_seconds") == 0
        assert second.status()["store"]["state"] == "failing"
        assert value(first.series(), "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(20 / 3.6e6)


def test_a_place_that_cannot_be_written_is_said_and_counting_goes_on(tmp_path: Path, tree: PowercapTree) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with Exporter(FAST, f"--path.sysfs={tree.sysfs}", f"--storage.path={blocked / 'state'}") as exporter:
        exporter.wait_for_log(f"cannot write in {blocked / 'state'}")
        tree.set_energy("intel-rapl:0", 87_381_109_616 + 6_000_000)
        exporter.wait_for_samples(3)
        series = exporter.series()
        assert value(series, "carbon_device_energy_kwh_total", device="cpu0") == pytest.approx(6 / 3.6e6)
        assert value(series, "carbon_store_last_write_timestamp_seconds") == 0
        assert "--storage.path=DIR" in exporter.status()["store"]["remedy"]


def test_storage_turned_off_writes_nothing_and_shows_no_write_time(tmp_path: Path) -> None:
    with Exporter(FAST, "--storage.path=", environ={"STATE_DIRECTORY": str(tmp_path)}) as exporter:
        exporter.wait_for_samples(2)
        assert not any(name == "carbon_store_last_write_timestamp_seconds" for name, _ in exporter.series())
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_user_without_any_place_to_write_is_told_and_counts_in_memory() -> None:
    with Exporter(FAST, environ={"HOME": "", "XDG_STATE_HOME": ""}, prefix=as_nobody()) as exporter:
        exporter.wait_for_log("uid 65534 has no place to keep totals")
        exporter.wait_for_samples(3)
        series = exporter.series()
        assert value(series, "carbon_device_energy_kwh_total") > 0
        assert value(series, "carbon_store_last_write_timestamp_seconds") == 0
        assert exporter.status()["store"]["remedy"] == "name a writable place with --storage.path=DIR"


def test_a_reload_that_loses_the_region_says_so(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("grid: {region: FR}\n")
    flags = (FAST, f"--config.file={file}", f"--storage.path={tmp_path / 'state'}")
    with Exporter(*flags, environ={"TZ": "Europe/Berlin"}) as exporter:
        assert "guess" not in exporter.text
        file.write_text("")
        exporter.process.send_signal(signal.SIGHUP)
        exporter.wait_for_log("a guess from the time zone Europe/Berlin")
