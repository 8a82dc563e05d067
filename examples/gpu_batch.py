"""Give a photograph's patches to a GPU in batches, through two buffers that stay in RAM.

Each patch of 8 x 8 pixels is given the nearest of 12 kinds of patch. All patches would take 195
MiB at once. What a GPU copies from by itself must not be moved or swapped: the buffers are wired,
within the wired limit, and registered with CUDA. Without torch and a CUDA GPU NumPy computes from
the same buffers. Arrays and blocks are limited alone: importing torch takes 80 MiB of objects.

    memlimits run --govern numpy --memory-limit 16MiB --wired-limit 4MiB examples/gpu_batch.py

The photograph is a file of the package scikit-learn: ``pip install scikit-learn pillow``.
"""

import argparse

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from photos import load

import memlimits

KINDS = 12
ROWS = 4  # of the photograph, in a batch


def nearest(batch, centres):
    """Return which centre is nearest to each of a batch, of NumPy's or torch's arrays."""
    return (batch @ centres.T - (centres**2).sum(1) / 2).argmax(1)


def find_kinds(patches):
    """Return the centres of KINDS clusters of some patches, by k-means from evenly spaced ones."""
    some = patches[::12, ::12].reshape(-1, patches[0, 0].size)
    centres = some[np.argsort(some.sum(axis=1))][:: len(some) // KINDS][:KINDS]
    for _ in range(8):
        found = nearest(some, centres)
        centres = np.stack([some[found == kind].mean(axis=0) for kind in range(KINDS)])
    return centres


def staged(patches, buffers, done):
    """Copy batch after batch into the buffers, in turns, each when it is `done` with the last."""
    for number, start in enumerate(range(0, len(patches), ROWS)):
        turn = number % 2
        done[turn]()
        part = patches[start : start + ROWS]
        batch = buffers[turn][: part.size].reshape(-1, part[0, 0].size)
        batch.reshape(part.shape)[...] = part
        yield turn, batch


def on_cpu(_, patches, buffers, centres):
    batches = staged(patches, buffers, [lambda: None] * 2)
    return np.concatenate([nearest(batch, centres) for _, batch in batches])


def on_gpu(torch, patches, buffers, centres):
    done, found = [lambda: None] * 2, []
    with memlimits.cuda.attach():
        centres = torch.from_numpy(centres).cuda()
        for turn, batch in staged(patches, buffers, done):
            there = torch.from_numpy(batch).to("cuda", non_blocking=True)
            done[turn] = torch.cuda.current_stream().record_event().synchronize
            found.append(nearest(there, centres))
        return torch.cat(found).cpu().numpy()  # once all of it is done


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", metavar="FILE.npz", help="write the photograph and the kinds")
    save = parser.parse_args().save

    photo = load("china.jpg")
    patches = sliding_window_view(photo, (8, 8), axis=(0, 1))  # one at each pixel
    centres = find_kinds(patches)
    nbytes = patches[:ROWS].size * 4
    blocks = [memlimits.allocate(nbytes, wired=True) for _ in range(2)]
    buffers = [np.frombuffer(block, np.float32) for block in blocks]
    print(f"buffers: 2 x {nbytes:,} bytes, wired {memlimits.stats().wired:,}")
    try:
        import torch
    except ImportError:
        torch = None
    gpu = torch and torch.cuda.is_available() and torch.cuda.get_device_name()
    print("computed by", gpu or "NumPy: no torch with a CUDA GPU")
    found = (on_gpu if gpu else on_cpu)(torch, patches, buffers, centres)
    parts = np.bincount(found, minlength=KINDS) / len(found)
    print(f"{len(found):,} patches, of each kind in %:", *(f"{part:.0%}"[:-1] for part in parts))
    if save:
        np.savez(save, photo=photo, kinds=found.reshape(patches.shape[:2]), centres=centres)


if __name__ == "__main__":
    main()
