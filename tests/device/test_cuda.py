"""memlimits.cuda.attach: what is wired is registered, once, and stays so as long as it is wired.

Each script runs over the stand-in for CUDA's driver, and on a GPU where there is one.
"""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from support.cuda import Card, needs_gpu
from support.places import ROOT

pytestmark = pytest.mark.host


def test_what_is_wired_is_registered_before_and_after(card):
    card.run("""
        before = memlimits.allocate(2 * MIB, wired=True)
        memlimits.set_wired_limit(16 * MIB)
        assert before.wired and not before.registered and not is_pinned(before.ptr)
        with memlimits.cuda.attach() as attachment:
            after = memlimits.allocate(3 * MIB, wired=True)
            assert attachment.device == 0
            for block in (before, after):
                assert block.wired and block.registered
                assert is_pinned(block.ptr) and is_pinned(block.ptr + block.nbytes - 1)
            assert registered() == memlimits.get_wired_memory() == 5 * MIB
            assert memlimits.stats().registrations == 2
        assert before.wired and not before.registered and not is_pinned(before.ptr)
        assert registered() == 0
        consistent(5 * MIB)
    """)


def test_what_is_not_wired_is_not_registered(card):
    card.run("""
        with memlimits.cuda.attach():
            block = memlimits.allocate(2 * MIB, wired=True)
            assert not block.registered and registered() == 0
            memlimits.set_wired_limit(2 * MIB)
            other = memlimits.allocate(MIB)
            assert (block.registered, other.registered) == (True, False)
            memlimits.set_wired_limit(0)
            assert not block.registered and not is_pinned(block.ptr)
        block.release()
        assert not block.registered
    """)


def test_it_stays_registered_in_the_cache(card):
    card.run("""
        memlimits.set_wired_limit(16 * MIB)
        with memlimits.cuda.attach():
            block = memlimits.allocate(5 * MIB)
            address = block.ptr
            for _ in range(10):
                block.release()
                assert registered() == 5 * MIB and is_pinned(address)
                block = memlimits.allocate(5 * MIB)
                assert block.ptr == address and block.registered
            assert memlimits.stats().registrations == 1
            # What goes first takes the place of what is idle.
            block.release()
            other = memlimits.allocate(12 * MIB, wired=True)
            assert other.registered and registered() == 12 * MIB
            assert not is_pinned(address)
    """)


def test_a_whole_resource_is_registered_once(card):
    card.run("""
        memlimits.set_wired_limit(16 * MIB)
        with memlimits.cuda.attach():
            small = [memlimits.allocate(1000) for _ in range(2000)]
            assert all(block.registered for block in small)
            assert all(is_pinned(block.ptr + 999) for block in small[::100])
            assert memlimits.stats().registrations == memlimits.stats().resources
            for block in small:
                memlimits.wire(block)
            assert memlimits.stats().registrations == memlimits.stats().resources
    """)


def test_no_more_is_pinned_than_whole_pages_of_what_was_asked_for(card):
    card.run("""
        page = resource.getpagesize()
        memlimits.set_wired_limit(1 << 30)
        with memlimits.cuda.attach():
            for n in (70 * MIB, 65 * MIB + 1, 33 * MIB + page, 36 * MIB - 1, 5_000_000, 600_000):
                block = memlimits.allocate(n, wired=True)
                assert block.registered
                assert n <= registered() < n + page, (n, registered())
                address = block.ptr
                block.release()
                block = memlimits.allocate(n, wired=True)
                assert block.ptr == address, "the next of its length has it again"
                del block
                memlimits.clear_cache()
    """)


