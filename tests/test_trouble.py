"""Machines and programs in trouble: nothing may be killed, lost, leaked, or miscounted."""

import _thread
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import memlimits
from memlimits import memory
from memlimits._allocator import Allocator
from memlimits._buffer import allocate_in
from memlimits._device import Device

MIB = 1 << 20
MEMORY_V1 = Path("/sys/fs/cgroup/memory")

# What the programs below may use.
PRELUDE = """
    import ctypes, gc, os, resource, signal, sys, threading, time, warnings
    import memlimits
    from memlimits import memory

    MIB = 1 << 20

    def proc(key, file="/proc/self/status"):
        with open(file) as text:
            return int(text.read().split(key + ":")[1].split()[0]) * 1024

    def refused_by(n, **options):
        try:
            memlimits.allocate(n, **options)
        except memlimits.MemoryLimitError as error:
            return error.blocked_by

    def consistent(active=0):
        counters = memory.counters()
        parts = sum(counters[part] for part in ("active", "cache", "slack", "pending"))
        assert counters["footprint"] == parts and counters["active"] == active, counters
        assert all(0 <= value < 2**63 for value in counters.values()), counters

    def as_nobody():
        # Root's rights make the limits below mean nothing.
        os.getuid() or os.setresuid(65534, 65534, 65534)

    def lock_elsewhere():
        # The program itself locks most of what it may: the library gets less than its capacity.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (MIB, MIB))
        as_nobody()
        assert memlimits.device_info()["wired_capacity"] == MIB
        other = ctypes.create_string_buffer(900 << 10)
        assert ctypes.CDLL(None).mlock(other, len(other)) == 0
        return other
"""


