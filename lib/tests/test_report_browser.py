"""The report in a browser: it opens from disk, asks the network for nothing, and everybody can read it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from made import small_report
from playwright.sync_api import Browser, Page, Route, sync_playwright

from imqueue import settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = [
    "index",
    "10_sum-memory",
    "20_flow-memory",
    "10_sum-redis_list",
    "20_flow-redis_list",
    "20_flow-redis_list-why",
    "30_durability",
]
OTHERS = ["10_sum-null", "10_sum-simple", "20_flow-memory-why"]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_report(tmp_path_factory.getbasetemp())[0] / "report"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        reason = "no chromium here; apt-get install chromium"
        if settings.servers_required():
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Asked(list[str]):
    """The addresses that a page asked a network for; each request was refused."""

    def refuse(self, route: Route) -> None:
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            self.append(route.request.url)
            route.abort()


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def page(browser: Browser, asked: Asked) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.route("**/*", asked.refuse)
    yield page
    context.close()


@pytest.fixture(params=PAGES)
def opened(request: pytest.FixtureRequest, page: Page, folder: Path) -> Page:
    page.goto((folder / f"{request.param}.html").as_uri())
    return page


def test_it_asks_the_network_for_nothing(opened: Page, asked: Asked) -> None:
    opened.wait_for_load_state("networkidle")
    assert asked == []


def test_every_picture_is_there_and_told_in_words(opened: Page) -> None:
    pictures = opened.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth])")
    assert pictures
    assert all(len(alt) > 40 and width > 0 for alt, width in pictures)


def test_no_code_is_shown(opened: Page) -> None:
    assert opened.locator(".jp-InputArea-editor:visible, .jp-CodeCell .jp-InputArea:visible").count() == 0
    assert "import imqueue" not in opened.inner_text("body")


@pytest.mark.parametrize("width", [1280, 480])
def test_nothing_is_wider_than_the_window(opened: Page, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 900})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    cut = "[...document.querySelectorAll('main img, main p, main h1, main h2')].filter("
    cut += "e => e.getBoundingClientRect().right > innerWidth + 1).length"
    assert opened.evaluate(cut) == 0
    scrolling = "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 "
    scrolling += "&& getComputedStyle(e).overflowX == 'auto' && !e.querySelector('table')).length"
    assert opened.evaluate(scrolling) == 0  # only a table may scroll, and by itself
    left = opened.evaluate("[...document.querySelectorAll('main p')].map(p => p.getBoundingClientRect().left)")
    assert max(left) - min(left) <= 15  # the notice is indented


def test_each_entry_of_the_contents_leads_to_a_heading(opened: Page) -> None:
    entries = opened.locator("nav.contents a")
    headings = opened.locator("main h2, main h3").all_inner_texts()
    assert entries.all_inner_texts() == headings
    for target in entries.evaluate_all("links => links.map(link => link.getAttribute('href'))"):
        assert opened.locator(target).count() == 1


def test_language_title_and_headings_are_sound(opened: Page) -> None:
    assert opened.get_attribute("html", "lang") == "en"
    assert opened.title()
    levels = opened.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_every_table_has_headers(opened: Page) -> None:
    headless = "[...document.querySelectorAll('table')].filter(t => !t.querySelector('thead th')).length"
    assert opened.locator("table").count() > 0
    assert opened.evaluate(headless) == 0


def test_the_comparison_leads_to_each_trial_and_back(page: Page, folder: Path) -> None:
    page.goto((folder / "index.html").as_uri())
    names = page.locator("table a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert sorted(set(names)) == sorted(f"{name}.html" for name in [*PAGES[1:-1], *OTHERS])
    for name in names:
        page.locator(f'table a[href="{name}"]').first.click()
        assert page.url.endswith(name)
        page.locator("a", has_text="The report").click()
        assert page.url.endswith("index.html")


def test_it_says_on_top_what_was_compared_where_and_what_was_left_out(page: Page, folder: Path) -> None:
    page.goto((folder / "index.html").as_uri())
    text = page.inner_text("main")
    figures = text.rindex("How fast is a sum?")  # its heading; the contents name it too
    for words in (
        "memory and redis_list; as controls: null and simple",
        "cores",
        "GiB",
        "Python 3",
        "Nothing was left out",
        "not a ranking",
    ):
        assert words in text
    assert text.index("GiB") < figures
