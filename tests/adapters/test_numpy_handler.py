"""The handler that NumPy gets, called as NEP 49 allows."""

import ctypes

import pytest

import memlimits
from memlimits.adapters import _numpy
from support.handlers import HandlerWithoutGIL, of_capsule
from support.kernel import mapped_bytes, needs_proc
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.usefixtures("plain_numpy")]


class Heap:
    """The handler's functions without their context argument."""

    def __init__(self):
        self.handler = of_capsule(_numpy.own_handler(), HandlerWithoutGIL)

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
    assert memlimits.last_refusal().blocked_by == "max_buffer_length"
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


@needs_proc
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
