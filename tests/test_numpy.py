"""NumPy's arrays in memlimits' memory: NumPy itself says whose each array is."""

import asyncio
import concurrent.futures
import contextvars
import ctypes
import gc
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import numpy.random  # else imported where first used, and its own arrays would be governed
import pytest
from numpy._core.multiarray import get_handler_name

import memlimits
from memlimits.adapters._numpy import own_handler

KIB, MIB = 1024, 1024 * 1024
PLAIN, GOVERNED = "default_allocator", "memlimits"
PAGE = os.sysconf("SC_PAGESIZE")


def handler_here():
    """The name of the handler that new arrays get, in this thread and context."""
    return get_handler_name(numpy.empty(3))


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def mapped_bytes(start, length):
    """How much of an address range the kernel has mapped."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split(maxsplit=1)[0].split("-"))
        total += max(0, min(last, start + length) - max(first, start))
    return total


@pytest.fixture(autouse=True)
def plain_numpy_before_and_after():
    assert handler_here() == PLAIN
    bootstrap = threading.Thread._bootstrap_inner
    yield
    assert handler_here() == PLAIN
    assert threading.Thread._bootstrap_inner is bootstrap


@pytest.fixture
def govern():
    """Open govern_numpy(), closed when the test ends in whatever way."""
    with memlimits.govern_numpy() as governing:
        yield governing


# ---- empty and zeros ----

DTYPES = [
    None,
    bool,
    "i1",
    ">u2",
    "f2",
    float,
    "c16",
    "longdouble",
    "M8[ns]",
    "S5",
    "U3",
    "V7",
    object,
    [("a", "i4"), ("b", "f8", (2,)), ("c", "U2")],
    [("o", object), ("x", "i2")],
    ("f4", (3,)),
    numpy.dtypes.StringDType(),
]
SHAPES = [(), 0, 7, (3, 0, 2), (4, 5), numpy.int64(6), [2, 3]]


def layout(array):
    return array.shape, array.dtype, array.strides


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_zeros_is_what_numpy_makes(dtype, order):
    for shape in SHAPES:
        ours = memlimits.zeros(shape, dtype, order)
        theirs = numpy.zeros(shape, dtype, order)
        assert (ours.shape, ours.dtype, ours.strides) == (
            theirs.shape,
            theirs.dtype,
            theirs.strides,
        )
        assert numpy.array_equal(ours, theirs)
        assert (type(ours), ours.base, ours.flags.owndata) == (numpy.ndarray, None, True)
        assert get_handler_name(ours) == GOVERNED
        assert ours.ctypes.data % 64 == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty_is_a_writable_array_of_its_own(dtype):
    for shape in SHAPES:
        ours, theirs = memlimits.empty(shape, dtype), numpy.empty(shape, dtype)
        assert (ours.shape, ours.dtype, ours.strides) == (
            theirs.shape,
            theirs.dtype,
            theirs.strides,
        )
        assert (ours.base, ours.flags.owndata, ours.flags.writeable) == (None, True, True)
        assert get_handler_name(ours) == GOVERNED
        ours[...] = numpy.zeros(shape, dtype)
        assert numpy.array_equal(ours, numpy.zeros(shape, dtype))


def test_arguments_by_keyword_and_by_default():
    assert memlimits.empty(shape=3, dtype="i2", order="C").dtype == numpy.int16
    assert memlimits.zeros((2, 3), order="F").flags.f_contiguous
    assert memlimits.empty(2).dtype == memlimits.zeros(2).dtype == numpy.float64


@pytest.mark.parametrize("name", ["empty", "zeros"])
@pytest.mark.parametrize(
    ("shape", "dtype", "order"),
    [
        (-1, float, "C"),
        ((2, -3), float, "C"),
        (1.5, float, "C"),
        ("3", float, "C"),
        (None, float, "Q"),
        (3, "nonsense", "C"),
        (3, float, "Z"),
        (2**64, float, "C"),
        (2**62, float, "C"),
        ((2**40, 2**40), "i1", "C"),
        ((2**32, 2**32, 0, 2), "i1", "C"),
        ((1,) * 65, float, "C"),
        (2**60, "S16", "C"),
    ],
)
def test_errors_are_numpys(name, shape, dtype, order):
    def outcome(module):
        try:
            return getattr(module, name)(shape, dtype, order).shape
        except Exception as error:
            return type(error), str(error)

    assert outcome(memlimits) == outcome(numpy)


@pytest.mark.parametrize("name", ["empty", "zeros"])
def test_a_refusal_has_numbers_and_leaves_no_trace(name):
    held = memlimits.allocate(MIB)
    active, size = memlimits.get_active_memory(), resident()
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(active + 8 * MIB - 1)
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        getattr(memlimits, name)((1024, 1024), "f8")
    assert (caught.value.requested, caught.value.blocked_by) == (8 * MIB, "limit")
    assert caught.value.limit == active + 8 * MIB - 1
    assert caught.value.__cause__ is None
    assert memlimits.get_active_memory() == active
    assert resident() - size < MIB
    assert handler_here() == PLAIN
    held.release()


def test_a_memory_error_of_another_cause_is_not_taken_for_a_refusal():
    class Shape:
        def __index__(self):
            raise MemoryError("own")

    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(0)
    with pytest.raises(memlimits.MemoryLimitError):
        memlimits.empty(10 * MIB)
    with pytest.raises(MemoryError, match="own"):
        memlimits.empty(Shape())


def test_zeros_are_zeros_after_dirty_reuse():
    for n in (1, 64, 1000, 4096, 32 * KIB, 100_000, MIB, 5 * MIB):
        dirty = memlimits.empty(n, "u1")
        dirty.fill(255)
        start = dirty.ctypes.data
        del dirty
        clean = memlimits.zeros(n, "u1")
        assert clean.ctypes.data == start
        assert not clean.any()


def test_an_array_gives_its_block_back(govern):
    memlimits.set_cache_limit(0)
    array = numpy.ones(4 * MIB, "u1")
    span = (array.ctypes.data, array.nbytes)
    assert mapped_bytes(*span) == 4 * MIB
    view = array[5:]
    del array
    assert view.base is not None
    assert mapped_bytes(*span) == 4 * MIB
    del view
    assert mapped_bytes(*span) < MIB


# ---- what is governed, and for how long ----


def test_arrays_before_during_and_after():
    before = numpy.arange(1000.0)
    with memlimits.govern_numpy():
        during = numpy.arange(1000.0)
        both = before + during
        assert get_handler_name(before) == PLAIN
    after = both + 1
    assert [get_handler_name(array) for array in (during, both, after)] == [GOVERNED] * 2 + [PLAIN]
    assert after.tolist() == [2.0 * i + 1 for i in range(1000)]


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


def test_free_in_any_order_on_any_thread_at_any_time():
    arrays = []
    for round_ in range(6):
        arrays += [numpy.full(2**i, i + round_) for i in range(0, 18, 2)]
        with memlimits.govern_numpy():
            arrays += [numpy.full(2**i, i + round_) for i in range(1, 18, 2)]
            del arrays[:: 3 + round_]
    expected = [int(array[0]) for array in arrays]
    assert {get_handler_name(array) for array in arrays} == {PLAIN, GOVERNED}

    def drop(every):
        for i in range(every, len(arrays), 2):
            assert (arrays[i] == expected[i]).all()
            arrays[i] = None

    threads = [threading.Thread(target=drop, args=(every,)) for every in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert arrays == [None] * len(arrays)


def test_views_slices_and_reshapes_keep_the_block(govern):
    array = numpy.arange(MIB, dtype="i8")
    expected = list(range(1, MIB, 1024 * 64))
    views = [array[1 :: 1024 * 64], array.reshape(16, -1)[:, 1].view()]
    del array
    gc.collect()
    numpy.zeros(MIB, "i8")
    assert [view.tolist() for view in views] == [expected, expected]


def test_govern_numpy_is_on_at_once_and_close_is_idempotent():
    governing = memlimits.govern_numpy()
    assert handler_here() == GOVERNED
    with governing as entered:
        assert entered is governing
    assert handler_here() == PLAIN
    governing.close()
    governing.close()
    assert handler_here() == PLAIN


def test_nested_in_order():
    with memlimits.govern_numpy():
        with memlimits.govern_numpy():
            assert handler_here() == GOVERNED
        assert handler_here() == GOVERNED
    assert handler_here() == PLAIN


def test_closed_out_of_order():
    first, second, third = (memlimits.govern_numpy() for _ in range(3))
    for governing in (first, third, first):
        governing.close()
        assert handler_here() == GOVERNED
        assert in_thread(handler_here) == GOVERNED
    second.close()
    assert handler_here() == PLAIN
    assert in_thread(handler_here) == PLAIN


def test_opened_and_closed_often():
    for _ in range(200):
        with memlimits.govern_numpy():
            pass
    assert in_thread(handler_here) == PLAIN


def test_an_exception_passes_through_and_closes():
    def fail():
        with memlimits.govern_numpy():
            numpy.ones(10).reshape(3, 3)

    with pytest.raises(ValueError, match="reshape"):
        fail()
    assert handler_here() == PLAIN


# ---- threads ----


def in_thread(function, thread_class=threading.Thread):
    results = []
    thread = thread_class(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_a_thread_started_meanwhile_is_governed_and_a_later_one_is_not():
    with memlimits.govern_numpy():
        assert in_thread(handler_here) == GOVERNED
        assert in_thread(lambda: in_thread(handler_here)) == GOVERNED
    assert in_thread(handler_here) == PLAIN


def test_a_thread_that_overrides_run():
    class Own(threading.Thread):
        def run(self):
            self.seen = handler_here()

    with memlimits.govern_numpy():
        thread = Own(daemon=True)
        thread.start()
        thread.join()
    assert thread.seen == GOVERNED


def test_a_timer(govern):
    seen = []
    timer = threading.Timer(0, lambda: seen.append(handler_here()))
    timer.start()
    timer.join()
    assert seen == [GOVERNED]


def test_a_pool_made_inside(govern):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert {pool.submit(handler_here).result() for _ in range(4)} == {GOVERNED}


def test_a_pool_made_before_governs_the_threads_that_it_starts_later():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        release = threading.Event()
        old = pool.submit(lambda: release.wait() and handler_here())
        with memlimits.govern_numpy():
            assert pool.submit(handler_here).result() == GOVERNED
            release.set()
            assert old.result() == PLAIN


def test_a_thread_that_outlives_the_governing_stays_governed():
    proceed, seen, arrays = threading.Event(), [], []

    def work():
        seen.append(handler_here())
        proceed.wait()
        seen.append(handler_here())
        arrays.append(numpy.arange(100_000))

    with memlimits.govern_numpy():
        thread = threading.Thread(target=work)
        thread.start()
    proceed.set()
    thread.join()
    assert seen == [GOVERNED, GOVERNED]
    assert get_handler_name(arrays[0]) == GOVERNED
    assert arrays.pop().sum() == 100_000 * 99_999 // 2


def test_running_threads_and_those_below_threading_are_not_governed():
    """What the documentation says is not seen."""
    import _thread

    proceed, done, seen = threading.Event(), threading.Event(), []
    running = threading.Thread(target=lambda: proceed.wait() and seen.append(handler_here()))
    running.start()
    with memlimits.govern_numpy():
        proceed.set()
        running.join()
        _thread.start_new_thread(lambda: (seen.append(handler_here()), done.set()), ())
        assert done.wait(10)
    assert seen == [PLAIN, PLAIN]


def close_elsewhere(thread_is):
    """Open here, close on another thread; what that said, and the handlers before our own close."""
    seen, proceed = [], threading.Event()

    def work():
        proceed.wait()
        own = memlimits.govern_numpy() if thread_is == "governing" else None
        try:
            governing.close()
        except RuntimeError as error:
            seen.append(str(error))
        if own:
            own.close()

    thread = threading.Thread(target=work)
    if thread_is != "governed":
        thread.start()
    governing = memlimits.govern_numpy()
    if thread_is == "governed":
        thread.start()
    proceed.set()
    thread.join()
    seen += [handler_here(), in_thread(handler_here)]
    governing.close()
    return [*seen, handler_here(), in_thread(handler_here)]


@pytest.mark.parametrize("thread_is", ["plain", "governed", "governing"])
def test_close_in_another_thread_is_an_error_and_changes_nothing(thread_is):
    said, *handlers = contextvars.copy_context().run(close_elsewhere, thread_is)
    assert "govern_numpy" in said
    assert handlers == [GOVERNED, GOVERNED, PLAIN, PLAIN]


def test_two_threads_govern_independently():
    barrier, seen = threading.Barrier(2, timeout=10), {}

    def work(name, first):
        barrier.wait()
        if not first:
            barrier.wait()
        with memlimits.govern_numpy():
            if first:
                barrier.wait()
                barrier.wait()
            else:
                barrier.wait()
        seen[name] = handler_here()

    threads = [threading.Thread(target=work, args=(name, name == "a")) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": PLAIN, "b": PLAIN}
    assert in_thread(handler_here) == PLAIN


# ---- asyncio ----


def test_tasks_inherit_and_keep_their_own():
    async def seen():
        await asyncio.sleep(0)
        return handler_here()

    async def inside():
        with memlimits.govern_numpy():
            task = asyncio.create_task(seen())
            thread = await asyncio.to_thread(handler_here)
        return await task, thread, handler_here()

    async def main():
        other = asyncio.create_task(seen())
        return await asyncio.gather(inside(), seen(), other)

    assert asyncio.run(main()) == [(GOVERNED, GOVERNED, PLAIN), PLAIN, PLAIN]
    with memlimits.govern_numpy():
        assert asyncio.run(main()) == [(GOVERNED, GOVERNED, GOVERNED), GOVERNED, GOVERNED]


def test_close_in_another_task_is_an_error():
    async def close(governing):
        governing.close()

    async def main():
        with memlimits.govern_numpy() as governing:
            with pytest.raises(RuntimeError, match="govern_numpy"):
                await asyncio.create_task(close(governing))
            here = handler_here()
        return here, handler_here()

    assert asyncio.run(main()) == (GOVERNED, PLAIN)


# ---- what NumPy does with a handler ----


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
        assert get_handler_name(array) == GOVERNED
        assert array.ctypes.data % 64 == 0


def test_resize_of_arrays_that_were_made_before_or_outlive():
    before = numpy.arange(1000)
    with memlimits.govern_numpy():
        before.resize(100_000, refcheck=False)
        during = numpy.arange(1000)
    during.resize(100_000, refcheck=False)
    assert (get_handler_name(before), get_handler_name(during)) == (PLAIN, GOVERNED)
    expected = list(range(1000)) + [0] * 99_000
    assert before.tolist() == during.tolist() == expected


def test_fromiter_grows_by_reallocation(govern):
    array = numpy.fromiter((i * i for i in range(200_000)), "i8")
    assert get_handler_name(array) == GOVERNED
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


# ---- refusals ----


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


# ---- the handler itself, called as NEP 49 allows ----


class Handler(ctypes.Structure):
    """PyDataMem_Handler, as NEP 49 lays it out. ctypes drops the GIL around each call."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        (
            "calloc",
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t),
        ),
        (
            "realloc",
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        ),
        (
            "free",
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
        ),
    )


