"""No page that a GPU's driver was shown is unmapped, moved or dropped before that is taken back.

The driver would say nothing, and copy what is not there any more. On a GPU what it reads is
compared; the stand-in ends the process.
"""

import re

import pytest

pytestmark = pytest.mark.host

# Registered blocks; what the GPU reads of one is compared.
BEGIN = """
    memlimits.set_wired_limit(256 * MIB)
    attachment = memlimits.cuda.attach()

    def same(address, n, byte):
        assert as_the_gpu_reads(address, n) == bytes([byte]) * n
"""


@pytest.fixture
def faults(card):
    def run(script):
        # Indents of two texts would not agree.
        lines = [line.removeprefix("        ") for line in script.splitlines()]
        begin = [line.removeprefix("    ") for line in BEGIN.splitlines()]
        return card.run("\n".join([*begin, *lines]))

    return run


def test_what_is_returned_is_unregistered_before(faults):
    faults("""
        for give_back in (
            memlimits.clear_cache, lambda: memlimits.set_cache_limit(0), lambda: memlimits.trim(0),
        ):
            block = memlimits.allocate(8 * MIB)
            fill(block, 1)
            same(block.ptr, block.nbytes, 1)
            address = block.ptr
            block.release()
            assert is_pinned(address)
            give_back()
            assert not is_pinned(address) and registered() == 0
            memlimits.set_cache_limit(None)
            # Something new lies there.
            block = memlimits.allocate(8 * MIB)
            fill(block, 2)
            same(block.ptr, block.nbytes, 2)
            block.release()
            memlimits.clear_cache()
    """)


def test_growth_that_returns_idle_memory_unregisters_it(faults):
    faults("""
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(memlimits.get_active_memory() + 32 * MIB)
        memlimits.allocate(24 * MIB).release()
        assert registered() == 24 * MIB
        block = memlimits.allocate(30 * MIB)
        fill(block, 3)
        same(block.ptr, block.nbytes, 3)
        assert block.registered and registered() == 30 * MIB
    """)


def test_what_is_moved_is_not_what_is_registered(faults):
    faults("""
        import numpy as np
        with memlimits.govern_numpy():
            array = np.full(8 * MIB, 1, np.uint8)
            assert is_pinned(at(array))
            for n in (24, 96, 40, 9, 1):
                array.resize(n * MIB, refcheck=False)
                array[:] = n
                assert is_pinned(at(array))
                same(at(array), array.nbytes, n)
            # Registered only once it is long: it moves before.
            memlimits.set_wired_limit(0)
            array.resize(60 * MIB, refcheck=False)
            memlimits.set_wired_limit(256 * MIB)
            array[:] = 5
            same(at(array), array.nbytes, 5)
            del array
    """)


def test_zeros_of_what_is_registered_are_written(faults):
    faults("""
        import numpy as np
        block = memlimits.allocate(8 * MIB)
        fill(block, 7)
        address = block.ptr
        block.release()
        block = memlimits.allocate(8 * MIB, zeroed=True)
        assert block.ptr == address and block.registered
        assert bytes(block) == bytes(block.nbytes)
        same(address, block.nbytes, 0)
        fill(block, 7)
        block.release()
        array = memlimits.zeros(8 * MIB, np.uint8)
        assert at(array) == address and not array.any()
        same(address, array.nbytes, 0)
        array[:] = 9
        same(address, array.nbytes, 9)
        del array
        assert memlimits.stats().registrations == 1
    """)


def test_what_is_idle_for_long_is_not_given_to_the_system(faults):
    faults("""
        block = memlimits.allocate(8 * MIB)
        fill(block, 7)
        address = block.ptr
        block.release()
        memlimits.set_idle_timeout(0)
        memlimits.trim(None)
        assert memlimits.stats().purgeable == 0 and is_pinned(address)
        block = memlimits.allocate(8 * MIB)
        fill(block, 8)
        same(block.ptr, block.nbytes, 8)
        block.release()
        # Once it is not wired it may be.
        memlimits.set_wired_limit(0)
        memlimits.allocate(8 * MIB).release()
        memlimits.trim(None)
        assert not is_pinned(address)
        memlimits.set_wired_limit(256 * MIB)
        block = memlimits.allocate(8 * MIB)
        fill(block, 9)
        assert block.registered
        same(block.ptr, block.nbytes, 9)
        block.release()
        memlimits.set_idle_timeout(0, action="return")
        memlimits.trim(None)
        assert registered() == 0
        memlimits.set_idle_timeout(None)
    """)


