"""Buffer: one block and the views of it."""

import copy
import ctypes
import gc
import io
import pickle
import random

import numpy
import pytest

import memlimits
from memlimits._bindings.buffer import allocate_in
from support.blocks import Watched, uncached
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]


@pytest.fixture
def allocator():
    return uncached()


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


@pytest.mark.parametrize("name", ["nbytes", "capacity", "ptr", "metal_buffer", "other"])
def test_attributes_are_read_only(name):
    buffer = memlimits.allocate(1000)
    with pytest.raises(AttributeError):
        setattr(buffer, name, 1)


@pytest.mark.host
@pytest.mark.parametrize("n", [0, 1000, MIB])
def test_on_the_host_no_block_has_a_metal_buffer(n):
    buffer = memlimits.allocate(n)
    assert not hasattr(buffer, "metal_buffer")
    with pytest.raises(AttributeError, match=r"no Metal here.*host device"):
        buffer.metal_buffer  # noqa: B018
    buffer.release()
    assert not hasattr(buffer, "metal_buffer")


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
    assert ctypes.string_at(watched.place[0], 8 * MIB) == b"\x55" * (8 * MIB)
    del view
    assert watched.gone


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
