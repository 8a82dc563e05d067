"""Programs in a control group smaller than RAM: refused, never killed."""

import textwrap

import pytest

from support.cgroup import file_out_of_memory, needs_groups
from support.process import run
from support.units import MIB

pytestmark = [pytest.mark.host, needs_groups]


def test_a_group_refuses_and_does_not_kill(in_group):
    run(
        """
        assert memlimits.device_info()["memory_size"] == 256 * MIB
        memlimits.set_memory_limit(1 << 40)     # the group is all there is
        fill = b"x" * (8 * MIB)
        for _ in range(3):
            held = []
            while (blocked_by := refused_by(8 * MIB)) is None:
                held.append(memlimits.allocate(8 * MIB))
                memoryview(held[-1])[:] = fill
            assert blocked_by == "system", blocked_by
            assert 15 <= len(held) <= 30, len(held)
            assert all(block[8 * MIB - 1] == 120 for block in map(memoryview, held[:3]))
            held.clear()
        memlimits.clear_cache()
        consistent()
        """,
        words=in_group,
    )


@pytest.mark.parametrize("limit", ["the default", 1 << 40])
def test_a_group_refuses_numpy_and_does_not_kill(in_group, limit):
    run(
        f"""
        import numpy
        if {limit!r} != "the default":
            memlimits.set_memory_limit({limit!r})
        with memlimits.govern_numpy():
            for _ in range(2):
                held = []
                try:
                    while True:
                        held.append(numpy.ones(MIB))
                except MemoryError:
                    pass
                assert memlimits.last_refusal().blocked_by == "system"
                assert 13 <= len(held) <= 30, len(held)
                assert sum(int(array.sum()) for array in held) == MIB * len(held)
                del held
        memlimits.clear_cache()
        consistent()
        """,
        words=in_group,
    )


def test_bytes_that_are_touched_later_are_there(in_group):
    run(
        """
        fill = b"x" * (8 * MIB)
        held = []
        while refused_by(8 * MIB, zeroed=True) is None:
            held.append(memlimits.allocate(8 * MIB, zeroed=True))
        assert memlimits.last_refusal().blocked_by == "system"
        assert len(held) >= 15
        for block in held:
            memoryview(block)[:] = fill
        held.clear()
        assert memlimits.allocate(100 * MIB).capacity == 100 * MIB
        """,
        words=in_group,
    )


def test_bytes_that_were_read_before_they_are_written_are_there(in_group):
    """A page that was only read is the kernel's one page of zeros: it costs nothing yet."""
    run(
        """
        other = b"x" * (100 * MIB)
        fill = memoryview(other)[: 8 * MIB]
        held = []
        while refused_by(8 * MIB, zeroed=True) is None:
            held.append(memlimits.allocate(8 * MIB, zeroed=True))
            assert not any(memoryview(held[-1])[::4096])
        for block in held:
            memoryview(block)[:] = fill
        """,
        words=in_group,
    )


def test_room_that_the_program_takes_otherwise_is_gone(in_group):
    run(
        """
        fill = b"x" * (8 * MIB)
        held, others = [], []
        while refused_by(8 * MIB) is None:
            held.append(memlimits.allocate(8 * MIB))
            memoryview(held[-1])[:] = fill
            # Less than what is left to it; a slice of bytes would be a second copy.
            others.append(bytearray(memoryview(fill)[: 3 * MIB]))
        assert memlimits.last_refusal().blocked_by == "system"
        assert 10 <= len(held) <= 24, len(held)
        """,
        words=in_group,
    )


def test_the_cache_goes_before_the_system_refuses(in_group):
    run(
        """
        fill = b"x" * MIB
        def filled(n):
            block = memlimits.allocate(n * MIB)
            for at in range(0, n * MIB, MIB):
                memoryview(block)[at : at + MIB] = fill
            return block
        a, b, c = filled(50), filled(50), filled(30)
        a.release(); b.release()
        large = filled(100)
        assert memlimits.get_cache_memory() < 100 * MIB
        """,
        words=in_group,
    )


def test_page_cache_in_the_group_is_no_reason_to_refuse(in_group, tmp_path):
    data = tmp_path / "data"
    file_out_of_memory(data, 200 * MIB)
    run(
        f"""
        with open({str(data)!r}, "rb", buffering=0) as file:
            chunk = bytearray(MIB)
            while file.readinto(chunk):
                pass
        fill = b"x" * (8 * MIB)
        held = []
        while len(held) < 18:
            held.append(memlimits.allocate(8 * MIB))
            memoryview(held[-1])[:] = fill
        """,
        words=in_group,
    )


# What fills a group of 256 MiB with what the kernel takes back, or drops, before it kills.
FILLED = {
    "dirty": """
        with open(path, "wb", buffering=0) as file:
            for _ in range(180):
                file.write(bytes(MIB))
    """,
    "mapped": """
        import mmap
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert not any(mapped[::4096])
    """,
    "beside shared memory": """
        import mmap
        shared = mmap.mmap(-1, 40 * MIB)
        shared[::4096] = bytes(len(shared) // 4096)
        with open(path, "rb", buffering=0) as file:
            chunk = bytearray(MIB)
            while file.readinto(chunk):
                pass
    """,
}


