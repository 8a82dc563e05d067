"""What CUDA cannot do is told in a sentence, and everything but the registering goes on."""

import subprocess
import sys

import pytest

from support.cgroup import needs_groups
from support.cuda import build, needs_gpu
from support.process import run

pytestmark = pytest.mark.host


def test_without_a_driver():
    run(
        """
        import memlimits.cuda
        try:
            memlimits.cuda.attach()
        except memlimits.DeviceError as error:
            assert "there is no NVIDIA driver here: /nowhere/libcuda.so.1 cannot" in str(error)
        memlimits.set_wired_limit(MIB)
        block = memlimits.allocate(100_000, wired=True)
        assert not block.registered
        assert memlimits.stats().registration_failures == 0
        """,
        words=["env", "MEMLIMITS_LIBCUDA=/nowhere/libcuda.so.1"],
    )


def test_a_driver_that_is_too_old(stand_in, tmp_path):
    old = build(tmp_path, "-DTOO_OLD")
    stand_in.run(
        """
        assert "too old: it has no cuDevicePrimaryCtxRelease_v2" in refused(), refused()
        """,
        environment={"MEMLIMITS_LIBCUDA": old},
    )


def test_no_gpu_to_be_seen(card):
    card.run(
        """
        said = refused()
        assert said.startswith("DeviceError: the NVIDIA driver sees no GPU: look at CUDA_VIS"), said
        """,
        environment={"CUDA_VISIBLE_DEVICES": ""},
    )


def test_in_mig_mode_without_an_instance(stand_in):
    stand_in.run("""
        set_fake("gpus", 0)
        assert "MIG mode has an instance" in refused()
    """)


def test_a_bad_number(card):
    card.run("""
        for number, error in (
            (99, "ValueError: device 99 is not there: the NVIDIA driver sees "),
            (-1, "ValueError: device must be the number of a GPU, from 0 on, not -1"),
            (1 << 70, "ValueError: device must be the number of a GPU"),
            (True, "TypeError: device must be"), ("0", "TypeError: device must be"),
            (0.0, "TypeError: device must be"),
        ):
            assert refused(number).startswith(error), refused(number)
        with memlimits.cuda.attach(0) as attachment:
            assert attachment.device == 0
    """)


