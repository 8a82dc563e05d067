"""Mappings of allocators that bring their own pages, in a process whose malloc is ours."""

import os
import textwrap

import pytest

from support.interposed import LIBRARY
from support.process import PRELUDE, execute

pytestmark = [
    pytest.mark.inside,
    pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only"),
]

MAPS = """
    import errno
    from ctypes import CDLL, c_int, c_long, c_size_t, c_void_p, get_errno, memset, string_at
    from memlimits.adapters import _process

    assert _process.take_part() is None
    libc = CDLL(None, use_errno=True)
    libc.mmap.restype, libc.mmap64.restype = c_void_p, c_void_p
    libc.mmap.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
    libc.mmap64.argtypes = libc.mmap.argtypes
    libc.munmap.argtypes = [c_void_p, c_size_t]
    libc.mprotect.argtypes = [c_void_p, c_size_t, c_int]
    libc.mremap.restype, libc.mremap.argtypes = c_void_p, [c_void_p, c_size_t, c_size_t, c_int]
    libc.sbrk.restype, libc.sbrk.argtypes = c_void_p, [c_long]
    NORESERVE = 0x4000
    LIKE_JEMALLOC = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
    FAILED, MAYMOVE = c_void_p(-1).value, 1

    def map(n, protection=READ_WRITE, flags=LIKE_JEMALLOC, start=None):
        return libc.mmap(start, n, protection, flags, -1, 0)

    def unmap(start, n):
        assert libc.munmap(start, n) == 0

    def since(before=memlimits.get_active_memory()):
        # In whole MiB: Python's own small objects come and go.
        return (memlimits.get_active_memory() - before + MIB // 2) // MIB
"""


def run(script):
    source = (
        "".join(map(textwrap.dedent, [PRELUDE, MAPS, script])) + "\nprint('done', flush=True)\n"
    )
    done = execute(source, env={**os.environ, "LD_PRELOAD": str(LIBRARY)})
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == "done\n"


def test_it_is_a_block_until_it_is_unmapped():
    run("""
        for function in (libc.mmap, libc.mmap64):
            start = function(None, 10 * MIB, READ_WRITE, LIKE_JEMALLOC, -1, 0)
            assert since() == 10 and start % 4096 == 0
            assert string_at(start, 10 * MIB) == bytes(10 * MIB)
            memset(start, 1, 10 * MIB)
            unmap(start, 10 * MIB)
            assert since() == 0
    """)


def test_it_is_a_block_until_the_last_of_it_is_unmapped():
    run("""
        start = map(8 * MIB)
        memset(start, 1, 8 * MIB)
        resident = proc("RssAnon")
        for at in (0, 6, 2):
            unmap(start + at * MIB, 2 * MIB)
            assert since() == 8
        # What the program gave back the system has.
        assert resident - proc("RssAnon") > 5 * MIB
        assert string_at(start + 4 * MIB, 2 * MIB) == bytes([1]) * (2 * MIB)
        unmap(start + 4 * MIB, 2 * MIB)
        assert since() == 0
    """)


def test_a_range_may_be_of_a_block_and_of_the_kernels():
    run("""
        NOREPLACE, page = 0x100000, 4096
        beside = {True: 0, False: 0}
        for _ in range(20):
            start = map(4 * MIB)
            at = {True: start - page, False: start + 4 * MIB}
            for before, place in at.items():
                found = map(page, flags=LIKE_JEMALLOC | NOREPLACE, start=place)
                if found != place:
                    continue
                beside[before] += 1
                unmap(min(start, place), 4 * MIB + page)
                assert since() == 0
                # Nothing is there any more.
                assert map(page, flags=LIKE_JEMALLOC | NOREPLACE, start=place) == place
                unmap(place, page)
                break
            else:
                unmap(start, 4 * MIB)
            memlimits.clear_cache()
        assert any(beside.values())
    """)


def test_whose_block_it_is_next_finds_no_protection_and_no_bytes():
    run("""
        start = map(4 * MIB)
        memset(start, 1, 4 * MIB)
        assert libc.mprotect(start, MIB, 0) == 0
        unmap(start, 4 * MIB)
        for _ in range(3):
            again = map(4 * MIB)
            assert string_at(again, 4 * MIB) == bytes(4 * MIB)
            memset(again, 1, 4 * MIB)
            unmap(again, 4 * MIB)
        block = memlimits.allocate(4 * MIB)
        memoryview(block)[:] = bytes([2]) * (4 * MIB)
    """)


