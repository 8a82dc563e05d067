"""A process whose malloc is ours: every function of the family, whoever calls it."""

import os
import subprocess
import sys

import pytest

from support.family import compiled, run
from support.interposed import LIBRARY
from support.process import execute

pytestmark = [
    pytest.mark.inside,
    pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only"),
]


def test_until_the_core_takes_part_all_is_the_c_librarys():
    run("""
        before = active()
        assert not _process.governs()
        block = malloc(10 * MIB)
        assert active() == before
        grown = realloc(block, 20 * MIB)
        assert usable_size(grown) >= 20 * MIB and active() == before
        free(grown)
        start = c_void_p()
        assert posix_memalign(byref(start), 4096, 100) == 0 and start.value % 4096 == 0
        free(start)
    """)


def test_every_function_is_counted_and_gives_back():
    run("""
        assert _process.take_part() is None and _process.governs()
        def taken(make, least):
            before = active()
            block = make()
            assert block and active() - before >= least
            assert usable_size(block) >= least
            memset(block, 0xAB, least)
            free(block)
            return block
        size = 5 * MIB
        taken(lambda: malloc(size), size)
        taken(lambda: calloc(5, MIB), size)
        taken(lambda: realloc(None, size), size)
        taken(lambda: reallocarray(None, 5, MIB), size)
        assert taken(lambda: valloc(size), size) % PAGE == 0
        assert taken(lambda: pvalloc(size - 1), size) % PAGE == 0
        for alignment in (16, 32, 64, 4096, 1 << 16, 1 << 21):
            assert taken(lambda: aligned_alloc(alignment, size), size) % alignment == 0
            assert taken(lambda: memalign(alignment, size), size) % alignment == 0
            def make():
                start = c_void_p()
                assert posix_memalign(byref(start), alignment, size) == 0
                return start.value
            assert taken(make, size) % alignment == 0
    """)


def test_small_blocks_lie_in_steps_of_16_bytes():
    run("""
        assert _process.take_part() is None
        for n in range(0, 513):
            block = malloc(n)
            step = 16 if n <= 128 else 64
            assert usable_size(block) == max(-(-n // step) * step, 16), n
            assert block % 16 == 0
            free(block)
        blocks = [malloc(24) for _ in range(10_000)]
        assert len(set(blocks)) == 10_000 and all(block % 16 == 0 for block in blocks)
        for block in blocks:
            free(block)
    """)


def test_contents_move_along():
    run("""
        import random
        before = malloc(1000)           # the C library's
        memset(before, 7, 1000)
        assert _process.take_part() is None
        longer = realloc(before, 200_000)
        assert string_at(longer, 1000) == b"\\7" * 1000
        random.seed(1)
        held = {}
        for step in range(20_000):
            if len(held) > 100:
                block = random.choice(list(held))
                n, byte = held.pop(block)
                assert string_at(block, n) == bytes([byte]) * n
                if step % 3:
                    asked = max(1, int(n * random.uniform(0.3, 3)))
                    grown = realloc(block, asked)
                    kept = min(n, asked)
                    assert string_at(grown, kept) == bytes([byte]) * kept
                    block = grown
                free(block)
            n = int(2 ** random.uniform(0, 18))
            block = malloc(n) if step % 2 else calloc(1, n)
            if step % 2 == 0:
                assert string_at(block, n) == bytes(n)
            memset(block, step % 251, n)
            held[block] = n, step % 251
        for block in held:
            free(block)
        free(longer)
    """)