def test_twice(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        with memlimits.cuda.attach():
            block = memlimits.allocate(MIB)
            for number in (None, 0, 1):
                assert "attached already, for all GPUs: close that" in refused(number)
            assert block.registered and is_pinned(block.ptr)
        with memlimits.cuda.attach():
            assert block.registered
    """)


@pytest.mark.parametrize(
    ("knob", "value", "said"),
    [
        ("retain_result", 2, "GPU 0 is out of memory: there is no room for a context"),
        ("retain_result", 101, "GPU 0 gives this process no context: CUDA_ERROR_INVALID_DEVICE"),
        ("init_result", 803, "does not fit the kernel's module (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ("init_result", 3, "a forked child of a process that uses CUDA, or it ends"),
        ("init_result", 999, "does not start: an error without a name"),
    ],
)
def test_what_the_driver_refuses(stand_in, knob, value, said):
    stand_in.run(f"""
        set_fake({knob!r}, {value})
        assert {said!r} in refused(), refused()
        set_fake({knob!r}, 0)
        memlimits.set_wired_limit(64 * MIB)
        with memlimits.cuda.attach():
            assert memlimits.allocate(MIB).registered
    """)


def test_where_malloc_is_governed(stand_in):
    script = "\n".join(
        [
            "import memlimits, memlimits.cuda",
            "try: memlimits.cuda.attach()",
            "except memlimits.DeviceError as error: print(error)",
        ]
    )
    words = [sys.executable, "-m", "memlimits", "run", "--govern", "all", "-c", script]
    done = subprocess.run(
        ["env", f"MEMLIMITS_LIBCUDA={stand_in.library}", *words], capture_output=True, text=True
    )
    assert "cannot be attached where malloc is governed (--govern all)" in done.stdout, done


def test_malloc_is_not_governed_while_it_is_attached(stand_in):
    stand_in.run("""
        with memlimits.cuda.attach():
            try:
                memlimits.govern_malloc()
            except (RuntimeError, memlimits.DeviceError) as error:
                assert "CUDA is attached" in str(error), error
            else:
                raise AssertionError
    """)


def test_what_is_not_registered_is_locked_and_told_once(stand_in):
    stand_in.run("""
        memlimits.set_wired_limit(8 * MIB)
        with memlimits.cuda.attach(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            set_fake("register_result", 2)
            blocks = [memlimits.allocate(MIB, wired=True) for _ in range(3)]
            assert not any(block.registered for block in blocks)
            assert all(block.wired for block in blocks) and proc("VmLck") == 3 * MIB
            stats = memlimits.stats()
            assert (stats.registration_failures, stats.registrations) == (3, 0)
            assert stats.wire_failures == 0
            [warning] = told
            assert "CUDA_ERROR_OUT_OF_MEMORY, of 1048576 bytes" in str(warning.message)
            set_fake("register_result", 0)
            assert memlimits.allocate(MIB, wired=True).registered
            assert not blocks[0].registered
        with memlimits.cuda.attach():
            assert all(block.registered for block in blocks)
        consistent(3 * MIB)
    """)


def test_what_the_driver_does_not_give_back_keeps_its_addresses(stand_in):
    stand_in.run("""
        memlimits.set_wired_limit(64 * MIB)
        attachment = memlimits.cuda.attach()
        block, other = memlimits.allocate(8 * MIB), memlimits.allocate(MIB)
        fill(block, 1)
        address = block.ptr
        set_fake("unregister_result", 700)
        block.release()
        memlimits.clear_cache()
        assert is_pinned(address)
        assert as_the_gpu_reads(address, 8 * MIB) == bytes([1]) * (8 * MIB)
        for _ in range(10):
            block = memlimits.allocate(8 * MIB)
            assert not address <= block.ptr < address + 8 * MIB
        # Blocks that live are used on, and never lose a page.
        memlimits.set_wired_limit(0)
        at = other.ptr
        assert not other.registered and is_pinned(at)
        memlimits.set_idle_timeout(0)
        other.release()
        other = memlimits.allocate(MIB, zeroed=True)
        assert bytes(other) == bytes(MIB)
        memlimits.trim(0)
        set_fake("unregister_result", 0)
    """)


def test_a_destroyed_context(card):
    card.run("""
        memlimits.set_wired_limit(64 * MIB)
        attachment = memlimits.cuda.attach()
        held, idle = memlimits.allocate(4 * MIB), memlimits.allocate(5 * MIB)
        idle.release()
        ok(driver.cuDevicePrimaryCtxReset_v2(gpu()))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            block = memlimits.allocate(2 * MIB, wired=True)
            assert not block.registered
            assert memlimits.stats().registration_failures == 1
            assert "the GPU's context was destroyed" in str(told[0].message), told
        memlimits.clear_cache()
        fill(held, 3)
        attachment.close()
        assert registered() == 0
        with memlimits.cuda.attach():
            assert held.registered and block.registered
            assert as_the_gpu_reads(held.ptr, held.nbytes) == bytes([3]) * held.nbytes
    """)


FILLED = """
    # Something that is not governed takes the room that growth was promised.
    import mmap

    def take(n):
        held = mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, n, 4096):
            held[at] = 1
        return held
"""


@needs_groups
def test_registering_beyond_the_systems_room_is_no_kill(stand_in, in_group):
    stand_in.run(
        FILLED
        + """
    with memlimits.cuda.attach():
        block = memlimits.allocate(100 * MIB)
        other = take(150 * MIB)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            memlimits.set_wired_limit(150 * MIB)
        assert not block.registered and not block.wired
        stats = memlimits.stats()
        assert (stats.registered, stats.registration_failures, stats.wire_failures) == (0, 1, 1)
        assert "has not as much memory to give at once" in str(told[0].message), told
        other.close()
        memlimits.set_wired_limit(150 * MIB)
        assert block.registered
    """,
        words=in_group,
    )


@needs_groups
def test_what_is_touched_needs_no_room(stand_in, in_group):
    stand_in.run(
        FILLED
        + """
    with memlimits.cuda.attach():
        block = memlimits.allocate(100 * MIB)
        fill(block, 1)
        other = take(110 * MIB)
        memlimits.set_wired_limit(150 * MIB)
        assert block.registered
    """,
        words=in_group,
    )


@needs_groups
def test_no_room_for_cudas_start(stand_in, in_group):
    stand_in.run(
        FILLED
        + """
    other = take(190 * MIB)
    assert "CUDA takes about 64 MiB of memory to start" in refused(), refused()
    """,
        words=in_group,
    )


def test_in_a_forked_child_of_another_user_of_cuda(card):
    card.run("""
        gpu()
        if os.fork() == 0:
            if hasattr(driver, "fake_cuda_get"):
                os._exit(7)             # the driver itself answers; the stand-in would end this
            assert "does not start here: this is a forked child" in refused(), refused()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
    """)


@needs_gpu
def test_there_is_a_gpu_to_test_on():
    """One line where there is none: the tests of CUDA run over its stand-in alone."""
