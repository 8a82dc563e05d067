"""The site in a headless Chromium: nothing is fetched from elsewhere, and all of it can be used."""

from contextlib import contextmanager

import pytest

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}


def not_there(request):
    # The search goes on asking for the pages that it found, until who reads it leaves.
    return [f"not there: {request.url}"] if request.failure != "net::ERR_ABORTED" else []


@contextmanager
def shown(browser, address, **options):
    """Yield a page; afterwards it has said nothing, and asked this address alone."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda one: one.type in ("error", "warning") and said.append(one.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: said.extend(not_there(request)))
    try:
        yield page
    finally:
        context.close()
    assert said == []
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


@pytest.fixture(params=["file", "server"])
def address(request, site):
    return site.as_uri() if request.param == "file" else request.getfixturevalue("served")


def found(page, address, words):
    page.goto(f"{address}/search.html?q={words}")
    page.wait_for_selector("#search-results h2:has-text('Search Results')")
    return page.eval_on_selector_all("#search-results li a", "all => all.map(one => one.href)")


def test_a_search_finds_pages_and_functions(browser, address):
    with shown(browser, address) as page:
        results = found(page, address, "cache+limit")
        assert len(results) > 3
        assert any("reference/limits.html" in one for one in results)
        functions = found(page, address, "get_cache_limit")
        assert any(one.endswith("#memlimits.get_cache_limit") for one in functions)
        assert found(page, address, "xylophone") == []


def test_a_search_from_a_page_leads_to_a_result(browser, address):
    with shown(browser, address) as page:
        page.goto(f"{address}/index.html")
        page.keyboard.press("Control+K")
        page.keyboard.type("would_fit")
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results li a")
        page.click("#search-results li a >> nth=0")
        page.wait_for_load_state()
        assert "would_fit" in page.inner_text("article")


def too_wide(page, part):
    return page.eval_on_selector(part, "one => one.scrollWidth - one.clientWidth")


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"]
)
def test_every_page_fits_its_window(browser, site, served, pages, viewport, scheme):
    """What is wider, such as a table, scrolls by itself."""
    with shown(browser, served, viewport=viewport, color_scheme=scheme) as page:
        for path in pages:
            page.goto(f"{served}/{path.relative_to(site)}", wait_until="load")
            assert too_wide(page, "html") == too_wide(page, ".bd-article-container") == 0, path
            assert page.evaluate("document.documentElement.dataset.theme") == scheme
            assert page.inner_text("h1"), path


def lightness(page):
    """Of what is behind the text, from 0 to 255."""
    text = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, text[text.index("(") + 1 : -1].split(",")[:3])) / 3


@pytest.mark.parametrize("width", [970, 1100])
def test_a_header_is_as_high_in_a_window_of_middling_width(browser, served, width):
    def height(viewport):
        with shown(browser, served, viewport=viewport) as page:
            page.goto(f"{served}/index.html")
            return page.eval_on_selector(".bd-header", "one => one.clientHeight")

    assert height({"width": width, "height": 800}) == height(WIDE)


def test_the_switch_makes_it_dark_and_the_next_page_is_as_dark(browser, served):
    with shown(browser, served, color_scheme="light") as page:
        page.goto(f"{served}/index.html")
        assert lightness(page) > 200
        page.click("header .theme-switch-button >> visible=true")
        page.click("header .theme-change-button[data-mode=dark] >> visible=true")
        assert lightness(page) < 60
        page.goto(f"{served}/reference/limits.html")
        assert lightness(page) < 60


def test_a_narrow_window_has_the_navigation_behind_a_button(browser, served):
    with shown(browser, served, viewport=NARROW) as page:
        page.goto(f"{served}/index.html")
        link = "a.nav-link:text-is('Reference') >> visible=true"
        assert page.locator(link).count() == 0
        page.click("button.primary-toggle >> visible=true")
        page.click(link)
        page.wait_for_url("**/reference/index.html")
        assert page.inner_text("h1").startswith("Reference")
