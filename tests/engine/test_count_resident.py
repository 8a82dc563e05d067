"""The memory limit on what is touched of what was given: looked at before anything is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memlimits
from memlimits._bindings.buffer import allocate_in
from memlimits.figures import Stats
from memlimits.sizes import format_exact
from support.blocks import private
from support.process import run
from support.threads import run_threads
from support.units import MIB, PAGE

pytestmark = [pytest.mark.inside, pytest.mark.host]

LIMIT = 64 * MIB


def resident(limit=LIMIT):
    allocator = private()
    allocator.set_memory_policy("strict")
    allocator.set_memory_limit(limit)
    assert allocator.set_memory_count("resident") == "given"
    return allocator


def touch(block, n=None):
    view = memoryview(block)[:n]
    view[::PAGE] = b"x" * len(view[::PAGE])


def refused(allocator, n):
    try:
        allocate_in(allocator, n).release()
    except memlimits.MemoryLimitError as refusal:
        error = refusal
    else:
        return None
    assert (error.blocked_by, error.counted) == ("limit", "resident")
    return error


def of(allocator):
    return Stats(allocator.statistics(False))


def overruns(allocator):
    return allocator.counters()["overruns"]


def test_what_nobody_touches_does_not_count():
    allocator = resident()
    held = [allocate_in(allocator, 16 * MIB) for _ in range(20)]
    assert allocator.counters()["footprint"] == 320 * MIB
    assert overruns(allocator) == allocator.counters()["refusals"] == 0
    allocator.set_memory_count("given")
    with pytest.raises(memlimits.MemoryLimitError) as caught:
        allocate_in(allocator, 100)
    assert (caught.value.counted, caught.value.untouched) == ("given", 0)
    held.clear()


def test_what_is_asked_for_counts_until_it_is_looked_at():
    allocator = resident()
    held = [allocate_in(allocator, 40 * MIB)]
    assert refused(allocator, 80 * MIB).untouched == 40 * MIB
    assert refused(allocator, 64 * MIB) is None
    touch(held[0])
    error = refused(allocator, 32 * MIB)
    assert error.untouched <= MIB
    assert f", not touched and not counted {format_exact(error.untouched)}. Free" in str(error)


def test_what_is_touched_later_can_pass_it_and_is_seen_by_the_next():
    allocator = resident()
    held = [allocate_in(allocator, 16 * MIB) for _ in range(10)]
    for block in held[:6]:
        touch(block)
    assert overruns(allocator) == 0  # nobody has looked
    for _ in range(3):
        assert refused(allocator, PAGE)
        assert overruns(allocator) == 1  # one, however often it is seen
    del held[:4], block
    assert refused(allocator, 16 * MIB) is None
    for block in held:
        touch(block)
    assert refused(allocator, PAGE)
    assert overruns(allocator) == 2


def test_what_goes_back_untouched_leaves_no_room_behind():
    allocator = resident()
    held = [allocate_in(allocator, 16 * MIB) for _ in range(12)]
    assert refused(allocator, 8 * MIB) is None
    del held[4:]
    for block in held:
        touch(block)
    assert refused(allocator, 8 * MIB)


def test_what_is_idle_goes_back_before_anything_is_refused():
    allocator = resident()
    held = [allocate_in(allocator, 32 * MIB) for _ in range(2)]
    touch(held[0])
    touch(held.pop())
    assert allocator.get_cache_memory() == 32 * MIB
    block = allocate_in(allocator, 31 * MIB)
    assert allocator.counters()["refusals"] == 0
    touch(block)
    assert refused(allocator, 4 * MIB)


def test_would_fit_returns_nothing_that_is_idle():
    run("""
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_count("resident")
        held = memlimits.allocate(48 * MIB)
        memlimits.allocate(8 * MIB).release()
        assert memlimits.would_fit(60 * MIB)
        assert memlimits.get_cache_memory() == 8 * MIB
        memoryview(held)[::4096] = b"x" * (12 << 10)
        assert memlimits.would_fit(60 * MIB).blocked_by == "limit"
        bound = next(b.nbytes for b in memlimits.effective_limit().candidates if b.kind == "limit")
        assert bound == 16 * MIB, bound
        assert memlimits.get_cache_memory() == 8 * MIB
    """)


def test_resized_blocks_and_arrays():
    """What moves may be looked at where it is not any more: it counts as touched then."""
    run("""
        import numpy
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_count("resident")
        with memlimits.govern_numpy():
            arrays = [numpy.empty(2 * MIB) for _ in range(12)]
            for array in arrays:
                array.resize(9 * MIB // 4, refcheck=False)  # what is new is filled with zeros
            assert memlimits.stats().footprint >= 12 * 18 * MIB
            for array in arrays:
                array.resize(MIB, refcheck=False)
            for array in arrays[:7]:
                array[:] = 1
            try:
                numpy.empty(2 * MIB)
            except MemoryError:
                pass
            else:
                raise AssertionError
            assert all(array.sum() == MIB for array in arrays[:7])
    """)


def test_a_guideline_takes_no_look():
    allocator = resident()
    allocator.set_memory_policy("guideline")
    held = [allocate_in(allocator, 32 * MIB) for _ in range(3)]
    assert overruns(allocator) == 1
    del held


def test_who_waits_goes_on_once_something_was_given_back():
    allocator = resident()
    allocator.set_memory_policy("wait", 60)
    held = [allocate_in(allocator, 32 * MIB) for _ in range(2)]
    for block in held:
        touch(block)
    taken = []

    def wait():
        taken.append(allocate_in(allocator, 16 * MIB))

    def give():
        while allocator.counters()["waiting"] == 0:
            pass
        held.pop().release()

    del block
    run_threads(wait, give)
    assert allocator.counters()["waits"] == len(taken) == 1


def test_without_a_descriptor_no_look_is_taken_and_what_was_given_counts():
    run("""
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_count("resident")
        held = memlimits.allocate(48 * MIB)
        taken = take_all_descriptors()
        assert refused_by(32 * MIB) == "limit"
        os.close(taken.pop())
        assert refused_by(32 * MIB) is None
    """)


def test_threads_that_touch_what_they_take_stay_within_it():
    allocator = resident()
    highest = [0]

    def work(seed):
        held = []
        for step in range(120):
            n = (seed * 7919 + step * 104729) % (3 * MIB) // PAGE * PAGE + PAGE
            try:
                held.append(allocate_in(allocator, n))
            except memlimits.MemoryLimitError:
                del held[: len(held) // 2 + 1]
                continue
            touch(held[-1])
            highest[0] = max(highest[0], allocator.counters()["footprint"])

    run_threads(*(lambda seed=seed: work(seed) for seed in range(4)))
    assert allocator.counters()["refusals"] > 0
    # Of what others have taken and not touched yet a look may find room for one.
    assert highest[0] <= LIMIT + 4 * 3 * MIB


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "touch", "touch", "release"]),
        st.integers(0, 50),
        st.integers(1, 700),  # pages
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_what_it_gives_and_refuses(steps):
    """Growth is given if it fits beside what is touched, but for what is longer than asked for."""
    limit = 8 * MIB
    allocator = resident(limit)
    allocator.set_cache_limit(0)
    held = []  # each a block, and how much of it is touched
    for what, which, pages in steps:
        touched = sum(n for _, n in held)
        if what == "take":
            n = pages * PAGE
            if n < 64 * 1024:
                continue
            try:
                block = allocate_in(allocator, n)
            except memlimits.MemoryLimitError:
                assert touched + n > limit - MIB, (touched, n)
            else:
                assert touched + n <= limit + block.capacity - n, (touched, n)
                held.append((block, 0))
                del block
        elif held and what == "touch":
            block, n = held[which % len(held)]
            m = max(n, min(pages * PAGE, block.nbytes))
            touch(block, m)
            held[which % len(held)] = block, m
            del block
        elif held:
            held.pop(which % len(held))
    counters = allocator.counters()
    assert of(allocator).refusals_by_limit == counters["refusals"]
    assert counters["active"] == sum(block.capacity for block, _ in held)
