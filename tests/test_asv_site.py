"""asv's pages, made self-contained: a browser without network draws them."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("asv", reason="needs asv")
if not shutil.which("npm"):
    pytest.skip("needs npm", allow_module_level=True)

pytestmark = pytest.mark.asv

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "site.py"
VALUES = (3.0, 2.0, 2.5, 1.0)

spec = importlib.util.spec_from_file_location("benchmarks_site", SCRIPT)
site_script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site_script)

CONFIGURATION = {
    "version": 1,
    "project": "example",
    "repo": ".",
    "branches": ["main"],
    "environment_type": "existing",
    "benchmark_dir": "suite",
    "results_dir": "results",
    "html_dir": "html",
}
BENCHMARK = """
import os

def track_value(case):
    return float(os.environ["VALUE"])

track_value.params = ["a/1x2", "b/3x4"]
track_value.version = "1"
track_value.unit = "GB/s"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of a project with four commits, measured by asv itself."""
    folder = tmp_path_factory.mktemp("project")
    who = {
        f"GIT_{role}_{what}": "x@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    environment = {**os.environ, **who, "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}

    def run(*command, **more):
        finished = subprocess.run(
            command, cwd=folder, env={**environment, **more}, capture_output=True, text=True, timeout=60
        )
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
        return finished.stdout.strip()

    (folder / "suite").mkdir()
    (folder / "suite" / "__init__.py").write_text("")
    (folder / "suite" / "tiny.py").write_text(BENCHMARK)
    (folder / "asv.conf.json").write_text(json.dumps(CONFIGURATION))
    asv = (sys.executable, "-P", "-m", "asv")
    run("git", "init", "--quiet", "--initial-branch=main")
    run(*asv, "machine", "--yes", "--machine", "somewhere")
    for i, value in enumerate(VALUES):
        date = f"2026-01-0{i + 1}T12:00:00Z"
        run(
            "git",
            "commit",
            "--quiet",
            "--allow-empty",
            "-m",
            "x",
            GIT_AUTHOR_DATE=date,
            GIT_COMMITTER_DATE=date,
        )
        run(
            *asv, "run", "-E", f"existing:{sys.executable}", "--machine", "somewhere",
            "--set-commit-hash", run("git", "rev-parse", "HEAD"), VALUE=str(value),
        )  # fmt: skip
    pages = folder / "pages"
    run(
        sys.executable,
        str(SCRIPT),
        "--config",
        str(folder / "asv.conf.json"),
        "-o",
        str(pages),
        HOME=os.environ.get("HOME", str(folder)),
    )
    return pages


LOADS = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']([^\"']*)", re.S)


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.glob("*.html"):
        text = page.read_text()
        for target in LOADS.findall(text):
            assert not re.match(r"(\w+:)?//", target), f"{page.name} loads {target}"
            assert (site / target).exists() or target.endswith(".xml"), f"{page.name} loads {target}"
        assert not re.search(r"\b(integrity|crossorigin|referrerpolicy)\b", text)


def test_style_sheets_load_nothing_from_elsewhere(site):
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        assert "@import" not in text
        for target in re.findall(r"url\(\s*['\"]?([^'\")]+)", text):
            if not target.startswith("data:"):
                assert (sheet.parent / re.split(r"[?#]", target)[0]).exists(), f"{sheet.name} loads {target}"


def test_licences_are_kept(site):
    versions = json.loads((ROOT / "benchmarks" / "site" / "package.json").read_text())["dependencies"]
    assert set(versions) == set(site_script.PACKAGES)
    for package, version in versions.items():
        folder = site / "vendor" / package
        said = "".join(f.read_text() for f in folder.iterdir() if site_script.KEPT.fullmatch(f.name))
        assert re.search("MIT|Permission is hereby granted", said), package
        assert json.loads((folder / "package.json").read_text())["version"] == version


def test_a_reference_without_a_copy_is_an_error():
    page = '<script src="https://cdn.example.org/jquery-3.3.1.min.js"></script><script src="https://x.org/new.js">'
    with pytest.raises(SystemExit, match=r"new\.js"):
        site_script.localized(page)


def test_links_to_click_on_stay():
    page = '<script src="https://x.org/jquery-3.3.1.min.js" integrity="a" onerror="b()"></script><script>'
    page += '<a href="https://example.org/project">'
    local = site_script.localized(page)
    assert '<script src="vendor/jquery/dist/jquery.min.js" onerror="b()"></script>' in local
    assert 'href="https://example.org/project"' in local


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that reaches no host."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", "window-size=1200,800",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        # No name is found, and addresses lead to a port where nobody listens.
        "host-resolver-rules=MAP * ~NOTFOUND", "proxy-server=http://127.0.0.1:9",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def wait_for(browser, script, seconds=15):
    """What a script returns, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(script)):
        assert time.monotonic() < end, f"{script} stayed {value!r}; {browser.get_log('browser')}"
        time.sleep(0.05)
    return value


def requested(browser):
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}


PIXELS = """
    return $('#main-graph canvas').toArray().reduce(function (sum, canvas) {
        var data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        for (var i = 3; i < data.length; i += 4) { sum += data[i] > 0; }
        return sum;
    }, 0);
"""


def test_pages_work_from_disk_without_network(site, browser):
    index = (site / "index.html").as_uri()
    browser.get(index)
    assert wait_for(browser, "return $('#summarygrid-display a').text()").strip() == "track_value"
    browser.get(f"{index}#/summarylist")
    assert "tiny.track_value" in wait_for(browser, "return $('#summarylist-body tbody').text()")
    browser.get(f"{index}#/regressions")
    assert wait_for(browser, "return $('#regressions-body table').length")

    browser.get(f"{index}#tiny.track_value")
    drawn = wait_for(
        browser,
        """var plot = $('#main-graph').data('plot');
        return plot && plot.getData().length && plot.getData()[0].data.map(function (p) { return p[1]; });""",
    )
    assert drawn == list(VALUES)
    assert wait_for(browser, PIXELS) > 500
    urls = requested(browser)
    assert any(url.partition("?")[0].endswith("track_value.json.js") for url in urls)
    # The browser's own empty page, which it opens with, is chrome:// and no matter.
    assert not [url for url in urls if re.match(r"(http|ws)s?:", url)]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