def test_what_is_wrong_is_refused_as_the_c_library_does():
    run("""
        assert _process.take_part() is None
        start = c_void_p(1)
        for alignment in (0, 3, 4, 24):
            assert posix_memalign(byref(start), alignment, 8) == errno.EINVAL, alignment
        assert start.value == 1
        set_errno(0)
        assert aligned_alloc(3, 8) is None and get_errno() == errno.EINVAL
        for call in (
            lambda: malloc(2**63 - 1), lambda: malloc(2**64 - 1), lambda: calloc(2**33, 2**33),
            lambda: reallocarray(None, 2**33, 2**33), lambda: realloc(None, 2**64 - 1),
            lambda: memalign(4096, 2**64 - 1), lambda: pvalloc(2**64 - 1),
            lambda: aligned_alloc(1 << 20, 2**64 - 1),
        ):
            set_errno(0)
            assert call() is None and get_errno() == errno.ENOMEM
        assert posix_memalign(byref(start), 64, 2**63) == errno.ENOMEM
        block = malloc(10)
        set_errno(5)
        free(block)
        free(None)
        assert get_errno() == 5
        assert usable_size(None) == 0
        block = malloc(100)
        assert realloc(block, 0) is None
        assert malloc(0) not in (None, malloc(0))
    """)


def test_a_block_of_no_bytes_lies_in_its_own_memory_however_it_is_aligned():
    run("""
        assert _process.take_part() is None
        for alignment in (16, 64, 4096, 8192, 1 << 16, 1 << 21):
            blocks = [memalign(alignment, 0) for _ in range(100)]
            assert len(set(blocks)) == 100
            for block in blocks:
                assert block % alignment == 0 and usable_size(block) > 0
                free(block)
    """)


def test_past_the_limit_malloc_gives_null_and_nothing_moves():
    run("""
        strict(100 * MIB)
        assert _process.take_part() is None
        held = malloc(60 * MIB)
        before = memlimits.stats()
        set_errno(0)
        assert malloc(60 * MIB) is None and get_errno() == errno.ENOMEM
        assert calloc(60, MIB) is None and realloc(held, 120 * MIB) is None
        assert aligned_alloc(64, 60 * MIB) is None and memalign(1 << 21, 60 * MIB) is None
        start = c_void_p()
        assert posix_memalign(byref(start), 64, 60 * MIB) == errno.ENOMEM
        after = memlimits.stats()
        assert after.refusals_by_limit == before.refusals_by_limit + 6
        assert usable_size(held) == 60 * MIB
        assert after.peak <= 100 * MIB and after.footprint <= 100 * MIB
        free(held)
        free(malloc(60 * MIB))
    """)


def test_threads_of_c_code_take_and_give_across_each_other():
    """Storms of a thousand threads' lives, each with a heap and destructors of its own."""
    run("""
        import queue
        strict(300 * MIB)
        assert _process.take_part() is None
        handed = queue.SimpleQueue()
        strdup = function("strdup", c_void_p, c_char_p)
        def work(seed):
            for i in range(300):
                n = (seed * 7919 + i * 104729) % 40_000 + 1
                block = malloc(n)
                memset(block, seed, n)
                handed.put((block, n, seed))
                other, length, byte = handed.get()
                assert string_at(other, 1) == string_at(other + length - 1, 1) == bytes([byte])
                free(other)
                free(strdup(b"a word"))
        for _ in range(20):
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        assert memlimits.stats().refusals == 0
    """)


def test_what_the_core_reads_meanwhile_does_not_come_back_to_it():
    """Near the limit and without credit each step reads files, which takes memory of malloc's."""
    run("""
        assert _process.take_part() is None
        ended = []
        def work():
            held = []
            for i in range(100):
                held.append(malloc(MIB + i * PAGE))
                memlimits.stats()
                memlimits.effective_limit()
                memlimits.trim()
                if len(held) > 20:
                    free(held.pop(0))
            for block in held: free(block)
            ended.append(True)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(ended) == 4
    """)


def test_the_operators_of_cpp_come_to_it(tmp_path):
    library = compiled(
        tmp_path,
        "operators",
        """
        #include <cstddef>
        #include <new>
        static char *plain, *aligned;
        extern "C" void give_back(void)
        {
            delete[] plain;
            operator delete[](aligned, std::align_val_t(256));
        }
        extern "C" int take(std::size_t n)
        {
            try {
                plain = new char[n];
                aligned = new (std::align_val_t(256)) char[n];
                return 1;
            } catch (const std::bad_alloc &) {
                return 0;
            }
        }
        """,
        language="c++",
    )
    run(f"""
        strict(100 * MIB)
        assert _process.take_part() is None
        operators = CDLL({str(library)!r})
        operators.take.argtypes = [c_size_t]
        before = active()
        assert operators.take(10 * MIB) == 1
        assert active() - before >= 20 * MIB
        operators.give_back()
        assert active() - before < MIB
        assert operators.take(200 * MIB) == 0
        assert memlimits.stats().refusals_by_limit == 1
    """)