def test_what_is_split_later_was_unregistered(faults):
    faults("""
        memlimits.set_wired_limit(0)
        memlimits.allocate(64 * MIB).release()
        memlimits.set_wired_limit(256 * MIB)
        held = [memlimits.allocate(4 * MIB) for _ in range(8)]
        for n, block in enumerate(held):
            fill(block, n)
        memlimits.set_wired_limit(0)
        for block in held[::2]:
            block.release()
        memlimits.set_wired_limit(256 * MIB)
        held[::2] = [memlimits.allocate(3 * MIB) for _ in range(4)]
        for n, block in enumerate(held):
            fill(block, n + 20)
        for n, block in enumerate(held):
            assert block.registered
            same(block.ptr, block.nbytes, n + 20)
    """)


def test_lists_that_grow_in_what_is_idle(faults):
    faults("""
        with memlimits.govern_python():
            for _ in range(5):
                data = bytearray()
                for n in range(2000):
                    data += bytes([n % 256]) * 5000
                view = (ctypes.c_char * len(data)).from_buffer(data)
                assert as_the_gpu_reads(ctypes.addressof(view), len(data)) == bytes(data)
                del view, data
            memlimits.clear_cache()
    """)


def test_zeros_on_many_threads_while_the_limit_goes_up_and_down(faults):
    faults("""
        stop = threading.Event()

        def take():
            while not stop.is_set():
                block = memlimits.allocate(2 * MIB, zeroed=True)
                assert not any(memoryview(block)[::4096])
                fill(block, 1)
                block.release()

        threads = [threading.Thread(target=take) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(150):
            memlimits.set_wired_limit(0)
            memlimits.set_wired_limit(256 * MIB)
        stop.set()
        for thread in threads:
            thread.join()
        attachment.close()
        consistent()
    """)


def test_pages_are_not_dropped_while_they_are_being_registered(stand_in):
    stand_in.run("""
        # A dirty block is handed out as zeros, by dropping its pages, while another thread's step
        # registers it: it is in use, and there is room for it by now.
        with memlimits.cuda.attach():
            set_fake("slow_us", 2000)
            for _ in range(30):
                block = memlimits.allocate(4 * MIB)
                fill(block, 1)
                block.release()
                thread = threading.Thread(target=memlimits.set_wired_limit, args=(64 * MIB,))
                thread.start()
                block = memlimits.allocate(4 * MIB, zeroed=True)
                assert not any(memoryview(block)[::4096])
                thread.join()
                block.release()
                memlimits.set_wired_limit(0)
    """)


# ---- the stand-in ends the process where a rule is broken ----

BROKEN = {
    "munmap": "libc.munmap(start, MIB)",
    "mremap": "libc.mremap(start, MIB, 2 * MIB, 1)",
    "MADV_DONTNEED": "libc.madvise(start + 4096, 4096, 4)",
    "MADV_FREE": "libc.madvise(start, MIB, 8)",
    "mmap over a part": "libc.mmap(start, 4096, 3, 0x32, -1, 0)",
    "registered again": "driver.cuMemHostRegister_v2(start + 4096, 8192, 1)",
    "called in a forked child": (
        "os.fork() or driver.cuCtxGetCurrent(ctypes.byref(ADDRESS())); os.wait(); os.abort()"
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_ends_the_process(stand_in, rule):
    done = stand_in.run(
        f"""
        libc = ctypes.CDLL(None)
        libc.mmap.restype = libc.mremap.restype = ADDRESS
        libc.mmap.argtypes = [ADDRESS, SIZE, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.munmap.argtypes, libc.madvise.argtypes = [ADDRESS, SIZE], [ADDRESS, SIZE, ctypes.c_int]
        libc.mremap.argtypes = [ADDRESS, SIZE, SIZE, ctypes.c_int]
        start = libc.mmap(None, 4 * MIB, 3, 0x22, -1, 0)
        with in_context():
            ok(driver.cuMemHostRegister_v2(start, 2 * MIB, 1))
            {BROKEN[rule]}
        """,
        code=-6,
    )
    assert re.search(f"^fake_cuda: .*{rule}", done.stderr, re.MULTILINE), done.stderr
