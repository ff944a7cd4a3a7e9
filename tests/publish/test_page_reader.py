"""What a reader does with the page in a real Chromium: looks at its last hour, sorts, filters, follows its links."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.axe import violations
from support.browser import chromium, console, emulate, text, texts, until, values
from support.page_stage import PAGE, Stage, Status, a_grid, a_status, device, job, served, visit

from carbon_exporter.publish.catalogue import CATALOGUE

POINTS = 700
MINUTES_58 = "Power over the last 58 min"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium(1280, 900) as driver:
        yield driver


def an_hour(unknown: range = range(0)) -> Status:
    """Seven hundred points until five seconds ago: two jobs that add up to 30 W, 10 W of idle, in a CPU and memory."""
    now = time.time()

    def column(watts: float) -> list[float | None]:
        return [None if i in unknown else watts for i in range(POINTS)]

    def of(name: str, watts: float) -> Status:
        return {"job_name": name, "job_namespace": "", "power_watts": column(watts)}

    return {
        "times": [now - 5 * (POINTS - i) for i in range(POINTS)],
        "kinds": [{"kind": "cpu", "power_watts": column(35.0)}, {"kind": "dram", "power_watts": column(5.0)}],
        "jobs": [of("_idle_", 10.0), of("big", 20.0), of("small", 10.0)],
    }


def a_span(name: str, kwh: float, count: int, **values: float) -> Status:
    """One span of the job `a` as the status has it."""
    names = {"job_name": "a", "job_namespace": "", "span": name, "rank": "0"}
    return {
        **names,
        "energy_kwh": kwh,
        "co2e_grams": kwh * 50,
        "duration_seconds": 9.0,
        "count": count,
        "values": values,
    }


def visit_hour(driver: Chrome, stage: Stage, hour: Status) -> None:
    """Open the page and wait until the exporter's hour is drawn."""
    stage.hour = hour
    visit(driver, stage)
    until(driver, lambda: text(driver, "#trail-says") == MINUTES_58)


def outlines(driver: Chrome) -> list[str]:
    """The areas of the graph from the ground up, as SVG has them."""
    return [path.get_attribute("d") or "" for path in driver.find_elements(By.CSS_SELECTOR, "#areas path")]


def head(driver: Chrome, table: str, column: str) -> Any:
    """The cell in the head of a table that has the button of a column."""
    return driver.find_element(By.CSS_SELECTOR, f"#{table} [data-by={column}]")


def test_the_graph_begins_with_the_exporters_hour_and_a_reload_loses_nothing_of_it(browser: Chrome) -> None:
    with served(a_status(interval_seconds=1)) as stage:
        visit_hour(browser, stage, an_hour())
        before = texts(browser, "#key dt")
        browser.refresh()
        until(browser, lambda: text(browser, "#trail-says") == MINUTES_58)
    assert texts(browser, "#key dt") == before
    assert before == ["big", "small", "Idle"]
    assert text(browser, "#tick-top") == "40 W"
    assert all(path.count("L") > POINTS for path in outlines(browser)[:2])


def test_time_that_nobody_measured_is_a_gap_in_the_graph(browser: Chrome) -> None:
    with served(a_status(interval_seconds=1)) as stage:
        visit_hour(browser, stage, an_hour(unknown=range(300, 330)))
    assert [path.count("M") for path in outlines(browser)[:2]] == [2, 2]


