"""A program that takes all the memory there is, again and again, and goes on with what it has.

Arguments: how blocks are made, when they are written, their sizes in KiB, how often, and what is
done when memory is refused. It knows of memlimits only where its blocks do.
"""

import random
import sys
import threading

MIB = 1 << 20


def maker(name):
    if name == "bytearray":
        return bytearray
    if name.startswith("allocate"):
        import memlimits

        return lambda n: memlimits.allocate(n, zeroed=name == "allocate zeroed")
    import numpy

    if name.startswith("governed "):
        import memlimits

        memlimits.govern_numpy()
    function = getattr(numpy, name.removeprefix("governed "))
    return lambda n: function(n, numpy.uint8)


def fill(block, mark):
    bytes_of = memoryview(block)
    bytes_of[::4096] = bytes([mark]) * len(bytes_of[::4096])


def holds(block, mark):
    return set(memoryview(block)[::4096]) == {mark}


def take_all(make, sizes, at_once, held):
    while True:
        held.append(make(random.choice(sizes)))
        if at_once:
            fill(held[-1], 1)


def in_a_thread(function):
    """A thread needs memory, too: its stack's addresses."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def attempt(make, sizes, at_once, call):
    """Return whether memory was refused. What is held is whole, and there is more again."""
    held = []
    refused = False
    try:
        take_all(make, sizes, at_once, held)
    except MemoryError:
        refused = True
    for i, block in enumerate(held):
        call(lambda block=block, i=i: fill(block, i % 251))
    assert all(holds(block, i % 251) for i, block in enumerate(held))
    total = sum(map(len, held))
    assert total > 24 * MIB, total
    while sum(map(len, held)) > total // 2:
        held.pop(random.randrange(len(held)))
    again = make(total // 4)
    fill(again, 252)
    assert holds(again, 252)
    return refused


def main(name, when, sizes, times, how):
    random.seed(0)
    make = maker(name)
    kept = make(5 * MIB)
    fill(kept, 253)
    sizes = [int(size) << 10 for size in sizes.split(",")]
    call = in_a_thread if how == "thread" else lambda function: function()
    refused = sum(attempt(make, sizes, when == "at once", call) for _ in range(int(times)))
    assert holds(kept, 253)
    print(refused)


main(*sys.argv[1:])
