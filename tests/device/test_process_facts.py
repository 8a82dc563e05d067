"""What the process holds in all, governed or not, against /proc."""

import mmap

import pytest

import memlimits
from support.kernel import proc_bytes
from support.metal import setting, stand_in
from support.process import execute, run
from support.units import MIB

# Python's own comings and goings between two readings; and the kernel's counts are batched by CPU.
LOOSE = 4 * MIB


def read():
    stats = memlimits.stats()
    return {
        name: getattr(stats, f"process_{name}")
        for name in ("resident", "files", "swap", "peak_resident")
    }


@pytest.mark.host
def test_they_are_the_kernels():
    keys = {"resident": "VmRSS", "files": "RssFile", "swap": "VmSwap", "peak_resident": "VmHWM"}
    found = read()
    for name, key in keys.items():
        assert found[name] == pytest.approx(proc_bytes(key), abs=LOOSE), name


@pytest.mark.host
def test_what_nobody_governs_counts():
    before = read()
    held = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert read()["resident"] < before["resident"] + LOOSE  # it was not touched
    held[:] = bytes(1) * len(held)
    during = read()
    assert during["resident"] >= before["resident"] + 60 * MIB
    assert during["files"] <= before["files"] + LOOSE
    held.close()
    after = read()
    assert after["resident"] < during["resident"] - 60 * MIB
    assert after["peak_resident"] >= during["resident"] - LOOSE
    memlimits.stats(reset_peak=True)
    assert read()["peak_resident"] >= during["resident"] - LOOSE  # the kernel's stays


@pytest.mark.host
def test_pages_of_files_are_told_apart(tmp_path):
    (tmp_path / "file").write_bytes(bytes(32 * MIB))
    before = read()
    with open(tmp_path / "file", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert sum(mapped[::4096]) == 0
    after = read()
    mapped.close()
    assert after["files"] >= before["files"] + 30 * MIB
    held = [facts["resident"] - facts["files"] for facts in (before, after)]
    assert held[1] < held[0] + LOOSE


@pytest.mark.host
def test_a_forked_child_has_a_peak_of_its_own():
    run("""
        gone = mmap.mmap(-1, 200 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        gone[::4096] = b"x" * (200 << 8)
        gone.close()
        assert memlimits.stats().process_peak_resident >= 190 * MIB
        child = os.fork()
        if child == 0:
            os._exit(memlimits.stats().process_peak_resident >= 100 * MIB)
        assert os.waitpid(child, 0)[1] == 0
    """)


@pytest.mark.host
def test_a_program_that_takes_this_ones_place_has_a_peak_of_its_own():
    source = "import memlimits; print(memlimits.stats().process_peak_resident)"
    done = execute(f"""
        import os, sys
        held = bytearray(b"x") * (200 << 20)
        os.execv(sys.executable, [sys.executable, "-c", {source!r}])
    """)
    assert 0 < int(done.stdout) < 100 * MIB


@pytest.mark.host
def test_what_cannot_be_read_now_is_as_it_was():
    run("""
        before = memlimits.stats()
        held = bytearray(b"x") * (64 * MIB)
        taken = take_all_descriptors()
        now = memlimits.stats()
        for name in now._asdict():
            if name.startswith("process_"):
                assert getattr(now, name) == getattr(before, name), (before, now)
        os.close(taken.pop())
        assert memlimits.stats().process_resident >= before.process_resident + 60 * MIB
    """)


@pytest.mark.host
def test_at_first_without_a_descriptor_the_kernel_is_asked():
    run("""
        taken = take_all_descriptors()
        stats = memlimits.stats()
        for descriptor in taken:
            os.close(descriptor)
        # It counts what this process had before it became a program of its own, too.
        assert proc("VmHWM") - 4 * MIB < stats.process_resident == stats.process_peak_resident
        assert stats.process_swap == stats.process_files == 0
    """)


@pytest.mark.host
def test_where_there_is_no_proc_the_peak_stands_for_what_is_resident():
    words = "unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"
    if execute("", words=words).returncode:
        pytest.skip("not allowed here: to mount over /proc")
    done = execute(
        """
        import resource, memlimits
        held = bytearray(b"x") * (64 << 20)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        stats = memlimits.stats()
        assert 64 << 20 < peak <= stats.process_resident == stats.process_peak_resident, stats
        assert stats.process_resident < peak + (8 << 20)
        """,
        "-W",
        "ignore",
        words=words,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.host
def test_a_status_that_says_less(tmp_path):
    """An old kernel's, or that of a sandbox: what is of files is not told apart."""
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmRSS:\t   50000 kB\n")
    script = f'mount --bind {status} /proc/self/status && exec "$@"'
    words = "unshare", "--mount", "sh", "-c", script.replace("self", "$$"), "sh"
    if execute("", words=words).returncode:
        pytest.skip("not allowed here: to mount over a file of /proc")
    source = """
        import memlimits
        print(*[v for n, v in memlimits.stats()._asdict().items() if n.startswith("process_")])
    """
    done = execute(source, words=words)
    assert done.stdout.split() == [str(50000 * 1024), "0", "0", str(50000 * 1024)], done.stderr


@pytest.mark.core
@pytest.mark.skipif(stand_in() is None, reason="not built over the stand-in for Metal")
def test_on_metal_they_are_the_footprint():
    with setting("phys_footprint", 1 << 40):
        found = read()
    assert found == {"resident": 1 << 40, "files": 0, "swap": 0, "peak_resident": 1 << 40}
    found = read()
    assert 0 < found["resident"] < 1 << 40 == found["peak_resident"]
