"""Buffer: one block and the views of it, against patterns, addresses and /proc."""

import bisect
import copy
import ctypes
import gc
import io
import os
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest

import memlimits
from memlimits._allocator import Allocator
from memlimits._buffer import allocate_in

pytestmark = pytest.mark.core

PAGE = os.sysconf("SC_PAGESIZE")
KIB, MIB = 1024, 1024 * 1024

# One of each way that memory is laid out: 64-byte classes, eighths of powers of two, the longest
# block of a slab, pages, and lengths from which pages are dropped instead of cleared.
SIZES = [1, 63, 64, 65, 512, 513, 1000, 4096, 5000, 32 * KIB]
SIZES += [32 * KIB + 1, 100_000, MIB - 1, MIB, MIB + 1, 5 * MIB]


def expected_capacity(n):
    """Multiples of 64 up to 512, eight sizes a power of two up to 32 KiB, then pages."""
    if n <= 512:
        step = 64
    elif n <= 32 * KIB:
        step = (1 << (n - 1).bit_length() - 1) // 8
    else:
        step = PAGE
    return -(-n // step) * step


def mapped_bytes(start, length):
    """How much of an address range the kernel has mapped for reading and writing."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split(maxsplit=2)[:2]
        first, last = (int(end, 16) for end in span.split("-"))
        if rights.startswith("rw"):
            total += max(0, min(last, start + length) - max(first, start))
    return total


@pytest.fixture
def allocator():
    """An allocator that unmaps at once what is given back: the kernel then tells when it was."""
    allocator = Allocator()
    allocator.set_cache_limit(0)
    return allocator


class Watched:
    """A buffer's range, to ask the kernel about once the buffer may be gone."""

    def __init__(self, buffer):
        self.range = (buffer.ptr, buffer.capacity)

    @property
    def gone(self):
        # Something else may have settled in a part of the hole.
        return mapped_bytes(*self.range) < self.range[1] // 4


def run(program):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )


# ---- size, address, contents ----


@pytest.mark.parametrize("n", SIZES)
def test_size_capacity_and_alignment(n):
    allocator = Allocator()
    buffers = [allocate_in(allocator, n) for _ in range(10)]
    assert {len(buffer) for buffer in buffers} == {buffer.nbytes for buffer in buffers} == {n}
    assert {buffer.capacity for buffer in buffers} == {expected_capacity(n)}
    assert {buffer.ptr % (64 if n <= 32 * KIB else PAGE) for buffer in buffers} == {0}
    assert all(mapped_bytes(buffer.ptr, buffer.capacity) == buffer.capacity for buffer in buffers)


def test_every_small_size_gets_the_class_that_the_design_names():
    allocator = Allocator()
    for n in range(1, 33 * KIB, 61):
        assert allocate_in(allocator, n).capacity == expected_capacity(n), n


