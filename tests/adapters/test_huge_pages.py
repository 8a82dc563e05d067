"""Huge pages: asked for as NumPy asks for them, so that no array takes more RAM than in its own."""

import json
import os
import subprocess
import sys

import numpy
import pytest

import memlimits
from support.kernel import mapping_says
from support.units import MIB

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("plain_numpy")]


def asks(address):
    return "hg" in mapping_says(address, "VmFlags")


needs_huge_pages = pytest.mark.skipif(
    not asks(memlimits.empty(8 * MIB, "u1").ctypes.data),
    reason="the kernel has no huge pages, or NUMPY_MADVISE_HUGEPAGE says no",
)


@pytest.fixture
def switch():
    """NumPy's own, set back in the end."""
    function = numpy._core.multiarray._set_madvise_hugepage
    before = function(True)
    yield function
    function(before)
    memlimits.govern_numpy().close()


@needs_huge_pages
@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (2 * MIB, False),
        (3 * MIB, False),
        (4 * MIB - 1, False),
        (4 * MIB + 1, True),
        (64 * MIB, True),
    ],
)
def test_who_asks(govern, n, expected):
    for make in (numpy.empty, numpy.zeros, memlimits.empty, memlimits.zeros):
        assert asks(make(n, "u1").ctypes.data + n // 2) == expected
    with memlimits.allocate(n) as block:
        assert asks(block.ptr + n // 2) == expected


@needs_huge_pages
def test_an_array_that_grows_asks_when_it_is_long_enough(govern):
    array = numpy.ones(3 * MIB, "u1")
    assert not asks(array.ctypes.data)
    for n in (5 * MIB, 7 * MIB, 20 * MIB):
        array.resize(n, refcheck=False)
        assert asks(array.ctypes.data + n // 2)
    assert array[: 3 * MIB].all()
    assert not array[3 * MIB :].any()


@needs_huge_pages
def test_numpys_switch_holds_from_the_next_governing_on(switch):
    switch(False)
    with memlimits.govern_numpy():
        arrays = [numpy.empty(6 * MIB, "u1"), memlimits.empty(6 * MIB, "u1")]
        growing = numpy.empty(3 * MIB, "u1")
        growing.resize(6 * MIB, refcheck=False)
        assert not any(asks(array.ctypes.data) for array in [*arrays, growing])
        switch(True)
        with memlimits.govern_numpy():
            assert asks(numpy.empty(8 * MIB, "u1").ctypes.data)


SPARSE = f"""
import json, sys
sys.path[:0] = {sys.path!r}
import memlimits, numpy
from support.kernel import resident

def touched(length):
    before = resident()
    # Of zeros NumPy 2.0 asks for none.
    arrays = [numpy.empty(length, "u1") for _ in range(8)]
    for array in arrays:
        array[:: 1 << 20] = 1
    return resident() - before

lengths = list(map(int, sys.argv[1:]))
touched(1 << 20)
plain = list(map(touched, lengths))
ours = []
with memlimits.govern_numpy():
    for length in lengths:
        ours.append(touched(length))
        memlimits.clear_cache()
print(json.dumps([plain, ours]))
"""


def resident_of_sparse_arrays(lengths, switch):
    """Bytes, for each length: of NumPy's own and of governed ones."""
    run = subprocess.run(
        [sys.executable, "-c", SPARSE, *map(str, lengths)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": switch},
    )
    return json.loads(run.stdout)


@needs_huge_pages
@pytest.mark.parametrize("switch", ["0", "1"])
def test_sparse_arrays_take_no_more_ram_than_numpys_own(switch):
    lengths = [n * MIB for n in (2, 3, 4, 5, 6, 7, 8, 33)]
    # What is resident is the process's: now and then it touches something else meanwhile.
    runs = [resident_of_sparse_arrays(lengths, switch) for _ in range(3)]
    for place, length in enumerate(lengths):
        # NumPy's own start anywhere in a huge page: now and then one has one less.
        theirs = max(plain[place] for plain, _ in runs)
        governed = min(ours[place] for _, ours in runs)
        assert governed <= theirs * 1.1 + MIB, (length, runs)
    if switch == "0":
        assert min(max(ours) for _, ours in runs) < 4 * MIB