def run(script, *words, args=(), code=0, **options):
    """Run a program, started by `words`, and return what it wrote. It has to end with `code`."""
    source = textwrap.dedent(PRELUDE) + textwrap.dedent(script) + "\nprint('done', flush=True)\n"
    done = subprocess.run(
        [*words, sys.executable, *args, "-c", source],
        capture_output=True,
        text=True,
        timeout=100,
        **options,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    if code == 0:
        assert done.stdout.endswith("done\n")
    return done


# ---- the system refuses to map ----


def test_rlimit_as_is_a_refusal_by_the_device_and_not_the_end():
    run("""
        live = memlimits.allocate(MIB)
        limit = proc("VmSize") + 64 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        held = []
        while (blocked_by := refused_by(4 * MIB)) is None:
            held.append(memlimits.allocate(4 * MIB))
        assert blocked_by == "device", blocked_by
        assert 12 <= len(held) <= 16, len(held)
        before = memory.counters()
        assert refused_by(32 * MIB, zeroed=True) == "device"
        after = memory.counters()
        changed = {name for name in after if after[name] != before[name]}
        assert changed <= {"refusals", "cache", "footprint", "resources"}, changed
        assert after["refusals"] == before["refusals"] + 1
        held.clear()
        assert memlimits.allocate(40 * MIB).capacity == 40 * MIB
        live.release()
        consistent()
    """)


def test_rlimit_as_under_govern_numpy():
    pytest.importorskip("numpy")
    run("""
        import numpy
        limit = proc("VmSize") + 64 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with memlimits.govern_numpy():
            held = []
            try:
                while True:
                    held.append(numpy.ones(MIB))
            except MemoryError:
                pass
            assert memlimits.last_refusal().blocked_by == "device"
            assert held
            held.clear()
            assert numpy.ones(MIB).sum() == MIB
        memlimits.clear_cache()
        consistent()
    """)


def test_overruns_that_the_device_refuses_are_not_counted():
    run("""
        memlimits.set_memory_limit(0)
        limit = proc("VmSize") + 16 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        assert refused_by(64 * MIB) == "device"
        assert memory.counters()["overruns"] == 0
        consistent()
    """)


# ---- the system refuses to lock ----


@pytest.mark.parametrize(("soft", "hard"), [(0, 0), (65536, 65536), (0, 131072)])
def test_an_ordinary_user_wires_what_rlimit_memlock_allows(soft, hard):
    done = run(f"""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, ({soft}, {hard}))
        as_nobody()
        assert memlimits.device_info()["wired_capacity"] == {hard}
        blocks = [memlimits.allocate(65536) for _ in range(4)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            memlimits.set_wired_limit(64 * MIB)
            blocks += [memlimits.allocate(65536) for _ in range(4)]
        assert [warning.category for warning in caught] == [RuntimeWarning], caught
        assert "{hard}" in str(caught[0].message) and "ulimit -l" in str(caught[0].message)
        assert memlimits.get_wired_limit() == 64 * MIB
        assert proc("VmLck") == memlimits.get_wired_memory() == {hard}
        blocks.clear()
        memlimits.clear_cache()
        assert proc("VmLck") == memlimits.get_wired_memory() == 0
        consistent()
    """)
    assert done.stderr == ""


def test_a_failed_wire_fails_no_allocation_and_is_reported_once():
    done = run("""
        other = lock_elsewhere()
        locked = proc("VmLck")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            memlimits.set_wired_limit(MIB)
            blocks = [memlimits.allocate(256 << 10) for _ in range(3)]
            for block in blocks:
                memoryview(block)[:] = b"x" * len(block)
        assert [warning.category for warning in caught] == [RuntimeWarning], caught
        assert proc("VmLck") == locked and memlimits.get_wired_memory() == 0
        assert memory.counters()["wire_failures"] >= 1
        del block, blocks
        consistent()
    """)
    assert done.stderr == ""


def test_a_failed_wire_fails_no_allocation_where_warnings_are_errors():
    done = run(
        """
        other = lock_elsewhere()
        memlimits.set_wired_limit(MIB)
        blocks = [memlimits.allocate(256 << 10) for _ in range(3)]
        assert memlimits.get_active_memory() == sum(block.capacity for block in blocks)
        blocks.clear()
        consistent()
        """,
        args=("-W", "error"),
    )
    assert done.stderr.count("Exception ignored") == 1  # not lost either


def test_failed_wires_do_not_make_each_allocation_try_everything_again():
    """Measured in calls of mlock, by the count of failures: at most a few for each block."""
    run("""
        other = lock_elsewhere()
        warnings.simplefilter("ignore")
        memlimits.set_wired_limit(MIB)
        blocks = [memlimits.allocate(256 << 10) for _ in range(200)]
        assert memory.counters()["wire_failures"] <= 3 * len(blocks), memory.counters()
    """)


# ---- a control group smaller than RAM ----

needs_groups = pytest.mark.skipif(
    not (os.getuid() == 0 and os.access(MEMORY_V1 / "cgroup.procs", os.W_OK)),
    reason="needs root and a writable memory control group of version 1",
)


@pytest.fixture
def in_group():
    """Words that start a command in a control group of 256 MiB."""
    group = MEMORY_V1 / f"memlimits-trouble-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(256 * MIB))
    yield "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"
    for _ in range(100):
        try:
            group.rmdir()
            return
        except OSError:  # the last member is still leaving
            time.sleep(0.02)
    group.rmdir()


@needs_groups
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
        *in_group,
    )


@needs_groups
@pytest.mark.parametrize("limit", ["the default", 1 << 40])
def test_a_group_refuses_numpy_and_does_not_kill(in_group, limit):
    pytest.importorskip("numpy")
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
        *in_group,
    )


@needs_groups
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
        *in_group,
    )


@needs_groups
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
        *in_group,
    )


@needs_groups
def test_room_that_the_program_takes_otherwise_is_gone(in_group):
    run(
        """
        fill = b"x" * (8 * MIB)
        held, others = [], []
        while refused_by(8 * MIB) is None:
            held.append(memlimits.allocate(8 * MIB))
            memoryview(held[-1])[:] = fill
            others.append(bytearray(fill))
        assert memlimits.last_refusal().blocked_by == "system"
        assert 7 <= len(held) <= 15, len(held)
        """,
        *in_group,
    )


@needs_groups
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
        *in_group,
    )