def test_a_block_from_the_cache_is_at_most_an_eighth_longer():
    allocator = Allocator()
    for n in (100_000, 4 * MIB):
        allocate_in(allocator, n).release()
        pages = expected_capacity(n)
        reused = allocate_in(allocator, pages - pages // 9)
        assert reused.capacity == pages
        reused.release()
        assert allocate_in(allocator, pages - pages // 8).capacity < pages


def test_32_kib_blocks_start_on_a_page():
    """`allocate` promises pages from 32 KiB on."""
    allocator = Allocator()
    assert {allocate_in(allocator, 32 * KIB).ptr % PAGE for _ in range(9)} == {0}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kept", [0, 1])
def test_zeroed_blocks_read_as_zeros_fresh_and_after_use(n, kept):
    """A block that is kept keeps its slab: the others then come from its free list."""
    allocator = Allocator()
    fresh = [allocate_in(allocator, n, zeroed=True) for _ in range(7)]
    assert all(bytes(buffer) == bytes(n) for buffer in fresh)
    used = set()
    for buffer in fresh:
        memoryview(buffer)[:] = b"\xff" * n
        used.add(buffer.ptr)
    for buffer in fresh[kept:]:
        buffer.release()
    again = [allocate_in(allocator, n, zeroed=True) for _ in range(7 - kept)]
    assert {buffer.ptr for buffer in again} <= used
    assert all(bytes(buffer) == bytes(n) for buffer in again)


@pytest.mark.parametrize("n", [64, 5000, 100_000])
def test_zeroed_blocks_in_a_dirty_resource_of_another_size(n):
    """64 KiB that were one long block, cut into a slab, or the other way round."""
    allocator = Allocator()
    whole = allocate_in(allocator, 64 * KIB)
    memoryview(whole)[:] = b"\xff" * (64 * KIB)
    start = whole.ptr
    whole.release()
    blocks = [allocate_in(allocator, n, zeroed=True) for _ in range(16)]
    assert n == 100_000 or start in {block.ptr // PAGE * PAGE for block in blocks}
    assert all(bytes(block) == bytes(n) for block in blocks)


@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", "")
    or memlimits.device_info()["wired_capacity"] < 4 * MIB,
    reason="needs 4 MiB of RLIMIT_MEMLOCK, and an mlock that AddressSanitizer does not replace",
)
@pytest.mark.parametrize("n", [1000, 100_000, 2 * MIB])
def test_zeroed_blocks_on_wired_pages(n):
    """Locked pages cannot be dropped: they have to be cleared."""
    allocator = Allocator()
    allocator.set_wired_limit(4 * MIB)
    dirty = allocate_in(allocator, n)
    memoryview(dirty)[:] = b"\xff" * n
    assert "lo" in vm_flags(dirty.ptr)
    start = dirty.ptr
    dirty.release()
    clean = allocate_in(allocator, n, zeroed=True)
    assert clean.ptr == start
    assert "lo" in vm_flags(start)
    assert bytes(clean) == bytes(n)


def vm_flags(address):
    """The kernel's flags of the mapping at an address; "lo" is locked."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, dash, last = line.split()[0].partition("-")
        if dash:
            inside = int(first, 16) <= address < int(last, 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


def test_not_zeroed_is_the_default_and_keeps_what_was_there():
    allocator = Allocator()
    buffer = allocate_in(allocator, 2 * MIB)
    memoryview(buffer)[:] = b"\xee" * (2 * MIB)
    buffer.release()
    assert bytes(allocate_in(allocator, 2 * MIB)) == b"\xee" * (2 * MIB)


class Ledger:
    """Every live block with a pattern of its own; no two of them may share a byte."""

    def __init__(self):
        self.lock = threading.Lock()
        self.starts = []
        self.ends = {}

    def add(self, buffer):
        start, end = buffer.ptr, buffer.ptr + buffer.capacity
        with self.lock:
            at = bisect.bisect(self.starts, start)
            assert at == 0 or self.ends[self.starts[at - 1]] <= start
            assert at == len(self.starts) or end <= self.starts[at]
            self.starts.insert(at, start)
            self.ends[start] = end

    def remove(self, buffer):
        with self.lock:
            del self.starts[bisect.bisect_left(self.starts, buffer.ptr)]
            del self.ends[buffer.ptr]


def churn(allocator, ledger, seed, steps):
    """Allocate, fill, check and free at random."""
    choose = random.Random(seed)
    held = []
    for step in range(steps):
        if held and choose.random() < 0.48:
            buffer, byte = held.pop(choose.randrange(len(held)))
            assert bytes(buffer) == bytes([byte]) * buffer.nbytes
            ledger.remove(buffer)
            buffer.release()
            continue
        n = int(2 ** choose.uniform(0, 20.5 if step % 20 == 0 else 15.5))
        zeroed = choose.random() < 0.3
        buffer = allocate_in(allocator, n, zeroed=zeroed)
        ledger.add(buffer)
        assert not zeroed or bytes(buffer) == bytes(n)
        byte = choose.randrange(1, 256)
        ctypes.memset(buffer.ptr, byte, buffer.capacity)
        held.append((buffer, byte))
        if step % 300 == 0:
            allocator.clear_cache()
    for buffer, byte in held:
        assert bytes(buffer) == bytes([byte]) * buffer.nbytes
        ledger.remove(buffer)


@pytest.mark.parametrize("cache_limit", [None, 0, MIB])
def test_blocks_never_overlap_and_keep_their_contents(cache_limit):
    allocator, ledger = Allocator(), Ledger()
    allocator.set_cache_limit(cache_limit)
    churn(allocator, ledger, seed=1, steps=3000)
    assert ledger.starts == []


def test_blocks_of_several_threads_never_overlap():
    allocator, ledger = Allocator(), Ledger()
    allocator.set_cache_limit(MIB)
    finished = []

    def work(seed):
        churn(allocator, ledger, seed, 1500)
        finished.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(finished) == [0, 1, 2]


# ---- no bytes, no constructor, no copies ----


def test_zero_bytes():
    buffer = memlimits.allocate(0, zeroed=True)
    assert (buffer.nbytes, buffer.capacity, len(buffer), bytes(buffer)) == (0, 0, 0, b"")
    assert numpy.from_dlpack(buffer).shape == (0,)
    assert buffer.__dlpack__(copy=True) is not None
    assert buffer.ptr == 0
    with buffer:
        pass
    with pytest.raises(ValueError, match="released"):
        memoryview(buffer)


def test_allocate_is_the_only_way_to_a_buffer():
    with pytest.raises(TypeError, match=r"memlimits\.allocate"):
        memlimits.Buffer()
    with pytest.raises(TypeError):
        memlimits.Buffer(10)
    with pytest.raises(TypeError):
        type("Sub", (memlimits.Buffer,), {})


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_buffer_is_not_copied_or_pickled(copier):
    buffer = memlimits.allocate(100)
    with pytest.raises(TypeError, match=r"pickle.*Buffer"):
        copier(buffer)
    memoryview(buffer)[:] = bytes(100)


def test_repr_shows_size_and_address_or_that_it_is_released():
    buffer = memlimits.allocate(1000)
    assert repr(buffer) == f"<memlimits.Buffer of 1000 bytes at {buffer.ptr:#x}>"
    buffer.release()
    assert repr(buffer) == "<memlimits.Buffer of 1000 bytes, released>"


@pytest.mark.parametrize("name", ["nbytes", "capacity", "ptr", "other"])
def test_attributes_are_read_only(name):
    buffer = memlimits.allocate(1000)
    with pytest.raises(AttributeError):
        setattr(buffer, name, 1)


# ---- the buffer protocol ----


def test_memoryview_is_of_writable_bytes():
    buffer = memlimits.allocate(1000, zeroed=True)
    view = memoryview(buffer)
    assert (view.format, view.itemsize, view.shape, view.strides) == ("B", 1, (1000,), (1,))
    assert view.contiguous
    assert not view.readonly
    assert view.obj is buffer
    view[10:13] = b"abc"
    assert ctypes.string_at(buffer.ptr + 9, 5) == b"\0abc\0"
    ctypes.memset(buffer.ptr, 0x7A, 2)
    assert bytes(view[:3]) == b"zz\0"


def test_readinto_fills_it_from_a_file(tmp_path):
    data = random.Random(0).randbytes(100_000)
    (tmp_path / "data").write_bytes(data)
    buffer = memlimits.allocate(len(data))
    with (tmp_path / "data").open("rb", buffering=0) as file:
        assert file.readinto(buffer) == len(data)
    assert bytes(buffer) == data
    assert io.BytesIO(b"xyz").readinto(buffer) == 3
    assert bytes(buffer) == b"xyz" + data[3:]


def test_frombuffer_shares_the_bytes():
    buffer = memlimits.allocate(80, zeroed=True)
    array = numpy.frombuffer(buffer, dtype=numpy.float64)
    assert array.ctypes.data == buffer.ptr
    assert array.flags.writeable
    array[:] = range(10)
    assert numpy.array_equal(numpy.frombuffer(bytes(buffer)), numpy.arange(10.0))


# ---- DLPack ----


class Tensor(ctypes.Structure):
    """DLTensor, as the DLPack specification lays it out."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


class ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


READ_ONLY, IS_COPIED = 1, 2
VERSIONS = pytest.mark.parametrize("max_version", [None, (1, 0)], ids=["unversioned", "versioned"])


def struct_in(capsule, name=b"dltensor", layout=Managed):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return layout.from_address(get(capsule, name))


def versioned_struct(capsule):
    return struct_in(capsule, b"dltensor_versioned", ManagedVersioned)


def consume(capsule, versioned):
    """Take the tensor out of a capsule, as a consumer does; the deleter is now the caller's."""
    name = b"dltensor_versioned" if versioned else b"dltensor"
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
    tensor = versioned_struct(capsule) if versioned else struct_in(capsule)
    consume.names[versioned] = b"used_" + name  # PyCapsule keeps the pointer
    rename(capsule, consume.names[versioned])
    return tensor


consume.names = {}


def check_tensor(tensor, address, n):
    assert tensor.data == address
    assert (tensor.device_type, tensor.device_id) == (1, 0)
    assert (tensor.code, tensor.bits, tensor.lanes) == (1, 8, 1)
    assert (tensor.ndim, tensor.shape[0], tensor.strides[0]) == (1, n, 1)
    assert tensor.byte_offset == 0


@pytest.mark.parametrize("max_version", [None, (0, 0), (0, 8), (0, 99)])
def test_dlpack_is_unversioned_for_old_consumers(max_version):
    buffer = memlimits.allocate(1000)
    capsule = buffer.__dlpack__(max_version=max_version)
    check_tensor(struct_in(capsule).tensor, buffer.ptr, 1000)
    assert buffer.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("max_version", [(1, 0), (1, 1), (1, 99), (2, 0)])
def test_dlpack_is_versioned_from_1_on(max_version):
    buffer = memlimits.allocate(1000)
    capsule = buffer.__dlpack__(max_version=max_version)
    managed = versioned_struct(capsule)
    check_tensor(managed.tensor, buffer.ptr, 1000)
    assert (managed.major, managed.minor, managed.flags) == (1, 0, 0)


@pytest.mark.parametrize("copy_", [True, 1, numpy.True_])
def test_dlpack_copy_is_a_block_of_its_own(copy_):
    buffer = memlimits.allocate(5, zeroed=True)
    memoryview(buffer)[:] = b"abcde"
    capsule = buffer.__dlpack__(max_version=(1, 0), copy=copy_)
    managed = versioned_struct(capsule)
    check_tensor(managed.tensor, managed.tensor.data, 5)
    assert managed.tensor.data != buffer.ptr
    assert managed.flags == IS_COPIED
    memoryview(buffer)[:] = b"12345"
    assert ctypes.string_at(managed.tensor.data, 5) == b"abcde"
    buffer.release()
    assert ctypes.string_at(managed.tensor.data, 5) == b"abcde"


@VERSIONS
def test_a_copy_outlives_its_source_and_goes_with_its_capsule(allocator, max_version):
    buffer = allocate_in(allocator, 8 * MIB)
    capsule = buffer.__dlpack__(max_version=max_version, copy=True)
    struct = versioned_struct(capsule) if max_version else struct_in(capsule)
    copied = (struct.tensor.data, 8 * MIB)
    buffer.release()
    assert mapped_bytes(*copied) == 8 * MIB
    del capsule
    assert mapped_bytes(*copied) < MIB


def test_a_copy_is_refused_like_any_allocation(allocator):
    buffer = allocate_in(allocator, MIB)
    allocator.set_memory_limit(MIB)
    allocator.set_memory_policy("strict")
    with pytest.raises(memlimits.MemoryLimitError):
        buffer.__dlpack__(copy=True)
    buffer.release()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stream": 1}, "stream.*1"),
        ({"stream": -1}, "stream.*-1"),
        ({"dl_device": (2, 0)}, r"\(2, 0\)"),
        ({"dl_device": (1, 1)}, r"\(1, 1\)"),
    ],
)
def test_dlpack_refuses_other_devices_and_streams(arguments, words):
    buffer = memlimits.allocate(100)
    with pytest.raises(BufferError, match=words):
        buffer.__dlpack__(**arguments)
    buffer.release()


