"""The site as `sphinx-build` made it, in a folder and behind a server of its own."""

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest

from support.browser import started


@pytest.fixture(scope="session")
def site():
    """The folder that it was built into."""
    built = os.environ.get("SITE_HTML")
    if not built:
        pytest.skip("no site: tox -e docs builds it")
    return Path(built)


@pytest.fixture(scope="session")
def pages(site):
    """Every page, the search among them."""
    found = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    assert len(found) > 20
    return found


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def served(site):
    """The address of a plain server of the folder."""
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with started() as found:
        yield found
