"""What the system's files say and do not say: the rest bounds, one warning tells, no call fails."""

import json

import pytest

from support.cgroup import UNIFIED, V1, needs_namespace, recorded
from support.commands import RUN, write
from support.process import execute
from support.units import KIB, MIB

pytestmark = [pytest.mark.host, needs_namespace]

# Every call that looks at the system, and those that allocate: none fails, whatever /proc says.
PROGRAM = """
    import json, warnings
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        import memlimits
        memlimits.allocate(1 << 20).release()
        bounds = {bound.name: bound.nbytes for bound in memlimits.effective_limit().candidates}
        size = memlimits.device_info()["memory_size"]
        assert memlimits.would_fit(1 << 20)
        held = [memlimits.allocate(8 << 20, zeroed=True) for _ in range(5)]
        memlimits.trim(None)
        memlimits.set_pressure_trim(1 << 20, 50)
        memlimits.stats()
        limit = memlimits.get_memory_limit()
        with memlimits.limits(memory=1 << 30), memlimits.reserve(1 << 20):
            memlimits.effective_limit()
        assert memlimits.get_memory_limit() == limit
    print(json.dumps([size, bounds, [str(one.message) for one in told]]))
"""
WITHOUT_RIGHTS = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)


def look(*words):
    """The memory size, the bounds, and what was warned of."""
    done = execute(PROGRAM, words=words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def real_memory():
    size, bounds, told = look()
    assert told == []
    return size, bounds["RAM and swap"]


def over_proc(mount):
    return "unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"


def meminfo(**lines):
    return "\n".join(f"{name}: {value} kB" for name, value in lines.items())


@pytest.mark.parametrize(
    "mount",
    ["mount -t proc -o subset=pid proc /proc", "mount -t tmpfs none /proc"],
    ids=["subset=pid", "no /proc"],
)
def test_without_the_machines_files_the_kernel_is_asked(mount):
    size, available = real_memory()
    words = over_proc(mount)
    if execute("", words=words).returncode:
        pytest.skip(f"not allowed here: {mount}")
    found, bounds, told = look(*words)
    assert found == size
    # However much others take meanwhile.
    assert available // 2 < bounds["RAM and swap"] < size
    assert ["/proc/meminfo: " in text for text in told] == [True], told


ALL = ("MemTotal", "MemFree", "MemAvailable", "SwapTotal", "SwapFree")


@pytest.mark.parametrize("text", [meminfo(**dict.fromkeys(ALL, 0)), "", "\n\n", "MemTotal:"])
def test_a_virtual_file_that_says_nothing(tmp_path, text):
    size, available = real_memory()
    found, bounds, told = look(
        *recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=text)
    )
    assert found == size
    assert available // 2 < bounds["RAM and swap"] < size
    assert len(told) == 1, told


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"SwapTotal": 0, "SwapFree": 2**64 - 128}, 1000),
        ({"SwapTotal": 2**54 - 1, "SwapFree": 2**54 - 1}, 1000),
        ({"SwapTotal": 50 * KIB, "SwapFree": 60 * KIB}, 1000),
        ({"SwapTotal": 50 * KIB, "SwapFree": 20 * KIB}, 1020),
        ({}, 1000),
        ({"MemAvailable": 5000 * KIB}, 4000),
        ({"MemAvailable": 2**64 - 4}, 4000),
    ],
)
def test_a_virtual_file_that_subtracts_too_much(tmp_path, more, expected):
    if more.get("SwapTotal", 0) > 2**44:
        with open("/proc/swaps") as swaps:
            if len(swaps.readlines()) > 1:
                pytest.skip("the kernel's own swap stands in, and there is some here")
    lines = {"MemTotal": 4000 * KIB, "MemFree": 100, "MemAvailable": 1000 * KIB, **more}
    words = recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=meminfo(**lines))
    size, bounds, told = look(*words)
    assert (size, told) == (4000 * MIB, [])
    assert bounds["RAM and swap"] == (expected - 33) * MIB


def test_an_old_kernel_does_not_say_what_is_available(tmp_path):
    lines = {"MemTotal": 4000 * KIB, "MemFree": 300 * KIB, "Cached": 500 * KIB, "Shmem": 100 * KIB}
    words = recorded(tmp_path, "0::/", UNIFIED.format(top="/"), {}, meminfo=meminfo(**lines))
    _, bounds, told = look(*words)
    assert told == []
    assert bounds["RAM and swap"] == (700 - 33) * MIB


GROUP = {
    "a/b/memory.max": 900 * MIB,
    "a/b/memory.high": 800 * MIB,
    "a/b/memory.current": 100 * MIB,
    "a/b/memory.stat": f"inactive_file {40 * MIB}",
    "a/b/memory.swap.max": 0,
    "a/b/memory.swap.current": 0,
    "a/memory.max": 1000 * MIB,
    "a/memory.current": 0,
    "a/memory.swap.max": 0,
    "a/memory.swap.current": 0,
}


@pytest.fixture
def group(tmp_path):
    return recorded(
        tmp_path, "0::/a/b", UNIFIED.format(top="/"), {k: str(n) for k, n in GROUP.items()}
    )


def deny(path):
    path.chmod(0)
    return WITHOUT_RIGHTS, "Permission denied"


def fail(path):
    path.unlink()
    path.symlink_to("/proc/self/mem")  # nothing is mapped at 0
    return (), "Input/output error"