def test_the_gpu_reads_what_was_written(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        with memlimits.cuda.attach():
            block = memlimits.allocate(8 * MIB, wired=True)
            for byte in (1, 2):
                fill(block, byte)
                assert as_the_gpu_reads(block.ptr, block.nbytes) == bytes([byte]) * block.nbytes
    """)


def test_arrays(card):
    pytest.importorskip("numpy")
    card.run("""
        import numpy as np
        memlimits.set_wired_limit(64 * MIB)
        with memlimits.cuda.attach():
            made = [
                memlimits.empty((3, 700_000), np.float32, wired=True),
                memlimits.zeros(MIB, wired=True),
                memlimits.empty(100, wired=True),
                memlimits.empty(100_000, "M8[s]", wired=True),
                memlimits.zeros((100, 1000), object, wired=True),
                memlimits.empty((500, 500), order="F", wired=True),
            ]
            assert all(array.base is None and array.flags.owndata for array in made)
            assert all(is_pinned(at(array)) for array in made)
            assert is_pinned(at(made[0]) + made[0].nbytes - 1)
            assert not made[1].any()
            assert memlimits.stats().wired_requested > 0
            assert memlimits.empty(0, wired=True).size == 0
            del made
            assert memlimits.stats().wired_requested == 0
    """)


def test_governed_arrays_of_a_scope(card):
    pytest.importorskip("numpy")
    card.run("""
        import numpy as np
        with memlimits.govern_numpy(), memlimits.cuda.attach():
            before = np.empty(MIB)
            np.empty(MIB)                           # is idle when the scope begins
            with memlimits.limits(wired=64 * MIB):
                array = np.empty(MIB)
                assert is_pinned(at(array)) and is_pinned(at(before))
                doubled = array * 2
                assert is_pinned(at(doubled))
            assert not is_pinned(at(array)) and registered() == 0
            array = np.empty(MIB)
            assert not is_pinned(at(array))
    """)


def test_what_is_idle_when_it_is_attached_is_not_handed_out_unregistered(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        memlimits.allocate(4 * MIB).release()
        with memlimits.cuda.attach():
            assert memlimits.allocate(4 * MIB).registered
        memlimits.set_wired_limit(0)
        with memlimits.cuda.attach():
            memlimits.allocate(4 * MIB).release()
            memlimits.set_wired_limit(64 * MIB)
            assert memlimits.allocate(4 * MIB).registered
    """)


def test_other_libraries_take_it_without_a_copy(card):
    pytest.importorskip("numpy")
    card.run("""
        import numpy as np
        memlimits.set_wired_limit(64 * MIB)
        with memlimits.cuda.attach():
            block = memlimits.allocate(MIB, wired=True)
            assert is_pinned(at(np.frombuffer(block, np.uint8)))
            assert is_pinned(at(np.from_dlpack(block)))
    """)


