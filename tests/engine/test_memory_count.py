"""What the memory limit is on: what was given, or what the process holds in all."""

import textwrap

import pytest

import memlimits
from memlimits._bindings.allocator import COUNTS
from support.cgroup import inside, kills, needs_groups, nested, set_limit
from support.process import run
from support.units import MIB

pytestmark = [pytest.mark.inside, pytest.mark.core]

# What programs may use beside the prelude. The limit leaves 200 MiB above what the process holds.
COUNTING = """
    def held():
        stats = memlimits.stats()
        return stats.process_resident - stats.process_files + stats.process_swap

    def others(n):
        # Touched, and governed by nobody.
        pages = mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for place in range(0, n, 4096):
            pages[place] = 1
        return pages

    def take(n=MIB, most=1000):
        # Blocks, touched, until one is refused: it has to be for the limit.
        blocks = []
        while len(blocks) < most and (blocked_by := refused_by(n)) is None:
            blocks.append(memlimits.allocate(n))
            memoryview(blocks[-1])[::4096] = b"x" * (n // 4096)
        assert len(blocks) == most or blocked_by == "limit", blocked_by
        return blocks

    memlimits.set_memory_policy("strict")
    limit = held() + 200 * MIB
    memlimits.set_memory_limit(limit)
    assert memlimits.set_memory_count("process") == "given"
"""


def counting(script, **keywords):
    return run(textwrap.dedent(COUNTING) + textwrap.dedent(script), **keywords)


def test_it_is_set_and_told():
    assert memlimits.get_memory_count() == memlimits.stats().memory_count == "given"
    try:
        for before, now in zip(COUNTS, (*COUNTS[1:], "given"), strict=True):
            assert memlimits.set_memory_count(now) == before
            assert memlimits.get_memory_count() == memlimits.stats().memory_count == now
    finally:
        memlimits.set_memory_count("given")


def test_a_scope_sets_it():
    with memlimits.limits(count="process", policy="strict"):
        assert memlimits.get_memory_count() == "process"
        with memlimits.limits(count="given"):
            assert memlimits.get_memory_count() == "given"
        assert memlimits.get_memory_count() == "process"
    assert memlimits.get_memory_count() == "given"


@pytest.mark.parametrize("value", ["", "Given", "resident memory", b"given", None, 0])
def test_what_is_no_count(value):
    error = ValueError if isinstance(value, str) else TypeError
    for call in (memlimits.set_memory_count, lambda value: memlimits.limits(count=value)):
        with pytest.raises(error, match=rf"^count must be one of 'given', .*, not {value!r}$"):
            call(value)
    assert memlimits.get_memory_count() == "given"


@pytest.mark.host
def test_what_is_not_governed_takes_from_the_room():
    counting("""
        assert len(take()) in range(185, 201)
        memlimits.clear_cache()
        other = others(120 * MIB)
        blocks = take()
        assert len(blocks) in range(65, 81), len(blocks)
        assert held() <= limit + 2 * MIB
        error = memlimits.last_refusal()
        assert (error.counted, error.blocked_by, error.limit) == ("process", "limit", limit)
        assert abs(error.process - held()) < 4 * MIB
        assert f" ({error.process:,} bytes)" in str(error).partition(", the process held ")[2]
        other.close()
        more = take()
        assert len(blocks + more) in range(185, 201)
    """)


@pytest.mark.host
def test_what_was_given_is_counted_as_well():
    """As a promise: nobody has touched it yet."""
    counting("""
        blocks = [memlimits.allocate(64 * MIB) for _ in range(3)]
        assert refused_by(16 * MIB) == "limit"
        assert held() < limit - 150 * MIB
        blocks.pop().release()
        assert refused_by(16 * MIB) is None
    """)


