"""The size of the blocks that arrays lie in."""

import gc

import numpy as np
import pytest

import memlimits
from support.blocks import private
from support.units import KIB, MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]

size = memlimits.get_array_buffer_size


def active():
    return memlimits.get_active_memory()


@pytest.mark.parametrize("n", [1, 64, 65, 1000, 32 * KIB, 32 * KIB + 1, MIB, 9 * MIB + 5])
def test_a_view_of_any_part_counts_as_its_block(n):
    base = active()
    block = memlimits.allocate(n)
    view = memoryview(block)
    assert size(block) == size(view) == block.capacity == active() - base
    for part in (view[-1:], view[n // 2 :], view[::-1], view[:1].toreadonly()):
        assert size(part) == block.capacity
        assert size(part, block, view) == block.capacity


@pytest.mark.parametrize("dtype", ["u1", "f8", "M8[s]", "S5", "O", [("a", "i4"), ("b", "f2")]])
def test_arrays_of_any_type_and_shape(dtype):
    base = active()
    arrays = [memlimits.empty(shape, dtype) for shape in (5, (300, 7), (4, 5, 6, 700))]
    views = [array[..., ::-2].T for array in arrays]
    assert size(*arrays) == size(views) == size(arrays, views) == active() - base
    assert size(np.broadcast_to(arrays[0], (9, 5))) == size(arrays[0])


def test_blocks_that_lie_side_by_side_are_told_apart():
    blocks = [memlimits.allocate(1000) for _ in range(300)]
    assert size(blocks) == sum(block.capacity for block in blocks)
    assert size(blocks[::2]) == sum(block.capacity for block in blocks[::2])


def test_governed_arrays(govern):
    base = active()
    arrays = {"small": np.zeros(100), "large": np.zeros(10**6), "view": np.zeros(10**5)[500:]}
    assert size(arrays) == active() - base
    assert size(arrays["large"][10**6 - 1 :]) == size(arrays["large"])


def test_what_is_not_memlimits_counts_nothing():
    assert size(np.zeros(10**6), bytes(100), bytearray(5), np.float64(1), "text", range(9)) == 0
    assert size(memlimits.allocate(0), memlimits.empty((0, 5))) == 0
    block = memlimits.allocate(MIB)
    block.release()
    assert size(block) == 0


def test_a_block_of_another_allocator():
    from memlimits._bindings.buffer import allocate_in

    block = allocate_in(private(), 5 * MIB)
    assert size(block, [block]) == block.capacity
    assert size(memoryview(block)) == 0  # not the default allocator's


def test_a_tree_that_holds_itself_and_one_that_is_deep():
    block = memlimits.allocate(MIB)
    tree = [block]
    tree.append({"again": tree, "tuple": (tree,)})
    assert size(tree, tree) == MIB
    for _ in range(100_000):
        tree = [tree]
    assert size(tree) == MIB


def test_an_object_that_cannot_show_its_memory_is_an_error_and_nothing_is_kept():
    block = memlimits.allocate(MIB)
    released = memoryview(block)
    released.release()
    with pytest.raises(ValueError, match="released"):
        size([block, released])

    class Failing(dict):
        def values(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        size(memoryview(block), Failing())
    gc.collect()
    block.release()


def test_it_is_told_while_threads_allocate():
    from support.threads import run_threads

    kept = [memlimits.empty(n) for n in (100, 10**5, 10**6)]
    middle = [array[len(array) // 2 :] for array in kept]
    total = sum(map(size, kept))

    def allocate():
        for i in range(300):
            memlimits.allocate(i * 4 * KIB + 1)

    def look():
        for _ in range(300):
            assert size(middle, b"foreign") == total

    run_threads(allocate, allocate, look)
