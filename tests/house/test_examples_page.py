"""What docs/examples.md shows is what the examples do, and that is right.

(flights.py needs more packages: tests/drills/test_flights.py.)
"""

import json
import re
import runpy
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

import memlimits
from support.pages import run_as_shown, shown
from support.places import ROOT

PAGE = "docs/examples.md"
MIB = 1 << 20

np = pytest.importorskip("numpy")


@pytest.fixture
def example(tmp_path):
    """What runs an example of the page, and skips where a package is missing."""

    def run(name, *more, files_of=None, needs=()):
        for package in needs:
            pytest.importorskip(package)
        try:
            distribution(files_of or "numpy")
        except PackageNotFoundError:
            pytest.skip(f"{files_of}, whose files the example reads, is not installed")
        return run_as_shown(PAGE, name, tmp_path, *more)

    return run


def test_every_example_is_on_the_page_and_every_command_is_run():
    names = {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}
    # Of others: what kv_cache.py imports, what draws the pictures, and the README's script.
    names -= {"language_model.py", "pictures.py", "run.sh"}
    table = re.findall(r"^\| \[([\w.]+)\]", (ROOT / PAGE).read_text(), re.M)
    assert sorted(table) == sorted(names)
    commands = " ".join(command for command, _ in shown(PAGE))
    drill = (ROOT / "tests/drills/test_flights.py").read_text()
    run = re.findall(
        r'(?:example\(|run_as_shown\(PAGE, )"(\w+\.py)"', drill + Path(__file__).read_text()
    )
    assert sorted(run) == sorted(re.findall(r"examples/(\w+\.py)", commands))


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_an_example_is_short_and_says_what_it_is(name):
    source = (ROOT / "examples" / name).read_text()
    assert name == "pictures.py" or len(source.splitlines()) <= 100
    assert source.startswith('"""')


def test_photographs_are_smoothed_in_pieces_as_they_would_be_at_once(example, tmp_path):
    saved = tmp_path / "photos.npz"
    example("photos.py", "--save", saved, files_of="scikit-learn", needs=["PIL"])
    saved = np.load(saved)
    photo, smooth = saved["flower.jpg"].astype(float), saved["smooth flower.jpg"]
    for row, column in [(0, 0), (52, 300), (53, 300), (200, 639), (426, 10)]:
        total, weights = np.zeros(3), 0.0
        for down in range(-4, 5):
            for right in range(-4, 5):
                other = photo[min(max(row + down, 0), 426), min(max(column + right, 0), 639)]
                apart = ((other - photo[row, column]) ** 2).sum()
                weight = np.exp(-apart / (2 * 25**2) - (down**2 + right**2) / 16)
                total += weight * other
                weights += weight
        assert np.abs(smooth[row, column] - total / weights).max() < 1.01  # it is cut to integers


def test_the_cache_keeps_to_its_budget_and_changes_no_answer(example, tmp_path):
    output = example("kv_cache.py", "--save", tmp_path / "held.npy")
    held = np.load(tmp_path / "held.npy")
    assert 20 * MIB < held.sum(axis=1).max() <= 28 * MIB
    # Under the command what NumPy computes in is charged, too.
    program = [ROOT / "examples" / "kv_cache.py", "--cache", "20"]
    command = [sys.executable, "-m", "memlimits", "run", "--quiet", *program]
    tighter = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert tighter.splitlines()[1] == output.splitlines()[1]
    assert 15 < float(re.search(r"at most ([\d.]+) MiB", tighter)[1]) <= 20
    # The word that is most frequent is one in twelve.
    right, words = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:of|words)", output))
    assert words // 5 < right < words // 2