def test_the_keyboard_and_the_pointer_read_the_power_at_any_moment(browser: Chrome) -> None:
    with served(a_status(interval_seconds=1)) as stage:
        visit_hour(browser, stage, an_hour())
        slider = browser.find_element(By.ID, "moment")
        slider.send_keys(Keys.HOME)
        until(browser, lambda: values(browser, "#key data")[:2] == [20, 10])
        said = slider.get_attribute("aria-valuetext") or ""
        assert re.fullmatch(r"\d\d:\d\d:\d\d: 40.0\sW; big 20.0\sW, small 10.0\sW, .*Idle 10.0\sW", said)
        slider.send_keys(Keys.ARROW_RIGHT)
        assert slider.get_attribute("value") == "1"
        browser.execute_script("document.activeElement.blur()")
        assert text(browser, "#moment-at") == ""
        assert values(browser, "#key data")[:2] == [0, 0]
        ActionChains(browser).move_to_element(browser.find_element(By.ID, "plot")).perform()
        until(browser, lambda: text(browser, "#moment-at").endswith("40.0 W"))
        assert values(browser, "#key data")[:2] == [20, 10]


def test_the_graph_shows_kinds_of_devices_as_well(browser: Chrome) -> None:
    with served(a_status(interval_seconds=1)) as stage:
        visit_hour(browser, stage, an_hour())
        browser.find_element(By.CSS_SELECTOR, "input[value=kinds]").click()
        assert texts(browser, "#key dt") == ["CPUs", "Memory"]
        browser.find_element(By.ID, "moment").send_keys(Keys.HOME)
        until(browser, lambda: values(browser, "#key data") == [35, 5])


def test_without_the_exporters_hour_the_page_says_so_and_draws_what_it_hears(browser: Chrome) -> None:
    with served() as stage:
        stage.hour = None
        visit(browser, stage)
        until(browser, lambda: "own hour could not be had" in text(browser, "#trail-says"))
        assert "HTTP 404" in text(browser, "#trail-says")
        stage.hour = an_hour()
        until(browser, lambda: text(browser, "#trail-says") == MINUTES_58)


def test_a_head_sorts_its_table_both_ways_by_mouse_and_keyboard(browser: Chrome) -> None:
    with served() as stage:
        visit(browser, stage)
        assert head(browser, "jobs", "power").get_attribute("aria-sort") == "descending"
        head(browser, "jobs", "energy").find_element(By.TAG_NAME, "button").click()
        assert texts(browser, "#jobs .name") == ["z", "b", "a", "Idle"]
        assert head(browser, "jobs", "energy").get_attribute("aria-sort") == "descending"
        assert head(browser, "jobs", "power").get_attribute("aria-sort") is None
        head(browser, "jobs", "power").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER, Keys.ENTER)
        assert texts(browser, "#jobs .name") == ["b", "a", "z", "Idle"]
        head(browser, "devices", "name").find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE, Keys.SPACE)
        assert texts(browser, "#devices .name") == ["dram0", "cpu0"]
        asked = len(stage.asked)
        until(browser, lambda: len(stage.asked) > asked + 1)
    assert texts(browser, "#devices .name") == ["dram0", "cpu0"]


def test_a_filter_keeps_the_rows_that_have_all_its_words_and_says_how_many(browser: Chrome) -> None:
    with served(a_status(devices=[device("cpu0", 9.1, 0.01), device("gpu0", 3.2, 2.0, "measured")])) as stage:
        visit(browser, stage)
        browser.find_element(By.ID, "jobs-filter").send_keys("RESEARCH carbon_job")
        assert texts(browser, "#jobs .name") == ["a"]
        assert text(browser, "#jobs-found") == "1 of 4"
        browser.find_element(By.ID, "devices-filter").send_keys("measured epyc")
        assert texts(browser, "#devices .name") == ["gpu0"]
        browser.find_element(By.ID, "devices-filter").send_keys(" nothing")
        assert text(browser, "#devices-found") == "0 of 2"
        stage.status = a_status(jobs=[job("research-2", 1.0, 1.0, 1.0), job("other", 1.0, 1.0, 1.0)])
        until(browser, lambda: texts(browser, "#jobs .name") == ["research-2"])