def test_what_is_gone_is_not_unmapped_again():
    run("""
        start = map(4 * MIB)
        memset(start + MIB, 7, 3 * MIB)
        for _ in range(4):
            unmap(start, MIB)
        unmap(start + MIB // 2, MIB)
        assert since() == 4
        assert string_at(start + 3 * MIB // 2, MIB) == bytes([7]) * MIB
        unmap(start + MIB, MIB)
        unmap(start, 3 * MIB)
        assert since() == 4 and string_at(start + 3 * MIB, MIB) == bytes([7]) * MIB
        unmap(start, 4 * MIB)
        assert since() == 0
        # Who touches what is gone is told, and others do not come to lie there.
        start = map(4 * MIB)
        unmap(start + MIB, 2 * MIB)
        assert libc.mremap(start, 4 * MIB, 8 * MIB, MAYMOVE) == FAILED
        others = [map(MIB, flags=LIKE_JEMALLOC & ~NORESERVE) for _ in range(8)]
        assert not [other for other in others if start <= other < start + 4 * MIB]
        child = os.fork()
        if child == 0:
            string_at(start + MIB, 1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGSEGV
    """)


@pytest.mark.parametrize("parts", [1, 4])
def test_what_else_was_mapped_over_it_goes_with_it(parts):
    run(
        """
        import tempfile
        parts = PARTS
        with tempfile.TemporaryFile() as file:
            file.write(b"A" * (4 * MIB))
            file.flush()
            before = memlimits.get_active_memory()
            start, fixed = map(4 * MIB), 0x10
            unmap(start, MIB)
            length = 4 * MIB // parts
            for at in range(start, start + 4 * MIB, length):
                assert libc.mmap(at, length, 3, mmap.MAP_SHARED | fixed, file.fileno(), 0) == at
            # The part that was gone is there again, and may be unmapped.
            assert since(before) == 4
            assert string_at(start, 4 * MIB) == b"A" * (4 * MIB)
            assert libc.mremap(start, 4 * MIB, 8 * MIB, MAYMOVE) == FAILED
            for at in range(start, start + 4 * MIB, length):
                unmap(at, length)
            assert since(before) == 0
            blocks = [map(4 * MIB) for _ in range(3)]
            for block in blocks:
                assert string_at(block, 4 * MIB) == bytes(4 * MIB)
                memset(block, ord("B"), 4 * MIB)
            file.seek(0)
            assert file.read() == b"A" * (4 * MIB)
    """.replace("PARTS", str(parts))
    )


def test_what_is_moved_over_it_is_not_unmapped_with_it():
    run("""
        libc.mremap.argtypes += [c_void_p]
        start, fixed = map(4 * MIB), 2
        other = map(MIB, flags=LIKE_JEMALLOC & ~NORESERVE)
        memset(other, 7, MIB)
        unmap(start, 2 * MIB)
        assert libc.mremap(other, MIB, MIB, MAYMOVE | fixed, start) == start
        unmap(start + MIB, 3 * MIB)
        assert since() == 4 and string_at(start, MIB) == bytes([7]) * MIB
        unmap(start, MIB)
        assert since() == 0
    """)


def test_whose_memory_it_is_next_finds_no_advice():
    run("""
        libc.madvise.argtypes = [c_void_p, c_size_t, c_int]
        for whole in (True, False):
            start = map(8 * MIB)
            assert libc.madvise(start, 8 * MIB, mmap.MADV_DONTFORK) == 0
            if not whole:
                unmap(start, MIB)
            unmap(start, 8 * MIB)
            block = memlimits.allocate(8 * MIB)
            memoryview(block)[:] = bytes([1]) * (8 * MIB)
            child = os.fork()
            if child == 0:
                os._exit(memoryview(block)[4 * MIB])
            assert os.waitpid(child, 0)[1] == 1 << 8
            del block
    """)


def test_locked_memory_goes_back_unlocked():
    run("""
        memlimits.set_wired_limit(64 * MIB)
        before = proc("VmLck")
        start = map(4 * MIB)
        assert proc("VmLck") - before >= 4 * MIB or memory.counters()["wire_failures"]
        unmap(start, 2 * MIB)
        unmap(start + 2 * MIB, 2 * MIB)
        assert since() == 0 and proc("VmLck") - before < MIB
        memlimits.set_wired_limit(0)
        assert proc("VmLck") == 0
    """)