def test_dlpack_takes_the_cpu_and_no_copy():
    buffer = memlimits.allocate(100)
    capsule = buffer.__dlpack__(stream=None, dl_device=(1, 0), copy=False)
    assert struct_in(capsule).tensor.data == buffer.ptr


def test_dlpack_takes_keywords_only():
    with pytest.raises(TypeError):
        memlimits.allocate(1).__dlpack__(None)


def test_from_dlpack_shares_writes_both_ways():
    buffer = memlimits.allocate(10, zeroed=True)
    array = numpy.from_dlpack(buffer)
    assert array.dtype == numpy.uint8
    assert array.ctypes.data == buffer.ptr
    # Older NumPy makes every array from DLPack read-only, its own too.
    assert array.flags.writeable == numpy.from_dlpack(numpy.zeros(1)).flags.writeable
    if array.flags.writeable:
        array[3] = 7
    else:
        ctypes.memset(array.ctypes.data + 3, 7, 1)
    memoryview(buffer)[4] = 8
    assert bytes(buffer) == bytes([0, 0, 0, 7, 8, 0, 0, 0, 0, 0])
    assert array.tolist() == list(bytes(buffer))


class OldProducer:
    """What a producer of before DLPack 1.0 looks like to NumPy."""

    def __init__(self, buffer):
        self.buffer = buffer

    def __dlpack__(self, stream=None):
        return self.buffer.__dlpack__(stream=stream)

    def __dlpack_device__(self):
        return self.buffer.__dlpack_device__()


