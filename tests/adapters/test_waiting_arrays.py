"""The policy "wait", where NumPy asks."""

import gc

import numpy as np
import pytest

import memlimits
from memlimits import memory
from support.patience import until_one_waits
from support.process import run
from support.threads import run_threads
from support.units import MIB


def test_numpy_waits_without_the_gil_and_collects_no_garbage(patient, govern):
    held = [np.empty(40 * MIB, np.uint8)]
    collections = [info["collections"] for info in gc.get_stats()]

    def free():
        until_one_waits()
        held.clear()

    run_threads(free, lambda: np.empty(40 * MIB, np.uint8))
    assert memory.counters()["waits"] > 0
    assert [info["collections"] for info in gc.get_stats()] == collections


def test_resizing_an_array_is_refused_at_once(patient, govern):
    """Others may read it meanwhile."""
    held = np.empty(30 * MIB, np.uint8)
    array = np.arange(20 * MIB, dtype=np.uint8)
    waits = memlimits.stats().waits
    with pytest.raises(MemoryError):
        array.resize(40 * MIB, refcheck=False)
    assert memlimits.last_refusal().waited == 0
    assert memlimits.stats().waits == waits
    assert np.array_equal(array[: 1 * MIB], np.arange(1 * MIB, dtype=np.uint8))
    del held
    array.resize(40 * MIB, refcheck=False)
    assert array.size == 40 * MIB


@pytest.mark.parametrize(
    ("n", "scope"), [("40 * MIB", "nullcontext()"), ("8000", "memlimits.budget('part')")]
)
def test_ctrl_c_ends_numpys_wait(n, scope):
    run(f"""
        from contextlib import nullcontext
        import numpy
        memlimits.set_memory_limit(64 * MIB)
        memlimits.set_memory_policy("wait", timeout=50)
        with memlimits.govern_numpy():
            held = []
            for size in MIB, 40 << 10, 4096:
                while memlimits.would_fit(size):
                    held.append(memlimits.allocate(size))
            def interrupt():
                while memory.counters()["waiting"] == 0:
                    time.sleep(0.01)
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGINT)
            threading.Thread(target=interrupt, daemon=True).start()
            try:
                with {scope}:
                    numpy.empty({n}, numpy.uint8)
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError
            assert memory.counters()["waiting"] == 0
            assert memory.counters()["refusals"] == 1
            assert 0.1 < memlimits.last_refusal().waited < 20
            held.clear()
            numpy.empty({n}, numpy.uint8)
    """)
