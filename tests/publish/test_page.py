"""The live page in a real Chromium, under the policy that the exporter sends with it and behind a path prefix."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.browser import chromium, console, inks, text, texts, until, values
from support.page_stage import PAGE, Status, a_grid, a_status, device, job, served, state_of, visit

HOSTILE = "<img src=x onerror=window.owned=1>"
NBSP = "\u00a0"
NOTHING = "\u2013"
STOPS = [
    *("Skip to the numbers", "jobs", "Power at a moment"),
    *("Filter jobs", "jobs-title", "Job", "Power", "Energy", "CO₂e"),
    *("Filter devices", "devices-title", "Device", "Power", "Energy"),
    *("health-title", "Copy", "Metrics Every series of this exporter, and what it means"),
    *("Metrics for Prometheus", "This page as JSON", "Its hour as JSON"),
]
"""What the tab key comes by, beside the links to metrics: the choice of the graph first, at what is chosen."""


@pytest.fixture(scope="module")
def desktop() -> Iterator[Chrome]:
    with chromium(1280, 900) as driver:
        yield driver


@pytest.fixture(scope="module")
def phone() -> Iterator[Chrome]:
    with chromium(320, 640, dark=True) as driver:
        yield driver


def test_the_page_is_one_small_file_that_a_policy_by_hash_can_name() -> None:
    assert len(PAGE.encode()) < 60_000
    assert PAGE.count("<style") == PAGE.count("<script") == 1
    markup = re.sub(r"<(style|script)>.*?</\1>", "", PAGE, flags=re.DOTALL)
    assert not re.findall(r"\s(?:style|on\w+)\s*=", markup)
    assert set(re.findall(r"https?://[^'\" ]+", PAGE)) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in PAGE
    assert "eval" not in PAGE


def test_the_numbers_shown_are_those_of_the_status(desktop: Chrome) -> None:
    with served() as stage:
        visit(desktop, stage)
        assert desktop.title.startswith(f"12.3{NBSP}W")
    assert [text(desktop, css) for css in ("#power", "#energy", "#co2e")] == ["12.3 W", "12.3 Wh", "4.50 g"]
    assert [values(desktop, css) for css in ("#power", "#energy", "#co2e")] == [[12.3], [0.0123], [4.5]]
    assert values(desktop, "#devices tr:first-child data") == [9.1, 0.01]
    assert values(desktop, "#jobs tr:first-child data") == [4.2, 0.004, 0.5]
    assert texts(desktop, "#jobs tbody tr:nth-child(2) data") == ["91.2 mW", "4.10 Wh", "1.25 g"]
    assert texts(desktop, "#jobs tbody tr:nth-child(3) data") == [NOTHING, "3.50 kWh", "1.54 kg"]
    assert "44.0 g" in text(desktop, "#grid")
    assert {"desk-17", "0.1.0"} <= {text(desktop, "#node"), text(desktop, "#version").removeprefix("carbon-exporter ")}


def test_every_magnitude_is_shown_to_three_digits_in_a_sensible_unit(desktop: Chrome) -> None:
    watts = [factor * 10.0**power for power in range(-3, 7) for factor in (1, 1.2345, 9.994, 9.996)]
    with served(a_status(devices=[device(f"d{i}", watt, watt) for i, watt in enumerate(watts)])) as stage:
        visit(desktop, stage)
    shown = [cell.split(" ") for cell in texts(desktop, "#devices td:nth-child(2) data")]
    size = {"mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6}
    assert [float(number) * size[unit] for number, unit in shown] == pytest.approx(watts, rel=5e-3)
    assert all(1 <= float(number) < 1000 and len(number) <= 4 for number, _ in shown)


def test_the_numbers_move_without_a_reload(desktop: Chrome) -> None:
    with served() as stage:
        visit(desktop, stage)
        desktop.execute_script("window.notReloaded = true")
        until(desktop, lambda: desktop.find_element(By.ID, "trail").is_displayed())
        stage.status = a_status(power_watts=4321.0, jobs=[job("new", 4000.0, 1.0, 2.0)])
        until(desktop, lambda: desktop.title.startswith(f"4.32{NBSP}kW"))
    assert [text(desktop, "#power"), *texts(desktop, "#jobs .name")] == ["4.32 kW", "new"]
    assert [text(desktop, "#tick-top"), text(desktop, "#tick-half")] == ["5 kW", "2.5 kW"]
    assert desktop.execute_script("return window.notReloaded") is True


def test_jobs_are_ranked_and_the_reserved_ones_come_last_in_plain_words(desktop: Chrome) -> None:
    rest = [job("_overflow_", 50.0, 1.0, 1.0), job("_unattributed_", 0.5, 1.0, 1.0)]
    with served(a_status(jobs=[*rest, *a_status()["jobs"], job("y", None, 0.0, 1.0)])) as stage:
        visit(desktop, stage)
    assert texts(desktop, "#jobs .name") == ["a", "b", "z", "y", "Further jobs", "Idle", "Unattributed"]
    assert "in research" in text(desktop, "#jobs tbody tr:nth-child(1) th")
    assert "ended" in text(desktop, "#jobs tbody tr:nth-child(3) th")
    assert texts(desktop, "#jobs tbody tr:nth-child(4) data") == [NOTHING, "0 Wh", "1.00 g"]
    assert "_idle_: powered, but nobody\u2019s" in text(desktop, "#jobs tbody tr:nth-child(6) th")


def test_devices_say_in_words_how_they_are_known(desktop: Chrome) -> None:
    with served() as stage:
        visit(desktop, stage)
    assert texts(desktop, "#devices td:last-child > span") == ["Modelled · sensor model", "Measured · sensor model"]
    assert "hardware energy counter" in text(desktop, "#legend")
    assert "an estimate" in text(desktop, "#legend")
    assert text(desktop, "#power-how") == "in part an estimate: cpu0"


def test_what_is_broken_comes_with_its_remedy_and_a_button_that_copies_it(desktop: Chrome) -> None:
    with served() as stage:
        visit(desktop, stage)
        rights = {"origin": stage.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        desktop.execute_cdp_cmd("Browser.grantPermissions", rights)
        desktop.find_element(By.CSS_SELECTOR, "#health .bad button").click()
        until(desktop, lambda: text(desktop, "#health .bad button") == "Copied")
        copied = desktop.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert text(desktop, "#health-says") == "1 part of 4 needs attention."
    assert text(desktop, "#health .bad .state") == "✗ not permitted"
    assert text(desktop, "#health .bad code") == copied == a_status()["sensors"][0]["remedy"]
    assert len(texts(desktop, "#health code:not(:empty)")) == 1


def test_a_hostile_name_is_text_and_nothing_breaks_the_policy(desktop: Chrome) -> None:
    hostile = a_status(node=HOSTILE, jobs=[job(HOSTILE, 1.0, 1.0, 1.0, job_namespace=HOSTILE, rule=HOSTILE)])
    hostile["devices"] = [device(HOSTILE, 1.0, 1.0)]
    hostile["grid"] = a_grid(region=HOSTILE, quality="world", note=HOSTILE, source=HOSTILE)
    with served(hostile) as stage:
        visit(desktop, stage)
        assert text(desktop, "#jobs .name") == text(desktop, "#node") == HOSTILE
        assert not desktop.find_elements(By.TAG_NAME, "img")
        assert console(desktop) == []
        desktop.execute_script("document.body.insertAdjacentHTML('beforeend', arguments[0])", HOSTILE)
        until(desktop, lambda: any("Content Security Policy" in line for line in console(desktop)))
        assert desktop.execute_script("return window.owned") is None


def test_an_exporter_that_stops_is_said_in_words_and_one_that_returns_is_live(desktop: Chrome) -> None:
    with served() as stage:
        visit(desktop, stage)
        port = stage.server_port
    until(desktop, lambda: state_of(desktop) == "stale")
    why = r"The exporter has not answered since \d\d:\d\d:\d\d: it cannot be reached\.\sThese are the last numbers"
    assert re.match(why, text(desktop, "#trouble"))
    assert text(desktop, "#power") == "12.3 W"
    assert desktop.title.startswith("Stale")
    with served(port=port):
        until(desktop, lambda: state_of(desktop) == "live")
        assert not desktop.find_element(By.ID, "trouble").is_displayed()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((503, b"{}"), "it reports a fault, HTTP 503"),
        ((401, b"{}"), "it asks for a login (reload this page), HTTP 401"),
        ((200, b"<html>"), "its answer is not JSON"),
        ((200, b"{}"), "its answer cannot be shown"),
    ],
)
def test_a_wrong_answer_is_said_in_words_and_asked_for_less_and_less_often(
    desktop: Chrome, fault: tuple[int, bytes], words: str
) -> None:
    with served() as stage:
        visit(desktop, stage)
        stage.fault = fault
        until(desktop, lambda: state_of(desktop) == "stale")
        assert words in text(desktop, "#trouble")
        stage.asked.clear()
        until(desktop, lambda: len(stage.asked) >= 3)
    first, second, third = stage.asked[:3]
    assert third - second > 1.2 * (second - first)


def test_an_exporter_that_answers_but_no_longer_samples_is_stale(desktop: Chrome) -> None:
    with served(a_status(time=time.time() - 60)) as stage:
        stage.ticking = False
        visit(desktop, stage, "stale")
        assert text(desktop, "#trouble").startswith("No new sample since ")
        stage.ticking = True
        until(desktop, lambda: state_of(desktop) == "live")


def test_before_the_first_sample_and_without_jobs_the_page_says_so(desktop: Chrome) -> None:
    empty = a_status(samples=0, ready=False, power_watts=None, devices=[], jobs=[])
    with served(empty) as stage:
        visit(desktop, stage, "waiting")
        assert text(desktop, "#trouble").startswith("No samples yet.")
        assert text(desktop, "#power") == NOTHING
        stage.status = a_status(jobs=[job("_idle_", 1.0, 1.0, 1.0)])
        until(desktop, lambda: state_of(desktop) == "live")
    assert text(desktop, "#no-jobs").startswith("No jobs yet.")
    assert texts(desktop, "#jobs .name") == ["Idle"]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"region": "world", "quality": "world", "located_by": "nothing"}, "CO₂e is counted with the world average"),
        ({"region": "DE", "located_by": "timezone"}, "The region DE is a guess from the time zone."),
        ({}, ""),
    ],
)
def test_a_doubtful_region_is_said_loudly_and_a_known_one_is_not(desktop: Chrome, changes: Status, title: str) -> None:
    with served(a_status(grid=a_grid(note="Set CARBON_REGION=FR.", **changes))) as stage:
        visit(desktop, stage)
    banner = desktop.find_element(By.ID, "guess")
    assert banner.is_displayed() == bool(title)
    assert banner.text.startswith(title)
    assert ("Set CARBON_REGION=FR." in banner.text) == bool(title)


def test_a_page_that_nobody_sees_asks_for_nothing(desktop: Chrome) -> None:
    page = desktop.current_window_handle
    with served() as stage:
        visit(desktop, stage)
        desktop.switch_to.new_window("tab")
        time.sleep(0.5)
        asked = len(stage.asked)
        time.sleep(1)
        assert len(stage.asked) == asked
        desktop.close()
        desktop.switch_to.window(page)
        until(desktop, lambda: len(stage.asked) > asked + 2)


def test_nothing_overflows_at_320_pixels_and_tables_stay_tables(phone: Chrome) -> None:
    names = [job("x" * 128, 5312.0, 1234.5, 98765.0), job("team/" * 20, 0.001, 0.0, 0.0)]
    with served(a_status(node="node-" * 20, jobs=[*a_status()["jobs"], *names])) as stage:
        visit(phone, stage)
    wide = phone.execute_script("return document.documentElement.scrollWidth")
    assert wide <= phone.execute_script("return document.documentElement.clientWidth") <= 320
    cut = "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert phone.execute_script(cut) == 0
    roles = [len(phone.find_elements(By.CSS_SELECTOR, f"#jobs [role={role}]")) for role in ("row", "rowheader", "cell")]
    assert roles == [7, 6, 18]


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_the_tab_key_reaches_every_table_visibly_and_is_never_trapped(
    screen: str, request: pytest.FixtureRequest
) -> None:
    driver: Chrome = request.getfixturevalue(screen)
    where = """
        const e = document.activeElement;
        const style = [e, e.parentElement].map((each) => getComputedStyle(each));
        const name = e.getAttribute("aria-labelledby") || e.ariaLabel || e.textContent.trim() || e.value;
        return [name, e.localName, style.some((each) => each.outlineStyle === "solid" && each.opacity === "1")];"""
    with served() as stage:
        visit(driver, stage)
        stops: list[list[str]] = []
        until(driver, lambda: driver.find_element(By.ID, "trail").is_displayed())
        while not stops or (stops[-1][1] != "body" and len(stops) < 60):
            ActionChains(driver).send_keys(Keys.TAB).perform()
            stops.append(driver.execute_script(where))
    assert [name for name, *_ in stops[:-1] if not name.startswith("carbon_")] == STOPS
    assert [name for name, _, is_ringed in stops[:-1] if not is_ringed] == []


@pytest.mark.parametrize(("screen", "is_dark"), [("desktop", False), ("phone", True)])
def test_all_text_is_readable_in_light_and_dark_live_and_stale(
    screen: str, is_dark: bool, request: pytest.FixtureRequest
) -> None:
    driver: Chrome = request.getfixturevalue(screen)
    with served(a_status(grid=a_grid(quality="world", located_by="nothing"))) as stage:
        visit(driver, stage)
        live = inks(driver)
    until(driver, lambda: state_of(driver) == "stale")
    seen = [*live, *inks(driver)]
    assert len(seen) > 100
    assert [ink for ink in seen if ink.contrast < 4.5] == []
    assert {ink.is_on_dark for ink in live if ink.text == "Jobs"} == {is_dark}


def test_nothing_moves_of_its_own_accord_for_those_who_asked_for_that(desktop: Chrome) -> None:
    moving = "return document.getAnimations().length"
    with served() as stage:
        visit(desktop, stage)
        assert desktop.execute_script(moving) > 0
        still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
        desktop.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
        until(desktop, lambda: desktop.execute_script(moving) == 0)
        desktop.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