def test_from_dlpack_takes_the_unversioned_tensor(allocator):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    array = numpy.from_dlpack(OldProducer(buffer))
    assert array.ctypes.data == buffer.ptr
    del buffer
    array.sum()
    assert not watched.gone
    del array
    assert watched.gone


@pytest.mark.parametrize("arguments", [{"copy": True}, {"copy": True, "device": "cpu"}])
def test_from_dlpack_copies_when_asked_to(arguments):
    if numpy.lib.NumpyVersion(numpy.__version__) < "2.1.0":
        pytest.skip("numpy.from_dlpack takes copy= from 2.1 on")
    buffer = memlimits.allocate(10, zeroed=True)
    array = numpy.from_dlpack(buffer, **arguments)
    memoryview(buffer)[0] = 1
    buffer.release()
    assert array.tolist() == [0] * 10


@VERSIONS
def test_a_capsule_nobody_consumed_gives_the_block_back(allocator, max_version):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    capsule = buffer.__dlpack__(max_version=max_version)
    with pytest.raises(BufferError, match="1 view"):
        buffer.release()
    del buffer
    assert not watched.gone
    del capsule
    assert watched.gone


@VERSIONS
def test_a_consumed_tensor_may_be_deleted_on_any_thread_without_the_gil(allocator, max_version):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    capsule = buffer.__dlpack__(max_version=max_version)
    managed = consume(capsule, versioned=max_version is not None)
    del buffer, capsule
    assert not watched.gone
    delete = threading.Thread(target=managed.deleter, args=(ctypes.addressof(managed),))
    delete.start()  # ctypes drops the GIL around the call
    delete.join()
    assert watched.gone


