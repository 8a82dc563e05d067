"""Run the examples and draw the pictures of docs/examples.md: what each held, and what it did.

    python examples/pictures.py                       # all of them, into docs/pictures
    python examples/pictures.py -o /tmp photos flights

Needs matplotlib and pillow, and what the examples need.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from memlimits.recording import load

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
# Colours that people who do not see all of them can tell (Okabe and Ito).
BLUE, SKY, GREEN, ORANGE, RED = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
GREY = "#808080"
STYLE = {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}


# ---- running ----


def run(program, *arguments, limit=None, options=(), save=None):
    """Run an example, recorded; return what it printed and saved, and what it held when."""
    with tempfile.TemporaryDirectory() as folder:
        recording, saved = Path(folder, "run.rec"), Path(folder, save or "")
        command = [sys.executable, "-m", "memlimits", "run", "--quiet", f"--record={recording}"]
        command += [f"--memory-limit={limit}MiB"] if limit else []
        command += [*options, str(HERE / program), *arguments]
        command += ["--save", str(saved)] if save else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        history = load(recording)
        data = None
        if save:
            data = json.loads(saved.read_text()) if saved.suffix == ".json" else np.load(saved)
            data = dict(data) if saved.suffix == ".npz" else data
    samples = (sample for process in history.processes for sample in process.samples)
    times = sorted({sample.at for sample in samples})
    return SimpleNamespace(
        output=done.stdout,
        saved=data,
        history=history,
        limit=limit,
        began=history.first,
        times=[at - history.first for at in times],
        held=[history.held_at(at) / MIB for at in times],
        refused=[refusal.at - history.first for refusal in history.refusals],
    )


# ---- what all pictures have ----


def draw_limit(axes, limit, name="limit"):
    axes.axhline(limit, color=RED, linewidth=1.2)
    axes.annotate(
        f"{name} {limit} MiB", (1, limit), (0, 3), color=RED, ha="right",
        xycoords=("axes fraction", "data"), textcoords="offset points",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
    )  # fmt: skip


def draw_memory(axes, limited, free=None):
    """Draw what a run held within its limit, and what another took without one."""
    if free:
        axes.step(free.times, free.held, where="post", color=GREY, linewidth=1.2, label="no limit")
    axes.step(limited.times, limited.held, where="post", color=BLUE, linewidth=1.4, label="limited")
    axes.fill_between(limited.times, limited.held, step="post", color=SKY, alpha=0.4, linewidth=0)
    draw_limit(axes, limited.limit)
    if limited.refused:
        heights = [limited.limit] * len(limited.refused)
        axes.plot(limited.refused, heights, "v", color=RED, markersize=6, label="refused")
    finish_memory(axes)


def finish_memory(axes):
    axes.set(xlabel="seconds", ylabel="MiB", xlim=(0, None), ylim=(0, axes.get_ylim()[1] * 1.05))
    legend_above(axes)


def legend_above(axes):
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)


def show(axes, image, title):
    axes.imshow(image)
    axes.set_title(title)
    axes.set_axis_off()


# ---- a picture of each ----


def photos(figure):
    free = run("photos.py")
    limited = run("photos.py", limit=128, save="photos.npz")
    before, after = limited.saved["china.jpg"], limited.saved["smooth china.jpg"]
    rows = int(limited.saved["rows"])
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    half = before.shape[1] // 2
    show(
        left,
        np.hstack([before[:, :half], after[:, half:]]),
        f"as it is | smoothed, {rows} rows at a time",
    )
    for row in range(rows, len(before), rows):
        left.plot([half, 2 * half - 1], [row, row], color="white", linewidth=0.6, linestyle=":")
    draw_memory(right, limited, free)


def flights(figure):
    free = run("flights.py")
    limited = run("flights.py", limit=200, options=["--holders=1MiB"])
    found = re.findall(r"(\d+) to +(\d+) miles: +([\d.]+)", limited.output)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
    names = [f"{low} to {high}" for low, high, _ in found]
    bars = left.bar(names, [float(minutes) for *_, minutes in found], color=BLUE)
    left.bar_label(bars, fmt="%.0f")
    left.set(xlabel="miles of visibility", ylabel="minutes late")
    draw_memory(right, limited, free)


def kv_cache(figure):
    free = run("kv_cache.py", save="held.npy").saved / MIB
    limited = run("kv_cache.py", "--cache=28", save="held.npy").saved / MIB
    axes = figure.subplots()
    colours = [matplotlib.colormaps["tab20"](n % 20) for n in range(limited.shape[1])]
    rounds = np.arange(len(limited))
    axes.stackplot(rounds, limited.T, colors=colours, linewidth=0, step="post")
    axes.plot(free.sum(axis=1), color=GREY, label="no budget")
    given_up = [(n, of) for n, of in zip(*np.nonzero(np.diff(limited, axis=0) < 0), strict=True)]
    again = [n for n, of in given_up if limited[n + 1 :, of].any()]
    axes.plot(
        again, [28] * len(again), "v", color=RED, label="gives up its pages, begins again later"
    )
    draw_limit(axes, 28, "budget")
    axes.set(
        xlabel="rounds: a word of each request that runs", ylabel="MiB, a colour for each request"
    )
    axes.set(xlim=(0, len(limited)), ylim=(0, None))
    axes.legend(frameon=False)


def workers(figure):
    free = run("workers.py", limit=4096)
    limited = run("workers.py", limit=400, options=["--policy=wait"])
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, one in ((left, free), (right, limited)):
        instants = [sample.at for sample in one.history.pool]
        heights = np.array([held_of_each(one.history, sample) for sample in one.history.pool]).T
        times = [at - one.began for at in instants]
        colours = [GREY, SKY, ORANGE, GREEN, "#CC79A7"]
        axes.stackplot(
            times, heights, step="post", colors=colours, edgecolor="white", linewidth=0.4
        )
        axes.set(xlabel="seconds", xlim=(0, None))
        axes.tick_params(labelleft=True)
    left.set(title="room for all", ylabel="MiB, a colour for each process")
    right.set(title="400 MiB for all: who finds no room waits")
    draw_limit(right, 400)


def held_of_each(history, together):
    """Return the MiB of each process; what they have from their parent counts once, as its own."""
    samples = [process.sample_at(together.at) for process in history.processes]
    held = np.array([sample.footprint if sample else 0 for sample in samples], float)
    forked = np.arange(len(held)) > 0
    forked &= held > 0
    if forked.any():
        held[forked] -= max(0, held.sum() - together.used) / forked.sum()
    return held.clip(0) / MIB


def service(figure):
    limited = run("service.py", limit=160, save="tries.json")
    left, right = figure.subplots(1, 2)
    for status, colour, marker in ((200, BLUE, "o"), (503, RED, "v"), (413, ORANGE, "s")):
        of = [
            (at - limited.began, 1000 * took, n)
            for at, took, n, answer in limited.saved
            if answer == status
        ]
        at, took, sizes = zip(*of, strict=True)
        marked = {"color": colour, "marker": marker, "alpha": 0.75, "label": f"{status}: {len(of)}"}
        left.scatter(at, took, [8 + min(size, 40) for size in sizes], linewidth=0, **marked)
    left.set(xlabel="seconds", ylabel="milliseconds to the answer", yscale="log", xlim=(0, None))
    left.yaxis.set_major_formatter("{x:,.0f}")
    legend_above(left)
    draw_memory(right, limited)
    right.set_xlim(left.get_xlim())


def gpu_batch(figure):
    limited = run(
        "gpu_batch.py", limit=16, options=["--govern=numpy", "--wired-limit=4MiB"], save="kinds.npz"
    )
    photo, kinds, centres = (limited.saved[name] for name in ("photo", "kinds", "centres"))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.1, 1.1, 1])
    show(left, photo.astype(np.uint8), "photograph")
    colours = centres.reshape(len(centres), 3, -1).mean(axis=2)
    show(middle, colours[kinds].astype(np.uint8), "12 kinds, in their mean colours")
    peak = max(process.samples[-1].peak for process in limited.history.processes) / MIB
    computed = re.search(r"computed by [^:\n]+", limited.output)[0]
    wired = int(re.search(r"wired ([\d,]+)", limited.output)[1].replace(",", "")) / MIB
    sizes = {
        "all patches": kinds.size * centres.shape[1] * 4 / MIB,
        "at most held": peak,
        "wired of it": wired,
    }
    names = [f"{name}\n{size:.0f} MiB" for name, size in sizes.items()]
    right.barh(names, list(sizes.values()), color=[GREY, BLUE, SKY])
    right.invert_yaxis()
    right.axvline(16, color=RED, linewidth=1.2)
    right.annotate("limit 16 MiB", (16, 1), (4, 0), "data", "offset points", color=RED, va="center")
    right.set(xlabel="MiB", title=computed)


PICTURES = {
    each.__name__: each for each in (photos, flights, kv_cache, workers, service, gpu_batch)
}


def write(figure, path):
    """Write a picture with 128 colours, which take a third of the bytes."""
    full = io.BytesIO()
    figure.savefig(full, dpi=150)
    with Image.open(full) as image:
        image.convert("RGB").quantize(128).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("-o", "--output", type=Path, default=HERE.parent / "docs" / "pictures")
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - set(PICTURES):
        parser.error(f"no picture is called {', '.join(sorted(unknown))}: {', '.join(PICTURES)}")
    wanted.output.mkdir(exist_ok=True)
    for name in wanted.names or PICTURES:
        with matplotlib.rc_context(STYLE):
            figure = Figure((8, 2.9), layout="constrained")
            PICTURES[name](figure)
            write(figure, wanted.output / f"{name}.png")
        size = (wanted.output / f"{name}.png").stat().st_size
        print(f"{name}.png: {size:,} bytes")


if __name__ == "__main__":
    main()