def test_the_interpreter_ends_as_it_does():
    done = run(
        """
        import atexit, weakref
        assert _process.take_part() is None
        class Held:
            def __del__(self, free=free, block=malloc(100_000)):
                free(block)
        held = Held()
        atexit.register(print, "last words", flush=True)
        """
    )
    assert (done.stdout, done.stderr) == ("done\nlast words\n", "")


def test_a_process_that_was_started_without_the_library_says_what_to_start_it_with():
    done = execute("""if True:
        import memlimits
        try:
            memlimits.govern_malloc()
        except RuntimeError as error:
            print(error)
        """)
    assert done.stdout == (
        "malloc cannot be governed: the library that stands in for malloc was not loaded when the "
        "process started. Start the program as `memlimits run --govern all PROGRAM`, or with "
        f"LD_PRELOAD={LIBRARY} and no other allocator there\n"
    )


def test_a_threads_variables_are_there_at_the_limit(tmp_path):
    # For which the loader asks malloc when the thread first looks at one, and ends the process.
    library = compiled(
        tmp_path,
        "variables",
        """
        static __thread char variables[100000];
        int first(void) { return ++variables[0]; }
        """,
    )
    run(f"""
        import threading
        first = CDLL({str(library)!r}).first
        memlimits.govern_malloc()
        strict(active())
        assert malloc(100_000) is None
        found = [first()]
        memlimits.set_memory_limit(active() + 10 * MIB)
        thread = threading.Thread(target=lambda: (
            strict(active()), found.append(first()), memlimits.set_memory_limit(1 << 40)))
        thread.start()
        thread.join()
        assert found == [1, 1] and first() == 2
    """)


def test_the_public_function_governs_from_then_on():
    run("""
        before = active()
        block = malloc(10 * MIB)
        assert active() == before
        assert memlimits.govern_malloc() is None
        assert memlimits.govern_malloc() is None
        before = active()
        other = malloc(10 * MIB)
        assert active() - before >= 10 * MIB
        free(block)
        free(other)
        assert active() - before < MIB
        memlimits.set_memory_limit(active() + 20 * MIB)
        memlimits.set_memory_policy("strict")
        assert malloc(40 * MIB) is None
        assert memlimits.last_refusal().requested >= 40 * MIB
        try:
            bytearray(40 * MIB)
        except MemoryError as error:
            assert memlimits.errors.is_refusal(error)
            assert "to malloc" in "".join(error.__notes__)
    """)


@pytest.mark.parametrize("order", ["before", "after"])
def test_another_allocator_is_named_and_not_fought(tmp_path, order):
    other = compiled(
        tmp_path,
        "other",
        """
        #include <stddef.h>
        extern void *__libc_malloc(size_t n);
        void *malloc(size_t n) { return __libc_malloc(n); }
        """,
    )
    both = [str(other), str(LIBRARY)] if order == "before" else [str(LIBRARY), str(other)]
    program = "from memlimits.adapters import _process\nprint(_process.take_part())"
    environment = {**os.environ, "LD_PRELOAD": ":".join(both)}
    done = execute(program, env=environment)
    assert done.stdout == f"malloc is that of {str(other)!r}\n", done.stderr


def test_programs_without_python_run_as_they_do():
    environment = {**os.environ, "LD_PRELOAD": str(LIBRARY)}
    words = [sys.executable, "-c", "print('x' * 5)"]
    for program in (["ls", "-l", "/usr"], ["sort", "/etc/passwd"], words):
        plain = subprocess.run(program, capture_output=True, check=True)
        with_it = subprocess.run(program, capture_output=True, check=True, env=environment)
        assert (with_it.stdout, with_it.stderr) == (plain.stdout, plain.stderr)