@pytest.mark.host
def test_what_is_idle_goes_before_anything_is_refused():
    counting("""
        take(16 * MIB, 10).clear()
        gc.collect()
        assert memlimits.get_cache_memory() >= 160 * MIB
        other = others(100 * MIB)
        blocks = take(20 * MIB, 4)
        assert held() <= limit + 2 * MIB
        assert memlimits.stats().refusals == 0
    """)


@pytest.mark.host
def test_pages_of_files_do_not_count():
    counting("""
        with open("/proc/self/exe", "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        before = memlimits.stats().process_files
        sum(mapped[::4096])
        read = memlimits.stats().process_files - before
        assert len(take()) in range(190, 201)
    """)


@pytest.mark.host
def test_would_fit_and_effective_limit_say_the_same():
    counting("""
        other = others(100 * MIB)
        assert memlimits.would_fit(90 * MIB)
        assert memlimits.would_fit(110 * MIB).blocked_by == "limit"
        bounds = {bound.name: bound.nbytes for bound in memlimits.effective_limit().candidates}
        assert 90 * MIB < bounds["memory limit"] <= 100 * MIB, bounds
        block = memlimits.allocate(bounds["memory limit"])
    """)


@pytest.mark.host
def test_what_is_reserved_for_others_is_told_apart():
    counting("""
        other = others(100 * MIB)
        reservation = memlimits.reserve(60 * MIB)
        with reservation:
            def outside():
                seen.append(refused_by(80 * MIB))
                seen.append(refused_by(20 * MIB))
            seen = []
            thread = threading.Thread(target=outside)
            thread.start()
            thread.join()
            assert seen == ["reservation", None]
            assert refused_by(80 * MIB) is None
        assert refused_by(110 * MIB) == "limit"
    """)


@pytest.mark.host
def test_a_guideline_returns_what_is_idle_and_counts_overruns():
    counting("""
        memlimits.set_memory_policy("guideline")
        take(16 * MIB, 8).clear()
        gc.collect()
        other = others(220 * MIB)
        assert memlimits.get_cache_memory() > 100 * MIB
        block = memlimits.allocate(40 * MIB)
        assert memlimits.get_cache_memory() == 0
        stats = memlimits.stats()
        assert (stats.overruns, stats.refusals) == (1, 0)
        other.close()
        another = memlimits.allocate(40 * MIB)
        assert memlimits.stats().overruns == 1
    """)


@pytest.mark.host
def test_who_waits_goes_on_once_others_gave_back():
    counting("""
        memlimits.set_memory_policy("wait", 60)
        other = others(150 * MIB)
        taken = []
        thread = threading.Thread(target=lambda: taken.append(memlimits.allocate(100 * MIB)))
        thread.start()
        while memlimits.stats().waiting == 0:
            time.sleep(0.001)
        assert not taken
        other.close()
        thread.join(30)
        assert len(taken) == memlimits.stats().waits == 1
    """)


@pytest.mark.host
def test_who_waited_in_vain_is_refused():
    counting("""
        memlimits.set_memory_policy("wait", 0.05)
        other = others(150 * MIB)
        assert refused_by(100 * MIB) == "limit"
        assert memlimits.last_refusal().waited >= 0.05
        assert memlimits.last_refusal().process > limit - 60 * MIB
    """)


@pytest.mark.host
def test_what_cannot_be_read_now_is_as_it_was():
    counting("""
        other = others(100 * MIB)
        assert refused_by(150 * MIB) == "limit"
        taken = take_all_descriptors()
        other.close()
        assert refused_by(150 * MIB) == "limit"
        os.close(taken.pop())
        assert refused_by(150 * MIB) is None
    """)


@pytest.mark.host
def test_it_holds_for_numpy_and_for_what_grows():
    counting("""
        import numpy
        memlimits.set_memory_limit(held() + 200 * MIB)
        other = others(100 * MIB)
        with memlimits.govern_numpy():
            try:
                numpy.ones(20 * MIB)
            except MemoryError as error:
                assert memlimits.last_refusal().counted == "process"
                assert ", the process holds " in error.__notes__[0]
            else:
                raise AssertionError
            array = numpy.ones(8 * MIB)
            try:
                array.resize(20 * MIB, refcheck=False)
            except MemoryError:
                pass
            assert array.sum() == 8 * MIB
        assert memlimits.stats().refusals_by_limit == 2
    """)