@needs_groups
def test_page_cache_in_the_group_is_no_reason_to_refuse(in_group, tmp_path):
    data = tmp_path / "data"
    data.write_bytes(bytes(200 * MIB))
    fd = os.open(data, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
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
        *in_group,
    )


@needs_groups
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
        *in_group,
    )


# ---- no file descriptors left ----


def test_without_file_descriptors_allocation_goes_on():
    run("""
        memlimits.set_wired_limit(0)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        blocks = [memlimits.allocate(8 * MIB, zeroed=True) for _ in range(8)]
        assert memlimits.get_active_memory() == 64 * MIB
        blocks.clear()
        for fd in taken:
            os.close(fd)
        consistent()
    """)


@needs_groups
def test_a_group_does_not_kill_for_want_of_file_descriptors(in_group):
    """What could not be read is not the same as no limit."""
    run(
        """
        memlimits.set_memory_limit(1 << 40)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        fill = b"x" * (8 * MIB)
        held = []
        while refused_by(8 * MIB) is None:
            held.append(memlimits.allocate(8 * MIB))
            memoryview(held[-1])[:] = fill
        assert memlimits.last_refusal().blocked_by == "system"
        """,
        *in_group,
    )


# ---- no mappings left ----


def test_without_mappings_nothing_is_lost():
    """At vm.max_map_count an munmap that would split a mapping is refused as well."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 70_000:
        pytest.skip(f"vm.max_map_count is {limit}: too many to fill it quickly")
    run(f"""
        limit = {limit}
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [
            ctypes.c_long]
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        def maps():
            with open("/proc/self/maps") as file:
                return sum(1 for _ in file)

        n, fill = 256 << 10, b"x" * (256 << 10)
        blocks = [memlimits.allocate(n) for _ in range(64)]     # neighbours: one mapping
        for block in blocks:
            memoryview(block)[:] = fill
        places = [(block.ptr, block.capacity) for block in blocks]
        pages = limit + 1000
        start = libc.mmap(None, pages * 4096, 0, 0x4022, -1, 0)
        page = 0
        while page < pages and libc.mprotect(start + page * 4096, 4096, 1) == 0:
            page += 2
        assert page < pages
        before = proc("RssAnon")
        del block
        blocks = blocks[::2]            # every second one goes: each would split a mapping
        gc.collect()
        memlimits.clear_cache()
        freed = 32 * n
        given_back = before - proc("RssAnon")
        held = memory.counters()["footprint"]
        # Bytes are either counted or given back.
        assert held - 32 * n >= freed - given_back - MIB, (held, freed, given_back)
        assert bytes(blocks[0]) == fill
        libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(pages * 4096))
        blocks.clear()
        memlimits.clear_cache()
        assert memory.counters()["footprint"] == 0
    """)


def test_many_small_resources():
    allocator = Allocator(Device())
    blocks = [allocate_in(allocator, 40_000) for _ in range(20_000)]
    assert allocator.counters()["resources"] == 20_000
    assert len({block.ptr for block in blocks}) == 20_000
    del blocks[::2]
    allocator.clear_cache()
    assert allocator.get_active_memory() == sum(block.capacity for block in blocks)
    blocks.clear()
    allocator.clear_cache()
    assert allocator.counters()["footprint"] == 0


# ---- the collector, signals, and the end of the interpreter ----


class Node:
    """Something that can be part of a cycle."""


@pytest.mark.core
@pytest.mark.parametrize("first", ["buffer", "node"])
def test_buffers_in_reference_cycles_go_with_them(first):
    allocator = Allocator(Device())
    buffer = allocate_in(allocator, 100) if first == "buffer" else None
    node = Node()
    node.itself = node
    node.buffer = buffer or allocate_in(allocator, 100)
    node.view = memoryview(node.buffer)
    del buffer, node
    import gc

    gc.collect()
    assert allocator.get_active_memory() == 0


@pytest.mark.core
def test_interrupts_in_a_loop_of_allocations_leave_the_counters_right():
    interrupted = 0
    held = []
    armed = []  # so that an interrupt comes in the loop only, never in what is around it
    active = memlimits.get_active_memory()

    def interrupt(*_):
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.0007)
    try:
        while interrupted < 300:
            try:
                armed.append(True)
                while True:
                    held.append(memlimits.allocate(5 * MIB, zeroed=True))
                    memlimits.allocate(100)
                    held.clear()
                    memlimits.clear_cache()
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    held.clear()
    assert memlimits.get_active_memory() == active
    memlimits.clear_cache()
    counters = memory.counters()
    assert counters["pending"] == counters["cache"] == 0


def test_buffers_may_outlive_everything():
    done = run("""
        import builtins
        class Late:
            def __del__(self):
                self.block.release()
        builtins.kept = memlimits.allocate(MIB)
        builtins.late = Late()
        builtins.late.block = memlimits.allocate(64)
        builtins.view = memoryview(memlimits.allocate(5 * MIB))
        builtins.cycle = [memlimits.allocate(100)]
        builtins.cycle.append(builtins.cycle)
        if memlimits.device_info()["wired_capacity"] > 8 * MIB:
            memlimits.set_wired_limit(8 * MIB)
    """)
    assert done.stderr == ""


def test_arrays_may_outlive_everything():
    pytest.importorskip("numpy")
    done = run("""
        import builtins, numpy
        memlimits.govern_numpy()
        builtins.array = numpy.ones(MIB)
        builtins.tensor = numpy.from_dlpack(memlimits.allocate(MIB))
        builtins.capsule = memlimits.allocate(100).__dlpack__()
    """)
    assert done.stderr == ""


def test_daemon_threads_at_exit():
    for _ in range(3):
        done = run("""
            def work():
                held = []
                while True:
                    held.append(memlimits.allocate(40_000 + 4096 * (len(held) % 50)))
                    if len(held) > 20:
                        del held[::2]
                        memlimits.clear_cache()
            for _ in range(4):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.1)
        """)
        assert done.stderr == ""


# ---- threads that collide ----


def test_threads_that_make_resources_at_once_all_find_them_again():
    """Threads that wait for memory wake together, without the GIL, and make resources at once.

    Each round takes place in a span of addresses that nothing was mapped in before. NumPy frees by
    address: a resource that cannot be found again ends the program.
    """
    pytest.importorskip("numpy")
    run("""
        import numpy
        libc = ctypes.CDLL(None)
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [
            ctypes.c_long]
        big, held = 64 * MIB, []
        fill = b"x" * big
        for _ in range(100):
            libc.mmap(None, 16 * MIB, 0, 0x4022, -1, 0)     # PROT_NONE: only takes addresses
            memlimits.set_memory_limit(1 << 40)
            block = memlimits.allocate(big)
            memoryview(block)[:] = fill                     # unmapping it takes a while
            del block
            memlimits.set_memory_limit(memlimits.get_active_memory() + big)
            together = threading.Barrier(9)
            def want():
                together.wait()
                held.append(memlimits.allocate(40 << 10))
            threads = [threading.Thread(target=want) for _ in range(8)]
            for thread in threads: thread.start()
            together.wait()
            memlimits.clear_cache()
            for thread in threads: thread.join()
        memlimits.set_memory_limit(1 << 40)
        count = len(held)
        held.clear()
        with memlimits.govern_numpy():
            arrays = [numpy.empty(40 << 10, numpy.uint8) for _ in range(count)]
        arrays.clear()
        consistent()
    """)


def test_the_thread_module_below_threading():
    """A thread that `threading` knows nothing of has refusals of its own."""
    finished = threading.Event()
    seen = []

    def work():
        seen.append(memlimits.last_refusal())
        try:
            memlimits.allocate(1 << 62)
        except memlimits.MemoryLimitError:
            seen.append(memlimits.last_refusal().requested)
        finished.set()

    with pytest.raises(memlimits.MemoryLimitError):
        memlimits.allocate(1 << 61)
    _thread.start_new_thread(work, ())
    assert finished.wait(10)
    assert seen == [None, 1 << 62]
    assert memlimits.last_refusal().requested == 1 << 61
