"""The operator's page in a real browser, on a real station."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.daemon import BLACK_PASSES, PATIENCE_S, Daemon, drop, encoded, picture
from tests.waiting import until

CHROME, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    (CHROME is None or DRIVER is None) and "CI" not in os.environ,
    reason="needs Debian's chromium and chromium-driver: scripts/test has them",
)
HOSTILE = "<img src=x onerror=document.title='broken'>.png"


class Page:
    def __init__(self, browser: webdriver.Chrome, station: Daemon) -> None:
        self.browser = browser
        browser.get(f"http://127.0.0.1:{station.http_port}/")

    def one(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.one(name).text

    def wait(self, name: str, words: str) -> None:
        until(
            lambda: words in self.text(name), within_s=PATIENCE_S, what=f"{words!r} in #{name}, not {self.text(name)!r}"
        )

    def buttons(self) -> list[WebElement]:
        return self.one("last").find_elements(By.TAG_NAME, "button")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROME)
    profile = tmp_path_factory.mktemp("profile")
    for one in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1280,800",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield browser
    browser.quit()


@contextmanager
def opened(folder: Path, chrome: webdriver.Chrome, **http: object) -> Iterator[tuple[Daemon, Page]]:
    with Daemon(folder, changes={"http": http}) as station:
        station.start()
        chrome.delete_all_cookies()
        yield station, Page(chrome, station)


def test_the_page_shows_each_board_large_in_words_and_with_its_picture(
    tmp_path: Path, chrome: webdriver.Chrome
) -> None:
    with opened(tmp_path, chrome) as (station, page):
        page.wait("word", "NO BOARD YET")
        drop(station.inbox, "good.png", encoded(picture(1, red=BLACK_PASSES)))
        page.wait("word", "PASS")
        assert page.one("verdict").get_attribute("class").split()[0] == "pass"  # type: ignore[union-attr]  # it has one
        drop(station.inbox, HOSTILE, encoded(picture(2)))
        page.wait("word", "FAIL")
        page.wait("about", HOSTILE)
        assert chrome.title == "✗ aoi-1", "the file's name is a text and nothing else"
        until(lambda: page.one("picture").is_displayed(), within_s=PATIENCE_S)
        page.wait("boards", "2")
        page.wait("yield", "50 %")
        page.wait("states", "owed, oldest")
        page.wait("faults", "broker_away")
        assert [one.get_attribute("class") for one in page.buttons()] == ["fail", "pass"]
        assert int(page.one("word").value_of_css_property("font-size").removesuffix("px").split(".")[0]) >= 48

        chrome.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
        page.wait("word", "PASS")
        page.wait("nopicture", "no picture was kept")
        drop(station.inbox, "another.png", encoded(picture(3)))
        page.wait("boards", "3")
        assert page.text("word") == "PASS", "who looks at a board is not torn away from it"
        page.one("follow").click()
        page.wait("word", "FAIL")

        page.one("wrong").click()
        page.wait("said", "recorded as a false call")
        until(lambda: page.one("wrong").get_attribute("aria-pressed") == "true", within_s=PATIENCE_S)

        station.kill()
        page.wait("lost", "NO CONNECTION")
        assert "old" in (chrome.find_element(By.TAG_NAME, "body").get_attribute("class") or "")
        station.start()
        until(lambda: not page.one("lost").is_displayed(), within_s=PATIENCE_S, what="the page to come back by itself")
        loaded = chrome.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
        assert all(str(one).startswith(f"http://127.0.0.1:{station.http_port}/") for one in loaded)
        logged = chrome.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types here
        assert not [one for one in logged if "Content Security Policy" in one["message"]]


@pytest.mark.parametrize("width", [1280, 768, 400])
def test_nothing_sticks_out_at_the_side(width: int, tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with opened(tmp_path, chrome) as (station, page):
        chrome.set_window_size(width, 900)
        drop(station.inbox, "x" * 120 + ".png", encoded(picture(2)))
        page.wait("word", "FAIL")
        wide = chrome.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        chrome.set_window_size(1280, 800)
        assert wide[0] <= wide[1]


def test_where_a_login_is_needed_the_page_asks_for_a_key(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with Daemon(tmp_path, changes={"http": {"auth": "required"}}) as station:
        key = station.call("key", "create", "screen", "--scope", "read").stdout.strip()
        station.start()
        chrome.delete_all_cookies()
        page = Page(chrome, station)
        until(lambda: page.one("key").is_displayed(), within_s=PATIENCE_S)
        page.one("key").send_keys("st_wrong" + Keys.ENTER)
        page.wait("loginsaid", "not known")
        page.one("key").clear()
        page.one("key").send_keys(key + Keys.ENTER)
        page.wait("states", "inspects")
        assert chrome.get_cookie("station_session")["httpOnly"]  # type: ignore[index]  # it is there
        assert key not in station.text()
