"""The HTML report in a browser: what it shows, by click and key, on all kinds of screens."""

import json
import re
from pathlib import Path

import pytest

from memlimits.cli.formats.report import make
from memlimits.figures import Holder
from memlimits.recording import Writer, load
from support.browser import focused, opened
from support.recordings import HOSTILE, record

MIB = 1 << 20


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return load(record(tmp_path_factory.mktemp("hostile"), hostile=True))


@pytest.fixture(scope="module")
def report(history):
    path = Path(history.reader.path).with_name("report.html")
    path.write_bytes(make(history, 0.0))
    return path


def data_of(page):
    (found,) = re.findall(r'id="data">(.*?)</script>', page.decode())
    return json.loads(found)


def test_the_numbers_are_those_of_the_recording(history):
    data = data_of(make(history, 0.0))
    for shown, process in zip(data["processes"], history.processes, strict=True):
        assert (shown["pid"], shown["peak"]) == (process.pid, process.peak)
        for name in ("footprint", "active", "cache", "resident"):
            assert shown[name] == [getattr(sample, name) for sample in process.samples]
        times = [round(sample.at - history.first, 6) for sample in process.samples]
        assert shown["at"] == times
    assert [one["requested"] for one in data["refusals"]] == [100 * MIB, 60 * MIB]
    largest = max(data["holders"], key=lambda one: one["size"])
    place, nbytes, blocks, stack = largest["rows"][0]
    assert (nbytes, blocks) == (40 * MIB, 20)
    assert data["frames"][place] == data["frames"][data["stacks"][stack][-1]]
    assert "/".join(HOSTILE) in data["frames"][place][0]


def test_it_shows_the_peak_and_who_held_it(browser, report):
    with opened(browser, report) as page:
        assert "/".join(HOSTILE) in page.inner_text("h1")
        facts = page.inner_text("#facts").split("\n")
        assert facts[facts.index("peak") + 1] == "47 MiB"
        assert facts[facts.index("refusals") + 1] == "2"
        assert "footprint 47 MiB, active 47 MiB, cache 0 B" in page.inner_text("#point")
        rows = page.locator("#holders tbody tr").all_inner_texts()
        assert len(rows) == 2
        assert rows[0].split()[:3] == ["40", "MiB", "20"]
        assert "/".join(HOSTILE) in rows[0]
        page.locator("#holders summary").first.click()
        stack = page.locator("#holders li").all_inner_texts()
        assert stack[0].startswith("<module> ")
        assert page.locator("#together-chart .area").count() == 2
        assert page.locator("#single-chart .refusal").count() == 2
        assert page.locator("#single-chart .limit-line").count() == 1
        assert page.text_content("#single-chart .limit") == "limit 64 MiB"


def test_a_click_shows_who_held_memory_then(browser, report, history):
    process = history.processes[0]
    with opened(browser, report) as page:
        box = page.locator("#single-chart svg").bounding_box()
        length = history.last - history.first
        for wanted in process.samples[1:3]:
            held = min(history.held, key=lambda one, at=wanted.at: abs(one.at - at))
            part = (wanted.at - history.first) / length
            x = box["x"] + 66 + part * (box["width"] - 66 - 12)
            page.mouse.click(x, box["y"] + 150)
            text = page.inner_text("#point")
            assert f"footprint {wanted.footprint // MIB} MiB" in text
            rows = page.locator("#holders tbody tr").all_inner_texts()
            assert len(rows) == len(history.holders(held))


def test_keys_move_through_samples_and_refusals(browser, report, history):
    with opened(browser, report) as page:
        page.focus("#single-chart")
        page.keyboard.press("Home")
        assert page.inner_text("#point-head") == "At 0 s"
        times = {round(s.at - history.first, 6) for p in history.processes for s in p.samples}
        times = sorted(at for at in times if at > 0)
        seen = []
        for _ in times:
            page.keyboard.press("ArrowRight")
            seen.append(float(page.get_attribute("#single-chart", "aria-valuenow")))
        assert seen == times
        page.keyboard.press("ArrowLeft")
        assert float(page.get_attribute("#single-chart", "aria-valuenow")) == times[-2]
        page.keyboard.press("Home")
        page.keyboard.press("r")
        assert "was refused 100 MiB here, blocked by: limit" in page.inner_text("#holders")
        assert page.locator("tr.now").count() == 1
        page.keyboard.press("r")
        assert "was refused 60 MiB here" in page.inner_text("#holders")
        page.keyboard.press("Shift+R")
        assert "was refused 100 MiB here" in page.inner_text("#holders")
        page.keyboard.press("p")
        assert "footprint 47 MiB" in page.get_attribute("#single-chart", "aria-valuetext")
        page.keyboard.press("End")
        assert page.get_attribute("#single-chart", "aria-valuenow") == page.get_attribute(
            "#single-chart", "aria-valuemax"
        )