# ---- release ----


def test_release_unmaps_and_a_second_does_nothing(allocator):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    assert buffer.release() is None
    assert watched.gone
    other = allocate_in(allocator, 8 * MIB)
    buffer.release()
    buffer.__exit__(None, None, None)
    assert not Watched(other).gone
    memoryview(other)[:] = bytes(8 * MIB)


@pytest.mark.parametrize(
    "use",
    [
        memoryview,
        bytes,
        numpy.frombuffer,
        numpy.from_dlpack,
        lambda buffer: buffer.ptr,
        lambda buffer: buffer.__enter__(),
        lambda buffer: buffer.__dlpack__(),
        lambda buffer: buffer.__dlpack__(copy=True),
    ],
)
def test_use_after_release_is_an_error(use):
    buffer = memlimits.allocate(100)
    buffer.release()
    with pytest.raises(ValueError, match="released"):
        use(buffer)
    assert buffer.nbytes == 100


VIEWS = [memoryview, numpy.asarray, numpy.from_dlpack, lambda buffer: buffer.__dlpack__()]


@pytest.mark.parametrize("make_view", VIEWS)
def test_release_under_a_view_is_an_error_and_changes_nothing(allocator, make_view):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    view = make_view(buffer)
    for _ in range(2):
        with pytest.raises(BufferError, match="1 view"):
            buffer.release()
    assert not watched.gone
    memoryview(buffer)[-1] = 5
    del view
    buffer.release()
    assert watched.gone