def test_spans_show_what_each_took_and_recorded_and_are_absent_without_any(browser: Chrome) -> None:
    spans = [a_span("epoch", 1.0, 12, loss=0.25123, accuracy=0.5), a_span("batch", 0.5, 60_000), a_span("eval", 0.1, 0)]
    with served(a_status(spans=spans)) as stage:
        visit(browser, stage)
        assert texts(browser, "#spans .name") == ["epoch", "batch", "eval"]
        assert values(browser, "#spans tbody tr:first-child data") == [12, 1.0, 50.0, 300_000]
        assert texts(browser, "#spans tbody tr:nth-child(2) data") == ["60,000", "500 Wh", "25.0 g", "30.0 J"]
        assert text(browser, "#spans tbody tr:nth-child(3) td:nth-child(5)") == "\u2013"
        assert text(browser, "#spans tbody td.whole") == "loss 0.2512 · accuracy 0.5"
        assert text(browser, "#spans tbody small") == "of a · rank 0"
        browser.find_element(By.ID, "spans-filter").send_keys("loss")
        assert texts(browser, "#spans .name") == ["epoch"]
        stage.status = a_status()
        until(browser, lambda: not browser.find_element(By.ID, "spans").is_displayed())


def test_each_metric_that_the_page_names_leads_to_what_it_means(browser: Chrome) -> None:
    named, known = set(re.findall(r'href="#(carbon_\w+)"', PAGE)), {metric.name: metric for metric in CATALOGUE}
    assert named < known.keys()
    with served() as stage:
        visit(browser, stage)
        until(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "#metadata dt")) == len(CATALOGUE))
        browser.find_element(By.LINK_TEXT, "carbon_job_co2e_grams_total").click()
        entry = browser.find_element(By.CSS_SELECTOR, "#metadata div:has(:target)")
        until(browser, entry.is_displayed)
    assert known["carbon_job_co2e_grams_total"].help in entry.text
    assert "counter · grams" in entry.text
    link = entry.find_element(By.TAG_NAME, "a").get_attribute("href") or ""
    assert link.endswith("/metrics?name[]=carbon_job_co2e_grams_total")


def test_the_provider_of_prices_and_the_socket_stand_under_health(browser: Chrome) -> None:
    doubtful = a_grid(quality="world", located_by="nothing", region="world", note="Set grid.region.")
    scripts = {"connected": 2, "refused": {"peers": 0, "flood": 3}}
    with served(a_status(grid=doubtful, scripts=scripts)) as stage:
        visit(browser, stage)
    rows = {row.split()[0]: row for row in texts(browser, "#health tbody tr")}
    assert "✗ not sure of the region" in rows["static"]
    assert "Set grid.region." in rows["static"]
    assert "2 scripts connected" in rows["socket"]
    assert "3 turned away since the start: flood" in rows["socket"]


@pytest.mark.parametrize(
    "views",
    [((1280, False), (320, True)), pytest.param(((1280, True), (320, False)), marks=pytest.mark.soak)],
    ids=["wide light, narrow dark", "wide dark, narrow light"],
)
def test_axe_finds_nothing_wide_and_narrow_in_light_and_dark(
    browser: Chrome, views: tuple[tuple[int, bool], ...]
) -> None:
    with served(a_status(interval_seconds=2, spans=[a_span("epoch", 1.0, 12, loss=0.25)])) as stage:
        visit_hour(browser, stage, an_hour())
        browser.find_element(By.TAG_NAME, "summary").click()
        found: dict[tuple[int, bool], list[str]] = {}
        for width, is_dark in views:
            emulate(browser, width, 900, dark=is_dark)
            found[width, is_dark] = violations(browser)
            browser.execute_script("document.getElementById('metrics').open = false")
        browser.execute_script("document.querySelector('#jobs th').ariaSort = 'sideways'")
        found[0, False] = violations(browser, "#jobs thead")
        emulate(browser, 1280, 900, dark=False)
        assert console(browser) == []
    assert [line.split(":")[0] for line in found.pop((0, False))] == ["critical aria-valid-attr-value"], "axe sees"
    assert [line for lines in found.values() for line in lines] == []
