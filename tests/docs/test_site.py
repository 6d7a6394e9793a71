"""The built site (`.ci/docs` builds it) in Chromium, opened as files: it is searched there, and asks no host."""

import re
from pathlib import Path

import browsers
import pytest

SITE = Path(__file__).parents[2] / "build/site"
pytestmark = [
    *browsers.MARKS,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no built site: .ci/docs"),
]


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as browser:
        yield browser


def test_the_search_finds_and_opens_a_page(browser):
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((SITE / "guides/run.html").as_uri())
    page.fill("input.md-search__input", "guided_backprop")
    page.locator(".md-search-result__item a", has_text="guided_backprop").first.click()
    page.wait_for_url("**/reference/**")
    assert asked and [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [390, 1300])
def test_no_page_is_wider_than_the_screen_or_lacks_a_file(browser, width):
    page, lost = browser.new_page(viewport={"width": width, "height": 900}), []
    page.on("requestfailed", lambda request: lost.append((request.url, request.failure)))
    pages = [path for path in sorted(SITE.rglob("*.html")) if path.name != "404.html"]
    wide = []
    for path in pages:
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wide.append(path.name)
    assert len(pages) > 30 and wide == []
    assert [(url, why) for url, why in lost if why != "net::ERR_ABORTED"] == []  # left before its icon had come


def test_examples_of_the_reference_are_set_as_code():
    pages = [page.read_text() for page in sorted((SITE / "reference").glob("*.html"))]
    examples = [example for page in pages for example in re.findall(r">Examples:</span>.*?</div>", page, re.DOTALL)]
    assert len(examples) > 100 and all("<code>" in example for example in examples)
