"""Load pieces of photographs for a GPU with torch's DataLoader, into memory that CUDA knows.

A GPU copies by itself, beside other work, from memory that is registered with CUDA. Here `collate`
stacks each batch in a wired array: within the wired limit that is registered, once, and later
batches are stacked in the same memory. Without a CUDA GPU the same batches are computed from.

    memlimits run --govern numpy --memory-limit 32MiB --wired-limit 7MiB examples/loader.py

The work is to tell from the mean colour which photograph a piece is of. The photographs are files
of the package scikit-learn: ``pip install torch scikit-learn pillow``.
"""

import argparse
import contextlib
import time

import numpy as np
import torch
from photos import load
from torch.utils.data import DataLoader, Dataset

import memlimits

GPU = torch.cuda.is_available()


class Pieces(Dataset):
    """Pieces of two photographs, three colours x size x size, and of which each is."""

    def __init__(self, size, count=512):
        self.size, self.photos = size, [load("china.jpg"), load("flower.jpg")]
        corners = np.random.default_rng(0).integers(0, (427 - size, 640 - size), (count, 2))
        self.places = corners.tolist()

    def __len__(self):
        return len(self.places)

    def __getitem__(self, number):
        row, column = self.places[number]
        piece = self.photos[number % 2][row : row + self.size, column : column + self.size]
        return np.ascontiguousarray(piece.transpose(2, 0, 1)), number % 2


def collate(items):
    """Stack a batch where CUDA can copy from."""
    pieces, of = zip(*items, strict=True)
    batch = memlimits.empty((len(pieces), *pieces[0].shape), np.float32, wired=True)
    return torch.from_numpy(np.stack(pieces, out=batch)), torch.tensor(of)


def on_device(loader):
    """Yield batches there. Each is kept until it is copied, while the next is made."""
    copied = kept = None
    for pieces, of in loader:
        there = pieces.to("cuda" if GPU else "cpu", non_blocking=True)
        if copied:
            copied.synchronize()
        kept, copied = pieces, GPU and torch.cuda.current_stream().record_event()  # noqa: F841
        yield there, of
    if copied:
        copied.synchronize()


def mean_colours(loader):
    """Return those of all pieces, and of which photograph each is."""
    colours, of = zip(*((pieces.mean((2, 3)), of) for pieces, of in on_device(loader)), strict=True)
    return torch.cat(colours).cpu(), torch.cat(of)


def compare(loaders):
    """Return the ms that a batch takes each way, medians of rounds in turns."""
    took = {way: [] for way in loaders}
    for way, loader in list(loaders.items()) * 9:
        begin = time.perf_counter()
        mean_colours(loader)
        took[way].append((time.perf_counter() - begin) / len(loader) * 1e3)
    return {way: sorted(times)[4] for way, times in took.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--compare", action="store_true", help="time it, with larger pieces")
    compares = parser.parse_args().compare
    data, each = Pieces(224 if compares else 128), 64 if compares else 16
    loader = DataLoader(data, each, collate_fn=collate)
    with memlimits.cuda.attach() if GPU else contextlib.nullcontext():
        colours, of = mean_colours(loader)
        means = torch.stack([colours[of == photo].mean(0) for photo in range(2)])
        right = (torch.cdist(colours, means).argmin(1) == of).float().mean()
        pinned = GPU and all(pieces.is_pinned() for pieces, _ in loader)
        print(f"{len(data)} pieces, on a GPU: {GPU}, batches are pinned: {pinned}")
        print(f"{right:.0%} told from their mean colour")
        if compares:
            ways = {"pageable": DataLoader(data, each), "memlimits": loader}
            ways["pin_memory"] = DataLoader(data, each, pin_memory=GPU)
            print("ms a batch:", *(f"{way} {ms:.2f}" for way, ms in compare(ways).items()))


if __name__ == "__main__":
    main()
