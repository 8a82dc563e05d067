"""What NumPy does under `govern_numpy()`: the same results, counted and refused."""

import gc
import io
import threading
import time

import numpy
import pytest

import memlimits
from support.governed import GOVERNED, owner
from support.threads import in_thread
from support.units import KIB, MIB, PAGE

pytestmark = pytest.mark.usefixtures("plain_numpy")


def test_every_byte_of_numpys_is_counted(govern):
    """Capacities as the design says: exact for these sizes."""
    base = memlimits.get_active_memory()
    arrays = [numpy.empty(n, "u1") for n in (64, 512, 4096, 32 * KIB, 9 * PAGE, 5 * MIB)]
    assert memlimits.get_active_memory() - base == sum(array.nbytes for array in arrays)
    assert memlimits.get_peak_memory() >= sum(array.nbytes for array in arrays)
    arrays.clear()
    assert memlimits.get_active_memory() == base


def test_alignment(govern):
    for n in [*range(1, 600, 7), 5000, 40_000, 3 * MIB]:
        held = [numpy.empty(n, "u1"), numpy.zeros(n, "u1"), numpy.empty(n, "u1")]
        assert {array.ctypes.data % 64 for array in held} == {0}


def test_views_slices_and_reshapes_keep_the_block(govern):
    array = numpy.arange(MIB, dtype="i8")
    expected = list(range(1, MIB, 1024 * 64))
    views = [array[1 :: 1024 * 64], array.reshape(16, -1)[:, 1].view()]
    del array
    gc.collect()
    numpy.zeros(MIB, "i8")
    assert [view.tolist() for view in views] == [expected, expected]


def workload():
    """A bit of everything, with temporaries, buffers and reallocation."""
    generator = numpy.random.default_rng(5)
    a = generator.normal(size=(300, 200))
    u, s, v = numpy.linalg.svd(a, full_matrices=False)
    names = numpy.array([f"row{i}" for i in range(300)])
    table = numpy.zeros(300, [("name", names.dtype), ("x", "f8"), ("o", object)])
    table["name"], table["x"], table["o"] = names, a[:, 0], [None] * 300
    return [
        (u * s) @ v,
        numpy.sort(a, axis=None),
        numpy.unique(numpy.round(a, 1), return_counts=True)[1],
        numpy.cumsum(a, axis=1)[::-7, ::3].T.copy(),
        numpy.einsum("ij,kj->ik", a[:50], a[:50]),
        numpy.concatenate([a.ravel(), numpy.fft.fft(a[0]).real]),
        numpy.char.upper(names),
        numpy.strings.add(numpy.array(["ä" * 40, "b"], "T"), "c" * 100).astype("U150"),
        table["name"][numpy.argsort(table["x"])],
        numpy.array([[1, 2], [3, 4]], object) * 3,
    ]


def test_a_workload_gives_the_same_results_bit_by_bit():
    expected = workload()
    with memlimits.govern_numpy():
        results = workload()
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert numpy.array_equal(ours, theirs)


@pytest.mark.parametrize("start", [1, 60, 1000, 5000, 50_000, 300_000])
def test_resize_keeps_contents_and_zeroes_what_is_new(govern, start):
    array = numpy.arange(start)
    model = list(range(start))
    for size in (start + 1, 2 * start, 3 * start + 5, 10 * start, start // 3 + 1, 1, 0, 7, start):
        array.resize(size, refcheck=False)
        model = model[:size] + [0] * (size - len(model))
        assert array.tolist() == model
        assert owner(array) == GOVERNED
        assert array.ctypes.data % 64 == 0


def test_an_array_that_outlives_the_governing_is_resized_within_the_limits():
    with memlimits.govern_numpy():
        array = numpy.arange(1000)
    array.resize(100_000, refcheck=False)
    assert owner(array) == GOVERNED
    assert array.tolist() == list(range(1000)) + [0] * 99_000


def test_fromiter_grows_by_reallocation(govern):
    array = numpy.fromiter((i * i for i in range(200_000)), "i8")
    assert owner(array) == GOVERNED
    assert array.tolist() == [i * i for i in range(200_000)]


def test_loadtxt_and_genfromtxt(govern):
    rows = [[i, i / 7, -i] for i in range(5000)]
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    assert numpy.loadtxt(io.StringIO(text)).tolist() == rows
    assert numpy.genfromtxt(io.StringIO(text), max_rows=50).tolist() == rows[:50]


def test_fromfile_and_save(govern, tmp_path):
    array = numpy.arange(100_000)
    numpy.save(tmp_path / "a.npy", array)
    array.tofile(tmp_path / "a.raw")
    assert numpy.array_equal(numpy.load(tmp_path / "a.npy"), array)
    assert numpy.array_equal(numpy.fromfile(tmp_path / "a.raw", array.dtype), array)


def test_calloc_is_zero_after_dirty_reuse(govern):
    for n in (1, 100, 1000, 5000, 40_000, 2 * MIB):
        dirty = numpy.full(n, 255, "u1")
        start = dirty.ctypes.data
        del dirty
        clean = numpy.zeros(n, "u1")
        assert clean.ctypes.data == start
        assert not clean.any()


def test_numpys_memory_error_leaves_the_numbers_behind(govern):
    kept = numpy.arange(1000)
    active = memlimits.get_active_memory()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(active + MIB)
    for make in (numpy.empty, numpy.zeros, numpy.ones):
        with pytest.raises(MemoryError, match="Unable to allocate"):
            make(8 * MIB, "f4")
        refusal = memlimits.last_refusal()
        assert (refusal.requested, refusal.limit) == (32 * MIB, active + MIB)
        assert memlimits.get_active_memory() == active
    assert kept.sum() == 499_500
    assert numpy.ones(1000).sum() == 1000


def test_a_refused_resize_keeps_the_array(govern):
    array = numpy.arange(100_000)
    active = memlimits.get_active_memory()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(active + MIB)
    with pytest.raises(MemoryError):
        array.resize(10 * MIB, refcheck=False)
    assert array.tolist() == list(range(100_000))
    assert memlimits.get_active_memory() == active
    assert memlimits.last_refusal().requested == 80 * MIB


def test_a_thread_is_refused_for_itself(govern):
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(0)

    def attempt():
        try:
            numpy.empty(11 * MIB, "u1")
        except MemoryError:
            return memlimits.last_refusal().requested

    with pytest.raises(MemoryError):
        numpy.empty(12 * MIB, "u1")
    assert in_thread(attempt) == 11 * MIB
    assert memlimits.last_refusal().requested == 12 * MIB


def hammer(until, seed, errors):
    """Allocate, check, resize and drop arrays; some are handed to whoever comes next."""
    generator = numpy.random.default_rng(seed)
    held = []
    try:
        while time.monotonic() < until:
            n = int(2 ** generator.uniform(0, 17))
            array = numpy.full(n, n, "i8")
            array.resize(n + n // 2, refcheck=False)
            assert (array[:n] == n).all()
            assert not array[n:].any()
            held.append((array, n))
            if len(held) > 20:
                array, n = held.pop(int(generator.integers(20)))
                assert (array[:n] == n).all()
            with memlimits.allocate(n, zeroed=True) as buffer:
                assert not numpy.frombuffer(buffer, "u1").any()
    except BaseException as error:
        errors.append(error)


@pytest.mark.parametrize("cache_limit", [None, 0])
def test_two_threads_hammer(govern, cache_limit):
    memlimits.set_cache_limit(cache_limit)
    errors, until = [], time.monotonic() + 0.4
    threads = [threading.Thread(target=hammer, args=(until, seed, errors)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