def test_the_error_says_how_many_views_there_are():
    buffer = memlimits.allocate(100)
    views = [make_view(buffer) for make_view in VIEWS]
    with pytest.raises(BufferError, match=r"4 view"):
        buffer.release()
    views.clear()
    buffer.release()


@pytest.mark.parametrize("make_view", VIEWS)
def test_a_view_keeps_the_block_after_the_buffer_is_gone(allocator, make_view):
    buffer = allocate_in(allocator, 8 * MIB)
    memoryview(buffer)[:] = b"\x55" * (8 * MIB)
    watched = Watched(buffer)
    view = make_view(buffer)
    del buffer
    assert ctypes.string_at(watched.range[0], 8 * MIB) == b"\x55" * (8 * MIB)
    del view
    assert watched.gone


# ---- with ----


def test_with_gives_the_block_back_at_the_end(allocator):
    with allocate_in(allocator, 8 * MIB) as buffer:
        watched = Watched(buffer)
        assert not watched.gone
    assert watched.gone
    with pytest.raises(ValueError, match="released"), buffer:
        pass


def test_release_inside_with_is_fine(allocator):
    with allocate_in(allocator, 8 * MIB) as buffer:
        watched = Watched(buffer)
        buffer.release()
    assert watched.gone


@pytest.mark.parametrize("make_view", VIEWS)
def test_with_waits_for_the_last_view(allocator, make_view):
    with allocate_in(allocator, 8 * MIB) as buffer:
        watched = Watched(buffer)
        views = [make_view(buffer), memoryview(buffer)]
    buffer.release()  # released already, whatever views there are
    with pytest.raises(ValueError, match="released"):
        memoryview(buffer)
    views.pop().release()
    assert not watched.gone
    views.clear()
    assert watched.gone


def test_with_masks_no_exception(allocator):
    ranges = []

    def fail():
        with allocate_in(allocator, 8 * MIB) as buffer:
            ranges.append(Watched(buffer))
            view = memoryview(buffer)
            view[-1] = 9
            raise KeyError("own")

    with pytest.raises(KeyError, match="own") as caught:
        fail()
    assert caught.value.__context__ is None
    assert not ranges[0].gone  # the traceback still holds the view
    caught.value.__traceback__ = None
    del caught
    gc.collect()
    assert ranges[0].gone


# ---- lifetime ----


def test_the_last_reference_gives_the_block_back(allocator):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    alias = buffer
    del buffer
    assert not watched.gone
    del alias
    assert watched.gone


def test_a_buffer_in_a_cycle_is_collected(allocator):
    buffer = allocate_in(allocator, 8 * MIB)
    watched = Watched(buffer)
    cycle = [buffer, memoryview(buffer)]
    cycle.append(cycle)
    del buffer, cycle
    gc.collect()
    assert watched.gone


def test_freed_on_another_thread(allocator):
    held = [allocate_in(allocator, 8 * MIB), allocate_in(allocator, 100)]
    watched = Watched(held[0])
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert watched.gone
    allocator.clear_cache()
    assert allocator.get_active_memory() == 0


