"""The interpreter ends while blocks, arrays and threads are alive."""

import pytest

from support.process import execute, run

BLOCKS = {
    "buffers": "held = [memlimits.allocate(n) for n in (0, 10, 100_000, 1 << 24)]",
    "views": "held = memoryview(memlimits.allocate(100_000))",
    "cycle": "held = [memlimits.allocate(100_000)]; held.append(held)",
    "capsules": "b = memlimits.allocate(9); held = b.__dlpack__(), b.__dlpack__(max_version=(1,))",
    "arrays": "import numpy; held = numpy.from_dlpack(memlimits.allocate(100_000))",
    "module": "import sys; sys.held = memlimits.allocate(100_000); sys.modules['held'] = sys.held",
    "finalizer": (
        "class Late:\n"
        "    def __del__(self, allocate=memlimits.allocate):\n"
        "        allocate(100_000, zeroed=True).release()\n"
        "held = Late()"
    ),
    "atexit": "import atexit; atexit.register(lambda b=memlimits.allocate(10): b.release())",
    "inside with": "memlimits.allocate(10).__enter__()",
    "daemon": (
        "import threading, time\n"
        "def work():\n"
        "    while True:\n"
        "        memlimits.allocate(100_000).release()\n"
        "        memlimits.clear_cache()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.05)"
    ),
}


@pytest.mark.core
@pytest.mark.parametrize("what", BLOCKS)
def test_the_interpreter_exits_cleanly_with_blocks_alive(what):
    result = execute(f"import memlimits\n{BLOCKS[what]}", "-W", "error")
    assert (result.returncode, result.stderr) == (0, "")


ARRAYS = {
    "arrays": "held = memlimits.zeros(1 << 20), memlimits.empty(3, object)",
    "governing": "held = memlimits.govern_numpy(); array = numpy.arange(1 << 20)",
    "cycle": "memlimits.govern_numpy(); held = [numpy.arange(9)]; held.append(held)",
    "modules": "sys.kept = memlimits.zeros(1 << 20); numpy.kept = memlimits.zeros(10)",
    "daemon": (
        "memlimits.govern_numpy()\n"
        "def work():\n"
        "    while True:\n"
        "        numpy.ones(100_000).sum()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.05)\n"
    ),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_the_interpreter_exits_cleanly_with_arrays_alive(what):
    result = execute(
        f"import sys, threading, time, numpy, memlimits\n{ARRAYS[what]}", "-W", "error"
    )
    assert (result.returncode, result.stderr) == (0, "")


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
