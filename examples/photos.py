"""Smooth photographs in as large pieces as the memory allows.

A bilateral filter makes each pixel the mean of those around it, weighted by how near they are and
how alike they look: noise goes, edges stay. As one NumPy expression that takes 81 neighbours of
every pixel at once, 250 MiB for each temporary. So the program begins with a whole photograph,
and takes half as many rows at a time whenever that many are refused. It knows nothing of memlimits:

    memlimits run --memory-limit 128MiB examples/photos.py

Without a limit nothing is refused before the machine has no more. The photographs are files of the
package scikit-learn, which Pillow reads: ``pip install scikit-learn pillow``.
"""

import argparse
from importlib.metadata import distribution

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

RADIUS = 4
WIDTH = 2 * RADIUS + 1
ALIKE = 25.0  # of 255: colours that differ by much more count for little
OFFSETS = np.hypot(*np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1])
NEARNESS = np.exp(-((OFFSETS / RADIUS) ** 2)).astype(np.float32)


def load(name):
    """Return a photograph: rows, columns, three colours."""
    path = distribution("scikit-learn").locate_file(f"sklearn/datasets/images/{name}")
    with Image.open(path) as image:
        return np.asarray(image, np.float32)


def smooth(padded):
    """Return what lies RADIUS pixels and more within the edges, smoothed."""
    around = sliding_window_view(padded, (WIDTH, WIDTH), axis=(0, 1))
    centre = padded[RADIUS:-RADIUS, RADIUS:-RADIUS, :, np.newaxis, np.newaxis]
    apart = np.square(around - centre).sum(axis=2)
    weights = NEARNESS * np.exp(apart / (-2 * ALIKE**2))
    total = (around * weights[:, :, np.newaxis]).sum(axis=(-2, -1))
    return total / weights.sum(axis=(-2, -1))[..., np.newaxis]


def smooth_in_strips(photo):
    """Return the photograph smoothed, and how many rows were tried at a time, the last for all."""
    padded = np.pad(photo, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="edge")
    result = np.empty_like(photo)
    tried = [len(photo)]
    start = 0
    while start < len(photo):
        stop = min(start + tried[-1], len(photo))
        try:
            result[start:stop] = smooth(padded[start : stop + 2 * RADIUS])
        except MemoryError:
            if tried[-1] == 1:
                raise
            tried.append(tried[-1] // 2)
        else:
            start = stop
    return result, tried


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", metavar="FILE.npz", help="write the photographs to this file")
    save = parser.parse_args().save

    pictures = {}
    for name in ("china.jpg", "flower.jpg"):
        photo = load(name)
        result, tried = smooth_in_strips(photo)
        moved = np.abs(result - photo).mean()
        print(f"{name}: {len(photo)} x {photo.shape[1]} pixels, each moved by {moved:.2f} of 255")
        print(f"  rows at a time: {', '.join(map(str, tried))}")
        pictures |= {name: photo.astype(np.uint8), f"smooth {name}": result.astype(np.uint8)}
    if save:
        np.savez(save, **pictures, rows=tried[-1])


if __name__ == "__main__":
    main()
