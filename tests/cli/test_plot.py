"""`memlimits plot`: pictures for papers, looked at as what they are."""

import re
import shutil
import struct
import subprocess

import pytest

from memlimits.recording import Writer, load
from support.commands import execute

MIB = 1 << 20

pytest.importorskip("matplotlib")


@pytest.fixture
def plot(recorded, tmp_path):
    def run(*words, file=recorded, code=0):
        done = execute("-m", "memlimits", "plot", file, *words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stderr.decode()

    return run


def size_of(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def test_a_png_has_the_size_that_was_asked_for(plot, tmp_path):
    assert "made a.png (" in plot("-o", "a.png")
    assert size_of((tmp_path / "a.png").read_bytes()) == (1400, 784)
    plot("-o", "b.png", "--width", "3.5", "--height", "2", "--dpi", "300")
    assert size_of((tmp_path / "b.png").read_bytes()) == (1050, 600)


def test_the_fonts_of_a_pdf_are_in_it(plot, tmp_path):
    plot("-o", "a.pdf", "--title", "A run of $x^2$")
    data = (tmp_path / "a.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert b"/FontFile2" in data
    assert b"/Type3" not in data
    if shutil.which("pdftotext"):
        words = ["pdftotext", "-layout", tmp_path / "a.pdf", "-"]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        for word in ("A run of $x^2$", "96 MiB", "seconds", "limit", "refusal", "python -c CHILD"):
            assert word in text


def test_an_svg_needs_no_font_and_is_the_same_each_time(plot, tmp_path):
    for name in ("a.svg", "b.svg"):
        plot("-o", name, "--title", "$x^2$ <b>")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "<text" not in text
    assert not re.search(r"<b>", re.sub(r"<!--.*?-->", "", text))


def colours(path):
    """How many points of a picture have each colour, those of lines at its edges left out."""
    pillow = pytest.importorskip("PIL.Image")
    with pillow.open(path) as image:
        found = image.convert("RGB").getcolors(1 << 24)
    return {"#{:02X}{:02X}{:02X}".format(*colour): count for count, colour in found}


def test_lines_limit_and_refusals_are_in_the_picture(plot, recorded, tmp_path):
    parent, child = load(recorded).processes
    plot("-o", "all.png")
    found = colours(tmp_path / "all.png")
    # Areas of both processes; the limit, and two refusals.
    assert found["#56B4E9"] > found["#E69F00"] > 10_000
    assert found["#D55E00"] > 2000
    plot("-o", "parent.png", "--process", parent.pid)
    found = colours(tmp_path / "parent.png")
    assert min(found[colour] for colour in ("#0072B2", "#E69F00", "#009E73", "#CC79A7")) > 300
    assert found["#D55E00"] > 2000
    plot("-o", "child.png", "--process", child.pid)
    # It has neither.
    assert colours(tmp_path / "child.png").get("#D55E00", 0) == 0


def test_areas_are_as_high_as_what_was_held(tmp_path, plot):
    """Four parts of time, in which it is 1, 3, 2 and 0 of 3."""
    with Writer(tmp_path / "a.rec", at=0.0) as writer:
        for at, size in enumerate((10, 30, 20, 20)):
            writer.sample(float(at), 5, footprint=size * MIB)
            writer.sample(float(at), 6, footprint=0)
        writer.end(3.0, 5, "exited")
        writer.sample(4.0, 6, footprint=0)
        writer.close(4.0)
    plot("-o", "a.png", file="a.rec")
    pillow = pytest.importorskip("PIL.Image")
    with pillow.open(tmp_path / "a.png") as image:
        rgb = image.convert("RGB")
        heights = [
            sum(rgb.getpixel((x, y)) == (0x56, 0xB4, 0xE9) for y in range(rgb.height - 150))
            for x in range(rgb.width)
        ]
    filled = [x for x, height in enumerate(heights) if height > 20]
    width = (filled[-1] - filled[0]) / 3
    at = [heights[int(filled[0] + width * (part + 0.5))] for part in range(3)]
    assert abs(at[1] / at[0] - 3) < 0.1
    assert abs(at[2] / at[0] - 2) < 0.1
    assert filled[-1] < len(heights) * 0.85


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "a.gif"), "a.gif: a picture's name ends in .png, .svg or .pdf"),
        (("-o", "missing/a.png"), "there is no folder missing"),
        (("-o", "a.png", "--width", "0"), "invalid number '0': write one from 1 to 40"),
        (("-o", "a.png", "--dpi", "many"), "invalid number 'many': write one from 20 to 1200"),
        (("-o", "a.png", "--process", "0"), "has no process 0 with samples; it has "),
    ],
)
def test_what_cannot_be_drawn(words, message, plot, tmp_path):
    said = plot(*words, code=2)
    assert said.startswith("memlimits: ")
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw_and_a_file_that_is_there(plot, tmp_path):
    with Writer(tmp_path / "a.rec"):
        pass
    assert "there is no sample in it" in plot("-o", "a.png", file="a.rec", code=2)
    (tmp_path / "b.png").write_text("mine")
    assert "it is there already: write --force" in plot("-o", "b.png", code=2)
    assert (tmp_path / "b.png").read_text() == "mine"
    plot("-o", "b.png", "--force")


def test_many_processes_share_the_last_area(plot, tmp_path):
    with Writer(tmp_path / "a.rec", at=0.0) as writer:
        for step in range(50):
            for pid in range(30):
                writer.sample(step * 3600.0, pid, footprint=(pid + 1) * MIB, waits=step // 20)
    plot("-o", "a.png", file="a.rec")
    found = colours(tmp_path / "a.png")
    assert found["#999999"] > found["#56B4E9"] > 1000
    assert found["#6A4FB3"] > 50
