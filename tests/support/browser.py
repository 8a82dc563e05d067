"""Pages in a headless Chromium, with no network, and what they said on its console."""

import shutil
from contextlib import contextmanager

import pytest

FOUND = shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def started():
    """Yield a browser; while there is one no event loop can run in this thread."""
    playwright = pytest.importorskip("playwright.sync_api")
    if FOUND is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, **options):
    """Yield the page of a file; afterwards it has to have said nothing, and asked for nothing."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(path.as_uri())
        yield page
    finally:
        context.close()
    assert said == []
    assert asked == [path.as_uri()]


def focused(page):
    """The text of the element that has the focus, or its id."""
    return page.evaluate("document.activeElement.id || document.activeElement.textContent")