def test_what_does_not_fit_is_refused_and_not_had_otherwise():
    run("""
        assert libc.sbrk(4096) != FAILED
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(64 * MIB)
        assert map(100 * MIB) == FAILED and get_errno() == errno.ENOMEM
        refusal = memlimits.last_refusal()
        assert (refusal.requested, refusal.limit) == (100 * MIB, 64 * MIB)
        assert libc.sbrk(4096) == FAILED and get_errno() == errno.ENOMEM
        assert libc.sbrk(0) != FAILED
        assert since() == 0
        start = map(10 * MIB)
        assert since() == 10
        unmap(start, 10 * MIB)
    """)


def test_after_a_refusal_short_ones_count_until_a_long_one_is_had():
    """Such as jemalloc goes on with, each of which fits where none as long does."""
    run("""
        memlimits.set_memory_policy("strict")
        memlimits.set_memory_limit(64 * MIB)
        short = [map(MIB // 4) for _ in range(40)]
        assert since() == 0
        long = [map(20 * MIB) for _ in range(2)]
        assert map(30 * MIB) == FAILED
        more = [map(MIB // 4) for _ in range(20)]
        assert since() == 45
        memlimits.set_memory_limit(memlimits.stats().footprint + MIB // 2)
        assert map(MIB * 15 // 16) == FAILED and get_errno() == errno.ENOMEM
        memlimits.set_memory_limit(64 * MIB)
        for start in more:
            unmap(start, MIB // 4)
        for start in long:
            unmap(start, 20 * MIB)
        assert since() == 0
        unmap(map(20 * MIB), 20 * MIB)
        assert libc.sbrk(4096) != FAILED
        short += [map(MIB // 4) for _ in range(40)]
        assert since() == 0 and FAILED not in short
    """)


def test_other_mappings_are_the_kernels():
    run("""
        anonymous = mmap.MAP_ANONYMOUS | NORESERVE
        others = [
            map(4 * MIB, flags=LIKE_JEMALLOC & ~NORESERVE),
            map(4 * MIB, protection=0),
            map(4 * MIB, protection=mmap.PROT_READ),
            map(4 * MIB, flags=anonymous | mmap.MAP_SHARED),
            map(MIB // 2),
        ]
        fixed = 0x10
        others.append(map(4 * MIB, flags=LIKE_JEMALLOC | fixed, start=others[0]))
        assert others[-1] == others[0]
        assert since() == 0
        for start in others:
            unmap(start, 4 * MIB if start != others[4] else MIB // 2)
        assert libc.munmap(1, 4096) == -1 and get_errno() == errno.EINVAL
        assert libc.munmap(others[0], 0) == -1 and get_errno() == errno.EINVAL
    """)


def test_it_grows_elsewhere_with_what_it_has():
    run("""
        start = map(4 * MIB)
        memset(start, 7, 4 * MIB)
        assert libc.mremap(start, 4 * MIB, 8 * MIB, 0) == FAILED and get_errno() == errno.ENOMEM
        grown = libc.mremap(start, 4 * MIB, 8 * MIB, MAYMOVE)
        assert since() == 8
        assert string_at(grown, 8 * MIB) == bytes([7]) * (4 * MIB) + bytes(4 * MIB)
        shorter = libc.mremap(grown, 8 * MIB, 2 * MIB, MAYMOVE)
        assert string_at(shorter, 2 * MIB) == bytes([7]) * (2 * MIB)
        unmap(shorter, 2 * MIB)
        assert since() == 0
        own = map(4 * MIB, flags=LIKE_JEMALLOC & ~NORESERVE)
        moved = libc.mremap(own, 4 * MIB, 8 * MIB, MAYMOVE)
        assert moved != FAILED and since() == 0
        unmap(moved, 8 * MIB)
    """)


def test_threads_and_forks():
    run("""
        def churn(mark):
            for _ in range(200):
                start = map(2 * MIB)
                memset(start, mark, 1000)
                assert string_at(start, 1000) == bytes([mark]) * 1000
                unmap(start, MIB)
                unmap(start + MIB, MIB)
        threads = [threading.Thread(target=churn, args=(mark,)) for mark in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                churn(4)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        for thread in threads:
            thread.join()
        assert since() == 0
    """)
