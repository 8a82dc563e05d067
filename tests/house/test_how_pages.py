"""What docs/how says holds, and its drawings can be read: on light and dark ground, and aloud."""

import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from support.browser import opened, started
from support.places import ROOT

HOW = ROOT / "docs" / "how"
TOURS = [HOW / "block.md", HOW / "heaps.md", HOW / "ledger.md"]
PAGES = sorted(HOW.glob("*.md"))
DRAWINGS = sorted(HOW.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"

# What is wrong with a drawing as it is shown: a list of sentences.
FAULTS = """
() => {
  const faults = [], said = element => JSON.stringify(element.textContent);
  const size = document.documentElement.viewBox.baseVal;
  const texts = [...document.querySelectorAll("text")].map(element => {
    const box = element.getBBox();
    return {element, left: box.x, top: box.y, right: box.x + box.width, bottom: box.y + box.height};
  });
  const rects = [...document.querySelectorAll("rect")].map(element => {
    const box = element.getBBox();
    return {element, left: box.x, top: box.y, right: box.x + box.width, bottom: box.y + box.height};
  });
  const area = box => (box.right - box.left) * (box.bottom - box.top);
  const luminance = color => {
    const parts = color.match(/\\d+/g).slice(0, 3).map(part => {
      const value = part / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  texts.forEach((text, number) => {
    if (text.left < 6 || text.right > size.width - 6 || text.bottom > size.height - 4)
      faults.push(said(text.element) + " leaves the drawing");
    for (const other of texts.slice(number + 1))
      if (text.left < other.right && other.left < text.right
          && text.top + 3 < other.bottom && other.top + 3 < text.bottom)
        faults.push(said(text.element) + " lies over " + said(other.element));
    const x = (text.left + text.right) / 2, y = (text.top + text.bottom) / 2;
    const [under] = rects
      .filter(rect => rect.left <= x && x <= rect.right && rect.top <= y && y <= rect.bottom)
      .sort((one, other) => area(one) - area(other));
    if (text.left < under.left + 2 || text.right > under.right - 2)
      faults.push(said(text.element) + " is longer than its shape");
    const tones = [text, under].map(part => luminance(getComputedStyle(part.element).fill));
    tones.sort((one, other) => other - one);
    if ((tones[0] + 0.05) / (tones[1] + 0.05) < 4.5)
      faults.push(said(text.element) + " has too little contrast");
  });
  for (const line of document.querySelectorAll("path.line, path.limit"))
    for (let at = 0; at <= line.getTotalLength(); at += 2) {
      const point = line.getPointAtLength(at);
      const hit = texts.find(text => text.left < point.x && point.x < text.right
        && text.top + 3 < point.y && point.y < text.bottom - 3);
      if (hit) { faults.push("a line crosses " + said(hit.element)); break; }
    }
  return [texts.length, faults, getComputedStyle(rects[0].element).fill];
}
"""


def name(path):
    return path.stem


def blocks(page):
    return re.findall(r"^```(\S+)\n(.*?)^```$", page.read_text(), re.M | re.S)


def drawing_script():
    spec = importlib.util.spec_from_file_location("draw", HOW / "draw.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(HOW))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(HOW))
    return module


def test_there_are_pages_and_drawings():
    assert {*PAGES} == {HOW / "index.md", *TOURS}
    assert {language for page in PAGES for language, _ in blocks(page)} == {"pycon", "{toctree}"}
    [tree] = [text for language, text in blocks(HOW / "index.md") if language == "{toctree}"]
    assert {page.stem for page in PAGES} == {"index", *tree.split("\n\n")[1].split()}


@pytest.mark.host  # Metal has other sizes, and cuts nothing
@pytest.mark.parametrize("page", TOURS, ids=name)
def test_what_a_page_shows_is_so(page, tmp_path):
    tour = tmp_path / "tour.txt"
    tour.write_text("\n".join(text for language, text in blocks(page) if language == "pycon"))
    # A process of its own: counters start at 0, and limits are set.
    words = [sys.executable, "-W", "error", "-m", "doctest", tour]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_drawings_are_those_of_the_script():
    drawn = {draw.__name__: draw().svg() for draw in drawing_script().DRAWINGS}
    assert {path.stem: path.read_text() for path in DRAWINGS} == drawn


@pytest.mark.parametrize("path", DRAWINGS, ids=name)
def test_a_drawing_is_told_to_who_cannot_see_it(path):
    root = ET.parse(path).getroot()
    assert root.get("role") == "img"
    ids = root.get("aria-labelledby").split()
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert [title.get("id"), description.get("id")] == ids
    assert len(title.text) > 10
    assert len(description.text) > 100
    # A telephone's width, less margins, times no less than 0.7: text of 10 points there.
    assert int(root.get("viewBox").split()[2]) <= 480
    # Nothing is asked of the network.
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", path.read_text())


def test_each_drawing_is_in_one_page_with_words_for_it():
    shown = [
        found for page in PAGES for found in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text())
    ]
    assert sorted(file for _, file in shown) == [path.name for path in DRAWINGS]
    assert all(len(words) > 40 for words, _ in shown)


@pytest.mark.host  # one browser is enough
def test_the_drawings_can_be_read_on_light_and_dark_ground():
    grounds = {}
    with started() as browser:
        for scheme in ("light", "dark"):
            for path in DRAWINGS:
                with opened(browser, path, color_scheme=scheme) as page:
                    texts, faults, ground = page.evaluate(FAULTS)
                assert faults == [], (path.name, scheme)
                assert texts >= 5
                grounds.setdefault(scheme, set()).add(ground)
    assert grounds == {"light": {"rgb(255, 255, 255)"}, "dark": {"rgb(20, 24, 31)"}}