def test_a_threads_context_is_left_as_it_was(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        gpu()
        assert current() is None
        with memlimits.cuda.attach():
            block = memlimits.allocate(2 * MIB)
            assert block.registered and current() is None
            with in_context():
                mine = current()
                other = memlimits.allocate(3 * MIB)
                memlimits.set_wired_limit(0)
                assert current() == mine
    """)


def test_any_thread_registers(card):
    card.run("""
        memlimits.set_wired_limit(256 * MIB)
        with memlimits.cuda.attach():
            def take():
                for n in range(1, 9):
                    with memlimits.allocate(n * MIB, wired=True) as block:
                        assert block.registered and current() is None
            threads = [threading.Thread(target=take) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert memlimits.stats().registration_failures == 0
        assert registered() == 0
        consistent()
    """)


def test_what_may_be_locked_does_not_matter_while_it_is_attached(card):
    card.run("""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        as_nobody()
        assert memlimits.device_info()["wired_capacity"] == 65536
        with memlimits.cuda.attach():
            warnings.simplefilter("error")
            memlimits.set_wired_limit(64 * MIB)
            block = memlimits.allocate(8 * MIB, wired=True)
            assert block.registered and block.wired
            warnings.simplefilter("ignore")
        assert not block.registered
    """)


def test_it_can_be_attached_again(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        block = memlimits.allocate(2 * MIB)
        for _ in range(3):
            attachment = memlimits.cuda.attach()
            assert block.registered
            attachment.close()
            attachment.close()
            assert not block.registered
        first = memlimits.cuda.attach()
        first.close()
        with memlimits.cuda.attach():
            first.close()
            assert block.registered
    """)


def test_the_gpu_that_a_thread_works_on_is_taken(stand_in):
    stand_in.run("""
        assert refused(2).startswith("ValueError")
        with memlimits.cuda.attach(1) as attachment:
            assert attachment.device == 1
        with in_context(1), memlimits.cuda.attach() as attachment:
            assert attachment.device == 1
        with memlimits.cuda.attach() as attachment:
            assert attachment.device == 0
        assert get_fake("contexts") == 0
    """)


def test_a_forked_child_goes_on_without(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        attachment = memlimits.cuda.attach()
        held = memlimits.allocate(4 * MIB, wired=True)
        idle = memlimits.allocate(6 * MIB)
        fill(held, 1)
        idle.release()
        if os.fork() == 0:
            assert not held.registered and registered() == 0
            assert bytes(held) == bytes([1]) * held.nbytes
            attachment.close()
            memlimits.set_wired_limit(32 * MIB)
            block = memlimits.allocate(6 * MIB, wired=True)
            assert not block.registered and registered() == 0
            held.release()
            memlimits.clear_cache()
            assert "forked child" in refused(), refused()
            os._exit(7)
        fill(held, 2)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
        assert held.registered and is_pinned(held.ptr)
        assert as_the_gpu_reads(held.ptr, held.nbytes) == bytes([2]) * held.nbytes
        assert memlimits.allocate(5 * MIB, wired=True).registered
        attachment.close()
    """)


def test_a_program_may_end_with_it_attached(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        attachment = memlimits.cuda.attach()
        held = memlimits.allocate(4 * MIB, wired=True)
        memlimits.allocate(6 * MIB).release()
    """)


def test_others_go_on_while_the_driver_works(stand_in):
    stand_in.run("""
        memlimits.set_wired_limit(64 * MIB)
        with memlimits.cuda.attach():
            memlimits.allocate(MIB).release()
            set_fake("slow_us", 1_000_000)
            thread = threading.Thread(target=memlimits.allocate, args=(8 * MIB,))
            thread.start()
            time.sleep(0.2)
            began = time.monotonic()
            step = ctypes.CFUNCTYPE(None)(lambda: memlimits.allocate(MIB).release())
            for _ in range(100):
                step()
                memlimits.stats()
            assert time.monotonic() - began < 0.5
            # The driver asks for memory with its lock held, once it has it.
            driver.fake_cuda_call(step)
            thread.join()
    """)


def test_counters(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        memlimits.allocate(MIB).release()
        assert memlimits.stats().registrations == 0
        with memlimits.cuda.attach():
            held = [memlimits.allocate(n * MIB) for n in (1, 2, 3)]
            stats = memlimits.stats()
            assert (stats.registered, stats.registrations) == (6 * MIB, 3)
            assert (stats.registration_failures, stats.wire_failures) == (0, 0)
            consistent(6 * MIB)
        assert memlimits.stats().registered == 0
        assert memlimits.stats().registrations == 3
    """)


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="not in a clone")
def test_the_guides_program(card):
    pytest.importorskip("numpy")
    page = (ROOT / "docs/guides/wired.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert card.run(program).stdout.startswith("36 MiB are registered")


@pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="not in a clone")
def test_the_benchmark_runs(stand_in):
    """What it measures is no test."""
    pytest.importorskip("numpy")
    words = [sys.executable, ROOT / "benchmarks" / "cuda.py", "--rounds", "1", "--most", "4"]
    done = subprocess.run(
        [*stand_in.words(), *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "4 MiB from it: " in done.stdout
    assert "registrations " in done.stdout
    assert ", failed 0" in done.stdout


@needs_gpu
@pytest.mark.skipif(not find_spec("torch"), reason="there is no torch here")
def test_it_is_pinned_memory_for_torch():
    Card(None).run("""
        import numpy as np, torch
        memlimits.set_wired_limit(1 << 30)
        array = memlimits.empty(MIB, np.float32, wired=True)
        assert not torch.from_numpy(array).is_pinned()
        with memlimits.cuda.attach() as attachment:
            assert attachment.device == torch.cuda.current_device() == 0
            array[:] = 3
            tensor = torch.from_numpy(array)
            assert tensor.is_pinned() and torch.from_numpy(array[100:]).is_pinned()
            there = tensor.to("cuda", non_blocking=True)
            torch.cuda.synchronize()
            assert float(there.sum()) == 3 * MIB
            address = at(array)
            del array, tensor
            array = memlimits.zeros(MIB, np.float32, wired=True)
            assert at(array) == address and torch.from_numpy(array).is_pinned()
            assert float(torch.from_numpy(array).cuda().sum()) == 0
            back = torch.from_numpy(array)
            back.copy_(there, non_blocking=True)
            torch.cuda.synchronize()
            assert (array == 3).all()
        assert not torch.from_numpy(array).is_pinned()
        assert float(torch.from_numpy(array).cuda().sum()) == 3 * MIB
    """)