@pytest.mark.parametrize("how", [deny, fail])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("memory.max", 800),
        ("memory.high", 900),
        ("memory.current", 800),
        ("memory.stat", 800),
        ("memory.swap.max", 800),
        ("memory.swap.current", 800),
    ],
)
def test_a_file_that_cannot_be_read_bounds_nothing_else(tmp_path, group, how, name, size):
    words, reason = how(tmp_path / "tree/a/b" / name)
    found, bounds, told = look(*group, *words)
    assert found == size * MIB
    assert bounds[f"{tmp_path}/tree/a"] > 900 * MIB
    assert size - 200 < bounds[f"{tmp_path}/tree/a/b"] // MIB < size
    assert [f"a/b/{name}: {reason}" in text for text in told] == [True], told


@pytest.mark.parametrize("directory", ["a/b", "a"])
def test_a_group_whose_directory_may_not_be_looked_into(tmp_path, group, directory):
    (tmp_path / "tree" / directory).chmod(0)
    found, bounds, told = look(*group, *WITHOUT_RIGHTS)
    if directory == "a/b":
        assert found == 1000 * MIB
        assert f"{tmp_path}/tree/a" in bounds
    else:
        assert not [name for name in bounds if name.startswith("/")]
    assert ["a/b/memory.max: Permission denied" in text for text in told] == [True], told


@pytest.mark.parametrize("file", ["cgroup", "mountinfo"])
def test_what_says_where_the_group_is_cannot_be_read(tmp_path, group, file):
    (tmp_path / file).unlink()
    (tmp_path / file).mkdir()
    *words, script, directory = group
    script = script.replace(f'"$0/{file}" /proc/$$/{file}', f"/proc/$$/mem /proc/$$/{file}")
    _, _, told = look(*words, script, directory)
    assert [f"/proc/self/{file}: Input/output error" in text for text in told] == [True], told


def test_where_warnings_are_errors_no_call_fails_either(tmp_path, group):
    words, _ = deny(tmp_path / "tree/a/b/memory.max")
    program = "import memlimits; memlimits.allocate(100); print(memlimits.effective_limit().nbytes)"
    done = execute(program, "-W", "error", words=(*group, *words))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert done.stderr.count("Permission denied") == 1, done.stderr


@pytest.mark.parametrize("what", ["denied", "subset=pid", "no /proc"])
def test_run_starts_the_program_in_every_case(tmp_path, group, what):
    words = over_proc("mount -t proc -o subset=pid proc /proc")
    if what == "no /proc":
        words = over_proc("mount -t tmpfs none /proc")
    elif what == "denied":
        words = (*group, *deny(tmp_path / "tree/a/b/memory.stat")[0])
    write(tmp_path / "program.py", "import numpy; print(numpy.ones(1 << 20).sum())")
    for options in [], ["--memory-limit", "64MiB"], ["--memory-limit", "50%"]:
        # Which outlives the start of another program, as a peak.
        assert len(b"x" * (80 << 20)) == 80 << 20
        done = execute("", *RUN, *options, tmp_path / "program.py", words=words)
        assert (done.returncode, done.stdout) == (0, "1048576.0\n"), done.stderr
        assert done.stderr.count("cannot be read: ") == 1, done.stderr
        assert "refusals 0" in done.stderr


def test_text_longer_than_any_buffer(tmp_path):
    """Each fact stands behind 200 KiB of others."""
    before = "\n".join(f"filler_{n} {n}" for n in range(14000)) + "\n"
    files = {
        "a/memory.limit_in_bytes": str(500 * MIB),
        "a/memory.usage_in_bytes": str(300 * MIB),
        "a/memory.stat": f"{before}total_inactive_file {100 * MIB}",
    }
    cgroup = "\n".join(f"{n}:name=c{n}:/{n}" for n in range(9999)) + "\n5:memory:/a"
    others = "\n".join(f"{n} 1 0:{n} / /m{n} rw - tmpfs tmpfs rw" for n in range(100, 5000))
    machine = before.replace(" ", ": ") + meminfo(MemTotal=4000 * KIB, MemAvailable=2000 * KIB)
    mountinfo = others + "\n" + V1.format(top="/")
    size, bounds, told = look(*recorded(tmp_path, cgroup, mountinfo, files, meminfo=machine))
    assert (size, told) == (500 * MIB, [])
    assert 280 * MIB < bounds[f"{tmp_path}/tree/a"] < 300 * MIB


def test_a_user_in_many_groups_has_a_long_status():
    program = """
        import memlimits, resource
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        held = bytearray(1000 << 20)
        told = {bound.name: bound.nbytes >> 20 for bound in memlimits.effective_limit().candidates}
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize() >> 20
        assert 2048 - mapped - 16 < told["RLIMIT_AS"] <= 2048 - mapped, (told, mapped)
    """
    groups = ",".join(map(str, range(1000001, 1001201)))
    execute(program, words=("setpriv", "--groups", groups), check=True)


def test_without_a_list_of_mappings_what_was_touched_is_known():
    """Else what was asked for and given back would count as taken for good."""
    program = """
        import memlimits
        free = memlimits.effective_limit().nbytes
        held = memlimits.allocate(min(free // 2, 1 << 30))
        left = memlimits.effective_limit().nbytes
        memoryview(held)[: 64 << 20] = bytes(64 << 20)
        touched = memlimits.effective_limit().nbytes
        assert free - left > held.capacity - (300 << 20), (free, left)
        assert abs(left - touched) < 300 << 20
        held.release()
        memlimits.clear_cache()
        assert abs(memlimits.effective_limit().nbytes - free) < 300 << 20
    """
    execute(program, words=over_proc("mount -t tmpfs none /proc"), check=True)