class Heap:
    """The handler's functions without their context argument."""

    def __init__(self):
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        self.handler = Handler.from_address(get(own_handler(), b"mem_handler"))

    def __getattr__(self, name):
        function = getattr(self.handler, name)
        return lambda *arguments: function(self.handler.context, *arguments)


@pytest.fixture
def heap():
    return Heap()


def test_the_handlers_name_and_version(heap):
    assert (heap.handler.name, heap.handler.version) == (b"memlimits", 1)


@pytest.mark.parametrize(
    ("count", "size"),
    [(2**33, 2**33), (2**32, 2**32), (2**63, 2), (2, 2**63), (2**64 - 1, 2**64 - 1), (3, 2**62)],
)
def test_count_times_size_that_overflows_is_refused(heap, count, size):
    active = memlimits.get_active_memory()
    assert heap.calloc(count, size) is None
    assert memlimits.last_refusal().blocked_by == "length"
    assert memlimits.get_active_memory() == active


@pytest.mark.parametrize("size", [2**64 - 1, 2**63, 2**63 - 1])
def test_a_huge_size_is_refused_and_a_block_survives_it(heap, size):
    block = heap.calloc(1, 100)
    assert heap.malloc(size) is None
    assert heap.realloc(block, size) is None
    assert ctypes.string_at(block, 100) == bytes(100)
    heap.free(block, 100)