@pytest.mark.host
def test_what_grows_is_looked_at_itself():
    """All of it is touched: only what it grows by is more than the process holds."""
    counting("""
        import numpy
        with memlimits.govern_numpy():
            array = numpy.ones(90 * MIB, dtype="u1")
            memlimits.set_memory_limit(held() + 100 * MIB)
            for n in (150 * MIB, 180 * MIB):
                array.resize(n, refcheck=False)
                array[:] = 1
            try:
                array.resize(200 * MIB, refcheck=False)
            except MemoryError:
                assert len(array) == array.sum() == 180 * MIB
            else:
                raise AssertionError
        assert memlimits.stats().refusals == 1
    """)


@pytest.mark.host
def test_threads_and_what_nobody_governs_stay_within_it_together():
    """Between two readings what is not governed may take a quarter of the room, or 16 MiB."""
    counting("""
        highest, gone = [0], threading.Event()
        def work(seed):
            blocks = []
            for step in range(150):
                n = (seed * 7919 + step * 104729) % (3 * MIB) + 4096
                try:
                    block = memlimits.allocate(n)
                except memlimits.MemoryLimitError as error:
                    assert error.blocked_by == "limit"
                    blocks = blocks[len(blocks) // 2:]
                    continue
                memoryview(block)[::4096] = bytes(len(range(0, len(memoryview(block)), 4096)))
                blocks.append(block)
        def watch():
            while not gone.is_set():
                highest[0] = max(highest[0], held())
        watcher = threading.Thread(target=watch)
        watcher.start()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        other = []
        for _ in range(10):
            other.append(others(4 * MIB))
            # On a busy machine all of it could be there before anybody looks.
            seen = memlimits.stats().misses
            while memlimits.stats().misses < seen + 8 and any(t.is_alive() for t in threads):
                time.sleep(0.0001)
        for thread in threads:
            thread.join()
        gone.set()
        watcher.join()
        assert memlimits.stats().refusals_by_limit > 0
        assert limit - 40 * MIB < highest[0] <= limit + 20 * MIB, (highest, limit)
        del other
    """)


@pytest.mark.host
def test_a_forked_child_counts_itself():
    counting("""
        other = others(100 * MIB)
        child = os.fork()
        if child == 0:
            other.close()
            blocks = take()
            os._exit(len(blocks) not in range(185, 201))
        assert os.waitpid(child, 0)[1] == 0
        assert len(take()) in range(85, 101)
    """)


@pytest.mark.host
@needs_groups
def test_in_a_group_of_that_limit_nothing_is_killed():
    with nested("group") as (group, *_):
        set_limit(group, 256 * MIB)
        run(
            """
            import random
            memlimits.set_memory_policy("strict")
            memlimits.set_memory_limit(256 * MIB)
            memlimits.set_memory_count("process")
            generator, blocks, refusals = random.Random(5), [], 0
            fill = memoryview(b"x" * (4 * MIB))
            other = mmap.mmap(-1, 128 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for step in range(500):
                # In steps that the next reading comes in time for.
                other[step << 18 : (step << 18) + (1 << 18)] = fill[: 1 << 18]
                n = generator.randrange(1, 4 * MIB)
                try:
                    blocks.append(memlimits.allocate(n))
                    memoryview(blocks[-1])[:] = fill[:n]
                except memlimits.MemoryLimitError as error:
                    assert error.counted == "process"
                    refusals += 1
                    blocks = blocks[len(blocks) // 2 :]
            assert refusals > 5
            """,
            words=inside(group),
        )
        assert kills(group) == 0