def test_a_buffer_keeps_its_allocator():
    allocator = Allocator()
    buffer = allocate_in(allocator, MIB)
    del allocator
    gc.collect()
    memoryview(buffer)[:] = b"\x11" * MIB
    assert bytes(buffer) == b"\x11" * MIB


def with_views():
    with memlimits.allocate(100) as buffer:
        memoryview(buffer)[0] = 1


def fail_to_release():
    buffer = memlimits.allocate(100)
    view = memoryview(buffer)
    with pytest.raises(BufferError):
        buffer.release()
    view.release()


CYCLES = [
    lambda: memlimits.allocate(100),
    lambda: memlimits.allocate(100_000),
    lambda: memlimits.allocate(0),
    lambda: memoryview(memlimits.allocate(100)),
    lambda: numpy.frombuffer(memlimits.allocate(100), numpy.uint8),
    lambda: numpy.from_dlpack(memlimits.allocate(100)),
    lambda: numpy.from_dlpack(OldProducer(memlimits.allocate(100))),
    lambda: memlimits.allocate(100).__dlpack__(),
    lambda: memlimits.allocate(100).__dlpack__(max_version=(1, 0)),
    lambda: memlimits.allocate(100).__dlpack__(max_version=(1, 0), copy=True),
    with_views,
    fail_to_release,
]


@pytest.mark.parametrize("cycle", CYCLES)
def test_nothing_is_left_behind(cycle):
    """Blocks that CPython's allocator holds, and references that the types count."""
    for _ in range(50):
        cycle()
    gc.collect()
    before = sys.getallocatedblocks()
    references = sys.getrefcount(memlimits.Buffer)
    for _ in range(400):
        cycle()
    gc.collect()
    assert sys.getallocatedblocks() - before < 100
    assert abs(sys.getrefcount(memlimits.Buffer) - references) < 10


def test_refused_allocations_leave_nothing_behind():
    allocator = Allocator()
    allocator.set_memory_policy("strict")
    allocator.set_memory_limit(0)

    def attempt():
        with pytest.raises(memlimits.MemoryLimitError):
            allocate_in(allocator, 100)

    test_nothing_is_left_behind(attempt)


def test_the_process_does_not_grow():
    def cycle():
        for n in (100, 40_000, 3 * MIB):
            memoryview(memlimits.allocate(n, zeroed=True))[::PAGE] = b"\1" * -(-n // PAGE)
        memlimits.clear_cache()

    def size():
        return int(Path("/proc/self/statm").read_text().split()[0]) * PAGE

    for _ in range(20):
        cycle()
    before = size()
    for _ in range(200):
        cycle()
    assert size() - before < MIB


LEFT_ALIVE = {
    "buffers": "held = [memlimits.allocate(n) for n in (0, 10, 100_000, 1 << 24)]",
    "views": "held = memoryview(memlimits.allocate(100_000))",
    "cycle": "held = [memlimits.allocate(100_000)]; held.append(held)",
    "capsules": "b = memlimits.allocate(9); held = b.__dlpack__(), b.__dlpack__(max_version=(1,))",
    "arrays": "import numpy; held = numpy.from_dlpack(memlimits.allocate(100_000))",
    "module": "import sys; sys.held = memlimits.allocate(100_000); sys.modules['held'] = sys.held",
    "finalizer": (
        "class Late:\n"
        "    def __del__(self, allocate=memlimits.allocate):\n"
        "        allocate(100_000, zeroed=True).release()\n"
        "held = Late()"
    ),
    "atexit": "import atexit; atexit.register(lambda b=memlimits.allocate(10): b.release())",
    "inside with": "memlimits.allocate(10).__enter__()",
    "daemon": (
        "import threading, time\n"
        "def work():\n"
        "    while True:\n"
        "        memlimits.allocate(100_000).release()\n"
        "        memlimits.clear_cache()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.05)"
    ),
}


@pytest.mark.parametrize("what", LEFT_ALIVE)
def test_the_interpreter_exits_cleanly_with_blocks_alive(what):
    result = run(f"import memlimits\n{LEFT_ALIVE[what]}")
    assert (result.returncode, result.stderr) == (0, "")