def test_no_bytes_are_a_block_all_the_same(heap):
    blocks = [heap.malloc(0), heap.calloc(0, 8), heap.calloc(8, 0), heap.realloc(None, 0)]
    assert len({*blocks, None}) == 5
    for block in blocks:
        heap.free(block, 0)
    heap.free(None, 0)


def test_realloc_of_nothing_is_malloc_and_contents_move(heap):
    block = heap.realloc(None, 10)
    ctypes.memmove(block, b"0123456789", 10)
    for size in (64, 65, 5000, 40_000, 3 * MIB, 40_000, 5000, 10):
        block = heap.realloc(block, size)
        assert block % 64 == 0
        assert ctypes.string_at(block, 10) == b"0123456789"
        assert mapped_bytes(block, size) == size
    heap.free(block, 10)


def test_a_block_that_may_not_move_shrinks_where_it_is(heap):
    block = heap.malloc(MIB)
    ctypes.memset(block, 0x33, MIB)
    memlimits.set_memory_policy("strict")
    memlimits.set_memory_limit(0)
    assert heap.realloc(block, 100) == block
    assert heap.realloc(block, 2 * MIB) is None
    assert ctypes.string_at(block, MIB) == b"\x33" * MIB
    heap.free(block, MIB)


# ---- threads at full speed ----


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


