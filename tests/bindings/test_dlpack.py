"""DLPack: capsules of either kind, copies, and who gives the block back."""

import ctypes
import threading

import numpy
import pytest

import memlimits
from memlimits._bindings.allocator import Allocator
from memlimits._bindings.buffer import allocate_in
from support.blocks import Watched
from support.dlpack import OldProducer, consume, struct_in, versioned_struct
from support.kernel import mapped_bytes, needs_lockable
from support.process import run
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]

READ_ONLY, IS_COPIED = 1, 2

VERSIONS = pytest.mark.parametrize("max_version", [None, (1, 0)], ids=["unversioned", "versioned"])


@pytest.fixture
def allocator():
    """An allocator that unmaps at once what is given back: the kernel then tells when it was."""
    allocator = Allocator()
    allocator.set_cache_limit(0)
    return allocator


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


@pytest.mark.host
@needs_lockable(MIB)
def test_a_source_cannot_be_released_while_it_is_copied():
    """What copies may run other code on its way: here the one that shows a warning."""
    run("""
        other = lock_elsewhere()
        n = 512 << 10
        memlimits.allocate(n + n // 10).release()
        buffer = memlimits.allocate(n)          # in what was just given back, longer than n
        memoryview(buffer)[:] = b"x" * n
        memlimits.set_wired_limit(n)            # too low for it, but not for its copy
        seen, held = [], []

        def show(*_, **__):
            try:
                buffer.release()
            except BufferError as error:
                seen.append(str(error))
            else:
                held.append(memlimits.allocate(n))      # in the same place
                memoryview(held[0])[:] = b"y" * n

        warnings.showwarning = show
        capsule = buffer.__dlpack__(copy=True)
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        data = ctypes.c_void_p.from_address(get(capsule, b"dltensor")).value
        assert ctypes.string_at(data, n) == b"x" * n
        assert len(seen) == 1 and "1 view" in seen[0], seen
        buffer.release()
        assert ctypes.string_at(data, n) == b"x" * n
    """)


class Releasing:
    """An argument whose use releases the buffer."""

    def __init__(self, buffer, value):
        self.buffer = buffer
        self.value = value

    def __bool__(self):
        self.buffer.release()
        return self.value

    def __iter__(self):
        self.buffer.release()
        return iter(self.value)

    def __getitem__(self, index):
        self.buffer.release()
        return self.value[index]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("copy", True),
        ("copy", False),
        ("dl_device", (1, 0)),
        ("max_version", (1, 0)),
        ("max_version", (0, 8)),
    ],
)
def test_a_buffer_that_an_argument_releases_is_not_exported(name, value):
    buffer = memlimits.allocate(100_000)
    with pytest.raises(ValueError, match="released"):
        buffer.__dlpack__(**{name: Releasing(buffer, value)})


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
