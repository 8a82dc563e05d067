"""Who holds the memory at a time: the folded text, and the page in a browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from memlimits.cli.formats.flamegraph import make, make_folded
from memlimits.figures import Holder
from memlimits.recording import Writer, load
from support.browser import opened
from support.recordings import HOSTILE, record

MIB = 1 << 20


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return load(record(tmp_path_factory.mktemp("hostile"), hostile=True))


@pytest.fixture(scope="module")
def page_of(history):
    path = Path(history.reader.path).with_name("flame.html")
    path.write_bytes(make(history, history.peak_at()))
    return path


def holder(names, nbytes, blocks=1):
    stack = tuple((f"{name}.py", 1, name) for name in names)
    return Holder(*stack[-1][:2], names[-1], nbytes, blocks, stack)


class Scripts(HTMLParser):
    """What a parser of HTML takes for scripts, and where there are elements inside the data."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "script":
            self.inside = dict(attributes)

    def handle_endtag(self, tag):
        if tag == "script":
            self.inside = None

    def handle_data(self, data):
        if self.inside is not None:
            self.found.append((self.inside, data))


def test_folded_lines_are_the_holders_at_that_time(tmp_path):
    path = tmp_path / "a.rec"
    with Writer(path, at=0.0) as writer:
        writer.process(0.0, 5, command="a;b\tc")
        writer.sample(0.0, 5, footprint=1)
        writer.holders(1.0, 5, [holder(["main", "load"], 100), holder(["main", "so;me"], 30)])
        writer.holders(3.0, 5, [holder(["main", "load"], 7)])
        writer.holders(3.0, 6, [holder(["other"], 900)])
        writer.sample(4.0, 5, footprint=1)
    history = load(path)
    assert make_folded(history, 1.0).decode().splitlines() == [
        "process 5 a:b c;main (main.py:1);load (load.py:1) 100",
        "process 5 a:b c;main (main.py:1);so:me (so:me.py:1) 30",
    ]
    assert [line[-3:] for line in make_folded(history, 2.9).decode().splitlines()] == ["900", ") 7"]


def test_the_numbers_are_those_of_the_recording(history):
    peak = history.peak_at()
    total = sum(held.size for held in history.nearest(history.held, peak))
    lines = make_folded(history, peak).decode().splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == total == 47 * MIB
    (found,) = re.findall(r'id="data">(.*?)</script>', make(history, peak).decode())
    tree = json.loads(found)["tree"]
    assert (tree["size"], tree["blocks"]) == (total, 21)

    def check(node):
        if node["below"]:
            assert sum(one["size"] for one in node["below"]) == node["size"]
        for one in node["below"]:
            check(one)

    check(tree)


def test_nothing_of_the_recording_ends_the_script(history):
    text = make(history, history.peak_at()).decode()
    data, script = Scripts(text).found
    assert data[0]["type"] == "application/json"
    assert "/".join(HOSTILE) in json.dumps(json.loads(data[1])).replace('\\"', '"')
    assert "alert(1)" not in script[1]
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]


def test_in_a_browser(browser, page_of):
    with opened(browser, page_of) as page:
        assert "/".join(HOSTILE) in page.inner_text("#title")
        cells = page.locator(".cell")
        assert cells.count() == 7
        assert page.locator("#about").inner_text().startswith("47 MiB in 21 blocks")
        index = page.get_by_text("main.<locals>.index", exact=True)
        share = index.bounding_box()["width"] / page.locator(".root").bounding_box()["width"]
        assert abs(share - 7 / 47) < 0.01
        index.click()
        assert page.locator(".cell").count() == 5
        assert index.bounding_box()["width"] > 1000
        assert "7 MiB (14.9 %), 1 block" in page.inner_text("#chosen")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.click("#reset")
        assert page.locator(".cell").count() == 7
        assert page.is_disabled("#reset")
        page.keyboard.press("/")
        page.keyboard.type("LOAD_rows")
        assert page.inner_text("#matched") == "40 MiB found (85.1 %)"
        assert page.locator(".hit").count() == 1


def test_by_keyboard_alone(browser, page_of):
    with opened(browser, page_of) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.press("Tab")
        label = "document.activeElement.getAttribute('aria-label')"
        assert page.evaluate(label) == "all: 47 MiB (100.0 %), 21 blocks"
        for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        assert page.evaluate(label).startswith("main.<locals>.index, ")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        page.keyboard.press("Enter")
        assert page.locator(".cell").count() == 5
        page.keyboard.press("Escape")
        assert page.locator(".cell").count() == 5
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        assert page.locator(".cell").count() == 7
        assert page.locator('[role=tree] [role=treeitem][tabindex="0"]').count() == 1


def test_on_a_phone_nothing_is_beside_the_screen(browser, page_of):
    with opened(browser, page_of, viewport={"width": 360, "height": 740}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_thousand_holders_of_deep_stacks_are_drawn(browser, tmp_path):
    path = tmp_path / "a.rec"
    with Writer(path, at=0.0) as writer:
        names = [[f"f{(number * depth) % 97}" for depth in range(1, 120)] for number in range(1000)]
        writer.holders(1.0, 5, [holder(one, 1000 + place) for place, one in enumerate(names)])
    page = tmp_path / "flame.html"
    page.write_bytes(make(load(path), 1.0))
    assert page.stat().st_size < 16 * MIB
    with opened(browser, page) as shown:
        assert 100 < shown.locator(".cell").count() < 100_000
