"""The page of `normkernels report` in a real browser, with its network cut."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("selenium")

from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from normkernels.bench.ab.outcome import Outcome
from normkernels.bench.cases import Case
from normkernels.bench.report import data, page
from normkernels.bench.results import Results
from normkernels.bench.revision import Revision
from report_examples import NASTY, changed, gate_outcome, nasty_results, row, run_of, some_results

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
CHARTS = [name for name, _, _ in data.CHARTS]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield browser
    browser.quit()


@pytest.fixture
def browser(started: Any) -> Iterator[Any]:
    """The browser at 1280 x 900 in light colours; the test fails where the page has logged an error."""
    resize(started, 1280, 900)
    media(started, "light")
    started.get_log("browser")
    yield started
    assert started.get_log("browser") == []
    assert started.execute_script("return performance.getEntriesByType('resource').length") == 0


def resize(browser: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def media(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def show(browser: Any, folder: Path, *outcomes: Results | Outcome, title: str = "a title") -> None:
    files = [(Path(f"{i}.json"), outcome) for i, outcome in enumerate(outcomes)]
    path = folder / "report.html"
    path.write_text(page.render(data.report(title, files)), encoding="utf-8")
    browser.get(path.as_uri())


def all_of(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements(By.CSS_SELECTOR, selector))


def column(browser: Any, number: int) -> list[str]:
    """The texts of a column as it is seen, from the top."""
    return [cell.text for cell in all_of(browser, f"#cases tbody tr:not([hidden]) > :nth-child({number})")]


def heading(browser: Any, name: str) -> Any:
    return next(e for e in all_of(browser, "#cases thead th") if e.text.startswith(name))


def tip(browser: Any) -> str:
    """The tooltip, "" where it is hidden."""
    return str(browser.find_element(By.ID, "tip").text)


def history() -> tuple[Results, Results]:
    return some_results(), changed(some_results(), date="2026-11-21T12:00:00+00:00")


def test_it_opens_with_every_chart_and_case(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, *history())
    assert browser.title == "a title"
    marks = {name: len(all_of(browser, f"#{name} .mark[role=img][aria-label]")) for name in CHARTS}
    legends = 2  # forward and backward, above the charts of all cases
    assert marks == {"speed": 6 + legends, "roofline": 7 + legends, "size": 8, "batch": 8, "history": 14}
    assert len(column(browser, 1)) == 7
    assert browser.find_element(By.ID, "summary").text.startswith("7 of 7 cases · forward 0.")
    names = {e.text for e in all_of(browser, "#batch text.end")}
    assert names == {"normkernels", "NumPy"}


def test_a_click_sorts_and_another_the_other_way_round(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, some_results())
    assert column(browser, 8) == ["20.0", "16.0", "36.0", "32.0", "28.0", "24.0", "2.0"]
    for order in ("ascending", "descending"):
        heading(browser, "GB/s").find_element(By.TAG_NAME, "button").click()
        assert heading(browser, "GB/s").get_attribute("aria-sort") == order
        speeds = [float(text) for text in column(browser, 8)]
        assert speeds == sorted(speeds, reverse=order == "descending")


def test_the_keyboard_sorts(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, some_results())
    first = heading(browser, "norm").find_element(By.TAG_NAME, "button")
    browser.execute_script("arguments[0].focus()", first)
    ActionChains(browser).send_keys(Keys.TAB * 3, Keys.ENTER).perform()
    assert heading(browser, "shape").get_attribute("aria-sort") == "ascending"
    assert [e.get_attribute("aria-sort") for e in all_of(browser, "#cases thead th")].count("none") == 10
    by_size = ["4x64", "64x768", "64x768", "1x64x28x28", "2x64x28x28", "4x64x28x28", "10x64x28x28"]
    assert column(browser, 4) == by_size
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"


def test_what_has_no_value_comes_last_both_ways(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, some_results())
    for _ in range(2):
        heading(browser, "of copy").find_element(By.TAG_NAME, "button").click()
        assert column(browser, 9)[-1] == "–"
        assert column(browser, 9)[0] != "–"


def test_filters_are_for_table_and_charts(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, *history())
    search = browser.find_element(By.ID, "text")
    search.send_keys("BATCH 10x64")
    assert column(browser, 4) == ["10x64x28x28"]
    assert len(all_of(browser, "#roofline > svg .mark")) == 1
    assert len(all_of(browser, "#history .mark")) == 2
    assert browser.find_element(By.CSS_SELECTOR, "#batch p").text.startswith(
        "No layer here was measured at two"
    )
    search.clear()
    Select(browser.find_element(By.ID, "norm")).select_by_visible_text("layer_norm")
    assert set(column(browser, 1)) == {"layer_norm"}
    Select(browser.find_element(By.ID, "pass")).select_by_visible_text("backward")
    assert column(browser, 2) == ["backward"]
    assert browser.find_element(By.ID, "summary").text == (
        "1 of 7 cases · backward 0.40 of copy · 3.0× NumPy (geometric means)"
    )
    Select(browser.find_element(By.ID, "dtype")).select_by_visible_text("float64")
    assert column(browser, 1) == []
    sentences = {name: [p.text for p in all_of(browser, f"#{name} p")] for name in CHARTS}
    assert all(len(texts) == 1 and texts[0].endswith(".") for texts in sentences.values()), sentences


def test_one_of_several_results_can_be_chosen(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, *history())
    assert set(column(browser, 12)) == {"abcdef0 2026-11-21"}
    Select(browser.find_element(By.ID, "run")).select_by_index(1)
    assert set(column(browser, 12)) == {"abcdef0 2026-11-20"}


def test_lines_do_not_join_two_machines(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, some_results(), changed(some_results(), cpu="another"))
    assert len(all_of(browser, "#batch .title")) == 2
    assert len(all_of(browser, "#roofline .roof")) == 2
    assert len(all_of(browser, "#history .series")) == 0


def test_a_pointer_over_a_mark_reads_it(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, some_results())
    assert tip(browser) == ""
    mark = browser.find_element(By.CSS_SELECTOR, "#speed > svg .mark.backward")
    ActionChains(browser).scroll_to_element(mark).move_to_element(mark).perform()
    assert tip(browser).replace("\n", ", ") == mark.get_attribute("aria-label")
    assert tip(browser).startswith("layer_norm backward\n")
    assert "0.40 of copy" in tip(browser)
    title = browser.find_element(By.TAG_NAME, "h2")
    ActionChains(browser).move_to_element(title).perform()
    assert tip(browser) == ""


def test_arrow_keys_go_from_mark_to_mark(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, some_results())
    for name in ("speed", "roofline", "size"):
        assert len(all_of(browser, f"#{name} [tabindex='0']")) == 1, name
    first = browser.find_element(By.CSS_SELECTOR, "#roofline [tabindex='0']")
    browser.execute_script("arguments[0].focus()", first)
    seen = [tip(browser)]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT):
        ActionChains(browser).send_keys(key).perform()
        seen.append(tip(browser))
    assert seen[3] == seen[1]
    assert len(set(seen)) == 3
    assert "" not in seen
    assert len(all_of(browser, "#roofline [tabindex='0']")) == 1
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert tip(browser) == ""


def colours(browser: Any) -> tuple[str, str, str]:
    script = (
        "const of = (s) => getComputedStyle(document.querySelector(s));"
        "return [of('body').backgroundColor, of('body').color, of('.mark.forward').fill]"
    )
    return tuple(browser.execute_script(script))


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 has it, of two colours as a browser writes them."""
    light = []
    for colour in (one, other):
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_light_and_dark_can_be_read(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, some_results())
    seen = []
    for scheme in ("light", "dark"):
        media(browser, scheme)
        paper, ink, mark = colours(browser)
        assert contrast(paper, ink) > 7, scheme
        assert contrast(paper, mark) > 3, scheme
        seen.append(paper)
    assert contrast(seen[0], "rgb(255, 255, 255)") < 1.1
    assert contrast(seen[1], "rgb(0, 0, 0)") < 1.4