def test_the_model_attends_to_all_words_and_to_no_more():
    module = runpy.run_path(str(ROOT / "examples" / "language_model.py"))
    texts = module["documents"](500)[:3]
    model = module["Model"](texts)
    text = model.numbers(texts[0][:150])
    pages = np.full((3, 64, model.row), np.nan, np.float32)
    for start in (0, 64, 128):
        stop = min(start + 64, len(text))
        pages[start // 64, : stop - start] = model.keys_and_values(text, start, stop)
    vectors = model.vectors.astype(float)
    values, weights = np.zeros(vectors.shape[1]), 0.0
    for place in range(len(text)):
        one, two = text[max(place - 1, 0)], text[max(place - 2, 0)]
        alike = vectors[one] @ vectors[text[-1]] + vectors[two] @ vectors[text[-2]] / 4
        weight = np.exp(module["SHARP"] * (alike - 1))
        values += weight * vectors[text[place]]
        weights += weight
    assert model.next_word(text, list(pages)) == (vectors @ (values / weights)).argmax()


def test_workers(example):
    example("workers.py", files_of="scikit-learn")


@pytest.mark.skipif("t" in sys.abiflags, reason="who meets whom is another matter without the GIL")
def test_the_service_refuses_some_and_serves_all(example, tmp_path):
    example("service.py", "--save", tmp_path / "tries.json", files_of="scikit-learn")
    tries = json.loads((tmp_path / "tries.json").read_text())
    served = [size for _, _, size, status in tries if status == 200]
    assert (sum(served), max(served)) == (1797, 32)
    assert [size for _, _, size, status in tries if status == 413] == [200]
    assert [size for _, _, size, status in tries if status == 503]


def test_patches_are_of_the_nearest_kind(example, tmp_path):
    saved = tmp_path / "kinds.npz"
    output = example("gpu_batch.py", "--save", saved, files_of="scikit-learn", needs=["PIL"])
    wired = int(re.search(r"wired ([\d,]+)", output)[1].replace(",", ""))
    assert wired <= 4 * MIB
    photo, kinds, centres = (np.load(saved)[name] for name in ("photo", "kinds", "centres"))
    assert kinds.shape == (420, 633)
    for row, column in [(0, 0), (3, 632), (4, 0), (211, 300), (419, 632)]:
        patch = photo[row : row + 8, column : column + 8].transpose(2, 0, 1).astype(float)
        apart = ((centres.reshape(12, 3, 8, 8) - patch) ** 2).sum(axis=(1, 2, 3))
        assert kinds[row, column] == apart.argmin()
    # Kinds differ: each centre is the mean of what is nearest to it, but for a round's difference.
    assert np.bincount(kinds.ravel(), minlength=12).min() > 0


def test_a_loader_stacks_batches_in_wired_memory(example, monkeypatch):
    example("loader.py", files_of="scikit-learn", needs=["PIL", "torch.utils.data"])
    monkeypatch.syspath_prepend(ROOT / "examples")
    module = runpy.run_path(str(ROOT / "examples" / "loader.py"))
    pieces = module["Pieces"](16, 6)
    previous = memlimits.set_wired_limit(MIB)
    try:
        batch, of = module["collate"]([pieces[number] for number in range(6)])
        assert memlimits.stats().wired_requested > 0
    finally:
        memlimits.set_wired_limit(previous)
    assert of.tolist() == [0, 1] * 3
    row, column = pieces.places[3]
    assert (
        batch[3].numpy() == pieces.photos[1][row : row + 16, column : column + 16].T.swapaxes(1, 2)
    ).all()


def test_the_pictures_are_small_and_made_by_the_script(tmp_path):
    pytest.importorskip("matplotlib")
    page = (ROOT / PAGE).read_text()
    named = re.findall(r"^!\[[^\]]{20,}\]\(pictures/(\w+)\.png\)$", page, re.M)
    script = ROOT / "examples" / "pictures.py"
    for name in named:
        data = (ROOT / "docs" / "pictures" / f"{name}.png").read_bytes()
        assert data[:4] == b"\x89PNG"
        assert len(data) < 100_000
    refused = subprocess.run([sys.executable, script, "none"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert sorted(
        refused.stderr.strip().partition(": no picture is called none: ")[2].split(", ")
    ) == sorted(named)
    command = [sys.executable, script, "-o", tmp_path, "gpu_batch"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"gpu_batch\.png: [\d,]+ bytes\n", made)
    data = (tmp_path / "gpu_batch.png").read_bytes()
    assert data[:4] == b"\x89PNG"
    assert len(data) < 100_000