def test_zooming_keeps_the_point_in_sight(browser, report):
    with opened(browser, report) as page:
        page.focus("#together-chart")
        whole = page.locator("#together-chart .cursor").get_attribute("d")
        for _ in range(3):
            page.keyboard.press("+")
        assert page.locator("#together-chart .cursor").get_attribute("d") != ""
        page.keyboard.press("Home")
        assert page.locator("#together-chart .cursor").get_attribute("d").startswith("M66 ")
        for _ in range(5):
            page.keyboard.press("-")
        page.keyboard.press("p")
        assert page.locator("#together-chart .cursor").get_attribute("d") == whole


def test_each_process_by_itself(browser, report, history):
    child = history.processes[1]
    with opened(browser, report) as page:
        page.select_option("#process", "1")
        assert page.inner_text("#single-head") == f"Process {child.pid} python -c CHILD"
        assert f"Process {child.pid}: " in page.inner_text("#point")
        assert page.locator("#single-chart .limit-line").count() == 0
        assert page.locator("#each .mini").count() == 2
        page.locator("#each button").first.click()
        assert page.input_value("#process") == "0"
        page.locator("#refusals button").first.click()
        assert "was refused 100 MiB here" in page.inner_text("#holders")


def test_the_focus_goes_through_all_that_can_be_used(browser, report):
    with opened(browser, report) as page:
        order = []
        for _ in range(14):
            page.keyboard.press("Tab")
            order.append(focused(page))
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", order
        ids = ["together-chart", "process", "single-chart", "peak", "before", "after", "closer"]
        assert order[:8] == [*ids, "wider"]
        assert [text[:5] for text in order[8:10]] == ["main.", "main."]
        assert [text[-2:] for text in order[10:12]] == [" s", " s"]


def test_names_for_those_who_do_not_see(browser, report):
    with opened(browser, report) as page:
        assert page.get_by_role("slider", name="Point of time").count() == 2
        assert page.get_by_role("img", name="Footprint of all processes over time").count() <= 1
        assert page.get_by_role("heading", name="Refusals").count() == 1
        assert page.get_by_role("combobox", name="Process").count() == 1
        assert page.locator("#point").get_attribute("aria-live") == "polite"
        assert page.locator("button:not([type=button])").count() == 0
        unnamed = "[...document.querySelectorAll('button')].filter((b) => !b.textContent).length"
        assert page.evaluate(unnamed) == 0


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_read_stands_out_and_lines_differ_by_more_than_colour(browser, scheme, report):
    with opened(browser, report, color_scheme=scheme) as page:
        style = "getComputedStyle(document.querySelector('{}')).{}"
        paper = page.evaluate(style.format("body", "backgroundColor"))
        assert (luminance(paper) < 0.05) == (scheme == "dark")
        for selector, name, least in (
            ("body", "color", 7),
            (".soft", "color", 4.5),
            ("svg text", "fill", 4.5),
            ("svg text.limit", "fill", 4.5),
            (".line.footprint", "stroke", 3),
            (".line.active", "stroke", 3),
            (".line.cache", "stroke", 3),
            (".line.resident", "stroke", 3),
            (".limit-line", "stroke", 3),
            (".refusal", "fill", 3),
            (".wait", "fill", 3),
        ):
            colour = page.evaluate(style.format(selector, name))
            assert contrast(colour, paper) >= least, (selector, colour)
        dashes = [
            page.evaluate(style.format(f".line.{kind}", "strokeDasharray"))
            for kind in ("footprint", "active", "cache", "resident")
        ]
        assert len(set(dashes)) == 4
        inside = page.evaluate(style.format("svg text.inside", "fill"))
        for kind in ("c0", "c1"):
            assert contrast(page.evaluate(style.format(f".{kind}", "fill")), inside) >= 3.5


