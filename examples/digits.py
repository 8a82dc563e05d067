"""Recognise handwritten digits by nearest neighbour, leaving one out.

Each of the 1797 images is given the digit of the image nearest to it among all
the others. The data set is a file of the package scikit-learn; nothing of the
package is imported.

The distances come from one broadcast expression, which is simple and hungry:
for all rows at once its two temporaries take 1.5 GiB each. ``--chunk ROWS``
does ROWS rows at a time and needs that fraction of it.
"""

import argparse
from importlib.metadata import distribution

import numpy as np


def load_digits():
    """Return the images, 64 pixels in each row, and the digit each one shows."""
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1], table[:, -1].astype(int)


def nearest(images, start, stop):
    """Return the index of the nearest other image for the images start to stop - 1."""
    difference = images[start:stop, np.newaxis, :] - images[np.newaxis, :, :]
    distances = (difference * difference).sum(axis=-1)
    rows = np.arange(stop - start)
    distances[rows, rows + start] = np.inf
    return distances.argmin(axis=1)


def classify(images, digits, chunk):
    """Return the digit of each image's nearest neighbour, `chunk` rows at a time."""
    answers = np.empty_like(digits)
    for start in range(0, len(images), chunk):
        stop = min(start + chunk, len(images))
        answers[start:stop] = digits[nearest(images, start, stop)]
    return answers


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--chunk", type=positive, metavar="ROWS", help="rows at a time (all of them when left out)"
    )
    chunk = parser.parse_args().chunk

    images, digits = load_digits()
    answers = classify(images, digits, chunk or len(images))
    right = np.count_nonzero(answers == digits)
    print(f"{right} of {len(digits)} digits recognised ({right / len(digits):.1%})")


if __name__ == "__main__":
    main()