FRESH_ADDRESS_SPACE = """
import sys, threading, memlimits
sys.setswitchinterval(1e-6)
memlimits.set_memory_limit(2**62)
held = []

def grow(make, *arguments):
    held.extend(make(4 << 20, *arguments) for _ in range(600))

threads = [
    threading.Thread(target=grow, args=(memlimits.allocate,)),
    threading.Thread(target=grow, args=(memlimits.empty, "u1")),
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
held.clear()
print(memlimits.get_active_memory())
"""


@pytest.mark.parametrize("attempt", range(3))
def test_two_threads_find_their_blocks_again_in_fresh_address_space(attempt):
    """One grows without the GIL while the other does, both where nothing was mapped before."""
    if memlimits.device_info()["memory_size"] < 8 << 30:
        pytest.skip("maps 5 GiB, untouched")
    result = run(FRESH_ADDRESS_SPACE)
    assert (result.returncode, result.stdout) == (0, "0\n")


# ---- processes ----


def run(program, *options):
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_import_and_core_functions_import_no_numpy():
    result = run(
        "import sys, memlimits, memlimits.memory\n"
        "dir(memlimits), memlimits.device_info(), memlimits.allocate(10)\n"
        "assert 'numpy' not in sys.modules\n"
        "memlimits.empty\n"
        "assert 'numpy' in sys.modules\n"
    )
    assert (result.stderr, result.returncode) == ("", 0)


LEFT_ALIVE = {
    "arrays": "held = memlimits.zeros(1 << 20), memlimits.empty(3, object)",
    "governing": "held = memlimits.govern_numpy(); array = numpy.arange(1 << 20)",
    "cycle": "memlimits.govern_numpy(); held = [numpy.arange(9)]; held.append(held)",
    "modules": "sys.kept = memlimits.zeros(1 << 20); numpy.kept = memlimits.zeros(10)",
    "daemon": (
        "memlimits.govern_numpy()\n"
        "def work():\n"
        "    while True:\n"
        "        numpy.ones(100_000).sum()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.05)\n"
    ),
}


@pytest.mark.parametrize("what", LEFT_ALIVE)
def test_the_interpreter_exits_cleanly_with_arrays_alive(what):
    result = run(f"import sys, threading, time, numpy, memlimits\n{LEFT_ALIVE[what]}")
    assert (result.returncode, result.stderr) == (0, "")