def test_on_a_phone_nothing_is_beside_the_screen(browser, report):
    with opened(browser, report, viewport={"width": 360, "height": 740}, has_touch=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.locator("#single-chart svg").bounding_box()["width"] <= 360
        page.locator("#single-chart svg").tap(position={"x": 80, "y": 100})
        assert page.inner_text("#point-head").startswith("At 0")
        assert "footprint 47 MiB" not in page.inner_text("#point")
        small = "[...document.querySelectorAll('button')].filter((b) => b.offsetHeight < 30).length"
        assert page.evaluate(small) == 0


def test_on_paper_it_is_light_and_has_no_buttons(browser, report, tmp_path):
    with opened(browser, report, color_scheme="dark") as page:
        page.emulate_media(media="print")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert luminance(paper) > 0.9
        assert page.locator(".bar:visible").count() == 0
        assert page.locator("#refusals .paper:visible").count() == 2
        page.emulate_media(media="screen")
        pdf = page.pdf(format="A4")
        assert pdf.startswith(b"%PDF")


def test_a_recording_of_one_process_and_one_of_nothing(browser, tmp_path):
    with Writer(tmp_path / "one.rec", at=0.0) as writer:
        writer.process(0.0, 5, command="one", memory_limit=1 << 50)
        writer.sample(1.0, 5, footprint=MIB)
    with Writer(tmp_path / "none.rec", at=0.0):
        pass
    for name in ("one", "none"):
        (tmp_path / f"{name}.html").write_bytes(make(load(tmp_path / f"{name}.rec"), 0.0))
    with opened(browser, tmp_path / "one.html") as page:
        assert not page.is_visible("#together")
        assert not page.is_visible("#choice")
        assert "limit 1 PiB" in page.inner_text("#point")
        assert "Nobody noted who held it" in page.inner_text("#holders")
    with opened(browser, tmp_path / "none.html") as page:
        assert "There is no sample in the recording." in page.inner_text("#notes")
        assert page.locator("section:visible").count() == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Of 80 processes, with long names and deep stacks of ever new lines, refused and waiting."""
    path = tmp_path_factory.mktemp("large") / "large.rec"
    with Writer(path, at=0.0, max_bytes=1 << 40) as writer:
        for pid in range(80):
            writer.process(0.0, pid, command=f"{'x' * 900} {pid}", memory_limit=100 * MIB)
        for step in range(700):
            for pid in range(80):
                size = (step * 7_919_777 + pid * 104_729_777) % (100 * MIB)
                writer.sample(step, pid, footprint=size, active=size, resident=size, waits=step)
            stack = [("y" * 500 + f"{step}.py", line, "z" * 500) for line in range(60)]
            held = Holder("y" * 500, 1, "z" * 500, step, 1, tuple(stack))
            writer.holders(step, step % 80, [held])
            writer.refusal(step, step % 80, requested=step, limit=100 * MIB, holders=[held])
        writer.end(700, 3, "vanished")
    return load(path)


def test_a_large_recording_makes_a_page_of_bounded_size_with_its_peaks(browser, large, tmp_path):
    page = make(large, 0.0)
    assert MIB < len(page) <= 4 * MIB
    data = data_of(page)
    assert all(max(process["footprint"]) == process["peak"] for process in data["processes"])
    sums = [sum(one) for one in zip(*data["together"]["heights"], strict=True)]
    # At one instant, which is less than all peaks together.
    assert max(sums) == data["highest"] == large.held_at(large.peak_at())
    assert max(sums) < sum(process.peak for process in large.processes)
    highest = max(process.peak for process in large.processes)
    assert max(process["peak"] for process in data["processes"]) == highest
    assert any("that held least are not shown" in note for note in data["notes"])
    path = tmp_path / "large.html"
    path.write_bytes(page)
    with opened(browser, path) as shown:
        assert shown.locator("#together-chart .area").count() == 6
        assert "other processes" in shown.inner_text("#together-legend")
        shown.focus("#single-chart")
        shown.keyboard.press("PageUp")
        assert shown.evaluate("document.documentElement.scrollWidth") <= 1200