@pytest.mark.parametrize("filled", FILLED)
def test_what_the_kernel_takes_back_is_given(tmp_path, in_group, filled):
    """As NumPy alone gets it, and as little a reason to be killed."""
    data = tmp_path / "data"
    if filled != "dirty":
        file_out_of_memory(data, 180 * MIB)
    try:
        run(
            f"""
            import numpy
            path = {str(data)!r}
            exec({textwrap.dedent(FILLED[filled])!r})
            group = open("/proc/self/cgroup").read().split(":memory:")[1].split()[0]
            usage = int(open(f"/sys/fs/cgroup/memory{{group}}/memory.usage_in_bytes").read())
            assert usage > 110 * MIB, "the file system here does not charge the page cache"
            with memlimits.govern_numpy():
                array = numpy.ones(150 * MIB, numpy.uint8)
            assert array[-1] == 1
            """,
            words=in_group,
        )
    finally:
        data.unlink()


def test_of_a_group_all_but_a_small_part_can_be_had(in_group):
    """97 %, less what the interpreter has."""
    run(
        """
        import numpy
        group = open("/proc/self/cgroup").read().split(":memory:")[1].split()[0]
        before = int(open(f"/sys/fs/cgroup/memory{group}/memory.usage_in_bytes").read())
        memlimits.set_memory_limit(1 << 40)
        for _ in range(3):
            with memlimits.govern_numpy():
                held = []
                try:
                    while True:
                        held.append(numpy.ones(MIB, numpy.uint8))
                except MemoryError:
                    pass
            had = sum(array.nbytes for array in held)
            assert had >= 0.97 * 256 * MIB - before, (had / MIB, before / MIB)
            del held
        """,
        words=in_group,
    )


def test_several_threads_in_a_small_group(in_group):
    run(
        """
        fill = b"x" * (4 * MIB)
        counts = []
        def work():
            held, refusals = [], 0
            while refusals < 20:
                try:
                    held.append(memlimits.allocate(4 * MIB, zeroed=refusals % 2))
                    memoryview(held[-1])[:] = fill
                except memlimits.MemoryLimitError as error:
                    assert error.blocked_by == "system"
                    refusals += 1
                    del held[: len(held) // 2]
            counts.append(refusals)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert counts == [20] * 4
        consistent()
        """,
        words=in_group,
    )


def test_a_group_does_not_kill_for_want_of_file_descriptors(in_group):
    """What could not be read is not the same as no limit."""
    run(
        """
        memlimits.set_memory_limit(1 << 40)
        fill = b"x" * (8 * MIB)
        held = [memlimits.allocate(MIB)]    # the last look
        taken = take_all_descriptors()
        while refused_by(8 * MIB) is None:
            held.append(memlimits.allocate(8 * MIB))
            memoryview(held[-1])[:] = fill
        assert memlimits.last_refusal().blocked_by == "system"
        """,
        words=in_group,
    )


def test_where_a_group_is_full_small_steps_return_some_idle_memory_ahead(in_group):
    """Else each of them would read what the group has, and look at every page there is."""
    run(
        """
        memlimits.set_memory_limit(1 << 40)
        small, held = [memlimits.allocate(MIB // 16) for _ in range(128)], []
        for block in small:
            memoryview(block)[:] = b"x" * (MIB // 16)
        while refused_by(MIB) is None:
            held.append(memlimits.allocate(MIB))
            memoryview(held[-1])[:] = b"x" * MIB
        del small[::2]
        idle = memlimits.get_cache_memory()
        # Most of it is of no use to a longer block: it grows, and something has to go for it.
        steps = [idle]
        for _ in range(8):
            held.append(memlimits.allocate(MIB // 8))
            steps.append(memlimits.get_cache_memory())
        went = [before - after for before, after in zip(steps, steps[1:])]
        assert MIB <= max(went) <= 3 * MIB, went
        assert sum(n > MIB // 8 for n in went) == 1, went
        """,
        words=in_group,
    )


def test_what_a_group_has_left_is_kept_for_whom_it_is_reserved(in_group):
    """Also where a reading just allowed others to grow without another."""
    run(
        """
        memlimits.set_memory_limit(1 << 40)
        held, fill = [], b"x" * (8 * MIB)
        while memlimits.effective_limit().nbytes > 60 * MIB:
            held.append(memlimits.allocate(8 * MIB))
            memoryview(held[-1])[:] = fill
        held.append(memlimits.allocate(MIB))
        left = memlimits.effective_limit().nbytes
        answers = []
        with memlimits.reserve(left - 2 * MIB):
            thread = threading.Thread(target=lambda: answers.append(refused_by(8 * MIB)))
            thread.start(); thread.join()
            held.append(memlimits.allocate(left - 6 * MIB))
        assert answers == ["system"], answers
        """,
        words=in_group,
    )
