"""Forks of a process whose malloc is ours."""

import pytest

from support.family import compiled, run
from support.interposed import LIBRARY

pytestmark = [
    pytest.mark.inside,
    pytest.mark.skipif(not LIBRARY.exists(), reason="malloc is interposed on Linux's host only"),
]


def test_a_fork_amid_allocating_threads():
    run("""
        assert _process.take_part() is None
        over = False
        def work():
            while not over:
                free(malloc(100_000)); free(malloc(100)); free(malloc(3 * MIB))
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(30):
                child = os.fork()
                if child == 0:
                    blocks = [malloc(1 << i) for i in range(22)]
                    for block in blocks: free(block)
                    os._exit(7)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        over = True
        for thread in threads: thread.join()
    """)


def test_a_fork_by_who_is_aside_from_the_core():
    """Such as a finalizer, amid what we make for ourselves: its locks are taken all the same."""
    run("""
        class Steps(ctypes.Structure):
            _fields_ = [(name, ctypes.CFUNCTYPE(None)) for name in ("begin", "end", "free")]
        assert _process.take_part() is None
        steps, over = Steps(), False
        assert ctypes.CDLL(None).memlimits_interpose(None, ctypes.byref(steps))
        def work():
            while not over:
                free(malloc(3 * MIB)); free(malloc(100_000))
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(60):
                steps.begin()
                child = os.fork()
                steps.end()
                if child == 0:
                    for i in range(23): free(malloc(1 << i))
                    os._exit(7)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        over = True
        for thread in threads: thread.join()
    """)


# Initialised before all others, so that its handlers run while our locks are held.
FIRST = "-Wl,-z,initfirst"


@pytest.mark.parametrize("flags", [[], [FIRST]], ids=["outside", "amid"])
def test_what_runs_around_a_fork_may_allocate(tmp_path, flags):
    handlers = compiled(
        tmp_path,
        "handlers",
        """
        #include <pthread.h>
        #include <stdlib.h>
        static void *held[3];
        static void swap(void)
        {
            for (int i = 0; i < 3; i++) {
                free(held[i]);
                held[i] = calloc(1, (size_t)1 << (6 + 8 * i));
            }
        }
        __attribute__((constructor)) static void registers(void)
        {
            pthread_atfork(swap, swap, swap);
        }
        void swap_now(void) { swap(); }
        """,
        *flags,
    )
    run(
        f"""
        amid = {bool(flags)}
        assert _process.take_part() is None
        swap_now = function("swap_now", None)
        for _ in range(5):
            swap_now()
            before = active()
            child = os.fork()
            if child == 0:
                swap_now()
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            # Theirs came back; what they took amid our locks is the C library's.
            assert (active() <= before - 4 * MIB) == amid
        """,
        preload=f"{LIBRARY}:{handlers}",
    )


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_fork_while_a_librarys_thread_has_its_lock_and_asks_for_memory(tmp_path, order):
    """The library takes the lock around a fork, and was loaded before memlimits."""
    locking = compiled(
        tmp_path,
        "locking",
        """
        #include <pthread.h>
        #include <semaphore.h>
        #include <stdlib.h>
        #include <string.h>
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        static sem_t locked, forks;
        static pthread_t thread;
        static void take(void)
        {
            sem_post(&forks);
            pthread_mutex_lock(&lock);
        }
        static void give(void) { pthread_mutex_unlock(&lock); }
        __attribute__((constructor)) static void registers(void)
        {
            pthread_atfork(take, give, give);
        }
        static void *work(void *unused)
        {
            pthread_mutex_lock(&lock);
            sem_post(&locked);
            sem_wait(&forks);
            for (size_t n = 100; n < 100000000; n *= 100) {
                void *start = malloc(n);
                memset(start, 1, n);
                free(start);
            }
            pthread_mutex_unlock(&lock);
            return unused;
        }
        void begin(void)
        {
            pthread_create(&thread, NULL, work, NULL);
            sem_wait(&locked);
        }
        void end(void) { pthread_join(thread, NULL); }
        """,
    )
    preload = [LIBRARY, locking] if order == "after" else [locking, LIBRARY]
    run(
        """
        signal.alarm(60)    # what hangs is ended, and fails
        begin, end = function("begin", None), function("end", None)
        warnings.simplefilter("ignore", DeprecationWarning)     # "multi-threaded, use of fork()"
        for governs in (False, True, True):
            begin()
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                free(malloc(MIB))
                memlimits.allocate(MIB)
                memlimits.set_memory_limit(memlimits.get_memory_limit())
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            end()
            free(malloc(MIB))
            assert _process.take_part() is None
        """,
        preload=":".join(map(str, preload)),
    )