@pytest.mark.parametrize("width", [375, 320, 1280])
def test_the_page_does_not_scroll_sideways(width: int, browser: Any, tmp_path: Path) -> None:
    resize(browser, width, 800)
    for outcomes in (history(), [nasty_results("unbroken" * 20)] * 2):
        show(browser, tmp_path, *outcomes)
        browser.execute_script("document.querySelector('details').open = true")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert (
        browser.execute_script("return document.querySelector('#cases').parentElement.scrollWidth")
        > width - 40
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_fits(width: int, browser: Any, tmp_path: Path) -> None:
    """All columns at once, with the longest names that are usual; on a phone as a card for each case."""
    case = Case(
        "local_response_norm", "backward", (32, 2048, 112, 112), preset="inception_v3", count=11, batch=32
    )
    outcome = run_of([row(case, 0.5, 12), row(dataclasses.replace(case, layout="channels_last"), 0.5, 12)])
    resize(browser, width, 900)
    show(browser, tmp_path, outcome, outcome)
    box = "const box = document.querySelector('#cases').parentElement; return box."
    assert browser.execute_script(f"{box}scrollWidth <= box.clientWidth")
    seen = [cell for cell in all_of(browser, "#cases tbody tr:not([hidden]) > *") if cell.text]
    assert len(seen) == 2 * 12
    assert all(cell.location["x"] + cell.size["width"] <= width for cell in seen)


def test_a_point_of_the_history_opens_its_commit(browser: Any, tmp_path: Path) -> None:
    revisions = [Revision(f"{i}123456789", "main", False, "https://example.org/a") for i in range(2)]
    outcomes = [dataclasses.replace(some_results(), revision=revision) for revision in revisions]
    show(browser, tmp_path, outcomes[0], changed(outcomes[1], date="2026-11-21T00:00:00+00:00"))
    browser.execute_script("window.opened = []; window.open = (url) => window.opened.push(url)")
    mark = browser.find_element(By.CSS_SELECTOR, "#history .mark.opens:last-of-type")
    ActionChains(browser).scroll_to_element(mark).move_to_element(mark).click().perform()
    browser.execute_script("arguments[0].focus()", mark)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    opened = browser.execute_script("return window.opened")
    assert len(opened) == 2
    assert set(opened) <= {f"https://example.org/a/commit/{i}123456789" for i in range(2)}
    assert all_of(browser, "#cases td a")


def test_functions_without_passes_have_a_page(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, gate_outcome(1.0, 1.25, 0.5))
    assert browser.find_element(By.ID, "summary").text.startswith("3 of 3 cases · call ")
    assert column(browser, 1) == ["contrast", "contrast", "total"]
    assert len(all_of(browser, "#roofline > svg .mark")) == 2
    assert [e.text for e in all_of(browser, "#batch .title")] == ["contrast, Nx128"]
    assert len(all_of(browser, "#history > svg .mark")) == 6


def test_charts_follow_the_width(browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, *history())
    resize(browser, 375, 800)
    browser.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => setTimeout(done))")
    widths = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map((e) => e.getBoundingClientRect().right)"
    )
    assert max(widths) <= 375


@pytest.mark.parametrize("nasty", NASTY)
def test_no_text_is_run(nasty: str, browser: Any, tmp_path: Path) -> None:
    show(browser, tmp_path, nasty_results(nasty), nasty_results(nasty), title=nasty)
    assert browser.execute_script("return document.title") == nasty
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert
    assert browser.execute_script("return document.scripts.length") == 2
    assert not all_of(browser, "img, [onfocus], [onerror], [autofocus]")
    for selector, text in (
        ("h1", nasty),
        ("#cases tbody th", f"{nasty}+{nasty}"),
        ("#norm option:last-child", f"{nasty}+{nasty}"),
    ):
        script = "return document.querySelector(arguments[0]).textContent"
        assert browser.execute_script(script, selector) == text, selector
    for selector in (
        "#speed .heading",
        "#batch .title",
        "#batch .end.other",
    ):  # short, where there is no room
        text = browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)
        assert nasty.startswith(text.removesuffix("…")[: len(nasty)]), selector
    mark = browser.find_element(By.CSS_SELECTOR, "#speed .mark[tabindex='0']")
    browser.execute_script("arguments[0].focus()", mark)
    assert browser.execute_script("return document.querySelector('#tip div').textContent").startswith(nasty)
