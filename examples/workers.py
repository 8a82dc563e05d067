"""Recognise handwritten digits in a pool of worker processes.

What digits.py does in one process, 64 rows at a time, several processes do here
at once. A worker holds two temporaries of 56 MiB at a time: all of them together
take what their number says, unless somebody keeps them apart.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from digits import load_digits, nearest, positive

CHUNK = 64


def classify(start):
    """Return the digits of CHUNK images from `start` on."""
    images, digits = load_digits()
    stop = min(start + CHUNK, len(images))
    return digits[nearest(images, start, stop)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=positive, default=4, help="processes (4)")
    workers = parser.parse_args().workers

    _images, digits = load_digits()
    with ProcessPoolExecutor(workers) as pool:
        answers = np.concatenate(list(pool.map(classify, range(0, len(digits), CHUNK))))
    right = np.count_nonzero(answers == digits)
    print(f"{right} of {len(digits)} digits recognised ({right / len(digits):.1%})")


if __name__ == "__main__":
    main()
